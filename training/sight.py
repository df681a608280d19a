"""What a vision tower learns before anything is asked of it: what each of its tokens shows.

A question about a picture teaches a tower from nothing very slowly: the answer is a single word, and which of the
tokens it came from is itself still to be found out. So the tower is first trained alone, as the towers of released
models are. It says for every merged token which glyphs, dots and inks stand in each of its columns; what the thing
is called that it is a token of, and what that thing shows; and how far away the edges of that thing are. Names and
readings are said through the word embeddings of the language model, so that what a token shows points where the word
for it points; the rest through linear layers that are thrown away afterwards.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ..harness.errors import UsageError
from ..harness.settings import Setting
from ..harness.store import read_json, write_json
from ..harness.types import Json
from . import checkpoints
from .glances import BEFORE, BEHIND, COLUMNS, ROOM, VOCABULARY, Glance, Labels, glances
from .learner import computed_in, look, optimizers
from .pictures import Album
from .schedule import Optimisation
from .trainable import Trainable

# Targets are rare: without a weight of their own, nothing being there would be learned first and last. The weight goes
# as the rate does, because with it what lies between two columns is said to be in both.
RARE = 8.0
PRIOR = -4.0
# What the losses of marks, of words and of edges count.
MARKS, WORDS, PLACES = 0.05, 0.1, 0.3
# How many places an edge may have.
EDGES = BEFORE + BEHIND + 1
HELD = 512
# What may change between the parts of a training.
LOOSE = ("save",)


@dataclass(frozen=True, slots=True)
class SightConfig:
    """How a tower is trained.

    Attributes:
        pictures: how many of each task an edition of them has.
        windows: close-ups cut out of each picture.
        batch: images a step.
        editions: how many are looked at; ``turn``: steps after which the oldest gives way to a new one.
        precision: "bf16", "no" for float32, or "auto", see ``computed_in``.
        save: steps between checkpoints.
    """

    pictures: Mapping[str, Json]
    steps: int
    optim: Optimisation
    windows: int = 2
    batch: int = 64
    editions: int = 3
    turn: int = 500
    precision: str = "bf16"
    save: int = 500
    seed: int = 0


class Gallery:
    """What is looked at: editions of pictures, of which the oldest gives way to a new one now and then.

    Attributes:
        held: the glances of the editions that are looked at.
    """

    def __init__(self, config: SightConfig, setting: Setting, engine: Trainable, labels: Labels) -> None:
        self.config, self.setting, self.engine, self.labels = config, setting, engine, labels
        self.held: list[Glance] = []
        self._albums = {name: Album(name, config.seed + 1) for name in config.pictures}
        self._editions: deque[list[Glance]] = deque(maxlen=config.editions)
        self._next = 0

    def edition(self, number: int) -> list[Glance]:
        """The glances of an edition, from 0."""
        rng = random.Random(f"sight {self.config.seed} {number}")  # noqa: S311 - exercises, not secrets
        made: list[Glance] = []
        for name, share in self.config.pictures.items():
            count = int(cast(int, share))
            for place in range(number * count, (number + 1) * count):
                picture = self._albums[name](place)
                made += glances(picture, self.setting, self.engine, self.labels, self.config.windows, rng)
        return made

    def advance(self, step: int) -> None:
        """Draw what a step, from 0, looks at and is not there yet. Edition 0 is kept apart and never learned."""
        last = 1 + step // self.config.turn + self.config.editions
        if self._next >= last:
            return
        for number in range(max(self._next, last - self.config.editions), last):
            self._editions.append(self.edition(number))
        self._next = last
        self.held = [one for edition in self._editions for one in edition]


def train_sight(
    config: SightConfig,
    engine: Trainable,
    setting: Setting,
    out: Path,
    layers: Mapping[str, Json],
    say: Callable[[str], None],
) -> Path:
    """Train the vision tower and the word embeddings of an engine's module in place, or go on where that ended.

    Args:
        layers: what ``prh.json`` of the checkpoint says.

    Returns:
        The checkpoint.

    Raises:
        UsageError: what things are called is no single token of the checkpoint's, or another recipe began it.
        StoreError: the folder cannot be written or read.
    """
    last, found = checkpoints.place(out, config.steps), checkpoints.latest(out)
    if found is not None:
        checkpoints.check_recipe(found[1], _told(config), LOOSE)
    if last.is_dir():
        return last
    labels = Labels()
    gallery = Gallery(config, setting, engine, labels)
    apart = gallery.edition(0)
    held = random.Random(config.seed).sample(apart, min(HELD, len(apart)))  # noqa: S311 - exercises, not secrets
    del apart
    torch.manual_seed(config.seed)
    tower = Tower(engine)
    used = optimizers(tower, config.optim)
    peaks = [[float(group["lr"]) for group in one.param_groups] for one in used]
    first = _resume(out, tower, used, labels)
    start = time.process_time()
    with engine.quickened():
        for done in range(first + 1, config.steps + 1):
            gallery.advance(done - 1)
            share = config.optim.rate(done - 1, config.steps)
            loss = _step(config, tower, gallery.held, labels, done - 1, 1 + (RARE - 1) * share)
            _update(used, peaks, share)
            if done % config.save == 0 or done == config.steps:
                _report(out, done, time.process_time() - start, loss, probe(tower, held, labels), say)
                _save(config, engine, tower, used, checkpoints.place(out, done), layers, labels, done)
    return last


def _told(config: SightConfig) -> dict[str, Json]:
    return cast("dict[str, Json]", asdict(config))


def _update(used: Sequence[torch.optim.Optimizer], peaks: Sequence[Sequence[float]], share: float) -> None:
    for one, rates in zip(used, peaks, strict=True):
        for group, peak in zip(one.param_groups, rates, strict=True):
            group["lr"] = peak * share
        one.step()
        one.zero_grad()


def _report(
    out: Path, step: int, cpu: float, loss: float, seen: Mapping[str, float], say: Callable[[str], None]
) -> None:
    checkpoints.append_log(out, {"step": step, "loss": loss, "cpu_seconds": cpu, **seen})
    shown = "  ".join(f"{kind} {value:.2f}" for kind, value in seen.items())
    say(f"sight: step {step}  cpu {cpu:.0f} s  loss {loss:.3f}  {shown}")


def _step(config: SightConfig, tower: Tower, made: Sequence[Glance], labels: Labels, step: int, rare: float) -> float:
    tower.train()
    rng = np.random.default_rng([config.seed, step])
    chosen = [made[int(place)] for place in rng.integers(len(made), size=config.batch)]
    with torch.autocast("cpu", torch.bfloat16, enabled=computed_in(config.precision) == "bf16"):
        seen = tower([one.image for one in chosen], labels)
    weight = torch.tensor([rare])
    loss = torch.zeros(())
    for share, logits, targets in (
        (MARKS, seen.marks, [one.marks for one in chosen]),
        (WORDS, seen.words, [one.words[:, : len(labels.words)] for one in chosen]),
    ):
        wanted = torch.from_numpy(np.concatenate(targets)).float()
        losses = binary_cross_entropy_with_logits(logits.float(), wanted, pos_weight=weight, reduction="sum")
        loss = loss + share * losses / len(wanted)
    edges = torch.from_numpy(np.concatenate([one.edges for one in chosen])).long().flatten()
    if (edges >= 0).any():
        loss = loss + PLACES * cross_entropy(seen.edges.float(), edges, ignore_index=-1)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(tower.parameters(), config.optim.clip)
    return float(loss.detach())


def _resume(out: Path, tower: Tower, used: Sequence[torch.optim.Optimizer], labels: Labels) -> int:
    found = checkpoints.latest(out)
    if found is None:
        out.mkdir(parents=True, exist_ok=True)
        checkpoints.trim_log(out, 0)
        return 0
    state = found[1] / checkpoints.STATE
    tower.load_state_dict(checkpoints.load_tensors(state / "tower.safetensors"))
    known = cast("dict[str, dict[str, int]]", read_json(state / "labels.json"))
    labels.marks, labels.words = known["marks"], known["words"]
    step = checkpoints.load_states(state, used)
    checkpoints.trim_log(out, step)
    return step


def _save(
    config: SightConfig,
    engine: Trainable,
    tower: Tower,
    used: Sequence[torch.optim.Optimizer],
    target: Path,
    layers: Mapping[str, Json],
    labels: Labels,
    step: int,
) -> None:
    workplace = checkpoints.begin(target)
    engine.save(workplace, engine.module, "float32")
    write_json(workplace / "prh.json", dict(layers))
    write_json(workplace / checkpoints.MANIFEST, {"schema": 1, "kind": "sight", "step": step, "config": _told(config)})
    state = workplace / checkpoints.STATE
    checkpoints.save_states(state, [one.state_dict() for one in used], step)
    write_json(state / "labels.json", {"marks": {**labels.marks}, "words": {**labels.words}})
    checkpoints.save_tensors(state / "tower.safetensors", {k: v.contiguous() for k, v in tower.state_dict().items()})
    checkpoints.finish(workplace, target)
    checkpoints.prune(target.parent, 2)


@dataclass(frozen=True, slots=True)
class Seen:
    """Logits of marks, tokens x (columns x kinds); of words, tokens x words; of edges, 4 a token x places."""

    marks: torch.Tensor
    words: torch.Tensor
    edges: torch.Tensor


class Tower(torch.nn.Module):
    """A vision tower and what is read off its tokens."""

    def __init__(self, engine: Trainable) -> None:
        super().__init__()
        self.visual = cast(torch.nn.Module, engine.module.model.visual)
        self.embedded = cast(torch.nn.Embedding, engine.module.get_input_embeddings())
        width = self.embedded.embedding_dim
        self.marks = torch.nn.Linear(width, COLUMNS * ROOM)
        self.edges = torch.nn.Linear(width, 4 * EDGES)
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.prior = torch.nn.Parameter(torch.full((VOCABULARY,), PRIOR))
        torch.nn.init.constant_(self.marks.bias, PRIOR)
        self._engine = (engine,)  # in a tuple, so that its module is not taken for a part of this one
        self._ids: dict[str, int] = {}

    def forward(self, images: Sequence[Image.Image], labels: Labels) -> Seen:
        features = look(self._engine[0], images)
        ids = torch.tensor([self._id(text) for text in labels.words], dtype=torch.long)
        words = self.gain * features @ self.embedded(ids).T + self.prior[: len(ids)]
        return Seen(self.marks(features), words, self.edges(features).view(-1, EDGES))

    def _id(self, text: str) -> int:
        if text not in self._ids:
            found = self._engine[0].processor.encode(text, opening=False)  # type: ignore[attr-defined]
            if len(found) != 1:
                raise UsageError(f"{text!r} is {len(found)} tokens of this checkpoint; what things show must be one")
            self._ids[text] = found[0]
        return self._ids[text]


@torch.no_grad()
def probe(tower: Tower, held: Sequence[Glance], labels: Labels) -> dict[str, float]:
    """How often the strongest guess is right, by kind of label.

    Of marks where just one thing is to be seen, of words where a token has one of their kind; of edges, the shares of
    tokens with all four right.
    """
    tower.eval()
    tally: dict[str, list[bool]] = {}
    marks = [mark_kind(label) for label in labels.marks]
    words = np.array([word_kind(text) for text in labels.words])
    for start in range(0, len(held), 64):
        some = held[start : start + 64]
        seen = tower([one.image for one in some], labels)
        targets = np.concatenate([one.marks for one in some]).reshape(-1, ROOM)
        guessed = seen.marks.view(-1, ROOM).argmax(1).numpy()
        for place in np.flatnonzero(targets.sum(1) == 1):
            number = int(targets[place].argmax())
            tally.setdefault(marks[number], []).append(int(guessed[place]) == number)
        wanted = np.concatenate([one.words for one in some])[:, : len(words)]
        whole = np.concatenate([np.full(len(one.words), one.whole) for one in some])
        for kind in np.unique(words):
            chosen = words == kind
            there, best = wanted[:, chosen], seen.words.numpy()[:, chosen].argmax(1)
            for place in np.flatnonzero(there.sum(1) == 1):
                key = f"{kind} {'overview' if whole[place] else 'close'}"
                tally.setdefault(key, []).append(bool(there[place, best[place]]))
        edges = np.concatenate([one.edges for one in some])
        right = (seen.edges.argmax(1).view(-1, 4).numpy() == edges).all(1)
        tally.setdefault("edges", []).extend(right[edges[:, 0] >= 0].tolist())
    return {kind: sum(found) / len(found) for kind, found in sorted(tally.items()) if found}


def mark_kind(label: str) -> str:
    """What kind of mark a label is of."""
    return "dots" if label.startswith("dot ") else "glyphs" if len(label) == 1 else "inks"


def word_kind(text: str) -> str:
    """What kind of word a text is, as a sentence has it."""
    bare = text.strip()
    return "names" if " " in bare else "numbers" if bare.isdigit() else "words"
