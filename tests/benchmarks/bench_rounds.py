"""What a round of reinforcement costs, and what share of it the model does not take: ``make bench-rounds``.

Whole trainings on one thread, of the embedded recipe ``grpo-tiny`` and of random replies: 128 rollouts a round, eight
of a question, of one turn of at most 48 tokens, judged, recorded and learned in one update. Figures are CPU seconds of
the process in its rounds; the model's are those of the engine's steps (forwards, sampling, its cache) and of the
learner's update (forward, backward, optimizer). Everything else is not: episodes and their images, templates and
tokens, records, scores, rewards, and the batch that is made of rollouts.
"""

import tempfile
import time
import warnings
from pathlib import Path
from statistics import fmean

import torch
from prh.models.continuous import Continuous
from prh.tests.benchmarks.measure import arguments, report
from prh.tests.training import bandit
from prh.training import grpo, grpo_run
from prh.training.checkpoints import read_log
from prh.training.config import build, read_recipe
from prh.training.grpo_config import GrpoConfig
from prh.training.policy import PolicyLearner

SPENT = {"sampling": [], "learning": [], "a round": []}
RANDOM = {
    "model": {"base": "tiny-init", "attention": "sdpa"},
    "data": [{"task": "vstar-mini"}],
    "reward": {"even": {}},
    "rollout": {"queries": 16, "group": 8, "batch": 64, "concurrency": 96},
    "train": {"batch": 128},
    "setting": {"limits": {"new_tokens": 48}},
    "optim": {"lr": 1e-4},
}


def timed(owner, name, clock, found):
    """Note the CPU seconds of each call of a method."""
    real = getattr(owner, name)

    def call(*given):
        start = clock()
        try:
            return real(*given)
        finally:
            found.append(clock() - start)

    setattr(owner, name, call)


def measure(values, rounds, folder):
    """CPU seconds of a round by what takes them, and how many tokens and turns a rollout has."""
    train = {**values["train"], "rounds": rounds, "save": rounds}
    for some in SPENT.values():
        some.clear()
    grpo.train(build(GrpoConfig, {**values, "train": train}), folder, Path())
    rows = read_log(folder)
    parts = {what: sum(some) / rounds for what, some in SPENT.items()}
    rest = parts["a round"] - parts["sampling"] - parts["learning"]
    tokens = fmean(row["response_tokens"] for row in rows)
    return {**parts, "not the model": rest, "share": 100 * rest / parts["a round"], "tokens a rollout": tokens}


def main():
    asked = arguments(__doc__.partition("\n")[0], rounds=8)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    bandit.register()
    # Steps of the engine run in a thread of their own, and beside them episodes and batches are prepared.
    timed(Continuous, "_step", time.thread_time, SPENT["sampling"])
    timed(PolicyLearner, "update", time.thread_time, SPENT["learning"])
    timed(grpo_run.GrpoRun, "_round", time.process_time, SPENT["a round"])
    ways = {"grpo-tiny": read_recipe("grpo-tiny")[0], "random replies": RANDOM}
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measure(ways[name], asked.rounds, Path(folder) / name) for name in ways}
    columns = ["sampling", "learning", "not the model", "a round", "share", "tokens a rollout"]
    table = [[name, *(each[column] for column in columns)] for name, each in found.items()]
    columns[columns.index("share")] = "not the model, %"
    report("CPU seconds of a round", ["training", *columns], table, {"rounds": asked.rounds}, asked.json)


if __name__ == "__main__":
    main()
