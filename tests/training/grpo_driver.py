"""The command ``prh train grpo``, in a process that ends itself with kill -9 at a chosen point."""

import os

from prh.harness import store
from prh.tests.training import bandit, driver
from prh.tests.training.driver import after, before, die
from prh.training import checkpoints, compose, grpo, grpo_run, policy, rollouts

LOADED = (grpo.train,)


def torn_record(count):
    """Half a line of a journal."""
    real, calls = store.RunStore.append_line, iter(range(1, 1 << 30))

    def append(self, line):
        if next(calls) < count:
            real(self, line)
            return
        os.write(self._file, line[: len(line) // 2])
        die()

    return append


def points():
    """Where it ends, and what is put there: module or class, name, replacement."""
    append, learn = store.RunStore.append_line, policy.PolicyLearner.learn
    return {
        "before the first record": (store.RunStore, "append_line", before(1, append)),
        "amid a round": (store.RunStore, "append_line", after(3, append)),
        "in a line of the journal": (store.RunStore, "append_line", torn_record(5)),
        "late in a round": (store.RunStore, "append_line", after(13, append)),
        "before a round is scored": (rollouts, "score", before(2, rollouts.score)),
        "before what is computed of a round is kept": (compose, "save_tensors", before(1, compose.save_tensors)),
        "after what is computed of a round is kept": (compose, "save_tensors", after(1, compose.save_tensors)),
        "in an update": (policy.PolicyLearner, "learn", before(2, learn)),
        "after an update": (policy.PolicyLearner, "learn", after(1, learn)),
        "in the log": (checkpoints, "append_log", driver.torn(2)),
        "before the state": (grpo_run.GrpoRun, "_keep", before(1, grpo_run.GrpoRun._keep)),
        "after the state": (grpo_run.GrpoRun, "_keep", after(2, grpo_run.GrpoRun._keep)),
        "before it is in its place": (checkpoints, "finish", before(1, checkpoints.finish)),
        "after it is in its place": (checkpoints, "finish", after(1, checkpoints.finish)),
    }


POINTS = tuple(points())


def run(arguments, point, log):
    """Run ``prh`` with these arguments up to a point, or to its end."""
    bandit.register()
    if point:
        place, name, replacement = points()[point]
        setattr(place, name, replacement)
    driver.run(arguments, "", log)
