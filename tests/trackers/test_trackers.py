"""W&B, trackio and TensorBoard themselves, offline: they take a run's figures, and nothing else.

Needs the environment of ``make test-trackers``.
"""

import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys

import pytest
from prh.harness.store import read_json, read_records
from prh.harness.trackers import figures

if importlib.util.find_spec("wandb") is None:
    pytest.exit("no tracker is installed here: run `make test-trackers`", returncode=2)

PRIVATE = "what-the-environment-holds"
BLOCK = 1 << 15


def tracked(name, folder, **environment):
    """A run whose figures a tracker was given, and the figures."""
    words = ["-m", "prh", "eval", "--model", "pixels", "--task", "vstar-mini", "--limit", "8", "--track", name]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *words, "--out", str(folder / "run")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env={**os.environ, "SOME_TOKEN": PRIVATE, **environment},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "run", figures(read_json(folder / "run" / "metrics.json"))


def said(run):
    """All that was said in a run, and what was asked."""
    records = read_records(run)
    texts = [part["text"] for one in records for turn in one["segments"] for part in turn["parts"] if "text" in part]
    return [*texts, *(one["question"] for one in records)]


def test_tensorboard(cache, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, values = tracked("tensorboard", tmp_path)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    found = {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}
    assert found == pytest.approx(values)


def test_trackio(cache, tmp_path):
    run, values = tracked("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    with sqlite3.connect(tmp_path / "trackio" / "prh.db") as data:
        ((title, logged),) = data.execute("select run_name, metrics from metrics").fetchall()
        ((config,),) = data.execute("select config from configs").fetchall()
    assert title == "vstar-mini-run"
    found = json.loads(logged)
    assert {name: found[name] for name in values} == pytest.approx(values)
    assert json.loads(config)["task"] == "vstar-mini"
    nothing_else(tmp_path / "trackio", run)


def test_wandb(cache, tmp_path):
    from wandb.proto.wandb_internal_pb2 import Record

    folder = tmp_path / "wandb"
    run, values = tracked("wandb", tmp_path, WANDB_MODE="offline", WANDB_DIR=str(tmp_path), WANDB_SILENT="true")
    (file,) = folder.glob("offline-run-*/*.wandb")
    records = [Record.FromString(data) for data in journal(file.read_bytes())]
    items = [item for one in records for item in one.history.item]
    found = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
    assert {name: found[name] for name in values} == pytest.approx(values)
    (opened,) = [one.run for one in records if one.WhichOneof("record_type") == "run"]
    assert (opened.project, opened.display_name) == ("prh", "vstar-mini-run")
    kinds = {one.WhichOneof("record_type") for one in records}
    assert not kinds & {"environment", "stats", "output", "output_raw"}, kinds
    assert not [path for path in folder.rglob("*") if path.name in ("requirements.txt", "wandb-metadata.json")]
    nothing_else(folder, run, also=(b"--limit", sys.prefix.encode()))


def journal(data):
    """The records of W&B's file: a log as LevelDB writes it, in blocks of 32 KiB, after a header of 7 bytes."""
    place, parts = 7, []
    while place + 7 <= len(data):
        room = BLOCK - place % BLOCK
        if room < 7:
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield b"".join(parts)
            parts = []


def nothing_else(folder, run, also=()):
    """Of what was said, of the environment, and what is named, nothing stands in a tracker's files."""
    data = b"".join(
        path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.name.startswith("debug")
    )
    assert PRIVATE.encode() not in data
    assert [text for text in said(run) if len(text) > 8 and text.encode() in data] == []
    assert [one for one in also if one in data] == []
