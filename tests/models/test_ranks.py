"""Ranks that a launcher started: the run of one process, whatever becomes of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prh.harness.errors import UsageError
from prh.harness.evaluate import plan
from prh.harness.ranks import run_in_group
from prh.harness.record import canonical, key_of
from prh.harness.request import Request
from prh.harness.sharing import find_group, share
from prh.harness.store import RunStore, encode_line, read_json, read_records
from prh.harness.task import Selection
from prh.models import loading
from prh.tests.harness.test_cli import prh

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
QUIET = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def launch(*words, **more):
    command = [*LAUNCH, "--main_process_port", str(free_port()), "-m", "prh", *words]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET, **more},
        start_new_session=True,
    )


def ended(process):
    """Exit code and what was said, once all of it has ended."""
    try:
        said, wrong = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, said, wrong


def records(folder):
    return {key_of(record): canonical(record) for record in read_records(folder)}


def test_two_ranks_of_accelerate_give_the_run_of_one_process(cache, tmp_path):
    """With a model in each of them: the embedded checkpoint, sampling."""
    words = ["--task", "vstar-mini", "--limit", "10", "--temperature", "1", "--set", "limits.new_tokens=24"]
    prh("eval", "--model", "tiny", *words, "--out", str(tmp_path / "alone"))
    out = tmp_path / "ranks"
    code, said, wrong = ended(launch("eval", "--model", "tiny", *words, "--out", str(out)))
    assert code == 0, said + wrong
    assert said.count("10/10 episodes") == 1, "rank 0 alone speaks"
    assert records(out) == records(tmp_path / "alone")
    assert not (out / "shards").exists()
    manifest = read_json(out / "run.json")
    assert [writer["name"] for writer in manifest["writers"]] == ["transformers"] * 2
    assert manifest["identity"] == read_json(tmp_path / "alone" / "run.json")["identity"]
    here, there = (read_json(folder / "metrics.json")["metrics"] for folder in (tmp_path / "alone", out))
    assert here["accuracy"] == there["accuracy"]
    assert here["new_tokens"] == there["new_tokens"]


def test_a_run_goes_on_after_a_rank_is_lost(cache, tmp_path):
    words = ["--task", "vstar-mini", "--limit", "60", "--concurrency", "1"]
    prh("eval", "--model", "pixels", *words, "--out", str(tmp_path / "alone"))
    out = tmp_path / "ranks"
    process = launch("eval", "--model", "pixels", *words, "--out", str(out))
    journal = out / "shards" / "rank-0001" / "records.jsonl"
    while not (journal.exists() and journal.stat().st_size) and process.poll() is None:
        time.sleep(0.002)
    if process.poll() is None:
        os.kill(json.loads(journal.with_name("writer.json").read_text())["pid"], signal.SIGKILL)
    code, said, wrong = ended(process)
    assert code != 0, said + wrong
    kept = records(out)
    assert 0 < len(kept) < 60
    code, said, wrong = ended(launch("resume", str(out)))
    assert code == 0, said + wrong
    assert f"{len(kept)} episodes done before" in said
    assert records(out) == records(tmp_path / "alone")
    assert not (out / "shards").exists()


def test_what_is_wrong_ends_all_ranks(cache, tmp_path):
    out = tmp_path / "run"
    prh("eval", "--model", "pixels", "--task", "vstar-mini", "--limit", "2", "--out", str(out))
    words = ["eval", "--model", "blind", "--task", "vstar-mini", "--limit", "4", "--out", str(out)]
    code, said, wrong = ended(launch(*words))
    assert code != 0
    assert "was begun with another model" in said + wrong
    assert len(read_records(out)) == 2


# -- without a launcher ------------------------------------------------------------------------------------------


class Alone:
    """A group whose ranks are run one after another in this process, rank 0 last to gather."""

    def __init__(self, rank, size, said):
        self.rank, self.size, self.said = rank, size, said

    def broadcast(self, value):
        if self.rank == 0:
            self.said.append(value)
        return self.said[0]

    def gather(self, value):
        return [value] * self.size


class Quiet:
    def opened(self, plan, todo):
        self.todo, self.seen = todo, []

    def finished(self, record):
        self.seen.append(key_of(record))

    def damaged(self, lines):
        pass


def request(out, **more):
    return Request("pixels", "vstar-mini", out, selection=Selection(limit=9), **more)


def test_more_ranks_than_jobs_and_repeats(cache, tmp_path):
    chosen = {"repeats": 2, "out": tmp_path / "run"}
    said, watcher = [], Quiet()

    class Leader(Alone):
        def gather(self, value):
            for rank in range(1, self.size):
                run_in_group(plan(request(**chosen)), Alone(rank, self.size, said), watcher)
            return [value] * self.size

    result = run_in_group(plan(request(**chosen)), Leader(0, 25, said), watcher)
    assert (result.records, result.expected, watcher.todo) == (18, 18, 18)
    assert sorted(watcher.seen) == sorted((record["id"], record["repeat"]) for record in read_records(tmp_path / "run"))
    assert len(watcher.seen) == 18, "each episode is told once"


def test_one_process_takes_over_what_ranks_left(cache, tmp_path):
    done = prh("eval", "--model", "pixels", "--task", "vstar-mini", "--limit", "9", "--out", str(tmp_path / "whole"))
    assert "9/9" in done.stdout
    whole = read_records(tmp_path / "whole")
    out = tmp_path / "run"
    prh("eval", "--model", "pixels", "--task", "vstar-mini", "--limit", "2", "--out", str(out))
    with RunStore(out, "rank-0003") as shard:
        for record in whole[4:7]:
            shard.append(record)
    with (out / "shards" / "rank-0003" / "records.jsonl").open("ab") as file:
        file.write(encode_line(whole[7])[:50])
    said = prh("eval", "--model", "pixels", "--task", "vstar-mini", "--limit", "9", "--out", str(out))
    assert "5 episodes done before" in said.stdout
    assert "rank-0003: records.jsonl line 4" in said.stderr
    assert records(out) == records(tmp_path / "whole")


def test_a_shard_that_is_being_written_is_left_alone(cache, tmp_path):
    out = tmp_path / "run"
    prh("eval", "--model", "pixels", "--task", "vstar-mini", "--limit", "2", "--out", str(out))
    with RunStore(out, "rank-0001"):
        said = prh("eval", "--model", "pixels", "--task", "vstar-mini", "--limit", "4", "--out", str(out), code=2)
    assert f"process {os.getpid()} is writing to {out / 'shards' / 'rank-0001'}" in said.stderr


def test_shares_are_all_of_it_once():
    keys = [(str(number), 0) for number in range(11)]
    for size in (1, 2, 3, 20):
        parts = [share(keys, number, size) for number in range(size)]
        assert sorted(key for part in parts for key in part) == sorted(keys)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_launchers_variables(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert find_group() is None
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert find_group() is None, "a job's size alone is no launcher"
    monkeypatch.setenv("RANK", "0")
    for rank, local in (("0", "x"), ("4", "0")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", local)
        with pytest.raises(UsageError, match="which are no ranks"):
            find_group()


def test_variables_of_a_launcher_that_is_not_there(tmp_path):
    set_alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    kept = {name: value for name, value in os.environ.items() if name not in ("MASTER_ADDR", "MASTER_PORT")}
    words = [sys.executable, "-m", "prh", "eval", "--model", "pixels", "--task", "vstar-mini", "--limit", "1"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env={**kept, **set_alone}, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "MASTER_ADDR expected, but not set; check MASTER_ADDR and MASTER_PORT" in done.stderr


@pytest.mark.parametrize("rank", ["0", "1"])
def test_ranks_that_do_not_come_are_not_waited_for_without_end(rank):
    """Nobody listens where rank 1 asks, and nobody comes to rank 0."""
    code = """
from datetime import timedelta
from prh.harness.errors import UsageError
from prh.models import ranks
ranks.MEETING = timedelta(seconds=1)
try:
    ranks.Ranks()
except UsageError as error:
    print(error)
"""
    announced = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **announced, "MASTER_PORT": str(free_port())},
        timeout=120,
        check=False,
    )
    assert done.stdout.startswith("the ranks that RANK and WORLD_SIZE announce cannot meet: "), done.stderr
    assert done.stdout.count("\n") == 1


def test_each_rank_has_a_device_of_its_own(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert str(loading.choose_device("auto")) == "cuda:1"
    assert str(loading.choose_device("cuda:0")) == "cuda:0"


assert Path(LAUNCH[0]).exists()
