"""Seconds of a reinforcement's update on the same saved rollouts, ours and TRL's, on one thread: ``make bench-grpo``.

Both get the same rollouts of the same questions, played and encoded beforehand, make pixels anew, and update the same
weights by AdamW. TRL's trainer is given the batch in the place of what it would have sampled. Rounds alternate, and
medians of CPU seconds are compared:

    forward + backward   from rollouts as examples to gradients, pixels included
    step                 the same with the optimizer's step and what each logs

and, of ours alone, the update with images encoded once or wherever they are shown, and rollouts that share their prompt
or not. What a whole round costs is ``bench_rounds``'s.
"""

import copy
import json
import tempfile
import time
import warnings
from itertools import chain, pairwise
from pathlib import Path

import torch
from prh.harness.engine import EngineOptions
from prh.models.transformers_engine import TransformersFactory
from prh.tests.benchmarks.measure import alternate, arguments, median, report
from prh.tests.training import acting
from prh.tests.training.grpo_steps import chosen
from prh.training.lean import lean
from prh.training.learner import new_accelerator
from prh.training.policy import PolicyLearner, Voice
from prh.training.schedule import Optimisation

ASKED, LENGTH = (0, 2), 200
HOW = Optimisation(lr=1e-3, schedule="constant", warmup=0.0)


def configured(layout="padded"):
    """Sixteen rollouts of two questions an update."""
    train = {"batch": 8 * len(ASKED), "layout": layout}
    return chosen(rollout={"queries": len(ASKED)}, loss={"kind": "dapo"}, train=train)


def our_learner(engine, config, *, slim=True):
    module = copy.deepcopy(engine.module)
    slim = slim and lean(module) is not None
    return PolicyLearner(new_accelerator(cpu=True), module, HOW, 1, config.loss, Voice(lean=slim))


def parts_of(stage, config, *, once=True):
    composer = stage.composer(config, once=once)
    return composer, composer.parts(stage.rows(), 0)


def gradients(learner, composer, parts):
    """Forward and backward, without an update."""
    learner.model.train()
    learner.model.zero_grad()
    for part in parts:
        learner.part(composer.batch(part), 1.0).backward()


def update(learner, composer, parts):
    learner.learn(0, [composer.batch(part) for part in parts])


def ours(stage, layout, *, once=True):
    config = configured(layout)
    composer, parts = parts_of(stage, config, once=once)
    return our_learner(stage.engine, config), composer, parts


def theirs(stage, out, steps):
    from prh.tests.trl.grpo_trainer import collated, trl_trainer

    _, parts = parts_of(stage, configured(), once=False)
    rows = list(chain.from_iterable(chain.from_iterable(parts)))
    examples, advantages = [example for _, example in rows], [entry.advantage for entry, _ in rows]
    trainer = trl_trainer(
        stage.engine, chosen(loss={"kind": "dapo"}).loss, out, rows=len(rows), length=LENGTH, steps=steps
    )
    trainer.given = lambda: collated(stage.engine, examples, advantages)
    trainer.model.train()
    return trainer


def trl_gradients(trainer):
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, trainer.given()).backward()


def trl_steps(stage, out, steps):
    """CPU seconds of each step of a training of TRL's but the first."""
    from transformers import TrainerCallback

    ends = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.process_time())

    trainer = theirs(stage, out, steps)
    trainer.add_callback(Clock())
    trainer.train()
    return [after - before for before, after in pairwise(ends)]


def main():
    asked = arguments(__doc__.partition("\n")[0], rounds=20)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    engine = TransformersFactory().open("tiny-init", EngineOptions(device="cpu", attention="sdpa"))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        stage = acting.stage(base / "rollouts", engine, None, configured(), acting.questions(ASKED))
        shared, padded = ours(stage, "shared"), ours(stage, "padded")
        again = ours(stage, "padded", once=False)
        trainer = theirs(stage, base / "trl", 1)
        passes = alternate(
            {
                "TRL": lambda: trl_gradients(trainer),
                "ours, prompts shared": lambda: gradients(*shared),
                "ours, padded, images once": lambda: gradients(*padded),
                "ours, padded, images wherever shown": lambda: gradients(*again),
            },
            asked.rounds,
        )
        stepped = {"TRL": trl_steps(stage, base / "steps", asked.rounds + 1)}
        stepped |= alternate(
            {"ours, prompts shared": lambda: update(*shared), "ours, padded, images once": lambda: update(*padded)},
            asked.rounds,
        )
        figures = {
            "rollouts": len(stage.rows()),
            "tokens_padded": padded[1].batch(padded[2][0]).tokens,
            "tokens_shared": shared[1].batch(shared[2][0]).tokens,
        }
    rows = []
    for what, found in (("forward + backward", passes), ("step", stepped)):
        right = median(found["TRL"])
        rows += [[what, name, median(values), median(values) / right] for name, values in found.items()]
    report("CPU seconds on one thread, medians", ["", "who", "seconds", "of TRL's"], rows, figures, asked.json)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
