"""Real run folders with pictures: scripted models that look, look wrongly, and answer, on a few drawn samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw
from prh.harness.engine import Turn, Usage
from prh.harness.errors import ModelError
from prh.harness.evaluate import Plan, load_profile, load_task, run
from prh.harness.ledger import Conversation
from prh.harness.manifest import dataset_fingerprint
from prh.harness.media import Media
from prh.harness.request import Request
from prh.harness.scripted import ScriptedEngine
from prh.harness.settings import resolve
from prh.harness.task import Dataset
from prh.harness.types import Box, Evidence, Json, Sample
from prh.tests.harness.support import png

SIZE = (400, 300)
TARGET = Box(240, 60, 320, 140)
COLOURS = ((200, 40, 40), (40, 120, 200), (60, 160, 80), (180, 140, 40))
FAILS = "fails"


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def crop(box: Sequence[object], target: int = 1) -> str:
    """A call for a box in pixels of a 400 x 300 image."""
    unit = [edge / SIZE[at % 2] if isinstance(edge, (int, float)) else edge for at, edge in enumerate(box)]
    return call("crop_image_normalized", bbox_2d=unit, target_image=target)


def pick(*frames: object) -> str:
    return call("select_frames", target_frames=list(frames))


def answer(letter: str = "A", thought: str = "It is plain to see.") -> str:
    return f"{thought} \\boxed{{{letter}}}"


def picture(folder: Path, number: int) -> Media:
    image = Image.new("RGB", SIZE, (90, 100, 95))
    ImageDraw.Draw(image).rectangle(TARGET, fill=COLOURS[number % len(COLOURS)])
    path = folder / f"scene{number}.png"
    image.save(path)
    return Media("image", path.name, path)


def clip(folder: Path, number: int, frames: int = 16) -> Media:
    own = folder / f"clip{number}"
    own.mkdir(parents=True, exist_ok=True)
    for frame in range(frames):
        (own / f"{frame:03}.png").write_bytes(png(120, 90, (10 * frame, 80, 200 - 10 * frame)))
    return Media("video", own.name, tuple(sorted(own.iterdir())))


def samples(folder: Path, images: int = 8, clips: int = 2) -> list[Sample]:
    """``s0`` to ``s7`` about images with the place of the answer, ``v0`` and ``v1`` about clips."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for n in range(images):
        at = (Evidence(1, TARGET),)
        slices = ("needs_operation",) if n % 2 else ()
        category = ("direct", "relative")[n % 2]
        question = f"What colour is thing {n}?"
        made.append(
            Sample(
                f"s{n}",
                question,
                (picture(folder, n),),
                ("A",),
                "option",
                ("red", "blue"),
                category,
                slices,
                f"i{n}",
                at,
            )
        )
    for n in range(clips):
        at = (Evidence(1, None, (5, 6)),)
        made.append(
            Sample(
                f"v{n}", "What moves?", (clip(folder, n),), ("A",), "option", ("dot", "line"), "motion", (), f"c{n}", at
            )
        )
    return made


@dataclass(frozen=True)
class Look:
    """A run: what a model says to each sample, turn by turn; a sample that is not named is answered right."""

    samples: Sequence[Sample]
    says: Mapping[str, Sequence[str]]
    model: str = "base"
    task: str = "vstar-mini"
    repeats: int = 1

    def at(self, folder: Path) -> Path:
        """Evaluate into a folder, which is returned."""
        task = load_task(self.task)

        def script(talk: Conversation) -> str | Turn:
            turns = self.says.get(talk.sample_id, (answer(),))
            text = turns[min(talk.turns, len(turns) - 1)]
            if text == FAILS:
                raise ModelError("the server went away")
            return Turn(text, usage=Usage(100, len(text.split())))

        settings: dict[str, Json] = {"limits": {"turns": 5}, "padding": 0.1, "budget": {"crop": [784, 40000]}}
        setting = resolve([("task", task.settings), ("test", settings)], 0)
        identity: dict[str, Json] = {
            "task": task.name,
            "split": "test",
            "dataset": dataset_fingerprint(self.samples),
            "model": self.model,
            "numerics": {"name": "scripted"},
            **setting.identity(),
        }
        command = ("prh", "eval", "--model", self.model, "--task", task.name, "--limit", "12", "--out", "runs/x")
        request = Request(self.model, self.task, folder, repeats=self.repeats, command=command)
        dataset = Dataset(list(self.samples), {"synthetic": True, "folder": "drawn"})
        plan = Plan(
            request, task, load_profile("strict"), dataset, self.samples, ScriptedEngine(script, self.model), setting,
            identity, 1.0, (),
        )  # fmt: skip
        run(plan)
        return folder


BEFORE: Mapping[str, Sequence[str]] = {
    "s0": (crop((240, 60, 320, 140)), answer("A")),
    "s1": (answer("B"),),
    "s2": (crop((10, 20, 110, 120)), answer("B")),
    "s4": (crop((-40, 20, 480, 120)), crop((200, 200, 100, 100)), answer("A")),
    "s5": (FAILS,),
    "s6": (answer("A", "A long thought. " * 80),),
    "v0": (pick(3, 3, 7), answer("A")),
    "v1": (answer("B"),),
}
AFTER: Mapping[str, Sequence[str]] = {
    "s0": (crop((20, 30, 90, 95)), crop((100, 100, 300, 200), 2), answer("B")),
    "s1": (crop((230, 50, 330, 150)), answer("A")),
    "s2": (answer("B"),),
    "s3": ("<tool_call>\n{not json\n</tool_call>", answer("A")),
    "s4": (call("zoom", x=1), answer("A")),
    "v0": (pick(5, 6), answer("A")),
    "v1": (pick(19), pick(5), answer("A")),
}


def two(folder: Path) -> tuple[Path, Path]:
    """A baseline that loses s1 and v1, and a candidate that loses s0; s5 fails in the baseline."""
    made = samples(folder / "data")
    return Look(made, BEFORE).at(folder / "before"), Look(made, AFTER, "tuned").at(folder / "after")


def four(folder: Path) -> tuple[Path, Path]:
    """The same as folders of two tasks each: the images as one, the clips as another."""
    made = samples(folder / "data")
    for name, says, model in (("before", BEFORE, "base"), ("after", AFTER, "tuned")):
        Look(made[:8], says, model).at(folder / name / "images")
        Look(made[8:], says, model, "mvbench-mini").at(folder / name / "clips")
    return folder / "before", folder / "after"


def hostile(folder: Path) -> tuple[Path, Path]:
    """Runs in which every text that a model or a dataset writes tries to be more than text."""
    made = samples(folder / "data", 3, 1)
    evil = [
        "</script><script>window.hacked=1</script>",
        "<img src=x onerror=window.hacked=2>",
        "<svg/onload=window.hacked=3>",
        "\u202egnp.exe",
        "{{ 7*7 }}{% raw %}",
        "javascript:window.hacked=4",
        "' onmouseover='window.hacked=5",
        "]]>--><!--",
        "\u2028\u0000",
    ]
    long = "W" * 1_000_000
    told = " ".join(evil)
    path = folder / "data" / "<img src=x onerror=hacked=6>.png"
    path.write_bytes(png(*SIZE))
    first = replace(
        made[0],
        question=told,
        choices=(evil[0], evil[1], long),
        category=evil[0],
        slices=tuple(evil),
        media=(Media("image", f"{evil[1]}{evil[3]}.png", path),),
        cluster=evil[2],
    )
    made = [first, replace(made[1], question=long, category=long[:5000], id=f"{evil[1]}{evil[3]}"), *made[2:]]
    says = {
        "s0": (
            f"{told}\n{call(evil[0], **{evil[1]: evil[2]})}",
            f"{told} {crop([evil[0], 1, 2, 3])}",
            f"{long} \\boxed{{B}}",
        ),
        made[1].id: (crop((10**9, -(10**9), 10**8, 5)), f"{told} \\boxed{{{evil[0]}}}"),
        "s2": (long,),
        "v0": (pick(*evil), pick(10**9, -5, 3), answer("B", long)),
    }
    names = [f"{name}{evil[3]}" for name in evil[:2]]
    return Look(made, says, names[0]).at(folder / "before"), Look(made, {}, names[1]).at(folder / "after")
