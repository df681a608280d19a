"""A tiny checkpoint, made once; without vLLM there is nothing to hold to its contract."""

import importlib.util
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from prh.models import tiny
from prh.tests.models.versions import plain_rope, untied
from prh.tests.vllm.interface import read

if importlib.util.find_spec("vllm") is None:
    pytest.exit("vllm is not installed here: run `make test-vllm`", returncode=2)


def number() -> str:
    """The installed version, without what a build adds to it."""
    return version("vllm").partition("+")[0]


def nowhere() -> str:
    """Why vLLM cannot start here; empty where it can."""
    import torch

    if torch.cuda.is_available() or "cpu" in version("vllm"):
        return ""
    return f"NOT RUN: vLLM {version('vllm')} starts on a GPU, and there is none"


def sleeps() -> bool:
    """Whether it can be put aside: on a GPU alone."""
    import torch

    return torch.cuda.is_available()


NOWHERE = nowhere()


def prh(*words: str, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    """A command that ends with one of some codes."""
    command = [sys.executable, "-W", "ignore", "-m", "prh", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode in codes, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope="session")
def folder(cache, tmp_path_factory):
    made = plain_rope(tiny.tiny_folder(), tmp_path_factory.mktemp("plain") / "tiny")
    # A CPU build keeps a copy of an output layer that shares its weights, and does not renew it with them.
    return made if sleeps() else untied(made)


@pytest.fixture(scope="session")
def installed():
    """The interface of the installed package."""
    return read(Path(importlib.util.find_spec("vllm").origin).parent)
