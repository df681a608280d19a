"""What a round of reinforcement costs, and what share of it the model does not take: ``make bench-rounds``.

A whole training of the embedded ``tiny-init`` on ``vstar-mini``, on one thread: a round draws 128 rollouts, eight of a
question, by replies of at most 48 random tokens, judges and records them, and learns them in one update. Figures are
CPU seconds of the process in its rounds; the model's are those of the engine's steps (forwards, sampling, its cache)
and of the learner's update (forward, backward, optimizer). Everything else is not: episodes and their images, templates
and tokens, records, scores, rewards, and the batch that is made of rollouts.
"""

import tempfile
import time
import warnings
from pathlib import Path

import torch
from prh.models.continuous import Continuous
from prh.tests.benchmarks.measure import arguments, median, report
from prh.tests.training import bandit
from prh.training import grpo, grpo_run
from prh.training.checkpoints import read_log
from prh.training.config import build
from prh.training.grpo_config import GrpoConfig
from prh.training.policy import PolicyLearner

VALUES = {
    "model": {"base": "tiny-init", "attention": "sdpa"},
    "data": [{"task": "vstar-mini"}],
    "reward": {"even": {}},
    "rollout": {"queries": 16, "group": 8, "batch": 64, "concurrency": 96},
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


def main():
    asked = arguments(__doc__.partition("\n")[0], rounds=12)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    bandit.register()
    sampling, learning, rounds = [], [], []
    # Steps of the engine run in a thread of their own, and beside them episodes are prepared and recorded.
    timed(Continuous, "_step", time.thread_time, sampling)
    timed(PolicyLearner, "update", time.process_time, learning)
    timed(grpo_run.GrpoRun, "_round", time.process_time, rounds)
    train = {"rounds": asked.rounds, "batch": 128, "save": asked.rounds}
    with tempfile.TemporaryDirectory() as folder:
        grpo.train(build(GrpoConfig, {**VALUES, "train": train}), Path(folder), Path())
        rows = read_log(Path(folder))
    whole = sum(rounds) / len(rows)
    parts = {"the model, sampling": sum(sampling) / len(rows), "the model, learning": sum(learning) / len(rows)}
    parts["not the model"] = whole - sum(parts.values())
    figures = {"rounds": len(rows), "response_tokens": median(row["response_tokens"] for row in rows)}
    table = [[what, seconds, 100 * seconds / whole] for what, seconds in {**parts, "a round": whole}.items()]
    report("CPU seconds of a round on one thread", ["what", "seconds", "% of the round"], table, figures, asked.json)


if __name__ == "__main__":
    main()
