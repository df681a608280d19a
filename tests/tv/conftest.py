"""Checkpoints of each Qwen-VL family, with the video processor's file that a released one has, and their engines."""

import asyncio
import contextlib
import functools
import json
import os

import pytest
from prh.harness.engine import EngineOptions
from prh.models import tiny
from prh.models.transformers_engine import TransformersFactory
from prh.tests.models import families

# As released: Qwen3-VL's own class, which samples frames and resizes where it is not told otherwise.
VIDEO3 = {
    **families.PIXELS3,
    "processor_class": "Qwen3VLProcessor",
    "video_processor_type": "Qwen3VLVideoProcessor",
    "fps": 2,
    "do_sample_frames": True,
}

CLASSES = {"qwen2": "Qwen2VLProcessor", "qwen3": "Qwen3VLProcessor", "qwen3_moe": "Qwen3VLProcessor"}


@pytest.fixture(scope="session")
def built(cache, tmp_path_factory):
    """Builds a family's checkpoint by its name, once."""

    @functools.cache
    def build_once(name):
        if name == "qwen25":
            return tiny.tiny_folder()
        folder = tmp_path_factory.mktemp(name)
        getattr(families, name)(folder)
        images = folder / "preprocessor_config.json"
        images.write_text(json.dumps({**json.loads(images.read_text()), "processor_class": CLASSES[name]}))
        if name.startswith("qwen3"):
            (folder / "video_preprocessor_config.json").write_text(json.dumps(VIDEO3))
        return folder

    return build_once


@pytest.fixture(scope="session")
def opened():
    """Opens an engine for a folder once, with batches of four and a choice of ``video``."""
    engines = {}

    def open_once(folder, video="auto"):
        key = os.fspath(folder), video
        if key not in engines:
            engines[key] = TransformersFactory().open(key[0], EngineOptions(batch=4, extra={"video": video}))
        return engines[key]

    yield open_once
    with contextlib.ExitStack() as stack:
        for engine in engines.values():
            stack.callback(asyncio.run, engine.close())


@pytest.fixture(params=["qwen2", "qwen25", "qwen3", "qwen3_moe"])
def family(request, built, opened):
    """A folder of each family and its engine."""
    folder = built(request.param)
    return folder, opened(folder)
