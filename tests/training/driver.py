"""The command ``prh train``, in a process that ends itself with kill -9 at a chosen point."""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import peft
import torch
import transformers
from prh import __main__ as command
from prh.harness.evaluate import find_engine
from prh.models.processor import load_libraries
from prh.training import checkpoints, loop, sft

# Loaded here once, for all the processes forked from this one.
load_libraries()
find_engine("tiny", None)
LOADED = (
    sft.train,
    peft.get_peft_model,
    transformers.AutoModelForImageTextToText,
    transformers.AutoTokenizer,
    transformers.Qwen2_5_VLForConditionalGeneration,
    transformers.models.qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil,
)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def after(count, function):
    """A function that ends the process after its so-manieth call."""
    calls = iter(range(1, 1 << 30))

    def called(*arguments, **options):
        made = function(*arguments, **options)
        if next(calls) == count:
            die()
        return made

    return called


def before(count, function):
    """A function that ends the process before its so-manieth call."""
    calls = iter(range(1, 1 << 30))

    def called(*arguments, **options):
        if next(calls) == count:
            die()
        return function(*arguments, **options)

    return called


def torn(count):
    """Half a line of the log."""
    real, calls = checkpoints.append_log, iter(range(1, 1 << 30))

    def append(folder, row):
        if next(calls) < count:
            real(folder, row)
            return
        with (folder / checkpoints.LOG).open("a") as file:
            file.write(json.dumps(dict(row))[:20])
        die()

    return append


def half_pruned(folder, keep):
    for _, path in checkpoints.checkpoints(folder)[:-1]:
        for file in list((path / checkpoints.STATE).glob("*"))[:1]:
            file.unlink()
            die()


# Where it ends, and what is put there: module, name, replacement.
POINTS = {
    "before the first checkpoint": lambda: (checkpoints, "append_log", after(1, checkpoints.append_log)),
    "in a line of the log": lambda: (checkpoints, "append_log", torn(2)),
    "after a step": lambda: (checkpoints, "append_log", after(3, checkpoints.append_log)),
    "in a step": lambda: (loop.Learner, "update", before(2, loop.Learner.update)),
    "before the weights": lambda: (loop, "write_checkpoint", before(1, loop.write_checkpoint)),
    "between weights and state": lambda: (loop, "write_checkpoint", after(1, loop.write_checkpoint)),
    "before it is in its place": lambda: (checkpoints, "finish", before(1, checkpoints.finish)),
    "after it is in its place": lambda: (checkpoints, "finish", after(1, checkpoints.finish)),
    "while old states are dropped": lambda: (checkpoints, "prune", half_pruned),
    "while the last one is copied": lambda: (checkpoints, "_linked", after(2, checkpoints._linked)),
}


def run(arguments, point, log):
    """Run ``prh`` with these arguments up to a point, or to its end."""
    torch.set_num_threads(1)
    if point:
        module, name, replacement = POINTS[point]()
        setattr(module, name, replacement)
    sys.argv = ["prh", *map(str, arguments)]
    with Path(log).open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        command.main()
