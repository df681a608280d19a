"""A real ``vllm serve``, started as docs/servers.md says."""

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prh.tests.vllm.conftest import sleeps

CONTEXT = 4096
DOCS = Path(__file__).parents[2] / "docs" / "servers.md"


@contextmanager
def serving(folder, rank, log):
    """The URL of a server of the docs' command, on a free port."""
    command = re.search(r"^VLLM_SERVER_DEV_MODE=1 (?:.*\\\n)*.*$", DOCS.read_text(), re.MULTILINE)[0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = ["--port", port, "--dtype", "float32", "--enforce-eager", "--gpu-memory-utilization", "0.2"]
    own += ["--enable-sleep-mode"] if sleeps() else []
    own += ["--enable-lora", "--max-lora-rank", "8"] if rank else []
    names = {"runs/sft/final": str(folder), "--max-model-len 32768": f"--max-model-len {CONTEXT}"}
    for old, new in {**names, "vllm serve": f"exec {sys.executable} -m vllm.entrypoints.cli.main serve"}.items():
        assert old in command
        command = command.replace(old, new)
    words = ["sh", "-e", "-c", f"{command} {' '.join(map(str, own))}"]
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env={**os.environ, "VLLM_NO_USAGE_STATS": "1"})
    try:
        url = f"http://127.0.0.1:{port}"
        wait(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def wait(url, process, log):
    """Until it lists its model."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/v1/models", timeout=5, trust_env=False).raise_for_status()
        except httpx.HTTPError:
            time.sleep(1)
        else:
            return
    pytest.fail(f"vllm serve did not start: {log.read_text(errors='replace')[-3000:]}")
