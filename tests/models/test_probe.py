"""`prh doctor SERVER`: what a server does with images is found out by asking it."""

import pytest
from prh.models.findings import Finding
from prh.models.probe import COLOURS, probe_server
from prh.tests.harness.test_cli import prh as command
from prh.tests.models.fake_server import ENVIRONMENT, MODEL, Answer, FakeServer, completion, read_image

CELL = 28


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def pictures(request, roles):
    messages = [message for message in request["messages"] if message["role"] in roles]
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    return [read_image(part) for part in parts if part["type"] == "image_url"]


class Seeing(FakeServer):
    """Sees the images in messages of some roles, up to a size, and counts their tokens."""

    def __init__(self, roles=("user", "tool"), most=10_000, calls=True):
        super().__init__(reply=self._reply)
        self.roles, self.most, self.calls = roles, most, calls

    def _reply(self, request):
        seen = pictures(request, self.roles)
        name = {value: name for name, value in COLOURS.items()}
        said = (
            [name.get(seen[-1].getpixel((x, 5)), "grey") for x in (5, seen[-1].width - 5)] if seen else ["grey", "grey"]
        )
        made = completion(f"{said[0].title()}, {said[1]}.")
        if "tools" in request and self.calls and len(request["messages"]) == 1:
            call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            made = completion(None, "tool_calls", tool_calls=[call])
        tokens = [min(image.width * image.height // CELL**2, self.most) for image in seen]
        return {**made, "usage": {"prompt_tokens": 20 + sum(tokens), "completion_tokens": 4}}


def states(server):
    found = list(probe_server(server.url, CELL))
    assert all(isinstance(finding, Finding) for finding in found)
    assert server.faults == []
    return {finding.what: (finding.state, finding.detail) for finding in found}


def test_a_server_that_does_everything():
    with Seeing() as server:
        found = states(server)
    assert {state for state, _ in found.values()} == {"ok"}
    assert set(found) == {"server", "images", "sizes", "functions", "tool images"}
    assert f"{MODEL} by vllm, context of 32,768 tokens" in found["server"][1]
    assert "up to 1792x1792" in found["sizes"][1]


def test_a_blind_server():
    with Seeing(roles=()) as server:
        found = states(server)
    assert found["images"][0] == "broken"
    assert "Grey, grey" in found["images"][1]
    assert found["tool images"][0] == "absent"


def test_a_server_that_sees_no_image_in_a_tool_message():
    with Seeing(roles=("user",), calls=False) as server:
        found = states(server)
    assert found["images"][0] == "ok"
    assert "engine.mode" in found["tool images"][1]
    assert "--enable-auto-tool-choice" in found["functions"][1]
    assert "engine.mode=text, as for Qwen2.5-VL" in found["functions"][1]


def test_a_server_that_resizes():
    with Seeing(most=1280) as server:
        state, detail = states(server)["sizes"]
    assert state == "broken"
    assert f"costs {1280 - 576} tokens more than one of 672x672, not {64**2 - 24**2}: it is resized" in detail


def test_a_server_that_counts_in_a_way_of_its_own():
    with Seeing(most=1280) as server:
        server.models[0]["owned_by"] = "somebody"
        server.software = "somebody"
        state, detail = states(server)["sizes"]
    assert state == "absent"
    assert "it counts or resizes in a way of its own" in detail


def test_a_server_that_refuses_fields():
    """Such as a model that reasons, which takes no temperature: without the option nothing can be told of it."""

    def refuse(handler, request):
        return Answer({"error": {"message": "no temperature"}}, 400) if "temperature" in request else None

    with Seeing() as server:
        server.plan.extend([refuse] * 40)
        state, detail = states(server)["images"]
        assert state == "broken"
        assert "got no reply: " in detail
        assert detail.endswith(" the server answers 400: no temperature; it cannot be evaluated on images")
        assert "(http" in states(server)["functions"][1]
        words = ("doctor", server.url, "--set", "engine.omit=temperature,top_p,seed")
        done = command(*words)
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"] * 5
        assert "the engine openai has no option 'omits'" in command(*words[:3], "engine.omits=seed", code=2).stderr
        assert "engine.factor: give it as --cell" in command(*words[:3], "engine.factor=32", code=2).stderr
    assert "--set takes options of the engine" in command("doctor", "x", "--set", "limits.turns=1", code=2).stderr
    assert "name one, such as http" in command("doctor", "--set", "engine.omit=seed", code=2).stderr


def test_a_server_that_refuses_large_images_and_one_that_counts_nothing():
    def refuse(handler, request):
        large = [image for image in pictures(request, ("user",)) if image.width > 700]
        return Answer({"error": {"message": "maximum context length is 512"}}, 400) if large else None

    with Seeing() as server:
        server.plan.extend([refuse] * 9)
        state, detail = states(server)["sizes"]
        assert (state, "1792x1792 is refused" in detail) == ("broken", True)
        server.plan.clear()
        server.reply = lambda request: completion("x", usage=False)
        assert states(server)["sizes"][0] == "absent"


def test_a_server_whose_model_thinks_first():
    def think(handler, request):
        if request["max_tokens"] > 500:
            return None
        thoughts = completion(None, "length", reasoning_content="Hmm, two colours.")
        return Answer({**server.reply(request), "choices": thoughts["choices"]})

    with Seeing() as server:
        server.plan.extend([think] * 9)
        assert {state for state, _ in states(server).values()} == {"ok"}


def test_a_server_that_says_what_a_terminal_obeys():
    with Seeing() as server:
        server.reply = lambda request: completion("\x1b[2J\u202e")
        detail = states(server)["images"][1]
    assert "\x1b" not in detail


def test_the_command(monkeypatch):
    with Seeing() as server:
        done = command("doctor", server.url)
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"] * 5
    with Seeing(roles=()) as server:
        assert "broken  images" in command("doctor", server.url, code=2).stdout
    assert "cannot be reached" in command("doctor", server.url, code=2).stderr
