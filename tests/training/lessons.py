"""Lessons that show one or two pictures or none, with operations right and wrong, in a line each."""

import asyncio
import io
import json
from pathlib import Path

from prh.harness.engine import smart_resize
from prh.harness.media import Media
from prh.harness.settings import resolve
from prh.harness.store import RunStore
from prh.harness.types import Sample
from prh.models import tiny
from prh.tests.models.support import noise
from prh.training.examples import Performer
from prh.training.trajectories import Lesson, Said, perform, to_lesson_record


def setting(**over):
    return resolve([("prh.json", tiny.SETTINGS), ("test", over)], 0)


def picture(name: str, size: tuple[int, int], seed: int) -> Media:
    buffer = io.BytesIO()
    noise(size, seed).save(buffer, "PNG")
    return Media("image", name, buffer.getvalue())


def crop(*box: float) -> str:
    call = {"name": "crop_image_normalized", "arguments": {"bbox_2d": list(box), "target_image": 1}}
    return f"I look closer.\n<tool_call>\n{json.dumps(call)}\n</tool_call>"


RIGHT, WRONG = crop(0.1, 0.1, 0.6, 0.6), crop(0.9, 0.9, 0.2, 0.2)


def lesson(number: int) -> Lesson:
    """By number, in turn: a right look, a wrong one before it, two pictures, no picture at all."""
    kind = number % 4
    size = (112 + 28 * (number % 3), 84 + 28 * (number % 5))
    media = tuple(picture(f"{count}.png", size, 100 * number + count) for count in range((1, 1, 2, 0)[kind]))
    answer = Said(f"It is so. \\boxed{{{'AB'[number % 2]}}}")
    looks = (
        (Said(RIGHT),),
        (Said(WRONG, trained=False), Said(RIGHT)),
        (Said(RIGHT), Said(crop(0.5, 0.2, 0.8, 0.9))),
        (),
    )
    sample = Sample(f"s{number}", f"What is in picture {number}?", media, ("A",), "option", ("red", "blue"))
    return Lesson(f"s{number}#0", sample, (*looks[kind], answer), {"source": "noise", "teacher": "test"})


def write(folder: Path, count: int) -> None:
    """A folder of lessons, as `prh synth` writes one."""

    async def go() -> None:
        with RunStore(folder) as store:
            for made in map(lesson, range(count)):
                fit = lambda size, budget: smart_resize(size, budget, 28)  # noqa: E731
                done = await perform(made.sample, made.script, setting(), fit)
                files = store.keep_media(done.conversation)
                inputs = [
                    {"kind": "image", "name": media.name, "file": files[index][0]}
                    for index, media in enumerate(made.sample.media, 1)
                ]
                store.append(to_lesson_record(done, files, inputs, made.provenance))

    asyncio.run(go())


def examples(engine, numbers, **how):
    """Lessons as examples for an engine."""
    return Performer(engine, setting(), **how).examples([lesson(number) for number in numbers])


CONFIG = """
[model]
base = "{base}"
attention = "eager"
[data]
lessons = ["{lessons}"]
[train]
epochs = 2
batch = 4
micro = 1200
save = 2
[optim]
lr = 1e-3
"""


def config(folder: Path, lessons: Path, base: str = "tiny") -> Path:
    """A configuration for these lessons in a file."""
    path = folder / "sft.toml"
    path.write_text(CONFIG.format(base=base, lessons=lessons))
    return path
