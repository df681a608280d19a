"""What the turns of a task take: a row for each number of a turn."""

from __future__ import annotations

from collections.abc import Mapping

from .episodes import Table
from .field import Field, TaskField
from .kept import Spent
from .wording import DASH

MOST_TURNS = 8


def turn_rows(field: Field, task: TaskField, spent: Mapping[tuple[int, int, int], Spent], widest: int) -> list[Table]:
    """What a turn takes in the mean, by its number: tokens and seconds, the seconds of its operations beside them.

    Args:
        widest: of the bars, in pixels.
    """
    numbers = sorted({number for task_, _, number in spent if task_ == task.number})[:MOST_TURNS]
    places = range(len(field.labels))
    own = {(n, place): spent.get((task.number, place, n), Spent()) for n in numbers for place in places}
    longest = max((one.seconds / one.timed for one in own.values() if one.timed), default=0.0) or 1.0
    return [
        {
            "turn": number,
            "cells": [
                {
                    "count": f"{one.turns:,}" if one.turns else DASH,
                    "tokens": f"{one.tokens / one.turns:,.1f}" if one.turns else DASH,
                    "seconds": f"{one.seconds / one.timed:.3g}" if one.timed else DASH,
                    "operating": f"{one.operating / one.timed:.2g}" if one.timed and one.operating else DASH,
                    "width": round(widest * one.seconds / one.timed / longest) if one.timed else 0,
                }
                for place in places
                for one in [own[number, place]]
            ],
        }
        for number in numbers
    ]
