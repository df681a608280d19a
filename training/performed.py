"""Recorded rollouts as conversations with their images again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from ..harness.engine import Caps, Finish, Turn, TurnSpec, Usage
from ..harness.episode import run_episode
from ..harness.errors import DataError
from ..harness.ledger import Conversation
from ..harness.record import Record, text_of
from ..harness.types import Call, Json, Size, Span
from .questions import Questions
from .trainable import Trainable


class _Recorded:
    """An engine that says what is recorded, with the ids that were sampled."""

    fingerprint = "recorded"
    caps = Caps(token_ids=True, logprobs=True)

    def __init__(self, record: Record, engine: Trainable) -> None:
        self.record, self.engine = record, engine
        segments = cast("list[dict[str, Json]]", record["segments"])
        self.turns = [segment for segment in segments if segment["role"] == "assistant"]

    def fit(self, size: Size, budget: Span) -> Size:
        return self.engine.fit(size, budget)

    async def turn(self, conversation: Conversation, spec: TurnSpec) -> Turn:
        number = conversation.turns
        segment = self.turns[number]
        ids, logprobs = (cast("list[float]", segment[name]) for name in ("ids", "logprobs"))
        calls = [call for call in cast("list[dict[str, Json]]", segment["calls"]) if call.get("id")]
        whole = cast("dict[str, int]", self.record["usage"])["prompt_tokens"]
        ended = self.record["end"] == "token_limit" and number == len(self.turns) - 1
        return Turn(
            text_of(segment),
            tuple(map(int, ids)),
            tuple(logprobs),
            cast(Finish, segment["finish"]),
            tuple(Call(str(call["name"]), call["arguments"], str(call["id"])) for call in calls),
            Usage(whole if ended else 0, len(ids)),
        )

    async def release(self, conversation: Conversation) -> None:
        return None

    def describe(self) -> Mapping[str, Json]:
        return {"name": "recorded"}

    async def close(self) -> None:
        return None


async def perform_again(record: Record, own: Questions, engine: Trainable) -> Conversation:
    """A recorded rollout as a conversation with its images, made by the loop that it came from.

    Raises:
        DataError: the question or what it shows is no longer what it was.
    """
    sample = own.samples.get(str(record["id"]))
    if sample is None:
        raise DataError(f"{own.task.name} no longer has the question {record['id']!r} that was sampled")
    made = await run_episode(sample, _Recorded(record, engine), own.setting, int(cast(int, record["repeat"])))
    conversation = made.conversation
    shown = [item.digest for item in conversation.items]
    held = [item["digest"] for item in cast("list[dict[str, Json]]", record["media"])]
    if made.end != record["end"] or shown != held:
        reason = f"it ends in {made.end} and shows {len(shown)} media, not {record['end']} and {len(held)}"
        reason = made.error or reason
        raise DataError(f"the rollout of {record['id']!r} cannot be performed again: {reason}")
    conversation.segments[:] = [
        replace(segment, trained=True) if segment.role == "assistant" else segment for segment in conversation.segments
    ]
    return conversation
