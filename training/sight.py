"""What a vision tower learns before anything is asked of it: what each of its tokens shows.

A question about a picture teaches a tower from nothing very slowly: the answer is a single word, and which of the
tokens it came from is itself still to be found out. So the tower is first trained alone, as the towers of released
models are: a linear layer, thrown away afterwards, says for every merged token which glyphs, dots and inks stand in
each of its columns, which named thing covers it, and how many dots stand in it.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits

from ..harness.media import resize
from ..harness.settings import Setting
from ..harness.store import write_json
from ..harness.task import Illustration, Mark
from ..harness.types import Box, Json, Size
from . import checkpoints
from .drills import CELLS, cells
from .learner import look, optimizers
from .pictures import Album
from .schedule import Optimisation
from .trainable import Trainable

# Columns of a token in which marks are told apart: as narrow as the glyphs of large print in an overview.
COLUMNS = 4
# A named thing covers a token whose middle lies within this share of its box.
COVER = 0.8
MOST_DOTS = 3
# Windows are cut so that they are shown at a scale between that of the smallest crop and full size.
SCALES = (0.5, 1.0)
SIDES = (2, 3, 4)
# Close-ups of each picture.
CLOSEUPS = 3
# Targets are rare: without a weight of their own, nothing being there would be learned first and last. The weight goes
# as the rate does, because with it what lies between two columns is said to be in both.
RARE = 8.0
PRIOR = -4.0
# The mean over all targets is small; brought to the size of other losses, so that clipping means the same.
SCALE = 20.0
# Weights of the error in the number of dots of a token, and of all of an image's tokens, up to so many dots: an error
# that is small in every token is large in their sum.
DOTS, SUM, FAR = 0.5, 0.1, 3.0
ROOM = 96
HELD = 512


@dataclass(frozen=True, slots=True)
class SightConfig:
    """How a tower is trained.

    Attributes:
        pictures: how many are drawn of each task.
        windows: close-ups cut out of each picture.
        batch: images a step.
        save: steps between checkpoints.
    """

    pictures: Mapping[str, Json]
    steps: int
    optim: Optimisation
    windows: int = 4
    batch: int = 64
    save: int = 250
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """An image and what its tokens show: tokens x targets, and how many dots stand in each token."""

    image: Image.Image
    targets: NDArray[np.uint8]
    dots: NDArray[np.float32]


class Labels:
    """The numbers of what can be seen."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, label: str) -> int:
        return self.numbers.setdefault(label, len(self.numbers))


def glance(
    picture: Image.Image, marks: Sequence[Mark], window: Box, size: Size, labels: Labels, room: int, *, close: bool
) -> Glance:
    """A window of a picture as it is seen at this size, and its targets.

    Args:
        room: how many labels there is room for.
        close: whether marks that an overview hides are to be seen.
    """
    cell = 28
    region = tuple(round(edge) for edge in window)
    image = resize(picture.crop(cast("tuple[int, int, int, int]", region)), size)
    x, y = size.width / (region[2] - region[0]), size.height / (region[3] - region[1])
    wide, high = size.width // cell, size.height // cell
    targets = np.zeros((high, wide, COLUMNS, room), np.uint8)
    dots: Counter[tuple[int, int, int]] = Counter()
    for mark in marks:
        box = mark.box.shifted(-region[0], -region[1]).scaled(x, y)
        if box.area > 0:
            _cover(targets[:, :, 0], box, labels(mark.label), cell)
        elif (close or mark.legible) and 0 <= box.left < size.width and 0 <= box.top < size.height:
            place = int(box.top // cell), int(box.left // cell), int(box.left % cell * COLUMNS / cell)
            if mark.label == "dot":
                dots[place] += 1
            else:
                targets[(*place, labels(mark.label))] = 1
    counts = np.zeros((high, wide), np.float32)
    for place, count in dots.items():
        targets[(*place, labels(f"dot {min(count, MOST_DOTS)}"))] = 1
        counts[place[:2]] += count
    return Glance(image, targets.reshape(high * wide, COLUMNS * room), counts.ravel())


def _cover(targets: NDArray[np.uint8], box: Box, label: int, cell: int) -> None:
    middle = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    across, down = (box.right - box.left) / 2 * COVER, (box.bottom - box.top) / 2 * COVER
    for row in range(targets.shape[0]):
        for column in range(targets.shape[1]):
            x, y = (column + 0.5) * cell, (row + 0.5) * cell
            if abs(x - middle[0]) < across and abs(y - middle[1]) < down:
                targets[row, column, label] = 1


def glances(
    picture: Illustration,
    setting: Setting,
    engine: Trainable,
    labels: Labels,
    room: int,
    count: int,
    rng: random.Random,
) -> Iterator[Glance]:
    """The overview of a picture, or of some frames of a clip; close-ups as calls make them; windows around marks."""
    clip = len(picture.frames) > 1
    if not clip:
        yield from _closeups(picture, setting, engine, labels, room, rng)
    chosen = rng.sample(range(len(picture.frames)), min(len(picture.frames), 4))
    for number in chosen:
        frame, marks = picture.frames[number], picture.marks[number]
        whole = Size(*frame.size)
        seen = engine.fit(whole, setting.budget.video_frame if clip else setting.budget.input)
        yield glance(frame, marks, Box(0, 0, *whole), seen, labels, room, close=False)
        if clip:
            seen = engine.fit(whole, setting.budget.selected_frame)
            yield glance(frame, marks, Box(0, 0, *whole), seen, labels, room, close=True)
        near = _by_label(marks)
        for _ in range(count // len(chosen) if near else 0):
            scale = 1.0 if clip else rng.uniform(*SCALES)
            size = Size(28 * rng.choice(SIDES), 28 * rng.choice(SIDES))
            mark = rng.choice(rng.choice(near))
            window = _window(rng, mark.box, whole, Size(round(size.width / scale), round(size.height / scale)))
            yield glance(frame, marks, window, size, labels, room, close=True)


def _closeups(
    picture: Illustration, setting: Setting, engine: Trainable, labels: Labels, room: int, rng: random.Random
) -> Iterator[Glance]:
    """Some things of a picture, cut out as tightly as a call can."""
    size = Size(*picture.frames[0].size)
    for thing in rng.sample(picture.things, min(CLOSEUPS, len(picture.things))):
        window = Box(*cells(thing.box, size)).scaled(size.width / CELLS, size.height / CELLS)
        cut = Size(*(round(b) - round(a) for a, b in ((window.left, window.right), (window.top, window.bottom))))
        seen = engine.fit(cut, setting.budget.crop)
        yield glance(picture.frames[0], picture.marks[0], window, seen, labels, room, close=True)


def _by_label(marks: Sequence[Mark]) -> list[list[Mark]]:
    """What plates show, by label: what is there many times is not looked at more often than what is there once."""
    found: dict[str, list[Mark]] = {}
    for mark in marks:
        if mark.box.area == 0:
            found.setdefault(mark.label, []).append(mark)
    return list(found.values())


def _window(rng: random.Random, mark: Box, whole: Size, size: Size) -> Box:
    """A window of this size around a mark, within the picture."""
    left = min(max(0, round(mark.left - rng.uniform(0.15, 0.85) * size.width)), max(0, whole.width - size.width))
    top = min(max(0, round(mark.top - rng.uniform(0.15, 0.85) * size.height)), max(0, whole.height - size.height))
    return Box(left, top, min(whole.width, left + size.width), min(whole.height, top + size.height))


def train_sight(
    config: SightConfig,
    engine: Trainable,
    setting: Setting,
    out: Path,
    layers: Mapping[str, Json],
    say: Callable[[str], None],
) -> Path:
    """Train the vision tower of an engine's module in place, or go on where that ended; returns the checkpoint.

    Args:
        layers: what ``prh.json`` of the checkpoint says.

    Raises:
        StoreError: the folder cannot be written or read.
    """
    last = checkpoints.place(out, config.steps)
    if last.is_dir():
        return last
    labels = Labels()
    made = draw(config, setting, engine, labels)
    held, made = made[:HELD], made[HELD:]
    say(f"sight: {len(made)} images, {len(labels.numbers)} labels")
    torch.manual_seed(config.seed)
    tower = Tower(engine, COLUMNS * ROOM)
    used = optimizers(tower, config.optim)
    peaks = [[float(group["lr"]) for group in one.param_groups] for one in used]
    first = _resume(out, tower, used)
    for step in range(first, config.steps):
        share = config.optim.rate(step, config.steps)
        loss = _step(config, tower, made, step, 1 + (RARE - 1) * share)
        for one, rates in zip(used, peaks, strict=True):
            for group, peak in zip(one.param_groups, rates, strict=True):
                group["lr"] = peak * share
            one.step()
            one.zero_grad()
        if (step + 1) % config.save == 0 or step + 1 == config.steps:
            seen = probe(tower, held, labels)
            checkpoints.append_log(out, {"step": step + 1, "loss": loss, "cpu_seconds": time.process_time(), **seen})
            say(f"sight: step {step + 1}  loss {loss:.3f}  " + "  ".join(f"{k} {v:.2f}" for k, v in seen.items()))
            _save(engine, tower, used, checkpoints.place(out, step + 1), layers, step + 1)
    return last


def draw(config: SightConfig, setting: Setting, engine: Trainable, labels: Labels) -> list[Glance]:
    """What is looked at, in an order of chance."""
    rng = random.Random(f"sight {config.seed}")  # noqa: S311 - exercises, not secrets
    made: list[Glance] = []
    for name, count in config.pictures.items():
        album = Album(name, config.seed + 1)
        for number in range(int(cast(int, count))):
            made += glances(album(number), setting, engine, labels, ROOM, config.windows, rng)
    rng.shuffle(made)
    return made


def _step(config: SightConfig, tower: Tower, made: Sequence[Glance], step: int, rare: float) -> float:
    tower.train()
    rng = np.random.default_rng([config.seed, step])
    chosen = [made[int(place)] for place in rng.integers(len(made), size=config.batch)]
    with torch.autocast("cpu", torch.bfloat16):
        logits, dots = tower([one.image for one in chosen])
    targets = torch.from_numpy(np.concatenate([one.targets for one in chosen])).float()
    loss = SCALE * binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=torch.tensor([rare]))
    wrong = dots.float() - torch.from_numpy(np.concatenate([one.dots for one in chosen]))
    sums = torch.stack([part.sum() for part in wrong.split([len(one.dots) for one in chosen])])
    loss = loss + DOTS * (wrong.square().mean() + SUM * sums.clamp(-FAR, FAR).square().mean())
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(tower.parameters(), config.optim.clip)
    return float(loss.detach())


def _resume(out: Path, tower: Tower, used: Sequence[torch.optim.Optimizer]) -> int:
    found = checkpoints.latest(out)
    if found is None:
        out.mkdir(parents=True, exist_ok=True)
        checkpoints.trim_log(out, 0)
        return 0
    state = found[1] / checkpoints.STATE
    tower.load_state_dict(checkpoints.load_tensors(state / "tower.safetensors"))
    step = checkpoints.load_states(state, used)
    checkpoints.trim_log(out, step)
    return step


def _save(
    engine: Trainable,
    tower: Tower,
    used: Sequence[torch.optim.Optimizer],
    target: Path,
    layers: Mapping[str, Json],
    step: int,
) -> None:
    workplace = checkpoints.begin(target)
    engine.save(workplace, engine.module, "float32")
    write_json(workplace / "prh.json", dict(layers))
    state = workplace / checkpoints.STATE
    checkpoints.save_states(state, [one.state_dict() for one in used], step)
    checkpoints.save_tensors(state / "tower.safetensors", {k: v.contiguous() for k, v in tower.state_dict().items()})
    checkpoints.finish(workplace, target)
    checkpoints.prune(target.parent, 2)


class Tower(torch.nn.Module):
    """A vision tower with a linear layer on its tokens: tokens x outputs, and a number of dots for each token."""

    def __init__(self, engine: Trainable, outputs: int) -> None:
        super().__init__()
        inner = engine.module.model
        self.visual = cast(torch.nn.Module, inner.visual)
        width = engine.module.config.get_text_config().hidden_size
        self.head = torch.nn.Linear(width, outputs)
        self.dots = torch.nn.Linear(width, 1)
        torch.nn.init.constant_(self.head.bias, PRIOR)
        self._engine = (engine,)  # in a tuple, so that its module is not taken for a part of this one

    def forward(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        features = look(self._engine[0], images)
        return self.head(features), self.dots(features)[:, 0]


@torch.no_grad()
def probe(tower: Tower, held: Sequence[Glance], labels: Labels) -> dict[str, float]:
    """How often the strongest guess is right where just one thing is to be seen, and a sum of dots where there are any.

    By kind of label, and as ``counts``.
    """
    tower.eval()
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    names = {number: name for name, number in labels.numbers.items()}
    for start in range(0, len(held), 64):
        some = held[start : start + 64]
        logits, dots = tower([one.image for one in some])
        guessed = logits.view(-1, ROOM).argmax(1)
        sums = [float(part.sum()) for part in dots.split([len(one.dots) for one in some])]
        counted = [(round(found), int(one.dots.sum())) for found, one in zip(sums, some, strict=True)]
        total["counts"] += sum(there > 0 for _, there in counted)
        right["counts"] += sum(found == there > 0 for found, there in counted)
        targets = torch.from_numpy(np.concatenate([one.targets for one in some])).view(-1, ROOM)
        for place in torch.nonzero(targets.sum(1) == 1).flatten().tolist():
            number = int(targets[place].argmax())
            kind = kind_of(names[number])
            total[kind] += 1
            right[kind] += int(guessed[place]) == number
    return {kind: right[kind] / total[kind] for kind in sorted(total)}


def kind_of(label: str) -> str:
    """What kind of thing a label names."""
    if label.startswith("dot"):
        return "dots"
    return "things" if " " in label else "glyphs" if len(label) == 1 else "inks"
