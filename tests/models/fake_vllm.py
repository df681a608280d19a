"""A vLLM that believes nothing: it takes only what the recorded interface names, and runs a tiny checkpoint for real.

Placeholders are expanded the way vLLM expands them: from left to right, whatever looks like one. Tokens come from one
forward over everything for each of them, in transformers' own classes. Nothing is drawn asleep. What was drawn once is
drawn again from a cache, whatever the weights are by then, until both of vLLM's caches were emptied.
"""

import asyncio
import copy
import enum
import json
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from PIL import Image
from prh.harness.engine import smart_resize
from prh.harness.types import Size, Span
from prh.models import vllm_engine
from prh.tests.models.support import model_of, patches, tokenizer_of
from prh.tests.vllm.interface import missing_served, recorded
from safetensors import safe_open

VERSIONS = recorded()
LOWEST, HIGHEST = next(iter(VERSIONS)), list(VERSIONS)[-1]
SERVING = [number for number, found in VERSIONS.items() if not missing_served(found)]
INTERFACE = VERSIONS[HIGHEST]
CELL = 28
CACHES = {"reset_prefix_cache", "reset_encoder_cache"}


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


def adapted(model, folder):
    """A copy of a model with the adapter that a folder holds; AssertionError where it holds none of its weights."""
    import peft

    assert (Path(folder) / "adapter_model.safetensors").is_file(), f"no adapter in {folder}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft still uses names that transformers has retired
        return peft.PeftModel.from_pretrained(copy.deepcopy(model), folder).eval()


def known(names, given):
    assert set(given) <= set(names), f"vLLM does not know {set(given) - set(names)}"


def told(names, **fields):
    """What vLLM gives, if it has such fields."""
    known(names, fields)
    return SimpleNamespace(**fields)


class AsyncEngineArgs(SimpleNamespace):
    def __init__(self, **given):
        known([*INTERFACE["engine_args"], *INTERFACE["async_engine_args"]], given)
        super().__init__(**given)


class SamplingParams(SimpleNamespace):
    def __init__(self, **given):
        known(INTERFACE["sampling_params"], given)
        assert 0 <= given["temperature"] <= 2
        assert 0 < given["top_p"] <= 1
        assert given["max_tokens"] >= 1
        assert given["detokenize"] or not given["stop"], "stop strings need text"
        assert len(given["logit_bias"] or ()) <= 1024
        assert given["logprobs"] == 0
        assert given["output_kind"] is RequestOutputKind.FINAL_ONLY
        super().__init__(**given)


class LoRARequest(SimpleNamespace):
    def __init__(self, lora_name, lora_int_id, lora_path):
        assert lora_int_id >= 1
        assert lora_path
        given = {"lora_name": lora_name, "lora_int_id": lora_int_id, "lora_path": lora_path}
        known(INTERFACE["lora_request"], given)
        super().__init__(**given)


class EngineDeadError(Exception):
    pass


@dataclass
class Llm:
    """What ``AsyncLLMEngine.from_engine_args`` gives.

    Attributes:
        plan: what the next requests get instead of the usual: an exception to raise, or a finish reason.
        resize: whether images are made smaller than they came, as a processor with a narrow budget does.
        prompts: what came in, in order.
        calls: how often each other method was called, and its arguments in order.
        drawn: what was drawn, by all that it was drawn from but the weights.
    """

    args: AsyncEngineArgs
    plan: list = field(default_factory=list)
    resize: bool = False
    prompts: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    errored: bool = False
    running: Counter = field(default_factory=Counter)
    closed: int = 0
    asleep: bool = False
    adapters: dict = field(default_factory=dict)
    hold: asyncio.Event | None = None
    drawn: dict = field(default_factory=dict)
    emptied: set = field(default_factory=set)

    def __post_init__(self):
        self.model = model_of(Path(self.args.model))
        self.tokenizer = tokenizer_of(Path(self.args.tokenizer))
        longest = getattr(self.args, "max_model_len", self.model.config.get_text_config().max_position_embeddings)
        self.model_config = SimpleNamespace(max_model_len=longest)

    async def generate(self, prompt, sampling_params, request_id, **given):
        known(INTERFACE["methods"]["generate"], given)
        known([*INTERFACE["prompt_options"], *INTERFACE["tokens_prompt"]], prompt)
        assert isinstance(sampling_params, SamplingParams)
        assert not self.running[request_id], "a reused id aborts its holder"
        assert not self.asleep
        self.running[request_id] += 1
        self.prompts.append(prompt)
        self.requests.append((request_id, sampling_params, given))
        try:
            if self.hold:
                await self.hold.wait()
            await asyncio.sleep(0)
            planned = self.plan.pop(0) if self.plan else None
            if isinstance(planned, Exception):
                self.errored = isinstance(planned, EngineDeadError)
                raise planned
            adapter = given.get("lora_request")
            name = adapter.lora_name if adapter else ""
            yield self.answer(prompt, sampling_params, planned, self.adapted(adapter), name)
        finally:
            self.closed += 1

    def adapted(self, request):
        """The model with an adapter, read from its folder as it is first asked for."""
        if request is None:
            return None
        assert self.args.enable_lora
        if request.lora_int_id not in self.adapters:
            with safe_open(str(Path(request.lora_path) / "adapter_model.safetensors"), "numpy") as file:
                visual = any(".visual." in name for name in file.keys())  # noqa: SIM118 - it is no mapping
            assert not visual or self.args.enable_tower_connector_lora, "half of the adapter would be left out"
            self.adapters[request.lora_int_id] = adapted(self.model, request.lora_path)
        return self.adapters[request.lora_int_id]

    def answer(self, prompt, params, finish, model=None, name=""):
        images = [self._sized(image, prompt) for image in prompt.get("multi_modal_data", {}).get("image", [])]
        uuids = prompt.get("multi_modal_uuids", {}).get("image", [])
        assert len(uuids) == len(images)
        assert all(isinstance(one, str) for one in uuids)
        ids = self._expanded(prompt["prompt_token_ids"], images)
        key = name, tuple(ids), tuple(uuids), str(vars(params))
        if key not in self.drawn:
            self.drawn[key] = self._draw(ids, images, params, model or self.model)
        made, logprobs = self.drawn[key]
        reason = finish or ("length" if len(made) >= params.max_tokens and not self._ends(made, params) else "stop")
        row = [{number: SimpleNamespace(logprob=value)} for number, value in zip(made, logprobs, strict=True)]
        fields = {"token_ids": made, "logprobs": row, "finish_reason": reason, "text": "", "index": 0}
        output = told(INTERFACE["completion_output"], **fields)
        return SimpleNamespace(outputs=[output], prompt_token_ids=ids, num_cached_tokens=0, finished=True)

    def _sized(self, image, prompt):
        size = prompt["mm_processor_kwargs"]["size"]
        span = Span(size["shortest_edge"], 40 * CELL**2 if self.resize else size["longest_edge"])
        width, height = smart_resize(Size(*image.size), span, CELL)
        return image if (width, height) == image.size else image.resize((width, height), Image.Resampling.BICUBIC)

    def _expanded(self, ids, images):
        pad = self.model.config.image_token_id
        waiting, found = list(images), []
        for number in ids:
            if number == pad and waiting:
                image = waiting.pop(0)
                found += [pad] * (image.width * image.height // CELL**2)
            else:
                found.append(number)
        if waiting:
            raise RuntimeError("Expected there to be more image placeholders")
        return found

    def _ends(self, made, params):
        text = self.tokenizer.decode(made, skip_special_tokens=False) if params.stop else ""
        return made[-1] in params.stop_token_ids or any(word in text for word in params.stop)

    def _draw(self, ids, images, params, model):
        inputs = {}
        if images:
            made = [patches(image, 14, *self._means()) for image in images]
            grids = [[1, image.height // 14, image.width // 14] for image in images]
            inputs = {"pixel_values": torch.cat([torch.from_numpy(one) for one in made])}
            inputs["image_grid_thw"] = torch.tensor(grids)
        drawn, logprobs = [], []
        generator = torch.Generator().manual_seed(params.seed or 0)
        while True:
            whole = torch.tensor([[*ids, *drawn]])
            kinds = (whole == self.model.config.image_token_id).int()
            with torch.inference_mode():
                logits = model(input_ids=whole, mm_token_type_ids=kinds, **inputs, use_cache=False).logits[0, -1]
            logits = logits.clone()
            for number, bias in (params.logit_bias or {}).items():
                logits[number] += bias
            law = (logits.double() / (params.temperature or 1)).log_softmax(-1)
            warm = params.temperature > 0
            drawn.append(int(torch.multinomial(law.exp(), 1, generator=generator) if warm else law.argmax()))
            logprobs.append(float(law[drawn[-1]]))
            if self._ends(drawn, params) or len(drawn) >= params.max_tokens:
                return drawn, logprobs

    def _means(self):
        config = json.loads((Path(self.args.model) / "preprocessor_config.json").read_text())
        return config["image_mean"], config["image_std"]

    def forget(self, name):
        """Empty one of the caches."""
        self.emptied.add(name)
        if self.emptied == CACHES:
            self.drawn.clear()

    def reload(self, folder):
        """Other weights; what the caches hold is of the older ones from here on."""
        if not list(Path(folder).glob("*.safetensors")):
            raise RuntimeError(f"Cannot find any model weights with `{folder}`")
        self.model = model_of.__wrapped__(Path(folder))
        self.emptied.clear()

    def shutdown(self):
        self.calls.append(("shutdown", (), {}))

    def __getattr__(self, name):
        if name not in INTERFACE["methods"]:
            raise AttributeError(f"vLLM's engine has no {name}")

        async def called(*args, **given):
            known(INTERFACE["methods"][name], given)
            assert len(args) + len(given) <= len(INTERFACE["methods"][name])
            self.calls.append((name, args, given))
            if name == "add_lora":
                self.adapted(*args)
            if name == "remove_lora":
                del self.adapters[args[0]]
            if name in ("sleep", "wake_up"):
                self.asleep = name == "sleep"
            if name in CACHES:
                self.forget(name)
            if args == ("reload_weights",):
                known(INTERFACE["worker"]["reload_weights"], given["kwargs"])
                self.reload(given["kwargs"]["weights_path"])
            return True

        return called


def install(monkeypatch, number=HIGHEST):
    """Put the fake of a version where vLLM would be; returns the engines it starts."""
    monkeypatch.setitem(globals(), "INTERFACE", VERSIONS[number])
    started = []

    def from_engine_args(args):
        assert isinstance(args, AsyncEngineArgs)
        started.append(Llm(args))
        return started[-1]

    vllm, parameters, lora, request = (ModuleType(f"vllm{name}") for name in ("", ".sampling_params", ".lora", ".r"))
    vllm.AsyncEngineArgs, vllm.SamplingParams = AsyncEngineArgs, SamplingParams
    vllm.AsyncLLMEngine = SimpleNamespace(from_engine_args=from_engine_args)
    parameters.RequestOutputKind, request.LoRARequest = RequestOutputKind, LoRARequest
    modules = {"vllm": vllm, "vllm.sampling_params": parameters, "vllm.lora": lora, "vllm.lora.request": request}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(vllm_engine, "check_rope", lambda config, folder: None)  # transformers' classes take any
    real = vllm_engine.version
    monkeypatch.setattr(vllm_engine, "version", lambda name: number if name == "vllm" else real(name))
    return started
