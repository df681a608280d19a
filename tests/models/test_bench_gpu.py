"""`make bench-gpu`, tried on a synthetic miniature: the figures mean nothing here, but each is of what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
# Of Qwen/Qwen2.5-VL-7B-Instruct, by the index of its weights: 16,584,333,312 bytes of bfloat16.
PARAMETERS = 16_584_333_312 // 2


def script(*words):
    command = [sys.executable, "-W", "ignore", *words]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=FOLDER, env=environment, timeout=300, check=False
    )


def test_the_three_ways_say_turns_of_the_same_lengths(tmp_path):
    words = ["--shape", "tiny", "--episodes", "4", "--serial", "2", "--runs", "1", "--json", str(tmp_path / "gpu.json")]
    done = script("bench_gpu.py", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    rows = {row[0]: dict(zip(found["columns"], row, strict=True)) for row in found["rows"]}
    assert {name: row["turns"] for name, row in rows.items()} == {"ours": 12, "rounds": 12, "serial": 6}
    assert rows["ours"]["new tokens"] == rows["rounds"]["new tokens"] > rows["serial"]["new tokens"]
    assert all(row["turns/s"] > 0 for row in rows.values())
    assert rows["ours"]["prefill saved, %"] > 30
    assert rows["rounds"]["prefill saved, %"] == rows["serial"]["prefill saved, %"] == 0
    assert "synthetic miniature" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="what is said where there is no GPU")
def test_without_a_gpu_it_says_that_nothing_was_run():
    done = script("bench_gpu.py")
    assert done.returncode == 1
    assert done.stderr.startswith("NOT RUN: the shape 7b needs a GPU")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_the_shape_is_that_of_the_model_it_is_named_after():
    code = (
        "import torch, bench_gpu as b; shape = b.SHAPES['7b']; "
        "from transformers import AutoModelForImageTextToText as Auto\n"
        "with torch.device('meta'): module = Auto.from_config(b.config_of(shape), dtype=shape.dtype)\n"
        "print(module.dtype, sum(weight.numel() for weight in module.parameters()))"
    )
    done = script("-c", code)
    assert done.stdout.split() == ["torch.bfloat16", str(PARAMETERS)], done.stderr
