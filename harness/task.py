"""What a benchmark is: it yields samples, scores answers and aggregates. It renders no prompt.

A task is a plugin of the group ``prh.tasks``. A profile says how answers are read and judged: a named,
versioned triple of extraction, matching and aggregation, from the group ``prh.profiles``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from .types import AnswerKind, Box, Chance, Evidence, Json, Metric, Sample


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Where a task's data come from.

    Attributes:
        data: a local folder or file, or the name of one of the task's mirrors on the hub; None for its
            default place on the hub, or for a miniature's own cache.
        split: ``test`` or ``train``; tasks without a train split refuse it.
        revision: of a dataset on the hub; None for its main branch.
        seed: for what a layout leaves to chance, such as the order of options.
        progress: called with (done, total) while data are fetched or made.
    """

    data: Path | None = None
    split: str = "test"
    revision: str | None = None
    seed: int = 0
    offline: bool = False
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A task's samples and where they came from.

    Attributes:
        samples: in the dataset's own order; ids are unique.
        source: what a manifest says of it: folder name or repository, revision, layout, counts.
        complete: whether it has the row counts of the published benchmark.
    """

    samples: Sequence[Sample]
    source: Mapping[str, Json]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One judged episode: what aggregation works on.

    Attributes:
        answer: what was read in the reply, None where there is no answer.
        rule: which rule of the profile read it.
        scores: per-sample values by metric; a missing answer scores 0.
    """

    id: str
    repeat: int
    category: str
    slices: tuple[str, ...]
    cluster: str
    gold: tuple[str, ...]
    answer: str | None
    rule: str
    scores: Mapping[str, float]


class Task(Protocol):
    """A benchmark.

    Attributes:
        primary: the metric a comparison is about.
        chance: expected score of guessing, by category.
        settings: limits and pixel budgets as a layer, for generation (``{"limits": {...}}``).
        illegible_at: for a miniature, the input budget (pixels) above which its details become legible.
        splits: the splits it has, the one that is scored by default first.
    """

    name: str
    summary: str
    answer_kind: AnswerKind
    primary: str
    chance: Chance
    settings: Mapping[str, Json]
    illegible_at: int | None
    splits: tuple[str, ...]

    def load(self, options: DataOptions) -> Dataset:
        """The samples. Raises DataError or Prerequisite."""
        ...

    def score(self, sample: Sample, answer: str | None) -> dict[str, float]:
        """Values of one answer by metric, the primary among them."""
        ...

    def aggregate(self, rows: Sequence[Row]) -> dict[str, Metric]:
        """The task's own metrics over judged episodes, the primary among them."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about an illustration, with what answers it.

    Attributes:
        answer: in words: the right one of ``choices``, or what is accepted first.
        target: the things that the question names.
        evidence: where the answer is to be seen.
        legible: whether the overview shows it.
    """

    question: str
    choices: tuple[str, ...]
    answer: str
    target: tuple[str, ...]
    evidence: Evidence
    legible: bool


@dataclass(frozen=True, slots=True)
class Thing:
    """Something in an illustration: what it is called, where it is, and what it shows.

    Attributes:
        name: as questions name it.
        box: in pixels of the picture; of a clip, everywhere that it ever is.
        kind, value: what it shows, such as a ``digit`` and ``7``.
        legible: whether the overview shows it.
    """

    name: str
    box: Box
    kind: str
    value: str
    legible: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """The least that can be seen in a picture: a glyph, a dot, an ink; or a named thing or a plate of print as a whole.

    Attributes:
        label: what it is, such as ``7``, ``dot``, ``yellow`` or ``red square``; of print what it says, such as ``47%``
            or ``corn``.
        box: in pixels of the frame; of a named thing or a plate of print what it covers, of others a point.
        legible: whether the overview shows it.
    """

    label: str
    box: Box
    legible: bool


@dataclass(frozen=True, slots=True)
class Illustration:
    """A drawn picture, or the frames of a clip that a model is shown, with everything that is in it.

    Attributes:
        marks: of each frame.
    """

    frames: tuple[Image.Image, ...]
    marks: tuple[tuple[Mark, ...], ...]
    things: tuple[Thing, ...]
    asked: tuple[Asked, ...]


@runtime_checkable
class Illustrates(Protocol):
    """A task that can draw any number of pictures like its own to learn from, none of which is in any split."""

    def illustrations(self, seed: int) -> Sequence[Callable[[], Illustration]]:
        """As many as an edition of the task has, others for each seed; each is drawn when it is called."""
        ...


@runtime_checkable
class Exports(Protocol):
    """A task whose answers can be handed in: its unlabelled split is scored elsewhere."""

    def export(self, records: Sequence[Mapping[str, Json]], path: Path, profile: Profile, answer_tag: str) -> str:
        """Write a submission file; one line says what is in it. Raises DataError or StoreError."""
        ...


class Profile(Protocol):
    """How answers are read and judged."""

    name: str
    version: int

    def reads(self, task: Task) -> bool:
        """Whether it has rules for a task; a pair that does not exist is a UsageError of whoever asks for it."""
        ...

    def extract(self, task: Task, sample: Sample, text: str, answer_tag: str) -> tuple[str | None, str]:
        """The answer in a final reply and the rule that read it; (None, "") where there is none."""
        ...

    def judge(self, task: Task, sample: Sample, answer: str | None) -> dict[str, float]:
        """Values by metric; most profiles ask the task."""
        ...

    def aggregate(self, task: Task, rows: Sequence[Row]) -> dict[str, Metric]:
        """Metrics over judged episodes; most profiles ask the task."""
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples of a dataset to run."""

    limit: int | None = None
    ids: tuple[str, ...] = field(default=())

    def choose(self, samples: Iterable[Sample]) -> list[Sample]:
        """The chosen samples, in order."""
        wanted = set(self.ids)
        chosen = [sample for sample in samples if not wanted or sample.id in wanted]
        return chosen if self.limit is None else chosen[: self.limit]
