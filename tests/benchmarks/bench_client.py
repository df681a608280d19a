"""What asking a server costs on this side, with a server that answers at once: ``make bench-client``.

Requests a second and CPU milliseconds of an episode of three turns with an image and two crops, at two concurrencies,
and whether memory grows: what the process holds before the first request, once as many episodes are done as run at
once, and at the end; and what each conversation that runs beside the others adds, and how much of that is decoded
pixels, counted in runs of their own. Then, where lmms-eval is installed, one turn with one image by our engine and by
lmms-eval's ``async_openai``, on the same server and images, alternating. The server is a process of its own, whose CPU
is not counted; requests a second are those of both together on this machine. Each figure is taken in a process of its
own.
"""

import asyncio
import gc
import importlib.util
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import arguments, median, report
from PIL import Image

IMAGES = 50
SIZE = (640, 480)
BUDGET = [784, 784 * 400]
CASES = ((64, 400), (64, 3000), (512, 1024), (512, 4096))
FEW_AND_MANY = (64, 512)
LONG = 2000


def pictures():
    rng = np.random.default_rng(0)
    for _ in range(IMAGES):
        small = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize(SIZE).save(buffer, "JPEG", quality=90)
        yield buffer.getvalue()


def held():
    """MB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def pixels():
    """MB that images take which are decoded now, as Pillow holds them: four bytes a pixel."""
    images = {id(one): one for one in gc.get_objects() if isinstance(one, Image.Image) and one._im is not None}
    return sum(4 * one.width * one.height for one in images.values()) / 2**20


class Watch:
    """What is held, as episodes finish."""

    def __init__(self, concurrency, count, halfway=None):
        self.full, self.half, self.halfway, self.done = concurrency, count // 2, halfway, 0
        self.mb = {"before": held()}

    def __call__(self, record):
        self.done += 1
        if self.done == self.full:
            self.mb["full"] = held()
        if self.done == self.half and self.halfway:
            self.mb |= {"half": held(), "pixels": self.halfway()}


class Instant:
    """The server."""

    def __init__(self, turns):
        command = [sys.executable, str(Path(__file__).with_name("instant_server.py")), "--turns", str(turns)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/v1"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def ours(url, turns, concurrency, count, halfway=None):
    """CPU and wall seconds of a run of our loop, what the engine counted, and MB by when they were held."""
    from prh.harness.engine import EngineOptions
    from prh.harness.media import Media
    from prh.harness.runner import run_all
    from prh.harness.settings import resolve
    from prh.harness.store import RunStore
    from prh.harness.types import Sample
    from prh.models.openai_engine import OpenAIFactory

    made = [Media("image", f"{number}.jpg", data) for number, data in enumerate(pictures())]
    samples = [
        Sample(f"s{n:06}", "What is it?", (made[n % IMAGES],), ("A",), "option", ("x", "y"), cluster=str(n))
        for n in range(count)
    ]
    protocol = "direct" if turns == 1 else "pixel-reasoner"
    budget = {"input": BUDGET, "crop": BUDGET}
    setting = resolve([("benchmark", {"protocol": protocol, "budget": budget})], 0)
    engine = OpenAIFactory().open(url, EngineOptions(extra={"concurrency": str(concurrency)}))

    async def through(store):
        jobs = [(sample, 0) for sample in samples]
        await run_all(jobs, engine, setting, store, concurrency=concurrency, report=watch)
        watch.mb["end"] = held()
        notes = dict(engine.describe())
        await engine.close()
        return notes

    watch = Watch(concurrency, count, halfway)
    with tempfile.TemporaryDirectory() as folder, RunStore(Path(folder) / "run") as store:
        start, begun = time.process_time(), time.perf_counter()
        notes = asyncio.run(through(store))
        seconds = time.process_time() - start, time.perf_counter() - begun
    assert notes["requests"] == turns * count, notes
    assert not notes["retries"]
    return seconds, notes, watch.mb


def theirs(url, concurrency, count):
    """CPU and wall seconds of lmms-eval's client."""
    from lmms_eval.api.instance import Instance
    from lmms_eval.models.chat.async_openai import AsyncOpenAIChat

    model = AsyncOpenAIChat(model_version="m", base_url=url, api_key="EMPTY", num_cpus=concurrency)
    made = list(pictures())
    docs = {
        n: [
            {
                "role": "user",
                "content": [
                    {"type": "image", "url": Image.open(io.BytesIO(made[n % IMAGES]))},
                    {"type": "text", "text": "What is it?\nA: x\nB: y\n\nPlease think step by step."},
                ],
            }
        ]
        for n in range(count)
    }
    model.task_dict = {"t": {"s": docs}}
    note = {"task": "t", "doc_id": 0, "repeats": 1}
    requests = [
        Instance("generate_until", ("", lambda doc: doc, {"max_new_tokens": 64}, n, "t", "s"), n, note) for n in docs
    ]
    start, begun = time.process_time(), time.perf_counter()
    results = model.generate_until(requests)
    seconds = time.process_time() - start, time.perf_counter() - begun
    assert all("boxed" in result.text for result in results)
    return seconds


def one(kind, concurrency, count):
    turns = 3 if kind in ("episode", "memory") else 1
    with Instant(turns) as server:
        if kind == "theirs":
            used, wall = theirs(server.url, concurrency, count)
            encoded, mb = count, {}
        else:
            halfway = pixels if kind == "memory" else None
            (used, wall), notes, mb = ours(server.url, turns, concurrency, count, halfway)
            encoded = notes["images_encoded"]
    mb["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ms": used / count * 1e3, "rate": turns * count / wall, "mb": mb, "encoded": encoded}


def taken(kind, concurrency, count):
    words = [sys.executable, "-W", "ignore", __file__, "--one", kind, str(concurrency), str(count)]
    plain = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=plain)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    if sys.argv[1:2] == ["--one"]:
        kind, concurrency, count = sys.argv[2:]
        print(json.dumps(one(kind, int(concurrency), int(count))))
        return
    args = arguments(__doc__.splitlines()[0], runs=3, most=4096)
    rows = []
    for concurrency, count in CASES:
        if count <= args.most:
            found = [taken("episode", concurrency, count) for _ in range(args.runs if count < LONG else 1)]
            figures = [median(one[name] for one in found) for name in ("rate", "ms")]
            held_at = [median(one["mb"][name] for one in found) for name in ("before", "full", "end", "peak")]
            rows.append(["3 turns, 3 images", concurrency, count, *figures, *held_at, found[0]["encoded"]])
    memory = {at_once: taken("memory", at_once, 2 * at_once)["mb"] for at_once in FEW_AND_MANY}
    few, many = (memory[at_once] for at_once in FEW_AND_MANY)
    each = {name: (many[name] - few[name]) / (FEW_AND_MANY[1] - FEW_AND_MANY[0]) for name in ("half", "pixels")}
    print(f"\nMB of each further conversation: {each['half']:.2f}, of them decoded pixels {each['pixels']:.2f}")
    ratio = None
    if importlib.util.find_spec("lmms_eval") is not None:
        pairs = [(taken("turn", 64, 200), taken("theirs", 64, 200)) for _ in range(args.runs)]
        for number, name in enumerate(("1 turn, 1 image", "the same by lmms-eval's async_openai")):
            figures = [median(pair[number][key] for pair in pairs) for key in ("rate", "ms")]
            peak = median(pair[number]["mb"]["peak"] for pair in pairs)
            rows.append([name, 64, 200, *figures, "", "", "", peak, pairs[0][number]["encoded"]])
        ratio = median(other["ms"] / own["ms"] for own, other in pairs)
        print(f"\nCPU of lmms-eval's client over ours, median of {args.runs}: {ratio:.2f}")
    times = ["MB before", "MB once all run", "MB at the end", "peak MB"]
    columns = ["what", "concurrency", "episodes", "requests/s", "CPU ms an episode", *times, "images encoded"]
    report(
        "The client alone",
        columns,
        rows,
        {"runs": args.runs, "ratio": ratio, "memory": memory, "each": each},
        args.json,
    )


if __name__ == "__main__":
    main()
