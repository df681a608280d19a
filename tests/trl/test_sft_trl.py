"""A training of ours against TRL's SFT trainer: the same batches, the same mask, the same losses and weights.

Needs the environment of ``make test-trl``. TRL has no weights per turn, so that its collator here gives what ours
lays out.
"""

import copy

import pytest
from prh.tests.models.conftest import built, opened, qwen3, qwen25
from prh.tests.training.lessons import examples
from prh.tests.trl.trainer import RATE, trl_trainer
from prh.training.batches import collate
from prh.training.learner import Learner, new_accelerator
from prh.training.schedule import Optimisation

__all__ = ["built", "opened", "qwen3", "qwen25"]

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and datasets warn as they are imported and used
STEPS, BATCH = 4, 4


def ours(engine, made):
    """Our learner over the same examples: its losses, and the weights after."""
    how = Optimisation(lr=RATE, schedule="constant", warmup=0.0, clip=1.0)
    learner = Learner(new_accelerator(cpu=True), copy.deepcopy(engine.module), how, STEPS)
    losses = []
    for step in range(STEPS):
        chosen = [made[(step * BATCH + number) % len(made)] for number in range(BATCH)]
        batches = [collate(chosen[place : place + 2], engine.processor, engine.pad) for place in range(0, BATCH, 2)]
        losses.append(learner.update(step, batches).loss)
    return losses, learner.model.state_dict()


@pytest.mark.parametrize("family", ["qwen25", "qwen3"])
@pytest.mark.parametrize(("micro", "weigh"), [(BATCH, "tokens"), (1, "samples")])
def test_losses_and_weights_are_those_of_trl(request, opened, tmp_path, family, micro, weigh):
    """Of these families transformers counts every micro-batch alike, whatever it holds: one row each is ``samples``."""
    engine = opened(request.getfixturevalue(family))
    made = examples(engine, range(STEPS * BATCH), how=weigh)
    trainer = trl_trainer(engine, made, tmp_path, STEPS, BATCH, micro)
    trainer.train()
    parts = BATCH // micro
    theirs = [sum(trainer.losses[start : start + parts]) / parts for start in range(0, len(trainer.losses), parts)]
    losses, weights = ours(engine, made)
    assert len(theirs) == STEPS
    assert losses[0] > losses[-1]
    assert losses[0] == pytest.approx(theirs[0], abs=1e-6)
    assert losses == pytest.approx(theirs, abs=1e-5)
    # AdamW moves a weight whose gradient is almost nothing by as much as any other, so that rounding shows in single
    # weights; it does not in the move as a whole.
    before, after = engine.module.state_dict(), trainer.model.state_dict()
    moved = sum(float((after[name] - before[name]).square().sum()) for name in after)
    apart = sum(float((after[name] - weights[name]).square().sum()) for name in after)
    assert apart < 1e-4 * moved
