"""What a teacher is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ...harness.types import LETTERS, Json, Sample
from ..seeds import Seed
from ..templates import Analyses, Plan, Scene, Voice
from ..wording import GENERIC, UNNAMED, form_of
from .asking import Cost


@dataclass(frozen=True, slots=True)
class Case:
    """One trajectory to write: its seed, its calls, and the sentences around them.

    Attributes:
        repeat: how many trajectories there are of the seed already.
    """

    scene: Scene
    plan: Plan
    voice: Voice
    repeat: int

    @property
    def seed(self) -> Seed:
        return self.scene.seed

    @property
    def sample(self) -> Sample:
        return self.scene.seed.sample


class Teacher(Protocol):
    """Writes the analyses of a trajectory."""

    name: str

    def describe(self) -> Mapping[str, Json]:
        """What provenance says of it: the same in every record it writes."""
        ...

    async def propose(self, case: Case) -> Sample:
        """The sample with a question, where it came without. Raises DataError where there is none, ModelError."""
        ...

    async def write(self, case: Case) -> Analyses:
        """The analyses. Raises DataError where it has none that may be used, ModelError where it cannot be asked."""
        ...

    async def cost(self, case: Case) -> Cost:
        """What one trajectory costs."""
        ...

    async def close(self) -> None:
        """Free what it holds."""
        ...


def value_of(sample: Sample) -> str:
    """The accepted answer in words: of an option its text."""
    gold = sample.gold[0] if sample.gold else ""
    place = LETTERS.find(gold) if sample.answer_kind == "option" and len(gold) == 1 else -1
    return sample.choices[place] if 0 <= place < len(sample.choices) else gold


def voice_of(seed: Seed, places: Mapping[str, str] | None = None) -> Voice:
    """The sentences for a seed and the values in them: from its question, else from its notes.

    Args:
        places: where its evidence is, as ``Scene.places`` writes it.
    """
    form, named = form_of(seed.sample.question)
    value = value_of(seed.sample).strip().rstrip(".")
    if form is GENERIC:
        target = seed.notes.get("target")
        several = [str(item) for item in target] if isinstance(target, list) else [str(target)] if target else []
        return Voice(form.words, {"target": " and the ".join(several) or UNNAMED, "value": value})
    starts_sentence = value[:1].isupper() and value[1:2].islower()
    plain = value[:1].lower() + value[1:] if starts_sentence else value
    notes = {name: text for name, text in seed.notes.items() if isinstance(text, str)}
    return Voice(form.words, {**notes, **(places or {}), **named, "value": plain})
