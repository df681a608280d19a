"""The checkpoints and engines of the model tests, and lessons to train on."""

import multiprocessing
import signal

import pytest
from prh.tests.models.conftest import built, family, opened, qwen3, qwen25
from prh.tests.training import lessons
from prh.tests.training.driver import run

__all__ = ["built", "family", "opened", "qwen3", "qwen25"]


@pytest.fixture(scope="session")
def school(cache, tmp_path_factory):
    """A folder of eight lessons at the budgets of ``tiny``."""
    folder = tmp_path_factory.mktemp("school") / "lessons"
    lessons.write(folder, 8)
    return folder


@pytest.fixture(scope="session")
def prh(tmp_path_factory):
    """Runs ``prh`` in a process of its own, forked from one that has loaded everything.

    Gives its exit code; what it said is in ``prh.log``.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prh.tests.training.driver"])
    log = tmp_path_factory.mktemp("prh") / "log"

    def call(*arguments, point="", codes=(0, -signal.SIGKILL)):
        log.write_text("")
        process = context.Process(target=run, args=(arguments, point, log))
        process.start()
        process.join(120)
        assert process.exitcode in codes, log.read_text()[-2000:]
        return process.exitcode

    call.log = log
    return call
