"""Checkpoints and engines of each family, made once."""

import asyncio
import contextlib
import functools
import os

import pytest
from prh.harness.engine import EngineOptions
from prh.models import tiny
from prh.models.transformers_engine import TransformersFactory
from prh.tests.models import families


@pytest.fixture(scope="session")
def qwen25(cache):
    return tiny.tiny_folder()


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Builds a family's checkpoint by its name in ``families``, once."""

    @functools.cache
    def build_once(name):
        folder = tmp_path_factory.mktemp(name)
        getattr(families, name)(folder)
        return folder

    return build_once


@pytest.fixture(scope="session")
def qwen3(built):
    return built("qwen3")


@pytest.fixture(scope="session")
def opened():
    """Opens an engine for a folder once, with batches of four."""
    engines = {}

    def open_once(folder, batch=4):
        key = os.fspath(folder), batch
        if key not in engines:
            engines[key] = TransformersFactory().open(key[0], EngineOptions(batch=batch))
        return engines[key]

    yield open_once
    with contextlib.ExitStack() as stack:
        for engine in engines.values():
            stack.callback(asyncio.run, engine.close())


@pytest.fixture(params=["qwen25", "qwen3"])
def family(request, opened):
    """A folder of each Qwen-VL family and its engine."""
    folder = request.getfixturevalue(request.param)
    engine = opened(folder)
    assert engine.describe()["path"] == "fast", engine.describe()
    return folder, engine
