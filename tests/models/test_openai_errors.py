"""What a server says when something fails: shown safely, told apart, waited for."""

import json
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prh.models import openai_errors
from prh.models.openai_errors import LASTING, LOOKED, MASK, PASSING, QUOTED, Mask, pause, refusal, retry_after

KEY = "sk-proj-1234567890abcdef"
MASKED = Mask(KEY)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": {"message": "no such model", "code": 404}}', "no such model"),
        ('{"object": "error", "message": "no such model", "code": 404}', "no such model"),
        ('{"error": "no such model"}', "no such model"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"detail": [{"loc": ["body"]}]}', '{"detail": [{"loc": ["body"]}]}'),
        ("<html>\n<h1>502 Bad\tGateway</h1>", "<html> <h1>502 Bad Gateway</h1>"),
        ("", ""),
        ('{"error": null}', '{"error": null}'),
        ("[1, 2", "[1, 2"),
        ('{"message": "\x1b[31mred\u202e"}', '{"message": "\\x1b[31mred\\u202e"}'),
        ('{"message": "\\u001b[31mred\\u202e"}', "\\x1b[31mred\\u202e"),
    ],
)
def test_the_message_of_an_error_is_found_wherever_servers_put_it(body, said):
    assert MASKED.said(body) == said


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"Incorrect API key provided: {KEY}.",
        f"{{'authorization': 'Bearer {KEY}'}}",
        f'{{"headers": {{"Authorization": "Bearer {KEY}"}}}}',
        json.dumps({"error": {"message": f"you sent {KEY}"}}).replace("sk-", "sk\\u002d"),
        json.dumps({"headers": [f"you sent {KEY}"]}).replace("sk-", "sk\\u002d"),
        "x" * (QUOTED - 10) + KEY,
        f"AUTHORIZATION: BEARER  {KEY}",
        "Incorrect API key provided: sk-another-1234567890abcdef",
    ],
)
def test_keys_are_never_quoted(text):
    said = MASKED.said(text)
    assert "1234567890" not in said
    assert "sk-p" not in said
    assert MASK in said or "x" * 200 in said


def test_of_a_long_text_only_the_beginning_is_looked_at(monkeypatch):
    """A body may have 64 MiB, and all turns wait while it is quoted; a key at the edge is hidden all the same."""
    looked = []
    search = openai_errors.CREDENTIAL.sub
    monkeypatch.setattr(
        openai_errors, "CREDENTIAL", SimpleNamespace(sub=lambda by, text: search(by, looked.append(text) or text))
    )
    for before in range(LOOKED - len(KEY) - 2, LOOKED + 1):
        assert "1234567890" not in MASKED.quote(" " * before + KEY + "x" * LOOKED)
    assert {len(text) for text in looked} == {LOOKED}


def test_words_that_look_like_keys_are_left_alone():
    assert MASKED.quote("a risk-free task-based disk-space test") == "a risk-free task-based disk-space test"
    assert Mask("").quote("EMPTY key") == "EMPTY key"


@given(st.text(max_size=600))
def test_a_quotation_is_one_visible_line(text):
    said = MASKED.quote(text + KEY)
    assert len(said) <= QUOTED
    assert "\n" not in said
    assert said.isprintable()
    assert KEY not in said
    said.encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just(f"a{KEY}b"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just(KEY), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_no_json_keeps_the_key_or_a_lone_surrogate(value):
    clean = MASKED.value(value)
    text = json.dumps(clean, ensure_ascii=False)
    assert KEY not in text
    text.encode()
    assert Mask("").value(clean) == clean


def test_lone_surrogates_become_replacement_characters():
    assert Mask("").value(json.loads('["a\\ud800b", {"\\udfff": 1}]')) == ["a\ufffdb", {"\ufffd": 1}]


STATUSES = [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 501, 502, 503, 504, 505, 520, 529]


@pytest.mark.parametrize("status", STATUSES)
def test_what_passes_by_itself_is_told_from_what_does_not(status):
    error = refusal(status, '{"error": {"message": "no"}}', {}, MASKED)
    assert error.passing == (status in {408, 429, 500, 502, 503, 504, 520, 529})
    assert error.passing == (status in PASSING)
    assert error.status == status
    assert str(error).startswith(f"the server answers {status}: no")


@pytest.mark.parametrize("code", LASTING)
def test_a_spent_account_is_not_asked_again(code):
    assert not refusal(
        429, json.dumps({"error": {"message": "You exceeded your quota", "code": code}}), {}, MASKED
    ).passing


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (401, "Unauthorized", "check OPENAI_API_KEY"),
        (400, "This model's maximum context length is 4096 tokens", "lower the pixel budget"),
        (
            400,
            "The decoder prompt (length 9000) is longer than the maximum model length of 4096",
            "lower the pixel budget",
        ),
        (400, "Input is too long", "lower the pixel budget"),
        (400, "temperature must be non-negative", ""),
    ],
)
def test_hints_say_what_to_do(status, message, hint):
    said = str(refusal(status, json.dumps({"message": message}), {}, MASKED))
    assert hint in said
    assert bool(hint) == (";" in said)


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("Tue, 14 Nov 2023 22:13:30", 10.0),
        ("Tue, 14 Nov 2023 23:13:30 +0100", 10.0),
        ("Tue, 99 Nov 2023 22:13:30 GMT", None),
        ("Tue, 14 Nov 0000 22:13:30 GMT", 0.0),
        ("Tue, 14 Nov 99999 22:13:30 GMT", None),
        ("Tue, 14 Nov 0001 00:00:00 +2300", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 -2300", 253402383599.0 - NOW),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert retry_after(header, NOW) == seconds


@given(
    st.text(max_size=40)
    | st.lists(
        st.sampled_from(
            ["Tue,", "14", "Nov", "2023", "22:13:30", "GMT", "+9999999999999", "-0000", "99", "0", ":", "1e400"]
        ),
        max_size=9,
    ).map(" ".join)
)
def test_any_header_is_seconds_or_nothing(header):
    seconds = retry_after(header, NOW)
    assert seconds is None or 0 <= seconds < 1e12 or float(header) == seconds


def test_retry_after_counts_from_now():
    assert 50 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 61


@given(st.integers(0, 10_000), st.none() | st.floats(0, 1e9), st.floats(1e-3, 100), st.floats(1e-3, 1000))
def test_pauses_grow_and_stay_below_the_longest(tries, after, first, longest):
    wait = pause(tries, after, first, longest)
    assert 0 <= wait <= longest
    if after is not None:
        assert wait >= min(after, longest)
    else:
        assert wait >= min(first * 2.0 ** min(tries, 30), longest) / 2


def test_pauses_are_spread():
    assert len({pause(3, None, 0.5, 60) for _ in range(20)}) > 15
    assert len({pause(3, 5.0, 0.5, 60) for _ in range(20)}) > 15
