"""The verdict on a candidate: is it no worse than the baseline, and within its limits?

For each task, in this order: ``incomparable`` where something stands in the way or too many episodes ended in errors;
``pass`` where the lower end of the paired 95 % interval of the primary metric is above minus the margin; else
``regression`` where its upper end is below 0; else ``inconclusive``. A limit that is broken is a regression. A gate's
verdict is the gravest of its tasks'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..harness import registry
from ..harness.errors import UsageError
from ..harness.types import Metric
from .compare import LOWER, Comparison, Delta, Result
from .limits import ERROR_SHARE, GateLimits, Limit, TaskLimits
from .present import amount, gap, points
from .runs import Run, resume
from .statistics import non_inferiority, samples_to_pass

State = Literal["pass", "inconclusive", "regression", "errors", "incomparable"]
GRAVITY: tuple[State, ...] = ("pass", "inconclusive", "regression", "errors", "incomparable")
CODES: dict[State, int] = {"pass": 0, "inconclusive": 0, "regression": 1, "errors": 3, "incomparable": 4}
STRICT_INCONCLUSIVE = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked of a task.

    Attributes:
        name: such as ``comparable``, ``candidate error_share``, ``accuracy`` or ``rapr min``.
        text: one line with the figures.
    """

    name: str
    state: State
    text: str


@dataclass(frozen=True, slots=True)
class TaskVerdict:
    """A task's checks, the gravest of which is its state; ``sentence`` says the primary metric's, or what is wrong."""

    task: str
    checks: tuple[Check, ...]
    sentence: str

    @property
    def state(self) -> State:
        """The gravest of the checks'."""
        return gravest(check.state for check in self.checks)

    @property
    def verdict(self) -> str:
        """``pass``, ``inconclusive``, ``regression`` or ``incomparable``."""
        return verdict_of(self.state)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate says of a candidate.

    Attributes:
        notes: a line on each task that has no baseline, and on what can be done about settings that differ.
        strict: whether ``inconclusive`` fails.
    """

    baseline: str
    candidate: str
    tasks: tuple[TaskVerdict, ...]
    notes: tuple[str, ...] = ()
    strict: bool = False

    @property
    def state(self) -> State:
        """The gravest of the tasks'."""
        return gravest(task.state for task in self.tasks)

    @property
    def verdict(self) -> str:
        """``pass``, ``inconclusive``, ``regression`` or ``incomparable``."""
        return verdict_of(self.state)

    @property
    def exit_code(self) -> int:
        """0 pass or inconclusive, 1 regression, 3 too many errors, 4 incomparable, 5 inconclusive where strict."""
        return STRICT_INCONCLUSIVE if self.strict and self.state == "inconclusive" else CODES[self.state]

    @property
    def sentence(self) -> str:
        """One line: the first task that decided."""
        decisive = next(task for task in self.tasks if task.state == self.state)
        return f"{decisive.task}: {decisive.sentence}" if len(self.tasks) > 1 else decisive.sentence


def gravest(states: Iterable[State]) -> State:
    """The state that decides."""
    return max(states, key=GRAVITY.index)


def verdict_of(state: State) -> str:
    """A state in the words of a verdict: what too many errors leave is no evidence."""
    return "incomparable" if state == "errors" else state


def judge(comparison: Comparison, limits: GateLimits) -> Verdict:
    """The verdict on the one candidate of a comparison.

    Raises:
        UsageError: there is not one candidate, or a limit is on a metric that nothing has.
    """
    if len(comparison.candidates) != 1:
        raise UsageError(f"a gate has one candidate, not {len(comparison.candidates)}; name its run folder")
    check_limits(comparison, limits)
    return verdict_on(comparison.candidates[0], comparison, limits)


def verdict_on(candidate: str, comparison: Comparison, limits: GateLimits) -> Verdict:
    """The verdict on one of the candidates of a comparison, which has a task in common with the baseline."""
    own = [(task.task, result) for task in comparison.tasks for result in task.results if result.label == candidate]
    tasks = [_judged(name, result, limits.of(name)) for name, result in own]
    unknown = lacking(comparison.baseline, comparison)
    for line, name in lacking(candidate, comparison).items():
        if name not in unknown.values():
            check = Check("comparable", "incomparable", f"{line}, which the baseline has; evaluate it")
            tasks.append(TaskVerdict(name, (check,), check.text))
    advice = dict.fromkeys(result.pairing.advice for _, result in own if result.pairing.advice)
    itself = [line for name, result in own for line in _against_itself(name, result)]
    notes = (*map(unjudged, unknown), *itself, *advice)
    return Verdict(comparison.baseline, candidate, tuple(tasks), notes, limits.strict)


def _against_itself(task: str, result: Result) -> list[str]:
    """A note on each run that is on both sides, where nothing can be found to differ."""
    theirs = {run.folder.resolve() for run in result.pairing.baseline}
    both = [run.folder for run in result.pairing.candidate if run.folder.resolve() in theirs]
    return [f"{task}: {folder} is its own baseline; was another one meant?" for folder in both]


def lacking(label: str, comparison: Comparison) -> dict[str, str]:
    """The tasks that an entrant has no run of, each under the line that says so."""
    start = f"{label} has no run of "
    return {line: line.removeprefix(start) for line in comparison.missing if line.startswith(start)}


def unjudged(line: str) -> str:
    """A note on a run that is missing and on which no verdict waits."""
    return f"{line}: not judged"


def _judged(name: str, result: Result, limits: TaskLimits) -> TaskVerdict:
    pairing = result.pairing
    errors = [_errors("baseline", run, limits.max_error_share) for run in pairing.baseline]
    errors += [_errors("candidate", run, limits.max_error_share) for run in pairing.candidate]
    emptied = not pairing.ids and any(check.state == "errors" for check in errors)
    blocking = [m.text for m in pairing.mismatches if m.blocking and not (emptied and m.field == "samples")]
    checks = [Check("comparable", "incomparable", text) for text in blocking]
    checks = checks or [Check("comparable", "pass", f"{len(pairing.ids)} samples in common")]
    checks += errors
    if not blocking and pairing.ids:
        checks.append(non_inferior(result.primary, limits.margin))
        for metric, limit in limits.limits.items():
            checks += _limited(result, metric, limit)
    state = gravest(check.state for check in checks)
    primary = next((check for check in checks if check.name == result.primary.metric), checks[0])
    decisive = primary if primary.state == state else next(check for check in checks if check.state == state)
    return TaskVerdict(name, tuple(checks), decisive.text)


def _errors(side: str, run: Run, most: float) -> Check:
    share, name = run.error_share, f"{side} {ERROR_SHARE}"
    count = f"{sum(run.errors.values())} of {run.episodes} episodes of {run.folder} ended in an error"
    if share <= most:
        return Check(name, "pass", f"{count}, at most {100 * most:g} % may")
    return Check(name, "errors", f"{count}, at most {100 * most:g} % may; {resume(run)}")


def non_inferior(delta: Delta, margin: float) -> Check:
    """A metric against the baseline's: how much lower it is or, of one of ``LOWER``, how much higher."""
    own = delta.difference
    if own.value is None:
        return Check(delta.metric, "incomparable", f"{delta.metric}: no sample that both have has a value of it")
    if own.low is None or own.high is None:
        text = f"{delta.metric}: no interval can be had from {own.n} paired samples in {own.clusters} clusters"
        return Check(delta.metric, "inconclusive", text)
    low, high = (-own.high, -own.low) if delta.metric in LOWER else (own.low, own.high)
    state = non_inferiority(low, high, margin)
    text = f"{gap(delta)}; margin {points(margin, delta)}"
    if state == "inconclusive":
        text += _advice(delta, margin)
    return Check(delta.metric, state, text)


def _advice(delta: Delta, margin: float) -> str:
    """How many samples would tell, where that can be said."""
    own = delta.difference
    if not margin or own.test == "bootstrap":
        return ""
    needed = max(own.n + 1, round(samples_to_pass(margin, own.spread) * own.design))
    return f"; an equal candidate would pass 8 times in 10 with about {needed:,} samples"


def _limited(result: Result, name: str, limit: Limit) -> Iterable[Check]:
    if name == ERROR_SHARE:
        yield from _error_limit(result.pairing.candidate, limit)
        return
    delta = result.delta(name)
    if delta is None:
        return
    if limit.margin is not None:
        check = non_inferior(delta, limit.margin)
        yield Check(f"{name} margin", check.state, check.text)
    value, base = delta.candidate.value, delta.baseline.value
    if limit.min is not None:
        yield _bound(f"{name} min", delta, value, limit.min, below=True)
    if limit.max is not None:
        yield _bound(f"{name} max", delta, value, limit.max, below=False)
    if limit.max_ratio is not None:
        yield _ratio(delta, value, base, limit.max_ratio)


def _error_limit(runs: Sequence[Run], limit: Limit) -> Iterable[Check]:
    """An error share's ceiling, which is the candidate's alone and tells of too many errors, not of a regression."""
    for run in runs:
        if limit.max is not None:
            yield _errors("candidate", run, limit.max)


def _bound(name: str, delta: Delta, value: float | None, bound: float, *, below: bool) -> Check:
    if value is None:
        return Check(name, "pass", f"{delta.metric}: nothing to measure")
    broken = value < bound if below else value > bound
    text = f"{delta.metric} {amount(delta, delta.candidate)}; {'at least' if below else 'at most'} "
    return Check(name, "regression" if broken else "pass", text + amount(delta, Metric(bound, None, None, 0)))


def _ratio(delta: Delta, value: float | None, base: float | None, most: float) -> Check:
    name = f"{delta.metric} max_ratio"
    if value is None or base is None:
        return Check(name, "pass", f"{delta.metric}: nothing to measure")
    broken = value > most * base
    text = f"{delta.metric} {amount(delta, delta.candidate)}, the baseline {amount(delta, delta.baseline)}"
    return Check(name, "regression" if broken else "pass", f"{text}; at most {most:g} times as much")


def check_limits(comparison: Comparison, limits: GateLimits) -> None:
    """Refuse limits on what no candidate has: a misspelt name must not pass for one that holds. Raises UsageError.

    Where every candidate lacks a task of the baseline's, no verdict is had that a limit could be missing from.
    """
    known = {
        task.task: list(dict.fromkeys([ERROR_SHARE, *(d.metric for r in task.results for d in r.deltas)]))
        for task in comparison.tasks
    }
    every = [task.task for task in comparison.tasks]
    absent = {name for label in comparison.candidates for name in lacking(label, comparison).values()}
    absent -= {*every, *lacking(comparison.baseline, comparison).values()}
    for task, own in limits.tasks.items():
        if task not in (*every, *absent) and ":" not in task and task not in registry.names("tasks"):
            raise UsageError(f"`gate.tasks.{task}`: {registry.unknown('tasks', task, registry.names('tasks'))}")
        for name in sorted(own.named):
            if task in known and name not in known[task]:
                raise UsageError(f"`gate.tasks.{task}.limits.{name}`: {task} has {', '.join(known[task])}")
    metrics = {name for names in known.values() for name in names}
    for name in limits.every.limits:
        if name not in metrics and not absent:
            raise UsageError(f"`gate.limits.{name}`: no task has it; there are {', '.join(sorted(metrics))}")
