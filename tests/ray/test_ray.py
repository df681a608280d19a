"""Two workers of a local Ray: the run of one process, and one that loses a worker.

Needs the environment of ``make test-ray``.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from prh.harness.record import canonical, key_of
from prh.harness.store import read_json, read_records

WORDS = ["--task", "vstar-mini", "--limit", "40", "--seed", "3"]


def prh(*words, code=0, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "prh", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_DISABLE_MEMORY_MONITOR": "1", **environment},
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def records(folder):
    return {key_of(record): canonical(record) for record in read_records(folder)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    prh("eval", "--model", "pixels", *WORDS, "--out", str(out))
    return out


def test_two_workers_give_the_run_of_one_process(alone, tmp_path):
    out = tmp_path / "run"
    words = ["eval", "--model", "pixels", *WORDS, "--out", str(out), "--executor", "ray"]
    done = prh(*words, "--set", "executor.workers=2")
    assert "40/40 episodes" in done.stdout
    assert records(out) == records(alone)
    assert not (out / "shards").exists()
    manifest = read_json(out / "run.json")
    assert manifest["identity"] == read_json(alone / "run.json")["identity"]
    assert len(manifest["writers"]) == 2
    assert manifest["finished"]
    theirs, ours = read_json(alone / "metrics.json"), read_json(out / "metrics.json")
    assert ours["metrics"]["accuracy"] == theirs["metrics"]["accuracy"]
    again = prh("resume", str(out))
    assert "40 episodes done before" in again.stdout


def test_the_example_of_the_docs(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "many-machines.md").read_text()
    block = re.search(r"^```sh test=ray\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-e", "-c", block],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(read_records(tmp_path / "runs" / "ray")) == 8


def test_a_lost_worker_costs_nothing(alone, tmp_path):
    out = tmp_path / "run"
    killed = []

    def kill_one():
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and not killed:
            for owner in out.glob("shards/rank-0001/writer.json"):
                journal = owner.with_name("records.jsonl")
                if journal.exists() and journal.stat().st_size:
                    killed.append(read_json(owner)["pid"])
                    os.kill(killed[0], signal.SIGKILL)
                    return
            time.sleep(0.005)

    thread = threading.Thread(target=kill_one)
    thread.start()
    prh("eval", "--model", "pixels", *WORDS, "--out", str(out), "--executor", "ray", "--concurrency", "1")
    thread.join()
    assert killed
    assert records(out) == records(alone)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["executor.workers=0"], "`executor.workers` must be a whole number from 1"),
        (["executor.nodes=2"], "`executor.nodes` is not known"),
        (["executor.address=127.0.0.1:1"], "cannot be reached"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, sets, said):
    words = [word for text in sets for word in ("--set", text)]
    done = prh("eval", "--model", "pixels", *WORDS, "--out", str(tmp_path / "r"), "--executor", "ray", *words, code=2)
    assert said in done.stderr.splitlines()[-1]


def test_a_workers_mistake_is_the_commands(tmp_path):
    words = ["--model", "pixels", "--task", "vstar-mini", "--protocol", "openai-tools"]
    done = prh("eval", *words, "--out", str(tmp_path / "r"), "--executor", "ray", code=2)
    assert "declares functions" in done.stderr.splitlines()[-1]
