"""What a training refuses, each in one line and with exit code 2."""

import subprocess
import sys
import tomllib

import pytest
from prh.harness.errors import PrhError
from prh.tests.training.lessons import config
from prh.training import sft
from prh.training.batches import Feed
from prh.training.config import SftConfig, build, override, read_recipe


def trained(values, out, root):
    return sft.train(build(SftConfig, values), out, root)


def refused(path, out, *sets):
    values = override(tomllib.loads(path.read_text()), sets)
    with pytest.raises(PrhError) as error:
        trained(values, out, path.parent)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.epoch=2", "`train.epoch` is not a setting; use epochs"),
        ("trane.epochs=2", "`trane` is not a setting; use train"),
        ("train.epochs=two", "`train.epochs` must be a whole number, not 'two'"),
        ("train.epochs=true", "`train.epochs` must be a whole number"),
        ("train.epochs=0", "train.epochs must be a number from 1"),
        ("train.seed=-1", "train.seed must be a number from 0"),
        ("train=3", "`train` must be a table"),
        ("optim.lr=-1.0", "optim.lr must be a number from 0"),
        ("optim.lr=inf", "optim.lr must be a number from 0"),
        ("optim.betas=[0.9]", "`optim.betas` must be a list of 2"),
        ("optim.optimizer=lion", "optim.optimizer must be one of adamw, muon"),
        ("lora.dropout=1.0", "lora.dropout must be a share below 1"),
        ("model.dtype=int8", "model.dtype must be one of"),
        ("data.lessons=[]", "data.lessons names no folder"),
        ("data.lessons=['nowhere']", "nowhere"),
        ("data.released=['nowhere.json']", "there is no file"),
        ("data.longest=20", "at most 20 are allowed"),
        ("model.base=nothing-like-it", "nothing-like-it"),
        ("model.base=oracle", "has no weights to train"),
        ("model.freeze=['*']", "leaves nothing to train"),
        ("model.freeze=['vision.*']", "no parameter is called like 'vision.*'"),
        ("setting.budgets=3", "setting: `budgets` is not a setting"),
        ("setting.limits.turns=0", "limits.turns"),
        ("trackers=['wanddb']", "trackers: there is no 'wanddb'"),
        ("trackers=['aim']", "trackers: aim is not installed"),
        ("eval.tasks=['vstar-mimi']", "vstar-mimi"),
    ],
)
def test_a_wrong_value_is_told_in_a_line(school, tmp_path, change, said):
    assert said in refused(config(tmp_path, school), tmp_path / "out", change)
    assert not (tmp_path / "out/step-000002").exists()


@pytest.mark.parametrize("targets", ["no", "*.["])
def test_lora_that_fits_nothing(school, tmp_path, targets):
    change = f"lora.targets=['{targets}']"
    assert "lora.targets" in refused(config(tmp_path, school), tmp_path / "out", "lora.rank=2", change)


def test_an_adapter_is_no_base(school, tmp_path):
    path = config(tmp_path, school)
    values = override(tomllib.loads(path.read_text()), ["lora.rank=2", "train.epochs=1"])
    final = sft.train(build(SftConfig, values), tmp_path / "one", tmp_path)
    assert "is an adapter" in refused(path, tmp_path / "two", f"model.base={final}")


def test_a_folder_without_answers(tmp_path):
    from prh.harness.store import RunStore

    with RunStore(tmp_path / "empty"):
        pass
    assert "no trajectory" in refused(config(tmp_path, tmp_path / "empty"), tmp_path / "out")


def test_a_feed_ends_with_its_thread(school, tmp_path):
    """Left early, by an error of the step or of the thread."""
    import threading

    made = Feed.__new__(Feed)
    made.preparing = made.waiting = 0.0
    made.step = lambda step: [step] if step < 3 else 1 / 0
    feed = made.steps(0, 9)
    assert [next(feed), next(feed)] == [[0], [1]]
    feed.close()
    assert not any(thread.name == "prh-feed" for thread in threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        list(made.steps(0, 9))
    assert not any(thread.name == "prh-feed" for thread in threading.enumerate())


def test_images_are_read_once_where_memory_allows(school, tmp_path, monkeypatch):
    made = []
    real = sft.Run._feed
    monkeypatch.setattr(sft.Run, "_feed", lambda self: made.append(real(self)) or made[-1])
    for room in (1 << 30, 0):
        values = override(tomllib.loads(config(tmp_path, school).read_text()), [f"data.cache={room}"])
        sft.train(build(SftConfig, values), tmp_path / str(room), tmp_path)
    assert [feed.cache.made for feed in made] == [8, 16]


@pytest.mark.parametrize("case", ["not a number", "in use", "no file"])
def test_the_command_says_it_in_a_line(prh, school, tmp_path, case):
    path, out = config(tmp_path, school), tmp_path / "out"
    sets: tuple[str, ...] = ()
    if case == "in use":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    if case == "not a number":
        sets = ("--set", "optim.lr=1e30", "--set", "optim.clip=0.0", "--set", "optim.warmup=0.0")
    words = ("sft", tmp_path / "none.toml" if case == "no file" else path, "--out", out, *sets)
    assert prh("train", *words, codes=(2,)) == 2
    said = [line for line in prh.log.read_text().splitlines() if not line.startswith(("train ", "steps ", "step "))]
    assert len(said) == 1
    assert said[0].startswith("prh: ")
    assert {"not a number": "lower optim.lr", "in use": "no training's folder", "no file": "none.toml"}[case] in said[0]
    if case == "in use":
        assert [entry.name for entry in out.iterdir()] == ["notes.txt"]


def test_the_command_as_it_is_started(tmp_path):
    (tmp_path / "bad.toml").write_text("[model]\nbase = 'tiny'\nbasis = 'tiny'")
    command = [sys.executable, "-m", "prh", "train", "sft", str(tmp_path / "bad.toml"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "prh: `model.basis` is not a setting; use base\n"


def test_an_unknown_recipe_names_those_there_are():
    with pytest.raises(PrhError, match="sft-paper-7b"):
        read_recipe("sft-papers")
