"""A server that calls functions, over chat completions and over the Responses API, and believes nothing.

What it says depends on the images alone, which are the same however calls are carried: so that each way of carrying
them must give the same records.
"""

import hashlib
import json

from prh.harness.engine import Turn, Usage
from prh.harness.ledger import MediaRef
from prh.harness.media import pixel_digest
from prh.harness.types import Call
from prh.tests.models.fake_server import FakeServer, check_function, completion, number, read_image, whole

CROP = "crop_image"


def plan_turn(images, turn):
    """Text and calls (name, arguments as text, id) of a turn, from the images' digests."""
    digest = hashlib.sha256(f"{turn}{images}".encode()).digest()
    said = f"I see {digest.hex()[:8]}."
    if turn >= 3 or (turn and digest[0] < 60):
        return f"{said} \\boxed{{{'ABCD'[digest[1] % 4]}}}", []
    left, top = digest[2] / 512, digest[3] / 512
    box = [left, top, left + 0.3 + digest[4] / 2048, top + 0.3 + digest[5] / 2048]
    good = json.dumps({"bbox_2d": box, "target_image": 1 + digest[6] % len(images)})
    arguments = [good, good, good, "{no json", json.dumps({"bbox_2d": [0.9, 0.9, 0.1, 0.1], "target_image": 1})]
    name = "zoom" if digest[7] < 20 else CROP
    count = 1 + digest[8] % 4
    return said, [
        (name, arguments[digest[9 + n] % len(arguments)], f"call_{digest.hex()[:6]}_{n}") for n in range(count)
    ]


def shown(conversation):
    """The digests of every image of a conversation, in order."""
    parts = [part for segment in conversation.segments for part in segment.parts if isinstance(part, MediaRef)]
    return [pixel_digest(image) for part in parts for image in conversation.pixels(part.index).seen]


def script(conversation):
    """The same model in this process."""
    text, calls = plan_turn(shown(conversation), conversation.turns)
    native = tuple(Call(name, _loaded(arguments), own) for name, arguments, own in calls)
    return Turn(text, native_calls=native, usage=Usage(120, 7, 100))


def _loaded(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def written_calls(calls):
    """Calls as a model writes them in its text."""
    return "".join(f'\n<tool_call>\n{{"name": "{name}", "arguments": {text}}}\n</tool_call>' for name, text, _ in calls)


# -- chat completions --------------------------------------------------------------------------------------------


def chat_images(messages):
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    return [pixel_digest(read_image(part)) for content in contents for part in content if part["type"] == "image_url"]


def chat_reply(request):
    turn = sum(message["role"] == "assistant" for message in request["messages"])
    text, calls = plan_turn(chat_images(request["messages"]), turn)
    if "tools" not in request:
        return completion(text + written_calls(calls))
    native = [
        {"id": own, "type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments, own in calls
    ]
    return completion(text, "tool_calls", tool_calls=native) if native else completion(text)


# -- the Responses API -------------------------------------------------------------------------------------------


def response(text, calls=(), status="completed", **more):
    message = {"type": "message", "id": "m1", "role": "assistant", "status": "completed"}
    output = [{"type": "reasoning", "id": "r1", "summary": []}]
    if text is not None:
        output.append({**message, "content": [{"type": "output_text", "text": text, "annotations": []}]})
    for name, arguments, own in calls:
        output.append({"type": "function_call", "id": "f", "call_id": own, "name": name, "arguments": arguments})
    usage = {"input_tokens": 120, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 100}}
    whole_one = {"id": "resp-1", "object": "response", "created_at": 1, "model": "m", "output": output, "usage": usage}
    return {**whole_one, "status": status, **more}


def response_reply(request):
    turn = 0
    before = ""
    for item in request["input"]:
        said = "call" if item.get("type") == "function_call" or item.get("role") == "assistant" else "other"
        turn += said == "call" and before != "call"
        before = said
    text, calls = plan_turn([pixel_digest(image) for image in item_images(request["input"])], turn)
    return response(text, calls)


def item_images(items):
    for item in items:
        content = item.get("content", item.get("output"))
        for part in content if isinstance(content, list) else ():
            if part["type"] == "input_image":
                yield read_image({"type": "image_url", "image_url": {"url": part["image_url"]}})


def check_response_request(request):
    assert set(request) <= {"model", "input", "temperature", "top_p", "store", "tools", "max_output_tokens"}
    assert request["store"] is False
    assert whole(request["max_output_tokens"], 16, 1 << 31)
    assert number(request.get("temperature", 1), 0, 2)
    for tool in request.get("tools", []):
        assert tool.pop("type") == "function"
        assert tool.pop("strict") is False
        check_function(tool)
    due = []
    for item in request["input"]:
        kind = item.get("type", "message")
        if kind == "function_call":
            assert set(item) == {"type", "call_id", "name", "arguments"}
            json.loads(item["arguments"])
            due.append(item["call_id"])
        elif kind == "function_call_output":
            assert set(item) == {"type", "call_id", "output"}
            assert item["call_id"] == due.pop(0), "an output answers the wrong call"
            check_content(item["output"])
        else:
            assert not due, f"calls {due} are not answered"
            assert set(item) == {"role", "content"}
            assert item["role"] in ("system", "user", "assistant")
            if item["role"] == "assistant":
                assert isinstance(item["content"], str)
            else:
                check_content(item["content"])
    assert not due, f"calls {due} are not answered"


def check_content(parts):
    assert parts
    for part in parts:
        if part["type"] == "input_text":
            assert set(part) == {"type", "text"}
            assert isinstance(part["text"], str)
        else:
            assert set(part) == {"type", "image_url", "detail"}
            assert part["type"] == "input_image"
            assert part["detail"] == "auto"


class FunctionServer(FakeServer):
    """Calls functions on both paths.

    Attributes:
        paths: of each well-formed request.
    """

    def __init__(self, software="openai"):
        super().__init__(software, reply=self._reply)
        self.paths = []

    def check(self, path, request):
        if path == "/v1/responses":
            check_response_request(request)
        else:
            super().check(path, request)
        self.paths.append(path)

    def _reply(self, request):
        return response_reply(request) if "input" in request else chat_reply(request)
