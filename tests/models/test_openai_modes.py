"""Function calling four ways: the same records, every call answered by its id, tokens and cost counted."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prh.harness.engine import EngineOptions, TurnSpec
from prh.harness.errors import ModelError, UsageError
from prh.harness.evaluate import plan
from prh.harness.record import canonical, key_of
from prh.harness.request import Request
from prh.harness.runner import run_all
from prh.harness.scoring import process_metrics
from prh.harness.scripted import ScriptedEngine
from prh.harness.settings import resolve
from prh.harness.store import RunStore, read_records
from prh.harness.task import DataOptions
from prh.models.openai_engine import OpenAIFactory
from prh.models.openai_errors import Mask, ServerError
from prh.models.openai_messages import ANSWERED, REFUSED
from prh.models.openai_responses import read_response
from prh.tasks.vstar_mini import VStarMini
from prh.tests.models.fake_functions import FunctionServer, response, script
from prh.tests.models.fake_server import ENVIRONMENT, Answer
from prh.tests.models.support import conversation, noise, say

QUICK = {"first_wait": "0.01", "longest_wait": "0.05"}
SETTING = resolve([("task", VStarMini().settings), ("test", {"protocol": "openai-tools", "limits": {"calls": 2}})], 0)
NATIVE = ("user", "tool", "responses")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def samples(cache):
    return VStarMini().load(DataOptions()).samples[:24]


def play(engine, samples, folder):
    async def through():
        try:
            with RunStore(folder) as store:
                await run_all([(sample, 0) for sample in samples], engine, SETTING, store, concurrency=8)
        finally:
            await engine.close()

    asyncio.run(through())
    return {key_of(record): record for record in read_records(folder)}


def behind(server, **extra):
    return OpenAIFactory().open(server.url, EngineOptions(extra={**QUICK, **extra}))


def without_calls(record):
    """What was shown and done, whichever way it was said."""
    operations = [(o["name"], o["box"], o["error"] or "") for o in record["operations"]]
    return record["end"], operations, [item["digest"] for item in record["media"]]


@pytest.fixture(scope="module")
def expected(samples, tmp_path_factory):
    return play(ScriptedEngine(script), samples, tmp_path_factory.mktemp("here"))


def test_the_model_in_process_does_all_that_there_is_to_carry(expected):
    operations = [operation for record in expected.values() for operation in record["operations"]]
    assert {"limit", "bad_arguments", "empty_box", "unknown_operation", None} <= {o["error"] for o in operations}
    assert sum(operation["error"] is None for operation in operations) > 20
    answers = [s["answers"] for record in expected.values() for s in record["segments"] if "answers" in s]
    assert max(map(len, answers)) == 4
    assert any(count == 0 for answer in answers for _, count in answer)


@pytest.mark.parametrize("mode", NATIVE)
def test_each_way_gives_the_records_of_the_model_in_process(samples, tmp_path, expected, mode):
    with FunctionServer() as server:
        got = play(behind(server, mode=mode), samples, tmp_path / "there")
        assert server.faults == []
        assert set(server.paths) == {"/v1/responses" if mode == "responses" else "/v1/chat/completions"}
    assert {key: canonical(record) for key, record in got.items()} == {
        key: canonical(record) for key, record in expected.items()
    }


def test_calls_in_the_text_show_and_do_the_same(samples, tmp_path):
    """But for arguments that are no JSON: in a text they are a call that cannot be read."""
    with FunctionServer() as server:
        got = play(behind(server, mode="text"), samples, tmp_path / "there")
        assert server.faults == []
        assert not [request for request in server.requests if "tools" in request]
        system = server.requests[0]["messages"][0]["content"]
    assert '{"type": "function", "function": {"name": "crop_image"' in system
    errors = {operation["error"] for record in got.values() for operation in record["operations"]}
    assert {None, "parse", "empty_box"} <= errors
    assert not [call for r in got.values() for s in r["segments"] for call in s.get("calls", []) if call.get("id")]


def test_the_image_stands_where_the_mode_says(samples, tmp_path):
    found = {}
    for mode in NATIVE:
        with FunctionServer() as server:
            play(behind(server, mode=mode), samples, tmp_path / mode)
            found[mode] = server.requests
    tools = [message for request in found["user"] for message in request["messages"] if message["role"] == "tool"]
    assert all(isinstance(message["content"], str) for message in tools)
    assert {ANSWERED, REFUSED} < {message["content"] for message in tools}
    assert any("Execution error" in message["content"] for message in tools), "an error answers its own call"
    tools = [message for request in found["tool"] for message in request["messages"] if message["role"] == "tool"]
    assert any(isinstance(message["content"], list) for message in tools)
    assert ANSWERED not in [message["content"] for message in tools]
    for request in found["tool"]:
        assert sum(message["role"] == "user" for message in request["messages"]) == 1
    items = [item for request in found["responses"] for item in request["input"] if "output" in item]
    assert any(part["type"] == "input_image" for item in items for part in item["output"])


def test_tokens_and_cost_are_counted(samples, tmp_path):
    prices = {"price_prompt": "2.5", "price_cached": "0.5", "price_new": "10"}
    with FunctionServer() as server:
        engine = behind(server, **prices)
        records = play(engine, samples[:6], tmp_path / "run")
        turns = len(server.requests)
    each = (20 * 2.5 + 100 * 0.5 + 7 * 10) / 1e6
    used = engine.describe()["used"]
    assert used == {
        "prompt_tokens": 120 * turns,
        "cached_tokens": 100 * turns,
        "new_tokens": 7 * turns,
        "cost": pytest.approx(each * turns),
    }
    assert sum(record["usage"]["cost"] for record in records.values()) == pytest.approx(each * turns)
    assert process_metrics(list(records.values()))["cost"].value == pytest.approx(each * turns / 6)


def test_without_a_price_nothing_costs_anything(expected):
    assert not [record for record in expected.values() if "cost" in record["usage"]]
    assert "cost" not in process_metrics(list(expected.values()))


def test_what_a_server_refuses_can_be_left_out(samples, tmp_path):
    with FunctionServer() as server:
        engine = behind(server, omit="temperature, top_p,seed")
        play(engine, samples[:1], tmp_path / "run")
        assert not {"temperature", "top_p", "seed"} & set(server.requests[0])
        assert engine.describe()["omit"] == ["temperature", "top_p", "seed"]
        assert not engine.caps.seeds


@pytest.mark.parametrize(("name", "text"), [("mode", "users"), ("omit", "messages"), ("price_new", "-1")])
def test_options_that_are_none(name, text):
    with pytest.raises(UsageError, match=name):
        OpenAIFactory().open("http://127.0.0.1:9/v1", EngineOptions(extra={name: text}))


def test_a_protocol_of_functions_is_refused_by_an_engine_without_them(cache, tmp_path):
    request = Request("pixels", "vstar-mini", tmp_path / "run", overrides={"protocol": "openai-tools"})
    with pytest.raises(UsageError, match="declares functions, which the engine pixels does not carry"):
        plan(request)


def test_the_mode_is_part_of_what_a_run_is(cache, tmp_path):
    def identity(**values):
        with FunctionServer() as server:
            return plan(Request(server.url, "vstar-mini", tmp_path / "run", overrides=values)).identity

    tools = {"protocol": "openai-tools"}
    assert identity(**tools)["numerics"]["mode"] == "user"
    assert identity(**tools, engine={"mode": "tool"})["numerics"]["mode"] == "tool"
    assert "mode" not in identity()["numerics"], "no call is carried"
    assert identity(**tools)["prompt"] != identity(**tools, operations=["crop_image"])["prompt"]


# -- responses ---------------------------------------------------------------------------------------------------


def read(reply, stop=()):
    return read_response(json.dumps(reply).encode(), stop, 1, Mask("sk-secret"))


def test_a_response_is_a_turn():
    turn = read(response("It is sk-secret.", [("crop_image", '{"a": "sk-secret"}', "c1")]))
    assert turn.text == "It is [key]."
    assert turn.native_calls[0].arguments == {"a": "[key]"}
    cut = read(response("half", status="incomplete", incomplete_details={"reason": "max_output_tokens"}))
    assert (cut.text, cut.finish) == ("half", "length")
    assert read(response("a</x>b</x>", [("f", "{}", "c")]), ("</x>",)).text == "a</x>"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (response("x", status="failed", error={"message": "out of sk-secret"}), "'failed': out of [key]"),
        (response("x", status="incomplete", incomplete_details={"reason": "content_filter"}), "content_filter"),
        (response(None), "no text content"),
        (
            response(None, output=[{"type": "message", "content": [{"type": "refusal", "refusal": "I will not"}]}]),
            "the model refuses: I will not",
        ),
        (response(None, output=[{"type": "function_call", "name": 3}]), "names no function"),
        (response("x", output={}), "no output"),
        ([], "no output"),
    ],
)
def test_responses_that_are_no_turn(reply, message):
    with pytest.raises(ServerError) as caught:
        read(reply)
    assert message in str(caught.value)


JSONS = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.sampled_from(["message", "completed", "function_call"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["output", "status", "type", "content", "text", "name", "arguments", "call_id", "usage"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSONS)
def test_any_response_is_a_turn_or_a_failure(reply):
    try:
        turn = read(reply if not isinstance(reply, dict) else {"status": "completed", **reply})
    except ServerError:
        return
    assert len({call.id for call in turn.native_calls}) == len(turn.native_calls)


def test_a_response_that_fails_is_tried_again():
    with FunctionServer() as server:
        server.plan.extend([Answer("busy", 429, {"Retry-After": "0"}), Answer("{"), Answer(cut=-1)])
        failed = [
            {"message": "oops", "code": code} for code in ("server_error", "rate_limit_exceeded", "invalid_image")
        ]
        server.plan.extend(Answer(response(None, status="failed", error=error)) for error in failed[:2])

        async def once():
            engine = behind(server, mode="responses")
            talk = conversation()
            say(talk, "user", noise((56, 56), 1), "What?")
            try:
                turn = await engine.turn(talk, TurnSpec(64))
                server.plan.append(Answer({"error": {"message": "no such route"}}, 404))
                with pytest.raises(ModelError, match="no such route"):
                    await engine.turn(talk, TurnSpec(64))
                server.plan.append(Answer(response(None, status="failed", error=failed[2])))
                with pytest.raises(ModelError, match=r"'failed': oops$"):
                    await engine.turn(talk, TurnSpec(64))
            finally:
                await engine.close()
            return turn, engine.describe()

        turn, notes = asyncio.run(once())
    assert turn.text
    assert notes["retries"] == {"429": 1, "reply": 3, "connection": 1}
    assert not notes["settings"]["omit"]
