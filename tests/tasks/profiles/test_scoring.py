"""Profiles as scoring uses them: which pairs exist, and the same replies under each."""

import pytest
from prh.harness.errors import StoreError, UsageError
from prh.harness.evaluate import load_profile
from prh.harness.registry import names
from prh.harness.scoring import Judge, episode_of, score_records, summarise
from prh.tasks.tallyqa import TallyQAComplex
from prh.tasks.vstar import VStar
from prh.tests.tasks.profiles.support import GLOVE

REPLIES = [r"\boxed{C}", "Answer: C", "Based on the texture, the answer is C.", "Cannot tell", None]


def record(number: int, reply: str | None) -> dict[str, object]:
    said = [{"role": "assistant", "parts": [{"text": reply}], "calls": []}] if reply is not None else []
    return {
        "id": str(number),
        "repeat": 0,
        "cluster": str(number),
        "category": "direct_attributes",
        "slices": [],
        "answer_kind": "option",
        "question": "What is it made of?",
        "choices": list(GLOVE),
        "gold": ["C"],
        "end": "answered" if said else "turn_limit",
        "operations": [],
        "segments": said,
        "usage": {"turns": 1, "images": 1, "prompt_tokens": 1, "new_tokens": 1},
        "seconds": {},
    }


RECORDS = [record(number, reply) for number, reply in enumerate(REPLIES)]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("strict", [1, 1, 1, 0, 0]),
        ("paper", [1, 0, 0, 0, 0]),
        ("lmms", [0, 0, 0, 1, 0]),
        ("vlmevalkit", [1, 1, 1, 0, 0]),
    ],
)
def test_the_same_replies_under_each_profile(name, right):
    profile, task = load_profile(name), VStar()
    rows = score_records(RECORDS, task, profile, "")
    assert [row.scores["accuracy"] for row in rows] == right
    metrics = summarise(list(map(episode_of, RECORDS)), rows, task, profile)
    assert metrics["metrics"]["accuracy"]["value"] == sum(right) / len(right)
    assert (metrics["profile"], metrics["profile_version"]) == (name, 1)


def test_they_are_registered():
    assert {"strict", "paper", "lmms", "vlmevalkit"} <= set(names("profiles"))


def test_a_pair_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match=r"profile lmms has no rules for tallyqa-complex .*choose another --profile"):
        score_records([], TallyQAComplex(), load_profile("lmms"), "")


def test_judging_reads_only_what_it_judges():
    task, profile = VStar(), load_profile("strict")
    lean = [
        {key: value for key, value in one.items() if key not in ("usage", "seconds", "operations")} for one in RECORDS
    ]
    failed = {"id": "failed", "repeat": 0, "end": "engine_error"}
    assert score_records([*lean, failed], task, profile, "") == score_records(RECORDS, task, profile, "")


@pytest.mark.parametrize("end", ["answered", "engine_error"])
@pytest.mark.parametrize("lost", ["choices", "usage", "seconds", "operations"])
def test_a_record_that_lacks_something_is_named(end, lost):
    judge = Judge(VStar(), load_profile("strict"), "")
    whole = {**RECORDS[0], "end": end}
    judge(whole)
    with pytest.raises(StoreError, match=rf"record '0' cannot be read: '{lost}'"):
        judge({key: value for key, value in whole.items() if key != lost})
    with pytest.raises(StoreError, match="record '0' cannot be read"):
        judge({**whole, lost: 7})
