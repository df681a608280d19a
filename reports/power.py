"""How many samples a question needs, and what a given number can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..harness.errors import UsageError
from .runs import entrants, load_all
from .statistics import design_effect, detectable, pass_chance, power, samples_needed, samples_to_pass

ASSUMED = (0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``n`` samples can show where a share of them flips.

    Attributes:
        discordance: share of samples that one side alone has right.
        design: variance owed to shared images, over that of samples with an image of their own.
        measured: whether discordance and design are from two runs.
        detectable: smallest true difference that is found with the chance asked for; None where none is.
        found: chance that a true difference of ``effect`` is found.
        needed: samples for which it is found with the chance asked for.
        passes: chance that the gate passes an equal candidate.
        to_pass: samples for which it does with the chance asked for.
    """

    label: str
    n: int
    discordance: float
    design: float
    measured: bool
    detectable: float | None
    found: float
    needed: int
    passes: float
    to_pass: int


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a true difference, a gate's margin, and with which chance each is to be settled."""

    effect: float
    margin: float
    chance: float


def plan(label: str, n: int, discordance: float, design: float, asked: Question, *, measured: bool) -> Plan:
    """The figures for one number of samples and one share of flips."""
    worth = n / design
    return Plan(
        label,
        n,
        discordance,
        design,
        measured,
        detectable(worth, discordance, asked.chance),
        power(worth, asked.effect, discordance),
        _whole(samples_needed(asked.effect, discordance, asked.chance), design),
        pass_chance(worth, discordance, asked.margin),
        _whole(samples_to_pass(asked.margin, discordance, asked.chance), design),
    )


def assumed(label: str, n: int, discordances: Sequence[float], design: float, asked: Question) -> list[Plan]:
    """Plans for shares of flips that are not measured."""
    return [plan(label, n, share, design, asked, measured=False) for share in discordances or ASSUMED]


def single(word: str) -> list[tuple[str, int, float]]:
    """Of each task of a run: its name, judged samples, and the design effect of its scores. Raises PrhError."""
    found = []
    for entrant in entrants([word]):
        for task in entrant.runs:
            run = load_all(entrant, task)[0]
            rows = [own[0].row for own in run.by_sample.values()]
            scores = np.array([row.scores.get(run.task.primary, 0.0) for row in rows])
            if rows:
                found.append((f"{task} · {entrant.label}", len(rows), design_effect(scores, [r.cluster for r in rows])))
    if not found:
        raise UsageError(f"{word} holds no judged episode; give --samples N")
    return found


def _whole(samples: int, design: float) -> int:
    return round(samples * design)
