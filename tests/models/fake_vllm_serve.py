"""A ``vllm serve`` on 127.0.0.1 over the imitation of vLLM's engine: it draws with the weights it was told to load.

Routes, fields and answers are those that are recorded of a version; any other is a fault. Nothing is drawn while it is
paused or asleep, and nobody else may be asked meanwhile.
"""

import json
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from prh.tests.models import fake_vllm
from prh.tests.models.fake_server import Answer, FakeServer, Handler, read_image

NAME = "served"
LORA = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
GENERATE = "/inference/v1/generate"
# Routes whose body a class describes.
BODIES = dict(zip(LORA, ("load_adapter", "unload_adapter"), strict=True))
GONE = Answer({"detail": "Not Found"}, 404)


class Routes(Handler):
    def answer(self, fake):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fake.authorizations.append(self.headers["Authorization"])
        answer = fake.told("POST", self.path, json.loads(body))
        return answer if self.patient(fake.delay) else None


class FakeServe(FakeServer):
    """A server that runs between ``with`` and its end.

    Attributes:
        without: routes that it does not have.
        deaf: whether it says that it loads weights, and does not.
        raw: whether log-probabilities are from before temperature and bias.
        stuck: whether its prefix cache cannot be emptied, as while a request runs.
        lean: whether it leaves the ids of the prompt out, and tells their number alone.
        at: what happens before a generation, by how many there were; an answer is given instead.
        after: what happens after a request to a route.
        instead: what every generation is answered.
        calls: method, route and body of everything but generations, in order.
        drawn: what each generation was drawn with: the name of the weights, and the adapter.
    """

    handler = Routes

    def __init__(self, folder, number=fake_vllm.HIGHEST, **options):
        super().__init__()
        self.folder, self.interface = Path(folder), fake_vllm.VERSIONS[number]
        self.without, self.at, self.calls, self.drawn = set(), {}, [], []
        self.instead, self.after = None, {}
        self.deaf = self.raw = self.stuck = self.lean = False
        self.one = threading.Lock()
        self.again()
        for name, value in options.items():
            setattr(self, name, value)

    def again(self):
        """As it is right after it was started."""
        args = fake_vllm.AsyncEngineArgs(model=str(self.folder), tokenizer=str(self.folder), enable_lora=True)
        self.llm = fake_vllm.Llm(args)
        self.label, self.adapters = "default", {}
        self.paused = self.asleep = self.dead = False

    def listing(self, path):
        return self.told("GET", path, None)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def told(self, method, path, body):
        with self.one:
            if self.dead:
                return Answer(cut=-1)
            route = urlsplit(path).path
            if route in self.without or f"{method} {route}" not in self.interface["routes"]:
                return GONE
            try:
                if route == GENERATE:
                    return self.generate(body)
                self.calls.append((method, path, body))
                answer = self.does(method, path, body)
                self.after.get(route, lambda: None)()
                return answer
            except AssertionError as error:
                self.faults.append(str(error))
                return Answer({"error": {"message": f"bad request: {error}", "code": 400}}, 400)

    def does(self, method, path, body):
        route, query = urlsplit(path).path, parse_qs(urlsplit(path).query)
        given = self.interface["routes"][f"{method} {route}"]
        fake_vllm.known(self.bodies(BODIES[route]) if route in BODIES else given, body or ())
        fake_vllm.known(given, query)
        if method == "GET":
            return {"/v1/models": self.list, "/weight_info": self.info}[route]()
        if route in LORA:
            return self.lora(route, **body)
        done = {
            "/pause": lambda: setattr(self, "paused", True),
            "/resume": lambda: setattr(self, "paused", False),
            "/sleep": lambda: setattr(self, "asleep", True),
            "/wake_up": lambda: setattr(self, "asleep", False),
            "/reset_prefix_cache": self.reset,
            "/reset_encoder_cache": lambda: self.llm.forget("reset_encoder_cache"),
            "/update_weight_version": lambda: setattr(self, "label", body["new_version"]),
            "/collective_rpc": lambda: self.load(**body),
        }[route]()
        return done or Answer(b"")

    def bodies(self, name):
        """The fields of what is said or told."""
        return self.interface["bodies"][name]

    def reset(self):
        if not self.stuck:
            self.llm.forget("reset_prefix_cache")
        return Answer({"success": not self.stuck})

    def list(self):
        base = {"id": NAME, "object": "model", "owned_by": "vllm", "root": str(self.folder), "parent": None}
        length = self.llm.model_config.max_model_len
        more = [{**base, "id": name, "parent": NAME} for name in self.adapters]
        return Answer({"object": "list", "data": [{**base, "max_model_len": length}, *more]})

    def info(self):
        return Answer({"weight_version": self.label})

    def load(self, method, kwargs):
        assert self.paused, "weights change while others may be asked"
        assert method == "reload_weights"
        fake_vllm.known(self.interface["worker"]["reload_weights"], kwargs)
        try:
            if not self.deaf:
                self.llm.reload(kwargs["weights_path"])
        except RuntimeError as error:
            return Answer({"error": {"message": str(error), "code": 500}}, 500)
        return Answer({"results": [None]})

    def lora(self, route, lora_name, lora_path=""):
        known = lora_name in self.adapters
        if (route == LORA[0]) == known:
            message = f"The lora adapter {lora_name!r} {'has already been loaded' if known else 'cannot be found'}."
            return Answer({"error": {"message": message, "code": 400 if known else 404}}, 400 if known else 404)
        if known:
            del self.adapters[lora_name]
        else:
            self.adapters[lora_name] = None if self.deaf else fake_vllm.adapted(self.llm.model, lora_path)
        return Answer(f"Success: LoRA adapter {lora_name!r}.")

    def generate(self, request):
        if act := self.at.pop(len(self.drawn), None):
            answer = act(self)
            if isinstance(answer, Answer):
                return answer
        if self.dead:
            return Answer(cut=-1)
        if self.instead:
            return self.instead
        fake_vllm.known(self.bodies("generate_request"), request)
        if request["model"] not in (NAME, *self.adapters):
            return Answer({"error": {"message": f"The model `{request['model']}` does not exist.", "code": 404}}, 404)
        assert not self.paused
        assert not self.asleep
        self.requests.append(request)
        self.drawn.append((self.label, request["model"]))
        adapter = self.adapters.get(request["model"])
        made = self.llm.answer(self.prompt(request), self.params(request), None, adapter, request["model"])
        return Answer(self.reply_of(made, request))

    def prompt(self, request):
        size = {"size": {"shortest_edge": 1, "longest_edge": 1 << 28}}
        prompt = {"prompt_token_ids": request["token_ids"], "mm_processor_kwargs": size}
        parts = request.get("content_parts", [])
        assert all(set(part) == {"type", "url", "uuid"} and part["type"] == "image_url" for part in parts)
        images = [read_image({"type": "image_url", "image_url": {"url": part["url"]}}) for part in parts]
        uuids = [part["uuid"] for part in parts]
        return {**prompt, "multi_modal_data": {"image": images}, "multi_modal_uuids": {"image": uuids}}

    def params(self, request):
        given = dict(request["sampling_params"])
        bias = given.pop("logit_bias")
        assert bias is None or all(key.isdigit() for key in bias)
        bias = bias and {int(key): value for key, value in bias.items()}
        last = fake_vllm.RequestOutputKind.FINAL_ONLY
        return fake_vllm.SamplingParams(**given, logit_bias=bias, output_kind=last)

    def reply_of(self, made, request):
        (output,) = made.outputs
        values = [row[number].logprob for row, number in zip(output.logprobs, output.token_ids, strict=True)]
        if self.raw:
            values = [-5.0] * len(values)
        rows = [self.row(number, value) for number, value in zip(output.token_ids, values, strict=True)]
        counts = {"prompt_tokens": len(made.prompt_token_ids), "completion_tokens": len(output.token_ids)}
        choice = {
            "index": 0,
            "logprobs": {"content": rows},
            "finish_reason": output.finish_reason,
            "token_ids": list(output.token_ids),
        }
        if "weight_versions" in self.bodies("generate_choice"):
            choice["weight_versions"] = [{"version": self.label, "start": 0, "end": len(output.token_ids)}]
        reply = {
            "request_id": "r-1",
            "choices": [choice],
            "usage": {**counts, "total_tokens": sum(counts.values())},
            "prompt_token_ids": None if self.lean else list(made.prompt_token_ids),
        }
        for name, one in (("generate_reply", reply), ("generate_choice", choice), ("usage", reply["usage"])):
            fake_vllm.known(self.bodies(name), one)
        return reply

    def row(self, number, value):
        """The log-probability of a token, in the words of the version."""
        numbers = "token_id" in self.bodies("logprob")
        said = {"token_id": number, "rank": 1} if numbers else {"token": f"token_id:{number}", "bytes": None}
        row = {**said, "logprob": value, "top_logprobs": []}
        fake_vllm.known(self.bodies("logprob"), row)
        return row

    def die(self):
        """Answer nobody any more, and drop whoever asks."""
        self.dead = True
