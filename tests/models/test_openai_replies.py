"""A chat completion read as a turn, and everything that is none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prh.harness.engine import Turn, Usage
from prh.harness.types import Call
from prh.models.openai_errors import Mask, ServerError
from prh.models.openai_replies import read_reply
from prh.models.processor import VISION_TOKENS
from prh.tests.models.fake_server import completion

KEY = "sk-secret-key"


def read(reply, stop=(), number=1):
    body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    return read_reply(body, stop, number, Mask(KEY))


def call(name="crop_image", arguments='{"a": [1, 2.5]}', id="c1"):  # noqa: A002
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_text_with_its_usage():
    turn = read(completion("It is \\boxed{A}"))
    assert turn == Turn("It is \\boxed{A}", usage=Usage(120, 7, 100))


@pytest.mark.parametrize("text", ["", " ", "\n\u00e9\u4e2d \U0001f600", '<tool_call>\n{"name": 1}\n</tool_call>'])
def test_texts_stay_as_they_came(text):
    assert read(completion(text)).text == text


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("stop", "stop"), ("length", "length")],
)
def test_finish_reasons(reason, finish):
    assert read(completion("x", reason)).finish == finish


@pytest.mark.parametrize(
    "reason", ["content_filter", "abort", "error", "function_call", "", None, 3, ["stop"], {"stop": 1}, "tool_calls"]
)
def test_other_finish_reasons_are_failures(reason):
    with pytest.raises(ServerError, match="the server ended the turn"):
        read(completion("half a thought", reason))


@pytest.mark.parametrize(
    "usage",
    [
        None,
        3,
        {},
        {"prompt_tokens": None},
        {"prompt_tokens": -1, "completion_tokens": True},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": 10**400},
    ],
)
def test_usage_that_is_none_counts_nothing(usage):
    assert read({**completion("x"), "usage": usage}).usage == Usage()


def test_usage_without_details():
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}
    assert read({**completion("x"), "usage": usage}).usage == Usage(5, 2, 0)


@pytest.mark.parametrize("field", ["stop_reason", "matched_stop"])
def test_a_dropped_stop_string_is_put_back_where_the_server_names_it(field):
    reply = completion("a</answer")
    reply["choices"][0][field] = ">"
    assert read(reply, (">", "x")).text == "a</answer>"
    assert read(reply).text == "a</answer", "it was not asked for"
    reply["choices"][0]["message"]["content"] = "a</answer>"
    assert read(reply, (">",)).text == "a</answer>", "it is there already"
    for other in (None, 151645, ["x"]):
        reply["choices"][0][field] = other
        assert read(reply, (">",)).text == "a</answer>"
    reply = completion("a", "length")
    reply["choices"][0][field] = ">"
    assert read(reply, (">",)).text == "a"


@pytest.mark.parametrize("token", VISION_TOKENS)
def test_vision_tokens_make_a_turn_malformed(token):
    assert read(completion(f"a {token} b")).finish == "malformed"


def test_undecodable_output_makes_a_turn_malformed_unless_a_length_cut_it():
    assert read(completion("a\ufffdb")).finish == "malformed"
    assert read(completion("a\ufffd", "length")).finish == "length"
    assert read(completion("\ufffda", "length")).finish == "malformed"
    lone = json.dumps(completion("aXb")).replace("aXb", "a\\ud83db").encode()
    turn = read(lone)
    assert (turn.text, turn.finish) == ("a\ufffdb", "malformed")


def test_native_calls_with_and_without_text():
    turn = read(completion(None, "tool_calls", tool_calls=[call(), call("other", "{}", "c2")]))
    assert turn.text == ""
    assert turn.native_calls == (Call("crop_image", {"a": [1, 2.5]}, "c1"), Call("other", {}, "c2"))
    assert turn.finish == "stop"
    assert read(completion("see", "stop", tool_calls=[call()])).text == "see"
    assert read(completion("see", "stop", tool_calls=[])).native_calls == ()
    assert read(completion("see", "stop", tool_calls=None)).native_calls == ()


@pytest.mark.parametrize("arguments", ["", "{", "__import__('os')", '{"a": NaN}', "[" * 100 + "]" * 100, "1" * 5000])
def test_arguments_that_are_no_json_stay_text(arguments):
    (native,) = read(completion(None, "tool_calls", tool_calls=[call(arguments=arguments)])).native_calls
    assert native.arguments == arguments


@pytest.mark.parametrize("arguments", [{"a": 1}, None, [1]])
def test_arguments_that_are_json_already(arguments):
    (native,) = read(completion(None, "tool_calls", tool_calls=[call(arguments=arguments)])).native_calls
    assert native.arguments == arguments


def test_every_call_has_an_id_of_its_own():
    entries = [call(), call(), call(id=""), call(id=None), {"function": {"name": "x"}}]
    calls = read(completion(None, "tool_calls", tool_calls=entries), number=3).native_calls
    assert [one.id for one in calls] == ["c1", "call-3-2", "call-3-3", "call-3-4", "call-3-5"]


@pytest.mark.parametrize("value", [3, "x", {}, [3], [None], [{}], [{"function": 3}], [{"function": {"name": None}}]])
def test_calls_that_are_none(value):
    if value == {}:
        value = {"a": 1}
    with pytest.raises(ServerError, match="tool"):
        read(completion("x", tool_calls=value))


def test_no_content_is_a_failure_and_a_refusal_is_quoted():
    with pytest.raises(ServerError, match=r"no text content$"):
        read(completion(None))
    with pytest.raises(ServerError, match="refuses: I cannot help"):
        read(completion(None, refusal="I cannot help"))
    for content in (3, [], [{"type": "text", "text": "x"}], {}, True):
        with pytest.raises(ServerError, match="no text content"):
            read(completion(content))


def test_a_reply_whose_tokens_went_into_thoughts_was_truncated():
    turn = read(completion(None, "length", reasoning_content="hmm"))
    assert (turn.text, turn.finish) == ("", "length")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b"{",
        b"\xff\xfe",
        b'{"choices": NaN}',
        b"<html>",
        b"[" * 3000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_bodies_that_are_no_completion(body):
    with pytest.raises(ServerError, match="the reply"):
        read(body)


@pytest.mark.parametrize("choices", [None, [], {}, 3, [3], [None], [{}], [{"message": None}], [{"message": "x"}]])
def test_choices_that_are_none(choices):
    with pytest.raises(ServerError, match="no message"):
        read({"choices": choices})


def test_an_error_in_a_good_status_is_quoted():
    with pytest.raises(ServerError, match=r"no message: provider is down$"):
        read({"error": {"message": "provider is down", "code": 502}})


@pytest.mark.parametrize("key", ["A", "1", "none", "EMPTY"])
def test_a_placeholder_for_a_key_rewrites_no_answer(key):
    body = json.dumps(completion(f"EMPTY, so none: \\boxed{{{key}}}, 1")).encode()
    assert read_reply(body, (), 1, Mask(key)).text == f"EMPTY, so none: \\boxed{{{key}}}, 1"


def test_a_key_that_comes_back_is_nowhere_in_the_turn():
    arguments = json.dumps({"a": KEY, KEY: [KEY]}).replace("-", "\\u002d")
    turn = read(completion(f"your key is {KEY}", tool_calls=[call(KEY, arguments, KEY), call("x", f"{{{KEY}", "c2")]))
    assert KEY not in repr(turn)
    assert turn.text == "your key is [key]"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["stop", "length"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@given(st.data())
def test_any_reply_is_a_turn_or_a_failure(data):
    """A sound reply with one or two places replaced by something else, or removed."""
    reply = completion("text \\boxed{A}", "stop", tool_calls=[call()])
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([path for path in places(reply) if path]))
        holder = reply
        for key in path[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[path[-1]] = data.draw(JSON)
        else:
            del holder[path[-1]]
    try:
        turn = read(json.dumps(reply).encode(), ("\\",))
    except ServerError as failure:
        said = str(failure)
    else:
        said = ""
        assert isinstance(turn.text, str)
        turn.text.encode()
        json.dumps([one.arguments for one in turn.native_calls], allow_nan=False)
    assert "\n" not in said
    assert len(said) < 1000


@given(st.binary(max_size=200))
def test_any_bytes_are_a_failure(body):
    with pytest.raises(ServerError):
        read(body)
