"""A task of lmms-eval over local files, and a chat model of lmms-eval that answers as the fake server does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
from prh.tests.harness.test_plugins import install
from pyarrow import parquet

YAML = """task: prh_local
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_visual: !function local_utils.visual
doc_to_text: !function local_utils.text
doc_to_target: label
process_results: !function local_utils.process
generation_kwargs:
  max_new_tokens: 16
  temperature: 0
  do_sample: false
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: percent
    aggregation: !function local_utils.percent
    higher_is_better: true
"""
UTILS = """import io
from PIL import Image


def visual(doc):
    return [Image.open(io.BytesIO(doc["image"])).convert("RGB")]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["text"]


def process(doc, results):
    right = float(results[0].strip()[:1].upper() == doc["label"])
    return {"acc": right, "percent": {"score": right, "id": doc["label"]}}


def percent(items):
    return 100 * sum(item["score"] for item in items) / len(items)
"""
LOGLIKELIHOOD = YAML.replace("prh_local", "prh_likely").replace("generate_until", "loglikelihood")
DUMMY = '''"""A chat model that answers as the fake server does."""

import json

from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from prh.harness.media import pixel_digest
from prh.tests.models.fake_server import decide


class Dummy(lmms):
    is_simple = False

    def __init__(self, pretrained="", batch_size=1, device=None, fail="", **kwargs):
        super().__init__()
        assert pretrained == "no-file"
        self.fail, self.asked = str(fail), 0

    def generate_until(self, requests):
        print("a library that prints")
        self.asked += 1
        if self.fail == "raise" and self.asked == 2:
            raise RuntimeError("out of memory")
        return [self.answer(request) for request in requests]

    def answer(self, request):
        context, doc_to_messages, kwargs, doc_id, task, split = request.args
        assert kwargs["max_new_tokens"] > 0
        view = []
        for message in doc_to_messages(self.task_dict[task][split][doc_id]):
            parts, text = [], ""
            for part in message["content"]:
                if part["type"] == "text":
                    text += part["text"]
                else:
                    parts += [text] if text else []
                    parts.append(pixel_digest(part["url"]))
                    text = ""
            view.append([message["role"], [*parts, text] if text else parts])
        if self.fail == "sentinel":
            return "[LMMS_EVAL_REQUEST_FAILED after 5 retries] busy"
        return GenerationResult(decide(view), TokenCounts(input_tokens=120, output_tokens=7))

    def loglikelihood(self, requests):
        raise NotImplementedError

    def generate_until_multi_round(self, requests):
        raise NotImplementedError
'''
PLUGIN = """def manifest():
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="prh_dummy", chat_class_path="prh_dummy_model.Dummy")
"""


def write_task(folder, samples):
    """A task over the first images of some samples, their options and an answer instruction baked into the text."""
    rows = []
    for sample in samples:
        options = [f"({'ABCD'[number]}) {choice}" for number, choice in enumerate(sample.choices)]
        lines = [sample.question, *options, "Answer with the option's letter from the given choices directly."]
        rows.append({"image": sample.media[0].encoded(), "text": "\n".join(lines), "label": sample.gold[0]})
    folder.mkdir()
    data = folder / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), data)
    (folder / "prh_local.yaml").write_text(YAML.format(data=json.dumps(str(data))))
    (folder / "prh_likely.yaml").write_text(LOGLIKELIHOOD.format(data=json.dumps(str(data))))
    (folder / "local_utils.py").write_text(UTILS)
    return folder


def write_plugin(site):
    site.mkdir()
    (site / "prh_dummy_model.py").write_text(DUMMY)
    (site / "prh_dummy_plugin.py").write_text(PLUGIN)
    install(site, "prh-dummy", {"lmms_eval.models": {"prh_dummy": "prh_dummy_plugin:manifest"}})
    return site


def examples():
    """The blocks of docs/lmms-eval.md, by name."""
    text = (Path(__file__).parents[2] / "docs" / "lmms-eval.md").read_text()
    return dict(re.findall(r"^```sh test=(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def shell(text, cwd, names):
    """What a block prints, with other names in the place of those that need a download or a GPU."""
    for name, ours in names.items():
        text = text.replace(name, ours)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-e", "-c", text], capture_output=True, text=True, cwd=cwd, env=environment, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
