"""A tiny checkpoint, made once; without vLLM there is nothing to hold to its contract."""

import importlib.util

import pytest
from prh.models import tiny

if importlib.util.find_spec("vllm") is None:
    pytest.exit("vllm is not installed here: run `make test-vllm`", returncode=2)


@pytest.fixture(scope="session")
def folder(cache):
    return tiny.tiny_folder()
