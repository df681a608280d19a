"""The engine against the two plain ways of running turns, in the shape of a real model: ``make bench-gpu``.

Random weights of the shape of Qwen2.5-VL-7B in bfloat16, made on the GPU and never written; images of 1,000 to 5,000
visual tokens, each shown to one conversation; episodes of three turns that follow a script: two crops and an answer,
each turn as long as the script says. The same episodes in three ways: the engine, whose turns join and leave the
running batch over a cache of what was read and seen before; rounds, where all conversations of a batch ask,
``generate`` reads everything and runs until the slowest is done; and serial, one ``generate`` a turn, on some of the
episodes.

Turns a second are of the clock, and memory is the most that torch had allocated while a way ran, weights included.
Random weights say noise: how long a turn is and what is called is the script's, and what is said decides nothing.
``--shape tiny`` is a synthetic miniature that runs anywhere, to try the script; its figures say nothing of a GPU. Where
there is no GPU, the shape 7b is refused: nothing is measured.
"""

import argparse
import io
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from bench_engine import Free, in_rounds, ours
from measure import median, report
from PIL import Image
from prh.harness.engine import EngineOptions, TurnSpec
from prh.harness.media import Media
from prh.harness.pictures import PICTURES
from prh.harness.settings import resolve
from prh.harness.types import Call, Sample
from prh.models import tiny
from prh.models.transformers_engine import TransformersFactory

CELL = 28
TURNS = 3
NO_GPU = "NOT RUN: the shape 7b needs a GPU, and torch finds none; --shape tiny tries the script on a processor"


@dataclass(frozen=True)
class Shape:
    """A model and what is asked of it.

    Attributes:
        text, vision: fields of the family's configuration, as Qwen/Qwen2.5-VL-7B-Instruct's config.json has them.
        tokens: fewest and most visual tokens of an image.
        length: fewest and most new tokens of a turn.
    """

    text: dict
    vision: dict
    tokens: tuple[int, int]
    length: tuple[int, int]
    dtype: torch.dtype


BIG_TEXT = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 128000,
    "max_window_layers": 28,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
BIG_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
SHAPES = {
    "7b": Shape(BIG_TEXT, BIG_VISION, (1000, 5000), (32, 256), torch.bfloat16),
    "tiny": Shape({**tiny.TEXT, "vocab_size": 1024}, tiny.VISION, (10, 50), (4, 12), torch.float32),
}


def config_of(shape):
    """The configuration, with our tokenizer's special ids."""
    from transformers import Qwen2_5_VLConfig

    ids = tiny.build_tokenizer().get_vocab()
    spelled = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    own = {"eos_token_id": ids[tiny.END], "pad_token_id": ids[tiny.PAD], "bos_token_id": ids[tiny.PAD]}
    return Qwen2_5_VLConfig(
        text_config={**shape.text, **own, "tie_word_embeddings": False},
        vision_config=dict(shape.vision),
        tie_word_embeddings=False,
        **{name: ids[token] for name, token in zip(names, spelled, strict=True)},
    )


def module_of(shape, device):
    """A model with random weights, made where it stays; it says no id that the tokenizer lacks, which ends a turn."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    with torch.device(device):
        module = AutoModelForImageTextToText.from_config(config_of(shape), dtype=shape.dtype).eval()
    with torch.no_grad():
        module.lm_head.weight[len(tiny.build_tokenizer()) :] = 0
    return module


def opened(shape, device, batch, folder):
    """The engine over such a model; the folder gets the small files of a checkpoint."""
    tiny.build_tokenizer().save_pretrained(folder)
    config_of(shape).save_pretrained(folder)
    pixels = {**tiny.PIXELS, "image_processor_type": "Qwen2VLImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    (folder / "model.safetensors").touch()  # looked for, and not read
    engine = "prh.models.transformers_engine"
    with (
        patch(f"{engine}.load_module", lambda *_: module_of(shape, device)),
        patch(f"{engine}.fingerprint", lambda _: "random"),
    ):
        return TransformersFactory().open(str(folder), EngineOptions(device=device, batch=batch))


class Scripted(Free):
    """Turns as long as a script says: two crops, and an answer."""

    def __init__(self, inner, opened, length):
        super().__init__(inner, opened)
        self.banned = tuple(opened.vision_ids | set(opened._encoder.ends))
        self.length = length

    async def turn(self, talk, spec):
        number = talk.turns
        rng = random.Random(f"{talk.key}-{number}")
        length, (x, y) = rng.randint(*self.length), (rng.uniform(0, 0.5), rng.uniform(0, 0.5))
        turn = await self.inner.turn(talk, TurnSpec(length, banned_ids=self.banned))
        self.said[talk.key, number] = turn.ids
        call = Call("crop_image", {"bbox_2d": [x, y, x + 0.4, y + 0.4], "target_image": 1})
        return replace(turn, text="So.", finish="stop", native_calls=() if number + 1 == TURNS else (call,))


def samples_of(shape, count):
    """Samples with an image of their own each, of so many visual tokens."""
    rng = np.random.default_rng(0)
    for number in range(count):
        tokens = int(rng.integers(shape.tokens[0], shape.tokens[1] + 1))
        wide = max(1, round(tokens**0.5))
        size = CELL * wide, CELL * (tokens // wide)
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        image = coarse.resize(size, Image.Resampling.BICUBIC)
        name = f"e{number:04}"
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        media = (Media("image", f"{name}.png", buffer.getvalue()),)
        yield Sample(name, "What is it?", media, ("A",), "option", ("x", "y"), cluster=name)


def measured(work, device):
    """Seconds of the clock, GiB at most, and what a way gives."""
    cuda = device == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    made = work()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() / 2**30 if cuda else None, made


def compare(engine, shape, device, args):
    """Run the three ways in turn, and report."""
    most = CELL**2 * (shape.tokens[1] + 100)
    limits = {"turns": TURNS + 1, "images": 2 * TURNS, "tokens": 1 << 20, "new_tokens": shape.length[1]}
    budget = {"input": [CELL**2, most], "crop": [CELL**2, most]}
    setting = resolve([("benchmark", {"protocol": "pixel-reasoner", "budget": budget, "limits": limits})], 0)
    samples = list(samples_of(shape, args.episodes))

    def speaker(inner, opened):
        return Scripted(inner, opened, shape.length)

    ways = {
        "ours": lambda: ours(engine, samples, setting, speaker, args.concurrency)[0],
        "rounds": lambda: in_rounds(engine, samples, setting, speaker, args.batch),
        "serial": lambda: in_rounds(engine, samples[: args.serial], setting, speaker, 1),
    }
    found, lengths = {name: [] for name in ways}, {}
    for number in range(args.runs + 1):
        for name, work in ways.items():
            before = dict(engine.describe()["work"])
            seconds, memory, said = measured(work, device)
            done = engine.describe()["work"]
            for key, ids in said.items():
                assert lengths.setdefault(key, len(ids)) == len(ids), "a turn is as long in every way"
            prompted = done["prompt_tokens"] - before["prompt_tokens"]
            cached = done["cached_tokens"] - before["cached_tokens"]
            saved = cached / prompted if prompted else 0.0
            if number:
                tokens = sum(map(len, said.values()))
                taken = {"rate": len(said) / seconds, "gib": memory, "saved": 100 * saved}
                found[name].append({**taken, "turns": len(said), "tokens": tokens})
            engine.forget()
    rows = []
    for name, runs in found.items():
        rate, saved = (median(run[key] for run in runs) for key in ("rate", "saved"))
        gib = median(run["gib"] for run in runs) if device == "cuda" else "-"
        rows.append([name, runs[0]["turns"], runs[0]["tokens"], rate, gib, saved])
    figures = {
        "shape": args.shape,
        "parameters": sum(weight.numel() for weight in engine.module.parameters()),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "episodes": args.episodes,
        "batch": args.batch,
        "runs": args.runs,
    }
    columns = ["way", "turns", "new tokens", "turns/s", "peak GiB", "prefill saved, %"]
    what = "a synthetic miniature on a processor" if args.shape == "tiny" else f"7B shape on {figures['device']}"
    report(f"{args.episodes} episodes of {TURNS} turns, {what}", columns, rows, figures, args.json)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    for name, value in {"episodes": 64, "serial": 8, "batch": 16, "concurrency": 32, "runs": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.shape == "7b" and device == "cpu":
        sys.exit(NO_GPU)
    shape = SHAPES[args.shape]
    PICTURES.cap = 1 << 33
    with tempfile.TemporaryDirectory() as folder:
        compare(opened(shape, device, args.batch, Path(folder)), shape, device, args)


if __name__ == "__main__":
    main()
