"""Seconds of a training step, ours and TRL's, on the same tiny data and one thread: ``make bench-sft``.

Both get the same examples in batches of the same size, images decoded beforehand, pixels made anew each step; both
update the same weights by AdamW. Rounds alternate, and medians are compared. Ours makes pixels beside the running
step and projects to the vocabulary only where something is trained.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
import warnings
from itertools import pairwise

import torch
from prh.harness.engine import EngineOptions
from prh.models.transformers_engine import TransformersFactory
from prh.tests.training.lessons import lesson, setting
from prh.tests.trl.trainer import RATE, trl_trainer
from prh.training.batches import Feed
from prh.training.examples import Cache, Performer
from prh.training.learner import Learner, new_accelerator
from prh.training.schedule import Optimisation
from transformers import TrainerCallback

COUNT = 64


class Clock(TrainerCallback):
    def __init__(self):
        self.ends, self.cpu = [], []

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())
        self.cpu.append(time.process_time())


def differences(values):
    return [after - before for before, after in pairwise(values)]


def theirs(engine, made, steps, batch):
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        trainer = trl_trainer(engine, made, out, steps, batch, batch)
        trainer.add_callback(clock)
        trainer.train()
    return {"seconds": differences(clock.ends), "cpu": differences(clock.cpu)}


def ours(engine, cache, steps, batch):
    how = Optimisation(lr=RATE, schedule="constant", warmup=0.0)
    learner = Learner(new_accelerator(cpu=True), copy.deepcopy(engine.module), how, steps)
    feed = Feed(cache, engine.processor, count=COUNT, batch=batch, micro=1 << 30, seed=0, pad=engine.pad)
    ends, cpu = [], []
    for step, batches in enumerate(feed.steps(0, steps)):
        learner.update(step, batches)
        ends.append(time.perf_counter())
        cpu.append(time.process_time())
    return {"seconds": differences(ends), "cpu": differences(cpu), "preparing": feed.preparing, "waiting": feed.waiting}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=17)
    parser.add_argument("--batch", type=int, default=8)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    engine = TransformersFactory().open("tiny", EngineOptions(device="cpu"))
    performer = Performer(engine, setting())
    lessons = [lesson(number) for number in range(COUNT)]
    cache = Cache(lambda numbers: performer.examples([lessons[number] for number in numbers]), 1 << 30)
    made = cache.get(range(COUNT))
    found = {"ours": [], "trl": []}
    for _ in range(chosen.rounds):
        found["trl"].append(
            theirs(engine, made * (chosen.steps * chosen.batch // COUNT + 1), chosen.steps, chosen.batch)
        )
        found["ours"].append(ours(engine, cache, chosen.steps, chosen.batch))
    middle = {
        f"{who}_{what}": statistics.median(value for one in rounds for value in one[what])
        for who, rounds in found.items()
        for what in ("seconds", "cpu")
    }
    print(json.dumps({
        "tokens_a_step": round(sum(len(one.ids) for one in made) / COUNT * chosen.batch),
        **{name: round(value, 4) for name, value in middle.items()},
        "ratio_seconds": round(middle["ours_seconds"] / middle["trl_seconds"], 3),
        "ratio_cpu": round(middle["ours_cpu"] / middle["trl_cpu"], 3),
        "preparing_a_step": round(sum(one["preparing"] for one in found["ours"]) / chosen.rounds / chosen.steps, 4),
        "waiting_a_step": round(sum(one["waiting"] for one in found["ours"]) / chosen.rounds / chosen.steps, 4),
        "examples_made": cache.made,
        "epochs": round(chosen.rounds * chosen.steps * chosen.batch / COUNT, 1),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
