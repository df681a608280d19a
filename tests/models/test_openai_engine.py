"""Turns of a server: what is asked, what comes back, and every way in which it can go wrong."""

import asyncio
import contextlib
import gc
import json
import time
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prh.harness.engine import EngineOptions, Turn, TurnSpec, Usage
from prh.harness.errors import ModelError
from prh.harness.ledger import Segment, Text
from prh.harness.types import Call
from prh.models import openai_body, openai_engine
from prh.models.openai_engine import OpenAIEngine, OpenAIFactory
from prh.models.openai_errors import pause
from prh.models.openai_server import Address, Server, Settings
from prh.tests.models.fake_server import (
    ENVIRONMENT,
    EXTRAS,
    MODEL,
    SOFTWARE,
    Answer,
    FakeServer,
    completion,
    decide,
    view_of_conversation,
)
from prh.tests.models.support import conversation, noise, reply, say

QUICK = {"first_wait": "0.01", "longest_wait": "0.05"}
SPEC = TurnSpec(64)
BUSY = {"error": {"message": "try later"}}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server
        assert server.faults == []


@contextlib.asynccontextmanager
async def opened(server, **extra):
    engine = OpenAIFactory().open(server.url, EngineOptions(extra={**QUICK, **extra}))
    try:
        yield engine
    finally:
        await engine.close()


def question(key="s#0"):
    talk = conversation(key)
    say(talk, "system", "Be brief.")
    say(talk, "user", noise((56, 56), 1), f"What is {key}?")
    return talk


def ask(server, talk=None, spec=SPEC, **extra):
    """The next turn, or the error, and the engine's notes."""

    async def once():
        async with opened(server, **extra) as engine:
            try:
                return await engine.turn(talk or question(), spec), engine.describe()
            except ModelError as error:
                return error, engine.describe()

    return asyncio.run(once())


def failure(server, *plan, **extra):
    server.plan.extend(plan)
    error, notes = ask(server, **extra)
    assert isinstance(error, ModelError), error
    assert "\n" not in str(error)
    assert str(error).startswith(f"{server.url} ({MODEL}): ")
    return str(error), notes


# -- what is asked -----------------------------------------------------------------------------------------------


def test_a_request_says_all_of_a_spec(server):
    spec = TurnSpec(77, temperature=0.7, top_p=0.9, seed=(1 << 56) - 1, stop=("</a>", "\n\n"), banned_ids=(5, 151655))
    ask(server, spec=spec)
    (request,) = server.requests
    assert request.pop("messages")
    assert request == {
        "model": MODEL,
        "max_tokens": 77,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": (1 << 56) - 1,
        "stop": ["</a>", "\n\n"],
        "logit_bias": {"5": -100, "151655": -100},
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "skip_special_tokens": False,
    }


@pytest.mark.parametrize("software", ["vllm", "sglang", "openai", "", None])
def test_only_servers_that_document_more_fields_get_them(software):
    with FakeServer(software) as server:
        ask(server)
        common = {"model", "messages", "max_tokens", "temperature", "top_p", "seed"}
        assert set(server.requests[0]) - common == (EXTRAS if software in SOFTWARE else set())
        assert server.faults == []


def test_a_stop_string_stays_in_the_text(server):
    answer = completion("<answer>A")
    answer["choices"][0]["stop_reason"] = "</answer>"
    server.plan.append(Answer(answer))
    turn, _ = ask(server, spec=TurnSpec(9, stop=("\n\n", "</answer>")))
    assert (turn.text, turn.finish) == ("<answer>A</answer>", "stop")


def test_a_turn_has_text_usage_and_seconds(server):
    talk = question()
    turn, notes = ask(server, talk)
    assert turn.text == decide(view_of_conversation(talk))
    assert turn == Turn(turn.text, usage=Usage(120, 7, 100), seconds=turn.seconds)
    assert turn.seconds > 0
    assert (notes["requests"], notes["retries"], notes["turns_without_usage"]) == (1, {}, 0)


def test_turns_that_tell_no_usage_are_counted(server):
    server.reply = lambda request: completion("x", usage=False)
    turn, notes = ask(server)
    assert turn.usage == Usage()
    assert notes["turns_without_usage"] == 1


def test_every_request_holds_all_that_was_said_and_shown(server):
    async def play():
        async with opened(server) as engine:
            talk = question()
            for number in range(4):
                turn = await engine.turn(talk, SPEC)
                assert turn.text == decide(view_of_conversation(talk))
                reply(talk, turn)
                say(talk, "user", f"Image {number}:", noise((28, 84), 10 + number))
            await engine.release(talk)
            return engine.describe()

    notes = asyncio.run(play())
    for earlier, later in zip(server.requests, server.requests[1:], strict=False):
        assert later["messages"][: len(earlier["messages"])] == earlier["messages"]
        assert len(later["messages"]) == len(earlier["messages"]) + 2
    assert (notes["images_encoded"], notes["images_reused"]) == (4, 1 + 2 + 3)


def test_native_calls_come_and_go_with_their_ids(server):
    arguments = {"bbox_2d": [0, 0, 0.5, 0.5], "target_image": 1}
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "crop_image", "arguments": json.dumps(arguments)}}
        for n in (1, 2)
    ]
    server.plan.append(Answer(completion(None, "tool_calls", tool_calls=calls)))

    async def play():
        async with opened(server) as engine:
            talk = question()
            turn = await engine.turn(talk, SPEC)
            assert turn.native_calls == (Call("crop_image", arguments, "c1"), Call("crop_image", arguments, "c2"))
            talk.commit(Segment("assistant", (Text(turn.text),), turn.native_calls))
            say(talk, "user", "Here:", noise((28, 28), 3))
            await engine.turn(talk, SPEC)

    asyncio.run(play())
    roles = [message["role"] for message in server.requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user"]
    assert server.requests[1]["messages"][2]["tool_calls"] == calls


def test_a_server_that_wants_the_new_limit_gets_it_from_then_on(server):
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )

    def strict(handler, request):
        return Answer({"error": {"message": message, "param": "max_tokens"}}, 400) if "max_tokens" in request else None

    server.plan.extend([strict] * 5)

    async def play():
        async with opened(server) as engine:
            for number in range(3):
                await engine.turn(question(f"s#{number}"), SPEC)
            return engine.describe()

    notes = asyncio.run(play())
    assert [("max_tokens" in r, r.get("max_completion_tokens")) for r in server.requests] == [
        (True, None),
        *[(False, 64)] * 3,
    ]
    assert (notes["token_limit"], notes["retries"]) == ("max_completion_tokens", {})


def test_a_limit_that_is_too_large_is_no_other_limit(server):
    message = (
        "'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum context length is 60 tokens."
    )
    said, notes = failure(server, Answer({"error": {"message": message}}, 400))
    assert "limits.new_tokens" in said
    assert (notes["token_limit"], notes["requests"]) == ("max_tokens", 1)


def test_a_server_that_wants_neither_limit_is_not_asked_for_ever(server):
    message = "Use 'max_completion_tokens' instead; no, not that either"
    said, _ = failure(server, *[Answer({"error": {"message": message}}, 400)] * 9)
    assert message in said
    assert len(server.requests) == 2


# -- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_tried_again_and_counted(server, status):
    server.plan.extend([Answer(BUSY, status)] * 3)
    turn, notes = ask(server)
    assert turn.text == decide(view_of_conversation(question()))
    assert notes["retries"] == {str(status): 3}
    assert notes["requests"] == 4
    assert server.requests[0] == server.requests[3]


@pytest.mark.parametrize("cut", [-1, 0, 40])
def test_a_dropped_connection_is_tried_again(server, cut):
    server.plan.extend([Answer(completion("half of this"), cut=cut)] * 2)
    turn, notes = ask(server)
    assert turn.text == decide(view_of_conversation(question()))
    assert notes["retries"] == {"connection": 2}


def test_a_garbled_body_is_tried_again(server):
    server.plan.append(Answer(b"\x1f\x8b no gzip", headers={"Content-Encoding": "gzip"}))
    _, notes = ask(server)
    assert notes["retries"] == {"connection": 1}


def test_a_slow_reply_is_given_up_and_tried_again(server):
    server.plan.append(Answer(wait=5.0))
    turn, notes = ask(server, timeout="1")
    assert turn.text == decide(view_of_conversation(question()))
    assert notes["retries"]["timeout"] == server.left >= 1


def test_a_reply_that_drips_for_ever_is_given_up(server):
    def drip(handler, request):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(100):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.02)
        return Answer(cut=-1)

    said, _ = failure(server, drip, timeout="0.3", retries="0")
    assert said.endswith("no reply in time; given up after 0 retries")


def test_the_server_says_how_long_to_wait(server, monkeypatch):
    waits = []

    def spy(tries, after, first, longest):
        waits.append(after)
        assert pause(tries, after, first, longest) <= longest == 0.05
        return 0.0

    monkeypatch.setattr(openai_engine, "pause", spy)
    date = formatdate(time.time() + 3600, usegmt=True)
    server.plan.extend(Answer(BUSY, 429, {"Retry-After": value} if value else {}) for value in ("7", date, ""))
    _, notes = ask(server)
    assert notes["retries"] == {"429": 3}
    assert (waits[0], waits[2]) == (7.0, None)
    assert 3000 < waits[1] <= 3600


def test_no_server_makes_us_wait_longer_than_the_cap(server):
    server.plan.extend([Answer(BUSY, 429, {"Retry-After": "86400"})] * 3)
    turn, notes = ask(server)
    assert isinstance(turn, Turn)
    assert notes["retries"] == {"429": 3}


def test_retries_end(server):
    said, notes = failure(server, *[Answer(BUSY, 503)] * 9, retries="4")
    assert said.endswith("the server answers 503: try later; given up after 4 retries")
    assert notes["requests"] == 5


def test_a_turns_time_ends(server):
    said, notes = failure(
        server, *[Answer(BUSY, 503)] * 99, retries="99", turn_seconds="0.4", first_wait="0.1", longest_wait="0.2"
    )
    assert "given up after" in said
    assert notes["requests"] < 10


def test_a_wait_that_a_turn_has_no_time_for_is_not_begun(server):
    said, _ = failure(server, Answer(BUSY, 429, {"Retry-After": "50"}), turn_seconds="5", longest_wait="60")
    assert said.endswith("429: try later; given up after 0 retries")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer({"error": {"message": "maximum context length is 512 tokens"}}, 400), "lower the pixel budget"),
        (Answer({"error": {"message": "Incorrect API key"}}, 401), "check OPENAI_API_KEY"),
        (Answer({"object": "error", "message": "The model `x` does not exist."}, 404), f"; it serves {MODEL}"),
        (Answer("<html>no</html>", 422), "422: <html>no</html>"),
        (Answer("", 418), "418: nothing more"),
        (Answer(b"\xff\xfe\x00", 400), "400"),
        (Answer(completion(None)), "no text content"),
        (Answer(completion("half", "content_filter")), "'content_filter'"),
        (Answer("x" * 5000, 400), "x..."),
        (Answer("", 304), "304"),
        (Answer({"error": {"message": "a\nb\u202e\x1b[1m"}}, 400), "400: a b\\u202e\\x1b[1m"),
    ],
)
def test_what_does_not_pass_is_one_line_and_is_not_tried_again(server, answer, expected):
    said, notes = failure(server, answer)
    assert expected in said
    assert len(said) < 500
    assert notes["retries"] == {}
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer("{not json"), "not JSON"),
        (Answer(""), "not JSON"),
        (Answer("", 204), "not JSON"),
        (Answer("<html>bad gateway</html>"), "not JSON"),
        (Answer({"choices": []}), "no message"),
        (Answer({"object": "error", "message": "out of memory"}), "out of memory"),
    ],
)
def test_what_is_no_reply_is_tried_again_within_the_budget(server, answer, expected):
    server.plan.extend([answer] * 2)
    turn, notes = ask(server)
    assert turn.text == decide(view_of_conversation(question()))
    assert notes["retries"] == {"reply": 2}
    said, notes = failure(server, *[answer] * 9, retries="3")
    assert expected in said
    assert said.endswith("; given up after 3 retries")
    assert notes["requests"] == 4


@pytest.mark.parametrize("status", [200, 500])
def test_a_reply_without_end_is_given_up_as_it_comes(server, status, monkeypatch):
    monkeypatch.setattr(openai_body, "MOST", 1 << 20)
    said, notes = failure(server, Answer(b" " * (2 << 20), status))
    assert said.endswith("): the reply has more than 1 MiB")
    assert notes["requests"] == 1
    turn, _ = ask(server)
    assert turn.text == decide(view_of_conversation(question()))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_server_that_sends_elsewhere_is_not_followed(server, status):
    """With our images put in, a body could not be sent again; and a POST that became a GET was given a list."""
    said, notes = failure(server, Answer("", status, {"Location": "https://elsewhere/v1/chat/completions"}))
    assert f"answers {status}: nothing more; it points to https://elsewhere/v1/chat/completions: give the base" in said
    assert notes["requests"] == len(server.requests) == 1


def test_the_names_in_a_wrong_name_are_those_of_now(server):
    def moved(handler, request):
        server.models[0]["id"] = "another"
        return Answer(BUSY, 404)

    said, _ = failure(server, moved)
    assert said.endswith("; it serves another")
    server.models[0]["id"] = MODEL
    server.plan.append(lambda *_: setattr(server, "list_answer", Answer("", 500)) or Answer(BUSY, 404))
    error, _ = ask(server)
    assert str(error).endswith("404: try later")


def test_a_server_that_dies_and_returns(server):
    async def play():
        async with opened(server, retries="30") as engine:
            assert isinstance(await engine.turn(question(), SPEC), Turn)
            server.stop()
            waiting = asyncio.create_task(engine.turn(question(), SPEC))
            while not engine.retries["connection"] >= 2:
                await asyncio.sleep(0.01)
            server.start()
            return await waiting

    assert asyncio.run(play()).text == decide(view_of_conversation(question()))


def test_a_server_that_dies_for_good(server):
    async def play():
        async with opened(server, retries="2") as engine:
            server.stop()
            with pytest.raises(ModelError, match=r"the connection failed .*; given up after 2 retries"):
                await engine.turn(question(), SPEC)

    asyncio.run(play())
    server.start()


def test_a_failure_leaves_the_engine_as_it_was(server):
    async def play():
        async with opened(server, concurrency="1") as engine:
            server.plan.extend([Answer(BUSY, 400), Answer(BUSY, 413), Answer(completion(None))])
            for _ in range(3):
                with pytest.raises(ModelError):
                    await engine.turn(question(), SPEC)
            return await engine.turn(question(), SPEC)

    assert isinstance(asyncio.run(play()), Turn)


STATUSES = st.sampled_from([200] * 5 + [201, 204, 206, 301, 304, 400, 401, 404, 408, 413, 429, 451, 500, 503, 511, 599])
BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(["", "null", "{", "[]", '{"error": 3}', '{"error": {"message": ["x"]}}', '{"choices": [null]}']),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda x: st.dictionaries(
            st.sampled_from(["choices", "message", "error", "detail"]), x | st.lists(x, max_size=2)
        ),
        max_leaves=5,
    ),
)


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content-Type": st.sampled_from(["utf-8", "utf-16", "base64", "rot13", "idna", "none"]).map(
            "a/b; charset={}".format
        ),
        "Content-Encoding": st.sampled_from(["gzip", "br", "identity", "none"]),
        "Retry-After": st.sampled_from(["0", "-1", "nan", "soon", "Tue, 14 Nov 2023 22:13:30 +9999999999999"]),
        "Location": st.sampled_from(["", "/v1/models", "::"]),
    },
)


def test_any_status_and_body_end_as_a_turn_or_a_model_error(server):
    with asyncio.Runner() as runner:
        engine = OpenAIFactory().open(server.url, EngineOptions(extra={**QUICK, "retries": "0"}))
        talk = question()

        async def once():
            try:
                return await engine.turn(talk, SPEC)
            except ModelError as error:
                return error

        @settings(max_examples=150)
        @given(STATUSES, BODIES, st.sampled_from([None, None, None, 0, 3, -1]), HEADERS)
        def any_answer(status, body, cut, headers):
            server.plan.append(Answer(body, status, headers, cut=cut))
            result = runner.run(once())
            assert isinstance(result, Turn | ModelError)
            assert "\n" not in str(result) or isinstance(result, Turn)
            server.plan.clear()

        any_answer()
        runner.run(engine.close())


# -- many at once ------------------------------------------------------------------------------------------------


def test_no_more_turns_at_once_than_allowed(server):
    server.delay = 0.05

    async def play():
        async with opened(server, concurrency="3") as engine:
            return await asyncio.gather(*(engine.turn(question(f"s#{n}"), SPEC) for n in range(12)))

    turns = asyncio.run(play())
    assert server.most == 3
    assert [turn.text for turn in turns] == [decide(view_of_conversation(question(f"s#{n}"))) for n in range(12)]


def test_connections_are_kept(server):
    async def play():
        async with opened(server) as engine:
            for number in range(10):
                await engine.turn(question(f"s#{number}"), SPEC)

    asyncio.run(play())
    assert len(server.connections) <= 2, "one for the list of models, one for all turns"


def test_cancelling_a_turn_aborts_its_request(server):
    server.delay = 30.0

    async def play():
        async with opened(server, concurrency="1") as engine:
            turn = asyncio.create_task(engine.turn(question(), SPEC))
            while not server.requests:
                await asyncio.sleep(0.01)
            turn.cancel()
            with pytest.raises(asyncio.CancelledError):
                await turn
            while not server.left:
                await asyncio.sleep(0.01)
            server.delay = 0.0
            return await asyncio.wait_for(engine.turn(question(), SPEC), 10)

    assert isinstance(asyncio.run(play()), Turn)
    assert server.left == 1


def test_closing_ends_running_turns_in_a_model_error(server):
    server.delay = 30.0

    async def play():
        async with opened(server) as engine:
            turn = asyncio.create_task(engine.turn(question(), SPEC))
            while not server.requests:
                await asyncio.sleep(0.01)
            await engine.close()
            with pytest.raises(ModelError):
                await asyncio.wait_for(turn, 10)
            with pytest.raises(ModelError, match="closed"):
                await engine.turn(question(), SPEC)
            await engine.close()

    asyncio.run(play())


def test_closing_ends_a_wait_before_the_next_try(server):
    server.plan.extend([Answer(BUSY, 503)] * 99)

    async def play():
        async with opened(server, retries="99", first_wait="0.2", longest_wait="0.2") as engine:
            turn = asyncio.create_task(engine.turn(question(), SPEC))
            while not engine.retries:
                await asyncio.sleep(0.01)
            await engine.close()
            asked = len(server.requests)
            with pytest.raises(ModelError, match=r"the engine is closed$"):
                await asyncio.wait_for(turn, 10)
            assert len(server.requests) == asked

    asyncio.run(play())


def test_an_engine_lives_through_several_loops(server):
    engine = OpenAIEngine(Server(Address(server.url, MODEL), "", {}), Settings())
    texts = []
    for _ in range(2):

        async def once():
            turn = await engine.turn(question(), SPEC)
            await engine._connection.client.close()  # what else would stay open when its loop ends
            return turn.text

        texts.append(asyncio.run(once()))
    assert texts[0] == texts[1]
    asyncio.run(engine.close())
    gc.collect()


def test_what_it_is_and_does_is_described(server):
    _, notes = ask(server)
    json.dumps(notes, allow_nan=False)
    assert notes["name"] == "openai"
    assert notes["identity"] == "the server's word"
    assert notes["card"] == {
        name: server.models[0][name] for name in ("id", "root", "parent", "max_model_len", "owned_by")
    }
    assert notes["factor"] == 28
    assert notes["settings"]["longest_wait"] == 0.05
    assert set(notes["versions"]) == {"prh", "openai"}


def test_capabilities():
    caps = OpenAIEngine(Server(Address("http://127.0.0.1:9/v1", MODEL), "", {}), Settings()).caps
    assert caps.seeds
    assert caps.native_calls
    assert not caps.token_ids
    assert "tool" not in caps.roles
