"""What the harness itself costs, with an engine that answers at once: ``make bench-harness``.

CPU milliseconds of a whole evaluation a sample, from an opened engine to ``metrics.json``: text of one turn, one image
in three turns (with and without storing the crops), and how both grow; peak memory of the process. Each run is a
process of its own, and the cases take turns: each runs once before any runs again.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import arguments, median, report
from PIL import Image
from prh.harness import evaluate, store
from prh.harness.engine import Turn
from prh.harness.evaluate import Plan, load_profile, load_task
from prh.harness.media import Media
from prh.harness.request import Request
from prh.harness.scripted import ScriptedEngine
from prh.harness.settings import resolve
from prh.harness.task import Dataset
from prh.harness.types import Call, Sample

# With their resized copies these fit into the least that is kept of decoded images (`harness.pictures.LEAST`), so that
# the figures do not depend on how much memory is free.
IMAGES = 30
CASES = (
    ("text, 1 turn", "text", 1, 1_000),
    ("text, 1 turn", "text", 1, 10_000),
    ("text, 1 turn", "text", 1, 100_000),
    ("text, 3 turns", "text", 3, 1_000),
    ("text, 8 turns", "text", 8, 1_000),
    ("image, 1 turn", "image", 1, 300),
    ("image, 3 turns", "image", 3, 300),
    ("image, 3 turns", "image", 3, 3_000),
    ("image, 8 turns", "image", 8, 300),
    ("image, 3 turns, crops not stored", "bare", 3, 300),
    ("500 images of 1024x768, 1 turn", "large", 1, 500),
)
SIZES = {"text": [], "image": [640, 480], "bare": [640, 480], "large": [1024, 768]}
BUDGET = [784, 19600]


def pictures(folder, size):
    rng = np.random.default_rng(0)
    for number in range(500 if size[0] > 1000 else IMAGES):
        small = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        small.resize(size).save(folder / f"{number}.jpg", quality=90)
        yield folder / f"{number}.jpg"


def measure(kind, turns, count, folder):
    paths = list(pictures(folder, SIZES[kind])) if SIZES[kind] else []
    media = [(Media("image", path.name, path),) for path in paths] or [()]
    samples = [
        Sample(f"s{n:06}", "What is it?", media[n % len(media)], ("A",), "option", ("x", "y"), cluster=str(n))
        for n in range(count)
    ]
    box = {"bbox_2d": [0.1, 0.1, 0.5, 0.5], "target_image": 1}
    call = Call("crop_image", box) if paths else Call("crop_image", {})

    def script(talk):
        return "\\boxed{A}" if talk.turns + 1 >= turns else Turn("Look.", native_calls=(call,))

    limits = {"turns": 20, "images": 40}
    setting = resolve([("benchmark", {"limits": limits, "budget": {"input": BUDGET, "crop": BUDGET}})], 0)
    engine, task = ScriptedEngine(script), load_task("vstar-mini")
    request = Request("scripted", "vstar-mini", folder / "run")
    identity = {"protocol": setting.protocol.name}
    plan = Plan(
        request, task, load_profile("strict"), Dataset(samples, {}), samples, engine, setting, identity, 1.0, ()
    )
    if kind == "bare":
        store.encode_image = lambda *_: b""
    start = time.process_time()
    result = evaluate.run(plan)
    seconds = time.process_time() - start
    assert result.records == count
    return {"ms": seconds / count * 1e3, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main():
    if sys.argv[1:2] == ["--one"]:
        kind, turns, count = sys.argv[2:]
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(kind, int(turns), int(count), Path(folder))))
        return
    args = arguments(__doc__.splitlines()[0], runs=5, most=100_000)
    cases = [case for case in CASES if case[3] <= args.most]
    found = [[] for _ in cases]
    for _ in range(args.runs):
        for (_, *case), runs in zip(cases, found, strict=True):
            words = [sys.executable, __file__, "--one", *map(str, case)]
            made = subprocess.run(words, check=True, capture_output=True, text=True)
            runs.append(json.loads(made.stdout))
    rows = [
        [title, count, *(median(run[name] for run in runs) for name in ("ms", "mb"))]
        for (title, _, _, count), runs in zip(cases, found, strict=True)
    ]
    report("The harness alone", ["what", "samples", "CPU ms a sample", "peak MB"], rows, {"runs": args.runs}, args.json)


if __name__ == "__main__":
    main()
