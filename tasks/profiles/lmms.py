"""Replies as lmms-eval reads them (0.7.3: ``tasks/{vstar_bench,mvbench,infovqa}``, ``api/metrics.py``).

Before scoring its command line drops ``<think>`` and ``<analysis>`` blocks (``api/reasoning.py``); its Python
API does not. It has no TallyQA.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...harness.task import Row, Task
from ...harness.types import LETTERS, Metric, Sample
from ..anls import similarity
from ..base import mean_score
from ..lmms import is_foreign
from .tool import UNREAD, Reading, Rules, Tool

_THOUGHTS = ("think", "analysis")

_VSTAR = (
    ("leading", re.compile(r"\A[A-D]")),
    ("named", re.compile(r"(?:ANSWER|CHOICE|OPTION)(?:\s+IS)?[\s:]+([A-D])", re.IGNORECASE)),
    ("bracketed", re.compile(r"\(([A-D])\)")),
    ("closed", re.compile(r"([A-D])\s*[.)\]]")),
    ("standing", re.compile(r"(?<!\S)([A-D])(?!\S)")),
)

_HEADED = re.compile(r"([A-E])\.\s*.+", re.IGNORECASE)
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_THOUSANDS = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
_STOPS = 32  # it passes re.UNICODE where re.sub takes a count
_WORD = re.compile(r"\b[a-e]\b", re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """A reply as it is scored; a block that is not closed stays, and a stray end tag ends what comes before it."""
    for name in _THOUGHTS:
        opening, closing = f"<{name}>", f"</{name}>"
        while (start := text.find(opening)) >= 0 and (end := text.find(closing, start)) >= 0:
            text = text[:start] + text[end + len(closing) :]
        if opening not in text:
            text = text.rpartition(closing)[2]
    return text.strip()


def _vstar(_: Sample, text: str) -> Reading:
    """The letter that the first rule to match finds in the upper-cased reply, else the only one anywhere in it."""
    reply = without_thoughts(text).upper()
    for rule, pattern in _VSTAR:
        if match := pattern.search(reply):
            return match[match.lastindex or 0], rule
    letters = re.findall(r"[A-D]", reply)
    return (letters[0], "only") if len(letters) == 1 else UNREAD


def _mvbench(_: Sample, text: str) -> Reading:
    """A letter before a full stop, else the first that stands as a word once the marks are gone.

    An empty reply is an empty answer, which the figure leaves out.
    """
    reply = without_thoughts(text)
    if not reply:
        return "", "empty"
    if headed := _HEADED.fullmatch(reply):
        return headed[1].upper(), "headed"
    words = _unmarked(reply.replace("\n", " ").replace("\t", " ").strip())
    words = words.strip("'").strip('"').strip(")").strip("(").strip().lower()
    if word := _WORD.search(words):
        return word[0].upper(), "word"
    return (words.upper(), "whole") if words in tuple(LETTERS.lower()) else UNREAD


def _unmarked(text: str) -> str:
    """Each mark becomes nothing if it stands beside a space anywhere, else a space; the first full stops go too."""
    thousands, bare = _THOUSANDS.search(text), text
    for mark in _MARKS:
        beside = f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if beside or thousands else " ")
    return _STOP.sub("", bare, count=_STOPS)


def _answered(rows: Sequence[Row], metric: str) -> Metric:
    """Over replies that are not empty: with one empty and one right reply it is 100 %."""
    return mean_score([row for row in rows if row.answer != ""], metric)


def _infovqa(_: Sample, text: str) -> Reading:
    """The whole reply: there is no reading of answers in it."""
    reply = without_thoughts(text)
    return reply, "reply" if reply else "empty"


class LmmsEval(Tool):
    """lmms-eval's rules for V*, MVBench and InfographicsVQA, its denominators included.

    A task that is lmms-eval's own (``lmms:NAME``) gets the whole reply, as lmms-eval's command line hands it over.
    """

    name = "lmms"
    version = 1
    rules: Mapping[str, Rules] = {
        "vstar": Rules("accuracy", _vstar, lambda sample, answer: float(answer in sample.gold)),
        "mvbench": Rules("accuracy", _mvbench, lambda sample, answer: float(answer == sample.gold[0]), _answered),
        "infographicsvqa": Rules("anls", _infovqa, lambda sample, answer: similarity(answer, sample.gold)),
    }

    def reads(self, task: Task) -> bool:
        return is_foreign(task.name) or super().reads(task)

    def extract(self, task: Task, sample: Sample, text: str, answer_tag: str) -> Reading:
        return (
            (without_thoughts(text), "reply")
            if is_foreign(task.name)
            else super().extract(task, sample, text, answer_tag)
        )

    def judge(self, task: Task, sample: Sample, answer: str | None) -> dict[str, float]:
        return task.score(sample, answer) if is_foreign(task.name) else super().judge(task, sample, answer)

    def aggregate(self, task: Task, rows: Sequence[Row]) -> dict[str, Metric]:
        return task.aggregate(rows) if is_foreign(task.name) else super().aggregate(task, rows)
