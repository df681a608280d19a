"""The loop: one sample, run to an explicit end state. Evaluation, synthesis and rollouts all come through here."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from .engine import Engine, Turn, TurnSpec
from .errors import DataError, ModelError, OperationError
from .ledger import Conversation, MediaItem, Part, Segment, Shown, Text
from .operations import Outcome, View
from .settings import Setting
from .types import BadCall, Call, EndState, OperationRecord, Sample, Size

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class Trajectory:
    """A finished conversation with its operations, end state, usage and timings.

    Attributes:
        error: one line, for the end states ``engine_error`` and ``data_error``.
        cost: in dollars, where the engine knows its prices.
        seconds: wall seconds spent in the engine, on media, in operations and in all.
    """

    sample: Sample
    repeat: int
    conversation: Conversation
    end: EndState = "answered"
    operations: list[OperationRecord] = field(default_factory=list)
    error: str = ""
    prompt_tokens: int = 0
    new_tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def final_text(self) -> str | None:
        """The last turn's text where the episode ended in an answer, else None."""
        if self.end != "answered" or not self.conversation.segments:
            return None
        return self.conversation.segments[-1].text


def turn_seed(seed: int, sample_id: str, repeat: int, turn: int) -> int:
    """The seed of one turn: it depends on nothing but the run's seed and where the turn stands."""
    text = f"{seed}\0{sample_id}\0{repeat}\0{turn}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


async def run_episode(sample: Sample, engine: Engine, setting: Setting, repeat: int = 0) -> Trajectory:
    """Run one sample to its end state. Never raises for what a model, a row or an image does."""
    protocol = setting.protocol
    key = f"{sample.id}#{repeat}"
    conversation = Conversation(key, sample.id, engine.fit, setting.budget, protocol.working)
    trajectory = Trajectory(sample, repeat, conversation)
    start = time.perf_counter()
    try:
        await _in_thread(conversation.open, sample.media)
        _spend(trajectory, "media", start)
        for role, parts in protocol.opening(sample, conversation):
            conversation.commit(Segment(role, parts))
        trajectory.end = await _converse(trajectory, engine, setting)
    except DataError as error:
        trajectory.end, trajectory.error = "data_error", _line(str(error))
    except ModelError as error:
        trajectory.end, trajectory.error = "engine_error", _line(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin's fault, SystemExit included, must cost its episode and not the run
        if isinstance(error, asyncio.CancelledError) and _cancelled():
            raise
        trajectory.end, trajectory.error = "engine_error", _line(f"{type(error).__name__}: {error}")
    finally:
        with contextlib.suppress(Exception):  # what an engine cannot free is not the episode's fault
            await engine.release(conversation)
        _spend(trajectory, "total", start)
    return trajectory


def _line(text: str) -> str:
    return " ".join(text.split())[:500]


def _cancelled() -> bool:
    """Whether it is we who cancel this episode, and not a plugin that raises CancelledError."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Like ``asyncio.to_thread``; a StopIteration, which a future cannot hold, becomes a ModelError."""

    def call() -> R:
        try:
            return function(*args, **kwargs)
        except StopIteration as error:
            raise ModelError(f"{getattr(function, '__name__', function)} raised StopIteration") from error

    return await asyncio.to_thread(call)


async def _converse(trajectory: Trajectory, engine: Engine, setting: Setting) -> EndState:
    conversation, limits, protocol = trajectory.conversation, setting.limits, setting.protocol
    while True:
        turn = await engine.turn(conversation, _spec(trajectory, setting))
        calls = turn.native_calls or protocol.parse(turn.text)
        conversation.commit(_said(turn, calls))
        _count(trajectory, turn)
        number = conversation.turns
        end: EndState | None = None
        if turn.finish == "malformed":
            end = "malformed"
        elif turn.finish == "length" and not protocol.length_answers:
            end = "truncated"
        elif not calls:
            return "answered"
        elif number >= limits.turns:
            end = "turn_limit"
        elif turn.usage.prompt_tokens + turn.usage.new_tokens > limits.tokens:
            end = "token_limit"
        if end:
            whole = [call for call in calls if isinstance(call, Call) or end not in ("truncated", "malformed")]
            trajectory.operations += _refused(whole, number, f"not executed: {end}", setting)
            return end
        if not await _observe(trajectory, calls, setting):
            return "image_limit"


def _said(turn: Turn, calls: tuple[Call | BadCall, ...]) -> Segment:
    return Segment(
        "assistant",
        (Text(turn.text),),
        calls,
        turn.ids,
        turn.logprobs,
        turn.finish,
        new_tokens=turn.usage.new_tokens,
        seconds=turn.seconds,
    )


def _spec(trajectory: Trajectory, setting: Setting) -> TurnSpec:
    turn = trajectory.conversation.turns + 1
    seed = turn_seed(setting.seed, trajectory.sample.id, trajectory.repeat, turn)
    sampling = setting.sampling
    stop = setting.protocol.stop()
    tools = setting.protocol.declared()
    return TurnSpec(setting.limits.new_tokens, sampling.temperature, sampling.top_p, seed, stop, tools=tools)


async def _observe(trajectory: Trajectory, calls: tuple[Call | BadCall, ...], setting: Setting) -> bool:
    """Execute a turn's calls and commit one observation; False where it would show too many media."""
    start = time.perf_counter()
    conversation, protocol, limits = trajectory.conversation, setting.protocol, setting.limits
    number = conversation.turns
    parts: list[Part] = []
    items: list[MediaItem] = []
    shown: list[Shown] = []
    starts: list[int] = []
    for call in calls[: limits.calls]:
        starts.append(len(parts))
        record = _recorded(call, number, setting)
        try:
            outcome, made = await _in_thread(_carried_out, call, conversation, setting, len(items))
        except OperationError as error:
            parts += protocol.render_error(error, call, conversation)
            trajectory.operations.append(replace(record, error=error.kind, message=str(error)))
            continue
        if made is None:
            message = f"not shown: more than {limits.images} media items"
            trajectory.operations = [record for record in trajectory.operations if record.turn != number]
            trajectory.operations += _refused(calls, number, message, setting)
            return False
        new, pixels, sizes = made
        parts += protocol.render_observation(outcome, new, sizes, [*conversation.items, *items])
        items += new
        shown += pixels
        trajectory.operations.append(_done(record, outcome, new))
    surplus = calls[limits.calls :]
    if surplus:
        starts.append(len(parts))
        message = f"{len(surplus)} more calls in this turn were not executed: at most {limits.calls} a turn"
        parts += protocol.render_error(OperationError("limit", message), surplus[0], conversation)
        trajectory.operations += _refused(surplus, number, message, setting)
    answers = _answers(calls, [*starts, len(parts)])
    spent = time.perf_counter() - start
    conversation.commit(Segment(protocol.observation_role, tuple(parts), answers=answers, seconds=spent), items, shown)
    _spend(trajectory, "operations", start)
    return True


def _answers(calls: Sequence[Call | BadCall], bounds: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """How many parts answer each native call; surplus calls are answered together, at the first of them."""
    counts = [end - start for start, end in itertools.pairwise(bounds)]
    counts += [0] * (len(calls) - len(counts))
    named = zip(calls, counts, strict=True)
    return tuple((call.id, count) for call, count in named if isinstance(call, Call) and call.id)


def _carried_out(
    call: Call | BadCall, conversation: Conversation, setting: Setting, pending: int
) -> tuple[Outcome, tuple[list[MediaItem], list[Shown], list[Size]] | None]:
    """What a call came to and the media that it adds, None where these are too many."""
    outcome = _execute(call, conversation, setting)
    if len(conversation.items) + pending + len(outcome.drafts) > setting.limits.images:
        return outcome, None
    return outcome, conversation.prepare(outcome.drafts, pending)


def _execute(call: Call | BadCall, conversation: Conversation, setting: Setting) -> Outcome:
    if isinstance(call, BadCall):
        raise OperationError("parse", call.message)
    operation = setting.protocol.find(call.name)
    if operation is None:
        names = ", ".join(setting.protocol.present(o).name for o in setting.protocol.operations)
        raise OperationError("unknown_operation", f"there is no operation {call.name[:60]!r}; use one of: {names}")
    if not isinstance(call.arguments, dict):
        raise OperationError("bad_arguments", "`arguments` must be a JSON object")
    outcome = operation.run(call.arguments, View(conversation, setting.protocol))
    if not outcome.drafts:
        raise ModelError(
            f"operation {operation.name} gave nothing back; it must return a draft or raise OperationError"
        )
    return outcome


def _recorded(call: Call | BadCall, turn: int, setting: Setting) -> OperationRecord:
    """A call's record before it is known what became of it."""
    if isinstance(call, BadCall):
        return OperationRecord(turn, "", call.raw)
    operation = setting.protocol.find(call.name)
    return OperationRecord(turn, operation.name if operation else call.name, call.arguments)


def _done(record: OperationRecord, outcome: Outcome, items: list[MediaItem]) -> OperationRecord:
    return replace(
        record,
        media=outcome.media,
        box=outcome.box,
        root_box=items[0].root_box if items and outcome.box is not None else None,
        frames=outcome.frames,
        produced=tuple(item.index for item in items),
    )


def _refused(calls: Sequence[Call | BadCall], turn: int, message: str, setting: Setting) -> list[OperationRecord]:
    return [replace(_recorded(call, turn, setting), error="limit", message=message) for call in calls]


def _count(trajectory: Trajectory, turn: Turn) -> None:
    trajectory.prompt_tokens += turn.usage.prompt_tokens
    trajectory.new_tokens += turn.usage.new_tokens
    trajectory.cached_tokens += turn.usage.cached_tokens
    trajectory.cost += turn.usage.cost
    trajectory.seconds["engine"] = trajectory.seconds.get("engine", 0.0) + turn.seconds


def _spend(trajectory: Trajectory, name: str, start: float) -> None:
    trajectory.seconds[name] = trajectory.seconds.get(name, 0.0) + time.perf_counter() - start
