"""How a trajectory goes: from a seed to the calls that are made, and from what is said of them to a script.

The kinds, and the share of each, are those of Pixel Reasoner (arXiv 2505.15966, warm-start instruction tuning): some
trajectories go straight to the cue; in the others it is found after a wrong crop or two, after a crop that shows
too much, or after wrong frames. What is said follows one template: the whole input, a call, what it shows, the
answer. ``failed-once``, a call that is refused with a worded error, is ours.

A turn that makes a mistake, and a call that is made to fail, are there to be recovered from and not to be imitated:
they are not trained. The over-large crop of ``further-zoom`` is trained: it holds the cue, what is said of it is
true, and to go from coarse to fine is what the paper has this kind for. The paper masks erroneous operations in its
warm start, and this one is none; its release leaves it out of the loss all the same, because it trains the last two
turns whatever they are.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, cast, get_args

from ..harness.protocol import CLOSE, OPEN, Protocol
from ..harness.types import Box, Json, Sample, Size
from .geometry import Canvas, Cells, Grid, elsewhere, other_frames, spread, union, wider
from .seeds import Seed
from .trajectories import Said, Script
from .wording import BOXED, BREAK, UNNAMED, Words

Kind = Literal["single-pass", "recrop-once", "recrop-twice", "further-zoom", "reselect", "failed-once", "text-only"]
KINDS: tuple[Kind, ...] = get_args(Kind)
IMAGE_MIX: Mapping[Kind, float] = {"single-pass": 30, "recrop-once": 20, "recrop-twice": 20, "further-zoom": 30}
VIDEO_MIX: Mapping[Kind, float] = {"single-pass": 90, "reselect": 10}
# What can be made of a video alone, and of an image alone.
OF_VIDEO: tuple[Kind, ...] = ("reselect",)
OF_IMAGE: tuple[Kind, ...] = ("recrop-once", "recrop-twice", "further-zoom")
# A frame of a clip that nobody has opened yet.
WHOLE = Size(1000, 1000)
Part = Literal["cue", "wrong", "wide", "failing"]
UNTRAINED: tuple[Part, ...] = ("wrong", "failing")


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a trajectory.

    Attributes:
        part: what it is there for.
        operation: canonical name.
    """

    part: Part
    operation: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Plan:
    """The calls of one trajectory, the right one last; none where the answer is given at once."""

    kind: Kind
    steps: tuple[Step, ...] = ()

    def json(self) -> Json:
        """What a record says of it."""
        return [{"part": step.part, "name": step.operation, "arguments": dict(step.arguments)} for step in self.steps]


@dataclass(frozen=True, slots=True)
class Scene:
    """A seed's input as the calls of a protocol address it.

    Attributes:
        sizes: of each of the sample's media in pixels, of what is cut from; of a video a frame's.
        originals: the sizes before any resize, in whose pixels evidence is given.
        frames: most frames that one call selects.
    """

    seed: Seed
    protocol: Protocol
    grid: Grid
    sizes: Sequence[Size]
    originals: Sequence[Size]
    frames: int

    @property
    def sample(self) -> Sample:
        return self.seed.sample

    @property
    def target(self) -> int:
        """Which of the media the evidence is in, from 1; 0 where there is no evidence."""
        return self.sample.evidence[0].media if self.sample.evidence else 0

    @property
    def video(self) -> bool:
        """Whether the evidence, or where there is none the first of the media, is a video."""
        media = self.sample.media
        return bool(media) and media[max(self.target, 1) - 1].kind == "video"

    def possible(self, mix: Mapping[Kind, float]) -> dict[Kind, float]:
        """The kinds of a mix that there are for such an input."""
        others = OF_IMAGE if self.video else OF_VIDEO
        return {kind: weight for kind, weight in mix.items() if kind not in others}

    def boxes(self) -> list[Box]:
        """The evidence boxes, in pixels of what is cut from."""
        size, original = self.sizes[self.target - 1], self.originals[self.target - 1]
        found = [e.box for e in self.sample.evidence if e.media == self.target and e.box]
        return [box.scaled(size.width / original.width, size.height / original.height) for box in found]

    def places(self) -> dict[str, str]:
        """Boxes as a call writes them: ``box`` and, of a second, ``other_box``.

        They are those of the evidence; of a video, where the notes say that what is asked about is first and last,
        which has no pixels to count before it is decoded.
        """
        if not self.target or (self.video and self.protocol.coordinates in ("original", "seen")):
            return {}
        canvas = Canvas(WHOLE if self.video else self.sizes[self.target - 1], self.grid, self.protocol)
        found = [canvas.around(box) for box in (self._track() if self.video else self.boxes())]
        named = zip(("box", "other_box"), found, strict=False)
        return {name: json.dumps(canvas.written(cells)) for name, cells in named if cells is not None}

    def _track(self) -> list[Box]:
        """The boxes that the notes name as shares of the frame, on a frame of any size."""
        named = cast("list[list[float]]", self.seed.notes.get("boxes", []))
        return [Box(*box).scaled(WHOLE.width, WHOLE.height) for box in named]

    def evidence_frames(self) -> tuple[int, ...]:
        """The evidence frames, from 1, in order."""
        found = [frame for e in self.sample.evidence if e.media == self.target for frame in e.frames]
        return tuple(sorted(set(found)))

    def cue_frames(self) -> tuple[int, ...]:
        """The frames that the right call selects: those that the notes name, else some of the evidence."""
        named = self.seed.notes.get("cue_frames")
        chosen = [int(cast(int, frame)) for frame in named] if isinstance(named, list) else self.evidence_frames()
        most = self.protocol.max_frames if isinstance(named, list) else min(self.frames, self.protocol.max_frames)
        return spread(chosen, most)


def default_mix(scene: Scene) -> Mapping[Kind, float]:
    """The paper's shares for an image or a video."""
    return VIDEO_MIX if scene.video else IMAGE_MIX


def draw(kind: Kind, scene: Scene, rng: random.Random) -> Plan | None:
    """The calls of a trajectory of this kind; None where the seed has no room for one."""
    if kind == "text-only":
        return None if "needs_operation" in scene.sample.slices else Plan(kind)
    known = {operation.name for operation in scene.protocol.operations}
    if not scene.target or ("select_frames" if scene.video else "crop_image") not in known:
        return None
    steps = _video_steps(kind, scene, rng) if scene.video else _image_steps(kind, scene, rng)
    return Plan(kind, tuple(steps)) if steps else None


def _image_steps(kind: Kind, scene: Scene, rng: random.Random) -> list[Step] | None:
    boxes = scene.boxes()
    canvas = Canvas(scene.sizes[scene.target - 1], scene.grid, scene.protocol)
    cue = canvas.around(union(boxes)) if boxes else None
    if cue is None:
        return None
    right = _crop("cue", canvas, cue, scene.target)
    if kind == "further-zoom":
        wide = wider(canvas, cue, rng)
        return [_crop("wide", canvas, wide, scene.target), right] if wide else None
    if kind == "failed-once":
        return [_failing_crop(canvas, cue, scene, rng), right]
    wrong: list[Cells] = []
    for _ in range({"single-pass": 0, "recrop-once": 1, "recrop-twice": 2}.get(kind, -1)):
        found = elsewhere(canvas, cue, boxes, rng, wrong)
        if found is None:
            return None
        wrong.append(found)
    return None if kind == "reselect" else [*(_crop("wrong", canvas, box, scene.target) for box in wrong), right]


def _crop(part: Part, canvas: Canvas, cells: Cells, target: int) -> Step:
    return Step(part, "crop_image", {"bbox_2d": [*canvas.written(cells)], "target_image": target})


def _failing_crop(canvas: Canvas, cue: Cells, scene: Scene, rng: random.Random) -> Step:
    """A call that the protocol refuses: a box beyond the image, or an image that is not there."""
    box = canvas.written(cue)
    if rng.random() < 0.5:
        number = len(scene.sample.media) + rng.randint(1, 3)
        return Step("failing", "crop_image", {"bbox_2d": [*box], "target_image": number})
    edge = rng.choice((2, 3))
    whole = Decimal(canvas.written(Cells(0, 0, canvas.grid.cells, canvas.grid.cells))[edge])
    beyond = whole * (1 + canvas.grid.share * rng.randint(1, 3))
    box[edge] = float(beyond) if canvas.protocol.coordinates == "unit" else math.ceil(beyond) + 1
    return Step("failing", "crop_image", {"bbox_2d": [*box], "target_image": scene.target})


def _video_steps(kind: Kind, scene: Scene, rng: random.Random) -> list[Step] | None:
    cue, count = scene.cue_frames(), scene.sample.media[scene.target - 1].frames
    if not cue:
        return None
    right = _select("cue", cue)
    if kind == "single-pass":
        return [right]
    if kind == "failed-once":
        beyond = sorted({*cue[:-1], count + rng.randint(1, 4)})
        return [_select("failing", beyond), right]
    if kind != "reselect":
        return None
    wrong = other_frames(count, [*cue, *scene.evidence_frames()], len(cue), rng)
    return [_select("wrong", wrong), right] if wrong else None


def _select(part: Part, frames: Sequence[int]) -> Step:
    return Step(part, "select_frames", {"target_frames": [*frames]})


@dataclass(frozen=True, slots=True)
class Analyses:
    """What a teacher writes.

    Attributes:
        overview: of the whole input, before anything is done; may be empty.
        finding: of the cue.
        reply: a whole turn, taken as it is, in place of both.
        target: what is looked at closer, where the question is of no known form.
    """

    overview: str
    finding: str
    reply: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class Voice:
    """The sentences of a trajectory and the values that they name."""

    words: Words
    values: Mapping[str, str]

    def say(self, name: str) -> str:
        """A sentence. Raises KeyError where a value is missing."""
        return self.words.say(name, self.values)

    def known(self, name: Literal["noticed", "places"]) -> str:
        """A sentence that is left out where the form has none or a value of it is not known."""
        try:
            return self.say(name) if getattr(self.words, name) else ""
        except KeyError:
            return ""

    def spot(self, box: Json) -> str:
        """Where what is looked for is, in the numbers of a call; nothing where the form says no such thing."""
        return self.words.say("spot", {**self.values, "box": json.dumps(box)}) if self.words.spot else ""

    def about(self, target: str) -> Voice:
        """The same, where nothing better is known than that this is looked at; of no target itself."""
        unnamed = self.values.get("target") == UNNAMED and target
        return Voice(self.words, {**self.values, "target": target}) if unnamed else self


def write(plan: Plan, analyses: Analyses, voice: Voice, sample: Sample, protocol: Protocol) -> Script:
    """What the assistant says, turn by turn, and which turns are trained."""
    if analyses.reply:
        return (Said(analyses.reply),)
    turns: list[Said] = []
    lead = " ".join(filter(None, [analyses.overview, voice.known("noticed")]))
    for step in plan.steps:
        selecting = step.operation == "select_frames"
        spot = "" if selecting or step.part in ("wide", "failing") else voice.spot(step.arguments["bbox_2d"])
        said = " ".join(filter(None, [lead, spot, voice.say("select" if selecting else "zoom")]))
        turns.append(Said(f"{said}{BREAK}{call(step, protocol)}", step.part not in UNTRAINED))
        lead = _after(step, voice)
    said = analyses.finding if plan.steps else " ".join(filter(None, [lead, voice.known("places"), analyses.finding]))
    turns.append(Said(f"{said}{BREAK}{BOXED.format(answer=sample.gold[0])}"))
    return tuple(turns)


def _after(step: Step, voice: Voice) -> str:
    """What is said of what a call gave back, before the next one."""
    wrong = "wrong_frames" if step.operation == "select_frames" else "wrong_crop"
    names: Mapping[Part, str] = {"wrong": wrong, "wide": "wide", "failing": "failed"}
    return voice.say(names[step.part]) if step.part in names else ""


def call(step: Step, protocol: Protocol) -> str:
    """A call as the protocol's models write it."""
    names = {operation.name: protocol.present(operation).name for operation in protocol.operations}
    name = names[step.operation]
    body = json.dumps({"name": name, "arguments": dict(step.arguments)}, ensure_ascii=False)
    return f"{OPEN}\n{body}\n{CLOSE}"
