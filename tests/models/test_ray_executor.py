"""The executor ``ray`` over a stand-in for Ray: workers that are lost or drain. Ray itself: `make test-ray`."""

import sys
from pathlib import Path

import pytest
from prh.harness.errors import UsageError
from prh.harness.evaluate import Watcher
from prh.harness.record import canonical, key_of
from prh.harness.request import Request
from prh.harness.sharing import LostRank
from prh.harness.store import read_json, read_records
from prh.harness.task import Selection
from prh.models.ray_executor import Options, RayExecutor
from prh.tests.harness.test_cli import prh
from prh.tests.models import fake_ray

WORDS = ["eval", "--model", "oracle", "--task", "vstar-mini", "--limit", "20", "--executor", "ray"]


@pytest.fixture
def ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", fake_ray)
    for kept in (fake_ray.given, fake_ray.gone):
        kept.clear()
    fake_ray.rounds[0] = 0
    return fake_ray


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "ray.py").write_text(Path(fake_ray.__file__).read_text())
    return str(folder)


def records(folder):
    return {key_of(record): canonical(record) for record in read_records(folder)}


def evaluate(out, workers=2):
    chosen = Request("oracle", "vstar-mini", out, selection=Selection(limit=20))
    return RayExecutor().run(chosen, {"workers": workers, "gpus": 1}, Watcher())


def test_workers_that_are_lost_or_drain_are_replaced(cache, ray, tmp_path, monkeypatch):
    assert evaluate(tmp_path / "whole").records == 20
    assert ray.given == [{"num_cpus": 1.0, "num_gpus": 1, "max_restarts": 0}]
    for what in ("lose:2", "end:2"):
        ray.rounds[0] = 0
        monkeypatch.setenv("FAKE_RAY", what)
        out = tmp_path / what.replace(":", "-")
        assert evaluate(out).records == 20
        assert ray.rounds[0] == 3
        assert records(out) == records(tmp_path / "whole")
        assert read_json(out / "run.json")["finished"]


def test_where_workers_are_lost_again_and_again_the_run_is_not_finished(cache, ray, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_RAY", "lose:3")
    with pytest.raises(LostRank, match="lost 3 times and 14 episodes are missing"):
        evaluate(tmp_path / "run")
    assert len(read_records(tmp_path / "run")) == 6
    manifest = read_json(tmp_path / "run" / "run.json")
    assert (manifest["finished"], manifest["expected"]) == (None, 20)
    assert not (tmp_path / "run" / "shards").exists()
    assert ray.gone


def test_the_command_says_so_in_one_line_and_goes_on(cache, site, tmp_path):
    out = tmp_path / "run"
    done = prh(*WORDS, "--out", str(out), code=2, PYTHONPATH=site, FAKE_RAY="lose:3")
    assert f"`prh resume {out}` runs what is missing" in done.stderr.splitlines()[-1]
    assert not (out / "metrics.json").exists()
    prh("resume", str(out), PYTHONPATH=site)
    assert len(read_records(out)) == 20
    assert read_json(out / "run.json")["finished"]


def test_sigterm_ends_the_command_as_elsewhere(cache, site, tmp_path):
    out = tmp_path / "run"
    done = prh(*WORDS, "--out", str(out), code=143, PYTHONPATH=site, FAKE_RAY="term")
    assert "stopped by signal 15: 1 of 20 episodes are kept" in done.stdout
    assert read_json(out / "run.json")["finished"] is None


def test_a_workers_mistake_and_a_wrong_option(cache, ray, tmp_path):
    with pytest.raises(UsageError, match="must be a whole number from 1"):
        Options.read({"workers": 0})
    chosen = Request("oracle", "vstar-mini", tmp_path / "run", selection=Selection(ids=("nope",)))
    with pytest.raises(Exception, match="has no sample 'nope'"):
        RayExecutor().run(chosen, {}, Watcher())
