"""The same 500 questions about images of 1024 x 768 through this harness and through lmms-eval: ``make bench-lmms``.

Rows in the schema of lmms-lab's V* Bench, in one parquet file; a model that answers at once and takes every image
decoded and as large as it is: resizing is a model's in lmms-eval, and here the harness's, so that neither does it.
CPU seconds from the file to the metrics, imports apart; ours writes and flushes a record of every episode besides,
theirs keeps them in memory. Each run is a process of its own, in turn. lmms-eval is entered through ``simple_evaluate``
with only this task known, which is the quicker of its ways in.
"""

import io
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

COUNT, SIZE = 500, (1024, 768)
CATEGORIES = {"direct_attributes": 300, "relative_position": 200}
QUESTION = "What is the color of the patch?\n(A) red\n(B) blue\n(C) green\n(D) grey\n"
SUFFIX = "Answer with the option's letter from the given choices directly."
TASK = """\
task: five_hundred
dataset_path: parquet
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_visual: !function reading.visual
doc_to_text: !function reading.text
doc_to_target: label
process_results: !function reading.process
generation_kwargs: {max_new_tokens: 16, temperature: 0, do_sample: false}
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
lmms_eval_specific_kwargs: {default: {pre_prompt: "", post_prompt: ""}}
"""
READING = """\
def visual(doc):
    return [doc["image"].convert("RGB")]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["text"]


def process(doc, results):
    return {"acc": float(results[0].strip()[:1].upper() == doc["label"])}
"""


def write(folder):
    from datasets import Dataset, Features, Value
    from datasets import Image as Picture

    rng = np.random.default_rng(0)
    rows = []
    for number in range(COUNT):
        small = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        data = io.BytesIO()
        small.resize(SIZE).save(data, "JPEG", quality=90)
        category = "direct_attributes" if number < CATEGORIES["direct_attributes"] else "relative_position"
        rows.append(
            {
                "image": {"bytes": data.getvalue(), "path": f"{number}.jpg"},
                "text": QUESTION + SUFFIX,
                "label": "ABCD"[number % 4],
                "category": category,
                "question_id": str(number),
            }
        )
    texts = {name: Value("string") for name in ("text", "label", "category", "question_id")}
    path = folder / "test-00000-of-00001.parquet"
    Dataset.from_list(rows, features=Features({"image": Picture(), **texts})).to_parquet(path)
    (folder / "tasks").mkdir()
    (folder / "tasks" / "five_hundred.yaml").write_text(TASK % path)
    (folder / "tasks" / "reading.py").write_text(READING)


def ours(folder, out):
    from prh.harness import evaluate
    from prh.harness.evaluate import Plan, load_profile
    from prh.harness.request import Request
    from prh.harness.scripted import ScriptedEngine
    from prh.harness.settings import resolve
    from prh.harness.task import DataOptions
    from prh.tasks.vstar import VStar

    class Five(VStar):
        counts = CATEGORIES

    class Instant(ScriptedEngine):
        def fit(self, size, budget):
            return size

    def answer():
        task, setting = Five(), resolve([("benchmark", {"protocol": "direct"})], 0)
        dataset = task.load(DataOptions(folder, "test"))
        request = Request("scripted", "vstar", out)
        samples = list(dataset.samples)
        engine, identity = Instant(lambda _: "\\boxed{A}"), {"protocol": setting.protocol.name}
        plan = Plan(request, task, load_profile("strict"), dataset, samples, engine, setting, identity, 1.0, ())
        result = evaluate.run(plan)
        assert result.records == COUNT
        return result.metrics["metrics"]["accuracy"]["value"]

    return answer


def theirs(folder, _):
    from lmms_eval.api.instance import GenerationResult, TokenCounts
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    class Instant(lmms):
        is_simple = False

        def loglikelihood(self, requests):
            raise NotImplementedError

        def generate_until_multi_round(self, requests):
            raise NotImplementedError

        def generate_until(self, requests):
            return [self.answer(*request.args) for request in requests]

        def answer(self, _, messages_of, kwargs, number, task, split):
            for message in messages_of(self.task_dict[task][split][number]):
                for part in message["content"]:
                    if part["type"] == "image":
                        part["url"].load()
            return GenerationResult(text="A", token_counts=TokenCounts(output_tokens=1))

    def answer():
        manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False, model_name="instant")
        found = simple_evaluate(
            model=Instant(), tasks=["five_hundred"], batch_size=1, task_manager=manager, bootstrap_iters=0
        )
        assert found["n-samples"]["five_hundred"]["effective"] == COUNT
        return found["results"]["five_hundred"]["acc,none"]

    return answer


WAYS = {"prh": ours, "lmms-eval": theirs}


def one(way, folder):
    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        work = WAYS[way](folder, Path(out) / "run")
        loaded = time.process_time()
        accuracy = work()
        ended = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"import": loaded - start, "seconds": ended - loaded, "mb": peak, "accuracy": accuracy}


def main():
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], Path(sys.argv[3]))))
        return
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]))
        return
    args = arguments(__doc__.splitlines()[0], runs=5)
    found = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        # A process begins with the peak of the one that starts it, so that this one stays small.
        subprocess.run([sys.executable, "-W", "ignore", __file__, "--write", folder], check=True, capture_output=True)
        for _ in range(args.runs):
            for way, rows in found.items():
                words = [sys.executable, "-W", "ignore", __file__, "--one", way, folder]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
    assert len({row["accuracy"] for rows in found.values() for row in rows}) == 1, found
    pairs = list(zip(found["lmms-eval"], found["prh"], strict=True))
    ratio = median(other["seconds"] / own["seconds"] for other, own in pairs)
    keys = ("seconds", "import", "mb")
    rows = [[way, COUNT, *[median(row[key] for row in each) for key in keys]] for way, each in found.items()]
    columns = ["harness", "samples", "CPU s", "importing, CPU s", "peak MB"]
    report("500 images of 1024x768", columns, rows, {"runs": args.runs, "ratio": ratio}, args.json)
    print(f"\nCPU of lmms-eval over ours, median of {args.runs} pairs: {ratio:.2f}")


if __name__ == "__main__":
    main()
