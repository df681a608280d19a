"""Options of an engine from text: one reading of bools and numbers for all engines."""

import pytest
from prh.harness.errors import UsageError
from prh.models import openai_server, vllm_server, vllm_settings
from prh.models.options import read_plain

KINDS = (openai_server.Settings, vllm_server.ServedSettings, vllm_settings.Settings)


@pytest.mark.parametrize(
    ("text", "default", "more", "value"),
    [
        ("TRUE", False, {}, True),
        ("false", True, {}, False),
        ("3", 1, {}, 3),
        ("3.0", 1, {}, 3),
        ("0", 1, {"zero": True}, 0),
        ("0.5", 1.0, {}, 0.5),
        ("0", 0.0, {"zero": True}, 0.0),
        ("2.5", None, {}, 2.5),
        ("1", 0.9, {"most": 1}, 1.0),
    ],
)
def test_a_value_is_of_the_kind_of_its_default(text, default, more, value):
    found = read_plain("e", "o", text, default, **more)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "default", "more", "wanted"),
    [
        ("1", False, {}, "true or false"),
        ("0", 1, {}, "a whole number from 1"),
        ("1.5", 1, {}, "a whole number from 1"),
        ("-1", 1, {"zero": True}, "a whole number from 0"),
        ("0", 1.0, {}, "a number above 0"),
        ("-0.1", None, {"zero": True}, "a number from 0"),
        ("1.5", 0.9, {"most": 1}, "a number above 0 and at most 1"),
        ("inf", 1.0, {}, "a number above 0"),
        ("nan", 1, {}, "a whole number from 1"),
        ("x", 1.0, {}, "a number above 0"),
    ],
)
def test_what_is_none_is_refused_in_one_line(text, default, more, wanted):
    with pytest.raises(UsageError) as caught:
        read_plain("e", "o", text, default, **more)
    assert str(caught.value) == f"option 'o' of the engine e must be {wanted}, not {text!r}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_takes_its_defaults_as_text(kind):
    told = {name: str(getattr(kind(), name)) for name in kind.__dataclass_fields__ if getattr(kind(), name) is not None}
    assert kind.read(told) == kind()
