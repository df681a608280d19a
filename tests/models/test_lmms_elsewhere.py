"""lmms-eval under an interpreter of its own, which PRH_LMMS_EVAL_PYTHON names; ours has none."""

import importlib.util
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from prh.harness.store import read_json, read_records
from prh.tests.harness.test_cli import prh
from prh.tests.models.fake_lmms import write_package

TASKS = '''"""One task of two docs."""

import sys

from PIL import Image


class Task:
    OUTPUT_TYPE = "generate_until"
    eval_docs = ({"label": "A"}, {"label": "B"})

    def higher_is_better(self):
        return {"acc": True}

    def aggregation(self):
        return {"acc": lambda items: sum(items) / len(items)}

    def doc_to_target(self, doc):
        return doc["label"]

    def doc_to_text(self, doc):
        return f"{sys.prefix}: A or B?"

    def doc_to_visual(self, doc):
        return [Image.new("RGB", (56, 56), "red")]

    def process_results(self, doc, results):
        return {"acc": float(results[0].strip()[:1] == doc["label"])}


class TaskManager:
    def __init__(self, include_path=None, include_defaults=True, model_name=""):
        self.all_subtasks = ["prh_stub"]


def get_task_dict(names, manager, kind):
    return {"prh_stub": Task()}
'''


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """An environment that has the stand-in for lmms-eval, and Pillow; its folder."""
    folder = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    write_package(site)
    (site / "lmms_eval" / "tasks.py").write_text(TASKS)
    (site / "pillow.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_a_task_and_a_model_of_another_environment(cache, elsewhere, tmp_path):
    assert importlib.util.find_spec("lmms_eval") is None
    python = str(elsewhere / "bin" / "python")
    words = ["eval", "--model", "no-file", "--engine", "lmms:prh_echo", "--task", "lmms:prh_stub"]
    prh(*words, "--out", str(tmp_path / "run"), "--set", "engine.say=A", PRH_LMMS_EVAL_PYTHON=python)
    records = read_records(tmp_path / "run")
    assert [record["question"].partition(":")[0] for record in records] == [str(elsewhere)] * 2 != [sys.prefix] * 2
    assert {record["end"] for record in records} == {"answered"}
    assert read_json(tmp_path / "run" / "metrics.json")["metrics"]["acc"]["value"] == 0.5


def test_an_interpreter_that_has_no_lmms_eval_and_one_that_is_none(cache, tmp_path):
    words = ["eval", "--model", "no-file", "--engine", "lmms:prh_echo", "--task", "vstar-mini"]
    bare = tmp_path / "bare"
    venv.create(bare, symlinks=True)
    for number, (python, said) in enumerate(
        [(bare / "bin" / "python", "No module named 'lmms_eval'"), (tmp_path / "none", "cannot be started")]
    ):
        done = prh(*words, "--out", str(tmp_path / str(number)), code=2, PRH_LMMS_EVAL_PYTHON=str(python))
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    done = prh(*words, "--out", str(tmp_path / "unset"), code=2)
    assert "set PRH_LMMS_EVAL_PYTHON to that environment's python" in done.stderr
