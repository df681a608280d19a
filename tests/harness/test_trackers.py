"""Figures in a model card and in experiment trackers: the run's own, and nothing that was said."""

import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from huggingface_hub import metadata_load
from prh.harness import trackers
from prh.harness.cards import update_card
from prh.harness.errors import Prerequisite, StoreError, UsageError
from prh.harness.evaluate import Result, plan, run
from prh.harness.request import Request
from prh.harness.store import read_json, write_json
from prh.harness.task import Selection
from prh.tests.harness.test_cli import prh


@pytest.fixture(scope="module")
def done(cache, tmp_path_factory) -> Result:
    out = tmp_path_factory.mktemp("run") / "vstar-mini"
    return run(plan(Request("pixels", "vstar-mini", out, selection=Selection(limit=12))))


CARD = """---
license: apache-2.0
model-index:
- name: mine
  results:
  - task:
      type: text-generation
    dataset:
      type: other
      name: Other
    metrics:
    - type: acc
      value: 12.5
---
# A model

Its text.
"""


def test_a_card_keeps_its_text_and_what_others_wrote(done, tmp_path):
    card = tmp_path / "README.md"
    card.write_text(CARD)
    for _ in range(2):
        assert update_card(card, done.folder) == 3
    data = metadata_load(card)
    assert data["license"] == "apache-2.0"
    (index,) = data["model-index"]
    assert index["name"] == "mine"
    values = {
        (result["dataset"]["name"], metric["type"]): metric
        for result in index["results"]
        for metric in result["metrics"]
    }
    assert set(values) == {
        ("Other", "acc"),
        *(("vstar-mini", name) for name in ("accuracy", "rapr", "op_error_rate")),
    }
    ours = read_json(done.folder / "metrics.json")["metrics"]["accuracy"]
    assert values["vstar-mini", "accuracy"]["value"] == round(100 * ours["value"], 2)
    assert values["vstar-mini", "accuracy"]["args"]["n"] == 12
    assert card.read_text().endswith("# A model\n\nIts text.\n")


def test_a_card_is_made_and_a_broken_one_is_told(done, tmp_path):
    card = tmp_path / "README.md"
    said = prh("score", str(done.folder), "--model-card", str(card))
    assert f"wrote 3 figures of {done.folder} into {card}" in said.stderr
    assert metadata_load(card)["model-index"][0]["name"] == "pixels"
    for metadata in ("model-index:\n- name: x\n  results: 3", "a: [b", "a: b: c"):
        card.write_text(f"---\n{metadata}\n---\n")
        with pytest.raises(StoreError, match=r"cannot be read: .*; mend what stands between its ---") as told:
            update_card(card, done.folder)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("model", ["http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1#Qwen/Qwen2.5-VL-7B-Instruct"])
def test_a_card_is_named_after_the_servers_model(done, tmp_path, model):
    folder = tmp_path / "run"
    shutil.copytree(done.folder, folder)
    manifest = read_json(folder / "run.json")
    engine = {**manifest["engine"], "model": "Qwen/Qwen2.5-VL-7B-Instruct"}
    write_json(folder / "run.json", {**manifest, "model": model, "engine": engine})
    update_card(tmp_path / "README.md", folder)
    assert metadata_load(tmp_path / "README.md")["model-index"][0]["name"] == "Qwen2.5-VL-7B-Instruct"


class Library(ModuleType):
    """A tracker in W&B's manner."""

    def __init__(self, name, fail=False):
        super().__init__(name)
        self.__spec__ = object()
        self.calls, self.fail = [], fail

    def init(self, **given):
        if self.fail:
            raise ConnectionError("no network\nhere")
        self.calls.append(given)

    def log(self, values):
        self.calls.append(values)

    def finish(self):
        self.calls.append("finish")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_figures_are_handed_over(done, monkeypatch, name):
    library = Library(name)
    monkeypatch.setitem(sys.modules, name, library)
    trackers.track(name, done)
    opened, values, end = library.calls
    assert (opened["project"], opened["config"]["task"], end) == ("prh", "vstar-mini", "finish")
    assert values["vstar-mini/accuracy"] == read_json(done.folder / "metrics.json")["metrics"]["accuracy"]["value"]
    assert values["vstar-mini/accuracy_low"] < values["vstar-mini/accuracy_high"]
    assert values["vstar-mini/n"] == 12
    assert any("/needs_operation/rapr" in key for key in values)
    assert not {"command", "environment", "directory"} & set(opened["config"])


def test_what_wandb_notes_by_itself_is_turned_off_as_far_as_it_knows(done, monkeypatch):
    library = Library("wandb")
    library.Settings = type("Settings", (dict,), {"model_fields": ("console", "x_disable_meta", "entity")})
    monkeypatch.setitem(sys.modules, "wandb", library)
    trackers.track("wandb", done)
    assert library.calls[0]["settings"] == {"console": "off", "x_disable_meta": True}


def test_a_tracker_that_refuses_costs_no_figure(done, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", Library("wandb", fail=True))
    with pytest.raises(
        Prerequisite, match=r"wandb did not take the figures .*: ConnectionError: no network here; they are"
    ):
        trackers.track("wandb", done)


def test_a_tracker_is_checked_before_anything_is_run(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="use one of wandb, trackio, tensorboard"):
        trackers.check_tracker("excel")
    monkeypatch.setitem(trackers.PACKAGES, "wandb", "no_such_package")
    with pytest.raises(Prerequisite, match="pip install no_such_package"):
        trackers.check_tracker("wandb")
    out = tmp_path / "run"
    said = prh(
        *("eval", "--model", "pixels", "--task", "vstar-mini", "--limit", "1", "--out", str(out), "--track", "excel"),
        code=2,
    )
    assert "--track 'excel' is not known" in said.stderr
    assert not out.exists()


def test_tensorboard_is_written_beside_the_run(done, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, value):
            written.append((self.folder, name, value))

        def close(self):
            written.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    trackers.track("tensorboard", done)
    assert written[-1] == "closed"
    assert Path(written[0][0]) == done.folder / "tensorboard"
