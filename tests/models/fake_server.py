"""An OpenAI-compatible server on 127.0.0.1 that believes nothing: requests are checked to the letter.

It answers with a function of the request alone, ``decide``, which reads every text and every pixel. The same
function of a conversation makes a scripted engine, so that both must give the same records.
"""

import base64
import contextlib
import hashlib
import io
import itertools
import json
import math
import select
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image
from prh.harness.ledger import MediaRef
from prh.harness.media import pixel_digest

MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
# What of the environment reaches a client.
ENVIRONMENT = ("OPENAI_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
# What vLLM and SGLang document beyond the schema, as far as it is sent.
EXTRAS = {"top_k", "min_p", "repetition_penalty", "skip_special_tokens"}
SOFTWARE = ("vllm", "sglang")


# -- what is answered --------------------------------------------------------------------------------------------


def view_of_request(request):
    """Role and content of each message: texts, and digests of decoded pixels."""
    return [(message["role"], _request_parts(message["content"])) for message in request["messages"]]


def _request_parts(content):
    if content is None or isinstance(content, str):
        return [content] if content else []
    return [part["text"] if part["type"] == "text" else pixel_digest(read_image(part)) for part in content]


def view_of_conversation(conversation):
    """The same of a conversation as it stands in the ledger."""
    return [(segment.role, _segment_parts(segment, conversation)) for segment in conversation.segments]


def _segment_parts(segment, conversation):
    parts, text = [], ""
    for part in segment.parts:
        if not isinstance(part, MediaRef):
            text += part.text
            continue
        parts += [text] if text else []
        parts += [pixel_digest(image) for image in conversation.pixels(part.index).seen]
        text = ""
    return [*parts, text] if text else parts


def decide(view):
    """A reply that depends on every bit of the view: crops, a call that fails, then an answer."""
    digest = hashlib.sha256(json.dumps(view).encode()).digest()
    turn = sum(role == "assistant" for role, _ in view)
    if turn >= 3 or (turn and digest[0] < 80):
        return f"It is {digest.hex()[:12]}, so \\boxed{{{'ABCD'[digest[1] % 4]}}}"
    if turn and digest[0] < 120:
        return f"<tool_call>\n{digest.hex()[:8]} is no JSON\n</tool_call>"
    left, top = digest[2] / 512, digest[3] / 512
    box = [left, top, left + 0.3 + digest[4] / 2048, top + 0.3 + digest[5] / 2048]
    target = 1 + digest[6] % (turn + 1)
    call = {"name": "crop_image_normalized", "arguments": {"bbox_2d": box, "target_image": target}}
    return f"Look closer ({digest.hex()[:8]}).\n<tool_call>\n{json.dumps(call)}\n</tool_call>"


def completion(content, finish="stop", usage=True, **message):
    """A reply as the API gives it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    tokens = {"prompt_tokens": 120, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 100}}
    reply = {"id": "c-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
    return {**reply, "usage": tokens} if usage else reply


# -- what is accepted --------------------------------------------------------------------------------------------


def read_image(part):
    """The image of a content part, checked."""
    assert set(part) == {"type", "image_url"}, part.keys()
    assert set(part["image_url"]) == {"url"}
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64", head
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert image.format == "PNG"
    image.load()
    assert image.mode == "RGB"
    assert not image.info, image.info
    assert image.width % 28 == 0, image.size
    assert image.height % 28 == 0, image.size
    assert image.width * image.height <= 1 << 24, image.size
    return image


def check(request, software):
    """AssertionError where a request is not what the chat-completions schema says."""
    known = {"model", "messages", "temperature", "top_p", "seed", "stop", "logit_bias", "tools"}
    limits = {"max_tokens", "max_completion_tokens"} & set(request)
    extra = set(request) - known - limits
    assert extra <= (EXTRAS if software in SOFTWARE else set()), f"unknown fields {extra}"
    assert isinstance(request["model"], str)
    assert len(limits) == 1, limits
    assert whole(request[limits.pop()], 1, 1 << 31)
    if "temperature" in request:
        assert number(request["temperature"], 0, 2)
        assert number(request["top_p"], 0, 1)
        assert whole(request["seed"], -(1 << 63), (1 << 63) - 1)
    if "stop" in request:
        assert 1 <= len(request["stop"]) <= 4
        assert all(isinstance(text, str) and text for text in request["stop"])
    for key, bias in request.get("logit_bias", {}).items():
        assert key.isdigit()
        assert whole(bias, -100, 100)
    assert whole(request.get("top_k", -1), -1, 1000)
    assert number(request.get("min_p", 0), 0, 1)
    assert number(request.get("repetition_penalty", 1), 0, 2)
    assert isinstance(request.get("skip_special_tokens", True), bool)
    for tool in request.get("tools", []):
        assert set(tool) == {"type", "function"}
        assert tool["type"] == "function"
        check_function(tool["function"])
    check_messages(request["messages"])


def check_function(function):
    assert set(function) == {"name", "description", "parameters"}
    assert isinstance(function["description"], str)
    assert set(function["name"]) <= set("abcdefghijklmnopqrstuvwxyz_")
    assert function["parameters"]["type"] == "object"


def check_messages(messages):
    """Each call is answered once, by its id, before anybody else speaks."""
    assert isinstance(messages, list)
    assert messages[0]["role"] in ("system", "user")
    assert messages[-1]["role"] in ("user", "tool")
    due = []
    for message in messages:
        role = message["role"]
        assert role in ("system", "user", "assistant", "tool"), role
        if role == "tool":
            assert set(message) == {"role", "content", "tool_call_id"}
            assert message["content"]
            if not isinstance(message["content"], str):
                check_parts(message["content"])
            assert message["tool_call_id"] == due.pop(0), "a tool message answers the wrong call"
            continue
        assert not due, f"calls {due} are not answered"
        if role == "assistant":
            due = check_assistant(message)
        elif role == "system" or isinstance(message["content"], str):
            assert set(message) == {"role", "content"}
            assert isinstance(message["content"], str)
        else:
            assert set(message) == {"role", "content"}
            check_parts(message["content"])
    assert not due, f"calls {due} are not answered"


def check_assistant(message):
    calls = message.get("tool_calls", [])
    assert set(message) - {"tool_calls"} == {"role", "content"}
    assert isinstance(message["content"], str) or (calls and message["content"] is None)
    for call in calls:
        assert set(call) == {"id", "type", "function"}
        assert call["type"] == "function"
        assert set(call["function"]) == {"name", "arguments"}
        assert isinstance(call["function"]["name"], str)
        json.loads(call["function"]["arguments"])
    ids = [call["id"] for call in calls]
    assert len(set(ids)) == len(ids)
    assert all(isinstance(one, str) and one for one in ids)
    return ids


def check_parts(parts):
    assert isinstance(parts, list)
    assert parts
    kinds = [part["type"] for part in parts]
    assert set(kinds) <= {"text", "image_url"}
    assert ("text", "text") not in list(itertools.pairwise(kinds)), "servers may part texts by a newline"
    for part in parts:
        if part["type"] == "text":
            assert set(part) == {"type", "text"}
            assert isinstance(part["text"], str)
            assert part["text"]
        else:
            read_image(part)


def whole(value, low, high):
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def number(value, low, high):
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and low <= value <= high
        and math.isfinite(value)
    )


# -- the server --------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What is given instead of the usual reply.

    Attributes:
        wait: seconds before it; the client may go away meanwhile, which is noted.
        cut: after how many bytes of the body the connection is dropped; -1 drops it before the status line.
    """

    body: object = b""
    status: int = 200
    headers: dict = field(default_factory=dict)
    wait: float = 0.0
    cut: int | None = None

    def data(self):
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server.fake.connections.append(self.connection)

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.give(self.server.fake.listing(self.path))

    def do_POST(self):
        fake = self.server.fake
        with fake.lock:
            fake.running += 1
            fake.most = max(fake.most, fake.running)
        try:
            answer = self.answer(fake)
        finally:
            with fake.lock:
                fake.running -= 1
        if answer:
            self.give(answer)

    def answer(self, fake):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fake.authorizations.append(self.headers["Authorization"])
        fake.bytes += len(body)
        request = json.loads(body)
        try:
            assert self.headers["Content-Type"] == "application/json"
            fake.check(self.path, request)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            fake.faults.append(f"{type(error).__name__}: {error}")
            return Answer({"error": {"message": f"bad request: {error}", "code": 400}}, 400)
        with fake.lock:
            fake.requests.append(request)
            planned = fake.plan.popleft() if fake.plan else None
        if callable(planned):
            planned = planned(self, request)
        answer = planned or Answer(fake.reply(request))
        return answer if self.patient(answer.wait + fake.delay) else None

    def patient(self, seconds):
        """Wait; False where the client goes away."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.connection], [], [], min(left, 0.02))[0] and not self.connection.recv(
                1, socket.MSG_PEEK
            ):
                self.server.fake.left += 1
                self.close_connection = True
                return False
        return True

    def give(self, answer):
        data = answer.data()
        if answer.cut == -1:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **answer.headers,
        }.items():
            self.send_header(name, value)
        if answer.cut is not None or answer.status != 200:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data if answer.cut is None else data[: answer.cut])
        self.wfile.flush()


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """A client that goes away is no error of the server's."""


class FakeServer:
    """A server that runs between ``with`` and its end.

    Attributes:
        plan: what the next chat requests get instead of the usual, in order: an ``Answer``, None for the usual, or a
            function of the handler and the request that gives one of these.
        handler: what reads its requests.
        requests: the chat requests that were well formed, in order.
        faults: what was wrong with the others.
        most: most requests at once.
        left: how often a client went away while it was waited for.
    """

    handler = Handler

    def __init__(self, software="vllm", reply=None):
        card = {
            "id": MODEL,
            "object": "model",
            "created": int(time.time()),
            "owned_by": software,
            "root": "/models/qwen",
        }
        self.models = [{**card, "parent": None, "max_model_len": 32768}]
        self.reply = reply or (lambda request: completion(decide(view_of_request(request))))
        self.plan = deque()
        self.list_answer = None
        self.delay = 0.0
        self.requests, self.faults, self.authorizations, self.connections = [], [], [], []
        self.running = self.most = self.left = self.lists = self.bytes = 0
        self.lock = threading.Lock()
        self.port = 0
        self.listener = None

    def check(self, path, request):
        """AssertionError where a request is none of this server's."""
        assert path == "/v1/chat/completions", path
        check(request, self.models[0].get("owned_by") if self.models else "")

    def listing(self, path):
        """What a GET is answered, whatever its path."""
        self.lists += 1
        return self.list_answer or Answer({"object": "list", "data": self.models})

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self):
        self.listener = Listener(("127.0.0.1", self.port), self.handler)
        self.listener.fake = self
        self.port = self.listener.server_address[1]
        self.thread = threading.Thread(target=self.listener.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def stop(self):
        self.listener.shutdown()
        self.listener.server_close()
        self.thread.join()
        while self.connections:
            with contextlib.suppress(OSError):
                self.connections.pop().shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
