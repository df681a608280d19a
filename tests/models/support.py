"""Conversations made in a line, and what a model gives from scratch."""

import asyncio
import functools
import json
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prh.harness import pictures
from prh.harness.engine import Turn, TurnSpec
from prh.harness.ledger import Conversation, MediaItem, MediaRef, Segment, Shown, Text
from prh.harness.media import pixel_digest
from prh.harness.types import Box, PixelBudget, Size, Span
from prh.models.processor import quiet
from prh.models.transformers_engine import TransformersEngine

END, PAD = "<|im_end|>", "<|endoftext|>"
BUDGET = PixelBudget(*[Span(1, 1 << 30)] * 4)


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def conversation(key: str = "s#0") -> Conversation:
    return Conversation(key, key, lambda size, _: size, BUDGET)


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    """The images whose pixels are hashed from here on to be remembered, each as often as it is."""
    seen: list[Image.Image] = []

    def digest(image: Image.Image) -> str:
        seen.append(image)
        return pixel_digest(image)

    monkeypatch.setattr(pictures, "pixel_digest", digest)
    return seen


def say(talk: Conversation, role: str, *parts: str | Image.Image | Sequence[Image.Image]) -> None:
    """Commit a message; an image is shown as it is, a list of images is a video."""
    items, shown, made = [], [], []
    for part in parts:
        if isinstance(part, str):
            made.append(Text(part))
            continue
        frames = (part,) if isinstance(part, Image.Image) else tuple(part)
        index = len(talk.items) + len(items) + 1
        size = Size(*frames[0].size)
        kind = "image" if isinstance(part, Image.Image) else "video"
        items.append(MediaItem(index, kind, "", "", size, size, 0, index, Box(0, 0, *size)))
        shown.append(Shown(frames, frames))
        made.append(MediaRef(index))
    talk.commit(Segment(role, tuple(made)), items, shown)


def reply(talk: Conversation, turn: Turn, *, trained: bool = False) -> None:
    talk.commit(Segment("assistant", (Text(turn.text),), (), turn.ids, turn.logprobs, turn.finish, trained))


def run(coroutine):
    return asyncio.run(coroutine)


def turns(engine: TransformersEngine, asked: Iterable[tuple[Conversation, TurnSpec]]) -> list[Turn]:
    """The next turn of each conversation, all asked for at once."""

    async def gather() -> list[Turn]:
        async with asyncio.timeout(60):
            return await asyncio.gather(*(engine.turn(talk, spec) for talk, spec in asked))

    return run(gather())


def ends(engine: TransformersEngine) -> frozenset[int]:
    return frozenset(engine._encoder.ends)


def batch(engine: TransformersEngine):
    """The running batch of an engine on the fast path."""
    return engine._path.scheduler.batch


def core(engine: TransformersEngine):
    """What runs its forwards; ``forward(stream, slots)`` gives logits, rows x vocabulary."""
    return batch(engine).model


def work(engine: TransformersEngine) -> dict:
    """What it has counted so far."""
    assert engine.describe()["path"] == "fast", engine.describe()
    return dict(engine.describe()["work"])


def since(engine: TransformersEngine, before: dict) -> dict:
    """What it has counted since."""
    return {name: value - before[name] for name, value in work(engine).items() if isinstance(value, int)}


def forget(engine: TransformersEngine) -> None:
    """Empty its caches, as if it had just been opened."""
    batch(engine).prefixes.clear()
    batch(engine).gallery.clear()


def only(engine: TransformersEngine, *allowed: int) -> tuple[int, ...]:
    """The ids to ban so that nothing else can be said."""
    return tuple(set(range(engine.module.config.get_text_config().vocab_size)) - set(allowed))


def endless(engine: TransformersEngine) -> tuple[int, ...]:
    """The ids to ban so that a turn reaches its length."""
    return tuple(engine.vision_ids | ends(engine))


@contextmanager
def recorded_logits(monkeypatch):
    """What the engine saw before each token, by the seed of the turn's spec."""
    from prh.models import continuous, decode

    seen: dict[int, list[torch.Tensor]] = {}

    def spy(logits, specs, generators):
        for row, spec in zip(logits, specs, strict=True):
            seen.setdefault(spec.seed, []).append(row.clone())
        return real(logits, specs, generators)

    real = decode.draw
    with monkeypatch.context() as patch:
        patch.setattr(decode, "draw", spy)
        patch.setattr(continuous, "draw", spy)
        yield seen


def redraw(logits: torch.Tensor, spec: TurnSpec, margin: float) -> list[tuple[int, bool]]:
    """What a turn draws from these logits, positions x vocabulary, and whether each was within a margin of another.

    Greedy: of its two best logits. Sampled: of its number and an end of its token's share, for any top-p as near, and
    with two tokens exchanged that are as near to each other at its cut.
    """
    scores = logits.double().numpy().copy()
    scores[:, list(spec.banned_ids)] = -np.inf
    if not spec.temperature:
        best = np.sort(scores, 1)
        return list(zip(scores.argmax(1).tolist(), (best[:, -1] - best[:, -2] < margin).tolist(), strict=True))
    generator = torch.Generator().manual_seed(spec.seed)
    numbers = [float(torch.rand((), generator=generator, dtype=torch.float64)) for _ in scores]
    return [_sampled(row / spec.temperature, spec.top_p, u, margin) for row, u in zip(scores, numbers, strict=True)]


def _sampled(scores: np.ndarray, top_p: float, number: float, margin: float) -> tuple[int, bool]:
    share = np.exp(scores - scores.max())
    share /= share.sum()
    order = np.argsort(-share, kind="stable")
    before = np.cumsum(share[order]) - share[order]

    def cut(limit: float) -> int:
        return len(order) if top_p == 1 else max(1, int((before < limit).sum()))

    def pick(chosen: np.ndarray) -> tuple[int, bool]:
        kept = np.zeros_like(share)
        kept[chosen] = share[chosen] / share[chosen].sum()
        ends = np.cumsum(kept)
        token = int(np.flatnonzero(ends > number)[0])
        return token, bool(min(ends[token] - number, number - ends[token] + kept[token]) < margin)

    count = cut(top_p)
    token, near = pick(order[:count])
    others = [pick(order[: cut(limit)]) for limit in (top_p - margin, top_p + margin)]
    if count < len(order) and scores[order[count - 1]] - scores[order[count]] < margin:
        others.append(pick(np.append(order[: count - 1], order[count])))
    return token, near or any(other != (token, False) for other in others)


# -- from scratch: one conversation, no batch, no cache, the model's own positions ----------------------------


def prompt_ids(folder: Path, talk: Conversation, cell: int) -> list[int]:
    """The conversation written out by hand in Qwen's format, sampled ids as they are."""
    tokenizer = tokenizer_of(folder)
    ids: list[int] = []
    text = ""
    for segment in talk.segments:
        text += f"<|im_start|>{segment.role}\n"
        if segment.role == "assistant":
            ids += tokenizer(text, add_special_tokens=False)["input_ids"] + list(segment.ids)
            text = "\n" if segment.ids[-1] == tokenizer.convert_tokens_to_ids(END) else f"{END}\n"
            continue
        for part in segment.parts:
            if isinstance(part, Text):
                text += part.text
            else:
                for image in talk.pixels(part.index).seen:
                    pads = image.width * image.height // cell**2
                    text += "<|vision_start|>" + "<|image_pad|>" * pads + "<|vision_end|>"
        text += f"{END}\n"
    return ids + tokenizer(text + "<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]


def patches(image: Image.Image, patch: int, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """An image as Qwen's vision tower takes it: patches x (colour, time, height, width), 2 x 2 cells together."""
    values = (np.asarray(image, np.float32) / 255 - np.float32(mean)) / np.float32(std)
    high, wide = image.height // patch, image.width // patch
    grid = values.transpose(2, 0, 1).reshape(3, high // 2, 2, patch, wide // 2, 2, patch)
    grid = grid.transpose(1, 4, 2, 5, 0, 3, 6)
    twice = np.stack([grid, grid], axis=5)
    return twice.reshape(high * wide, -1)


@functools.cache
def tokenizer_of(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@functools.cache
def model_of(folder: Path):
    from transformers import AutoModelForImageTextToText

    with quiet():
        return AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()


def full_logits(folder: Path, talk: Conversation, ids: Sequence[int], model=None) -> torch.Tensor:
    """Logits at every id of a Qwen-VL conversation, from one forward over everything."""
    model = model or model_of(folder)
    config = json.loads((folder / "preprocessor_config.json").read_text())
    images = list(talk.images())
    inputs = {"input_ids": torch.tensor([list(ids)])}
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == model.config.image_token_id).int()
    if images:
        patch = config["patch_size"]
        made = [patches(image, patch, config["image_mean"], config["image_std"]) for image in images]
        inputs["pixel_values"] = torch.from_numpy(np.concatenate(made))
        inputs["image_grid_thw"] = torch.tensor([[1, i.height // patch, i.width // patch] for i in images])
    with torch.inference_mode():
        return model(**inputs, use_cache=False).logits[0]
