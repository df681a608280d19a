"""What a gate demands, from the table ``[gate]`` of ``prh.toml``.

[gate]
margin = 0.02                                # of each task's primary metric
max_error_share = 0.05
[gate.limits]                                # of every task that has the metric
rapr = { min = 0.3, max = 0.95 }
op_error_rate = { max = 0.1 }
new_tokens = { max_ratio = 1.25 }            # times the baseline's
[gate.tasks.vstar]
margin = 0.03
limits = { accuracy = { min = 0.8 } }
[gate.tasks.infographicsvqa.limits]
accuracy = { margin = 0.02 }                 # besides the primary metric, which is ANLS
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..harness.errors import UsageError
from ..harness.request import DEFAULT_ERROR_SHARE
from ..harness.types import Json, finite
from .runs import RATES

DEFAULT_MARGIN = 0.02
GATE_KEYS = ("margin", "strict", "allow", "max_error_share", "limits", "tasks")
TASK_KEYS = ("margin", "max_error_share", "limits")
ERROR_SHARE = "error_share"
# Metrics whose values are shares: 95 for 95 % would hold whatever is measured.
SHARES = ("accuracy", "anls", "op_error_rate", ERROR_SHARE, *RATES)


@dataclass(frozen=True, slots=True)
class Limit:
    """What one metric of the candidate must be; None where nothing is demanded.

    Attributes:
        min, max: of its value over the paired samples.
        max_ratio: of its value over the baseline's.
        margin: how far it may fall, or rise where less is better, by non-inferiority as for the primary metric.
    """

    min: float | None = None
    max: float | None = None
    max_ratio: float | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """What is demanded of one task; ``named`` are the metrics of its own table, which it must have."""

    margin: float = DEFAULT_MARGIN
    max_error_share: float = DEFAULT_ERROR_SHARE
    limits: Mapping[str, Limit] = field(default_factory=dict)
    named: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What is demanded of every task, and of single ones instead."""

    every: TaskLimits = TaskLimits()
    tasks: Mapping[str, TaskLimits] = field(default_factory=dict)
    strict: bool = False
    allow: tuple[str, ...] = ()

    def of(self, task: str) -> TaskLimits:
        """What is demanded of a task."""
        return self.tasks.get(task, self.every)


def read_limits(config: Mapping[str, Json], margin: float | None = None) -> GateLimits:
    """The limits of a configuration.

    Args:
        config: the whole of ``prh.toml``.
        margin: of the command line, which overrides every margin of a primary metric.

    Raises:
        UsageError: a key that does not exist or a value that is none.
    """
    gate = _table(config.get("gate", {}), "gate", GATE_KEYS)
    base = TaskLimits(max_error_share=_share(config.get("max_error_share", DEFAULT_ERROR_SHARE), "max_error_share"))
    every = _task(gate, base, "gate", margin)
    tasks = {}
    for name, value in _table(gate.get("tasks", {}), "gate.tasks").items():
        where = f"gate.tasks.{name}"
        tasks[name] = _task(_table(value, where, TASK_KEYS), every, where, margin)
    strict = gate.get("strict", False)
    if not isinstance(strict, bool):
        raise UsageError(f"`gate.strict` must be true or false, not {strict!r}")
    allow = gate.get("allow", [])
    if not isinstance(allow, list) or not all(isinstance(name, str) for name in allow):
        raise UsageError(f"`gate.allow` must be a list of fields, not {allow!r}")
    return GateLimits(every, tasks, strict, tuple(map(str, allow)))


def _task(table: Mapping[str, Json], base: TaskLimits, where: str, margin: float | None) -> TaskLimits:
    own = {
        name: _limit(name, value, f"{where}.limits.{name}")
        for name, value in _table(table.get("limits", {}), f"{where}.limits").items()
    }
    named = frozenset(own) if where != "gate" else frozenset()
    share = _share(table.get("max_error_share", base.max_error_share), f"{where}.max_error_share")
    chosen = _share(table.get("margin", base.margin), f"{where}.margin") if margin is None else margin
    return TaskLimits(chosen, share, {**base.limits, **own}, named)


def _limit(metric: str, value: Json, where: str) -> Limit:
    keys = ("max",) if metric == ERROR_SHARE else ("min", "max", "max_ratio", "margin")
    read = {name: _share if metric in SHARES and name != "max_ratio" else _number for name in keys}
    table = _table(value, where, keys)
    found = {name: read[name](number, f"{where}.{name}") for name, number in table.items()}
    if not found:
        raise UsageError(f"`{where}` demands nothing; give {', '.join(keys)}")
    limit = Limit(**found)
    if limit.min is not None and limit.max is not None and limit.min > limit.max:
        raise UsageError(f"`{where}`: min {limit.min:g} is above max {limit.max:g}")
    return limit


def _table(value: Json, where: str, keys: tuple[str, ...] = ()) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise UsageError(f"`{where}` must be a table, not {value!r}")
    for key in value:
        if keys and key not in keys:
            raise UsageError(f"`{where}.{key}` is not known; use one of {', '.join(keys)}")
    return value


def _number(value: Json, where: str) -> float:
    number = finite(value)
    if number is None or number < 0:
        raise UsageError(f"`{where}` must be a number from 0, not {value!r}")
    return number


def _share(value: Json, where: str) -> float:
    number = finite(value)
    if number is None or not 0 <= number <= 1:
        raise UsageError(f"`{where}` must be a share from 0 to 1, such as 0.02, not {value!r}")
    return number
