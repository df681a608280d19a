"""Seeds, scenes and small syntheses in a line each."""

import asyncio
import io
import json
from collections import Counter
from dataclasses import replace

import numpy as np
from PIL import Image
from prh.harness.evaluate import load_profile
from prh.harness.media import Media
from prh.harness.record import canonical, key_of
from prh.harness.settings import resolve
from prh.harness.store import RunStore, read_records
from prh.harness.types import Box, Evidence, Sample, Size
from prh.training.geometry import Grid
from prh.training.known import Known
from prh.training.recipe import SourcePart, SynthPart
from prh.training.seeds import Seed
from prh.training.synth import Screen
from prh.training.synthesis import Bench, Shop, run_source
from prh.training.teachers.annotation import Annotation
from prh.training.templates import Scene
from prh.training.yields import Refusals, Tally


def png(size=(320, 240), seed=0):
    """Noise, so that each seed has pixels of its own."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def film(folder, seed=0, frames=16):
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(frames):
        path = folder / f"{number:03}.png"
        path.write_bytes(png((112, 84), 1000 * seed + number))
        paths.append(path)
    return Media("video", folder.name, tuple(paths))


def image_seed(number=0, box=(100, 80, 140, 110), **values):
    sample = Sample(
        f"q{number}",
        values.pop("question", "What colour is the ball?"),
        values.pop("media", (Media("image", f"{number}.png", png(seed=number)),)),
        ("B",),
        "option",
        ("red", "blue", "green"),
        "colour",
        cluster=str(number),
        evidence=(Evidence(box=Box(*box)),) if box else (),
    )
    notes = values.pop("notes", {"target": "ball"})
    return Seed(replace(sample, **values), "test", "CC0-1.0", {"row": number}, notes)


def video_seed(media, frames=(5, 6, 7), number=0, **values):
    evidence = (Evidence(frames=tuple(frames)),) if frames else ()
    return image_seed(number, None, media=(media,), evidence=evidence, question="What does the man lift?", **values)


def setting(protocol="pixel-reasoner", **values):
    budget = {name: [784, 19600] for name in ("input", "crop", "video_frame", "selected_frame")}
    return resolve([("test", {"protocol": protocol, "budget": budget, **values})], 0)


SIZE = Size(320, 240)


def scene(seed, size=SIZE, grid=0.1, frames=4, chosen=None):
    sizes = [Size(0, 0) if medium.kind == "video" else size for medium in seed.sample.media]
    return Scene(seed, (chosen or setting()).protocol, Grid.of(grid), sizes, sizes, frames)


def shop(known=None, concurrency=4, chosen=None, **synth):
    part = SynthPart(grid=synth.pop("grid", 0.1), frames=4, **synth)
    return Shop(
        chosen or setting(padding=0.0), part, 28, known or Known(), load_profile("strict"), {"prh": "1"}, concurrency
    )


def bench(store, part=None, teacher=None, **values):
    part = part or SourcePart("test")
    refusals = Refusals(store.folder / "refused.jsonl")
    tally = Tally(part.title, part.count)
    return Bench(
        part, teacher or Annotation(overview=True), shop(**values), store, Screen(), refusals, Counter(), tally
    )


def made(folder, seeds, part=None, teacher=None, **values):
    """The tally and the records of a small synthesis."""

    async def run(one):
        try:
            return await run_source(one, seeds)
        finally:
            await one.teacher.close()

    with RunStore(folder) as store:
        tally = asyncio.run(run(bench(store, part, teacher, **values)))
    return tally, read_records(folder)


def canonicals(folder):
    return {key_of(record): json.dumps(canonical(record), sort_keys=True) for record in read_records(folder)}


def said(record):
    """The assistant's turns: text and whether it is trained."""
    return [(s["parts"][0]["text"], s["trained"]) for s in record["segments"] if s["role"] == "assistant"]
