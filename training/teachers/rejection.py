"""The teacher ``rejection``: text-only trajectories as a model says them, of which the right ones are kept.

Pixel Reasoner takes its text-only trajectories so, from Qwen2.5-VL-Instruct. A model that is not competent at the
questions gives few or none; on the miniatures the teacher ``annotation`` writes them instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

from ...harness.digests import json_digest
from ...harness.episode import run_episode
from ...harness.errors import DataError, ModelError
from ...harness.evaluate import find_engine, load_profile, load_task
from ...harness.ledger import Conversation, Segment
from ...harness.manifest import sample_fingerprint
from ...harness.registry import guarded
from ...harness.settings import Setting, resolve
from ...harness.task import Task
from ...harness.types import Json, Sample
from ..recipe import RejectionPart
from ..seeds import Seed
from ..templates import Analyses
from .asking import Asker, Cost, about, cost_of, served_name, unacceptable
from .base import Case


class Rejection:
    """Draws replies to a question and keeps the first that is right.

    Attributes:
        profile: how answers are read; the score is the task's own where the seed is of a task.
    """

    name = "rejection"

    def __init__(self, part: RejectionPart, seed: int) -> None:
        self.part = part
        self.asker = Asker(part.model, part.engine, self.name)
        self.profile = load_profile(part.profile)
        owner = f"the engine of {part.model}"
        defaults = guarded(owner, lambda: find_engine(part.model, None).defaults(part.model))
        asked: dict[str, Json] = {
            "protocol": part.protocol,
            "sampling": {"temperature": part.temperature, "top_p": part.top_p},
            "limits": {"new_tokens": part.new_tokens},
        }
        self.setting: Setting = resolve([("prh.json", defaults), ("recipe", {**asked, **part.setting})], seed)

    def describe(self) -> Mapping[str, Json]:
        return {
            "name": self.name,
            "model": served_name(self.part.model),
            "how": f"the first right one of {self.part.samples} replies, under profile {self.profile.name}",
            "protocol": self.part.protocol,
            "temperature": self.part.temperature,
        }

    async def propose(self, case: Case) -> Sample:
        """It has no questions of its own. Raises DataError."""
        raise DataError("there is no question, and this teacher proposes none")

    async def write(self, case: Case) -> Analyses:
        """A whole reply. Raises DataError where none is right, ModelError where none can be had."""
        if case.plan.steps:
            raise DataError("this teacher writes text-only trajectories alone; give its source mix = { text-only = 1 }")
        for number in range(self.part.samples):
            text = (await self._reply(case.sample, number)).strip()
            if "\\boxed" in text and self.right(case.seed, text):
                return Analyses("", "", reply=text)
        raise DataError(f"none of {self.part.samples} replies is right")

    async def _reply(self, sample: Sample, number: int) -> str:
        identity = self.setting.identity()
        fingerprint = await asyncio.to_thread(sample_fingerprint, sample)
        key = json_digest([served_name(self.part.model), fingerprint, identity, number])
        kept = self.asker.kept(key)
        if kept is not None:
            return kept
        trajectory = await run_episode(sample, await self.asker.engine(), self.setting, number)
        self.asker.asked += 1
        if trajectory.end == "engine_error":
            raise unacceptable(trajectory.error) or ModelError(f"{served_name(self.part.model)}: {trajectory.error}")
        text = trajectory.final_text or ""
        await asyncio.to_thread(self.asker.keep, key, text)
        return text

    def right(self, seed: Seed, text: str) -> bool:
        """Whether a reply is right: by the score of the seed's task, else by its accepted answers."""
        name = seed.origin.get("task")
        task = load_task(name) if isinstance(name, str) else None
        answer, _ = self.profile.extract(cast(Task, task), seed.sample, text, self.setting.protocol.answer_tag)
        if answer is None:
            return False
        if task is None:
            return answer.casefold() in {gold.casefold() for gold in seed.sample.gold}
        return self.profile.judge(task, seed.sample, answer)[task.primary] >= 1.0

    async def cost(self, case: Case) -> Cost:
        """What one trajectory costs where every reply has to be drawn."""
        conversation = Conversation("", case.sample.id, about, self.setting.budget)
        await asyncio.to_thread(conversation.open, case.sample.media)
        shown = [part for _, parts in self.setting.protocol.opening(case.sample, conversation) for part in parts]
        conversation.commit(Segment("user", tuple(shown)))
        return cost_of(conversation, self.part.new_tokens).times(self.part.samples)

    async def close(self) -> None:
        """Close its engine."""
        await self.asker.close()
