"""An update of ours against TRL's GRPO loss, on rollouts of several turns and pictures: the same loss and gradient.

Needs the environment of ``make test-trl``.
"""

import random
from dataclasses import replace
from itertools import chain

import pytest
import torch
from prh.tests.models.conftest import built, opened, qwen3, qwen25
from prh.tests.training import acting, grpo_steps, steps
from prh.tests.training.grpo_steps import chosen
from prh.tests.trl.grpo_trainer import collated, trl_trainer
from prh.training.learner import new_accelerator

__all__ = ["built", "opened", "qwen3", "qwen25"]

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and datasets warn as they are imported and used
BATCHES, LENGTH = 20, 200
KINDS = ("grpo", "dr_grpo", "dapo", "gspo")
# 0 shows one picture, 1 one, 2 two, 3 none.
ASKED = (0, 1, 2, 3, 4, 6)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    made = {}

    def one(engine):
        if engine not in made:
            config = chosen(rollout={"queries": len(ASKED)})
            made[engine] = acting.stage(
                tmp_path_factory.mktemp("rollouts"), engine, None, config, acting.questions(ASKED)
            )
        return made[engine]

    return one


def captured(stage, config, number):
    """A batch of rollouts with one to four pictures, as examples in one order, and how far from on policy they are."""
    rng = random.Random(number)
    rows = sorted(rng.sample(stage.rows(), 6))
    rows = [replace(row, advantage=rng.uniform(-1, 1)) for row in rows]
    rows += rng.choices(rows, k=2) if number % 2 else []  # replayed, some of them twice
    return rows


def ours(stage, config, rows, layout):
    """Loss, and the gradient of every weight, in float64."""
    changed = chosen(loss={"kind": config.loss.kind, "length": float(LENGTH)}, train={"layout": layout, "micro": 1200})
    learner = grpo_steps.learner(stage.engine, changed, new_accelerator(cpu=True))
    learner.voice = replace(learner.voice, banned=())
    learner.model.double()
    batches = stage.composer(changed).update(rows, 3)
    made, found = steps.gradients(learner, [doubled(batch) for batch in batches])
    return made.loss, found


def doubled(batch):
    """A batch whose mask, where it is one that is added to scores, is as wide as the weights."""
    mask = batch.inputs.get("attention_mask")
    if mask is None or not mask.is_floating_point():
        return batch
    return replace(batch, inputs={**batch.inputs, "attention_mask": mask.double()})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["qwen25", "qwen3"])
def test_losses_and_gradients_are_those_of_trl(request, opened, stages, tmp_path, kind, family):
    """Ratios are those of stored log-probabilities, so that many tokens are clipped, and rows of each kind differ."""
    engine = opened(request.getfixturevalue(family))
    stage = stages(engine)
    config = chosen(loss={"kind": kind, "length": float(LENGTH)})
    trainer = trl_trainer(engine, config.loss, tmp_path, rows=8, length=LENGTH, double=True)
    trainer.model.train()
    clipped, images = 0.0, set()
    count = BATCHES if family == "qwen25" else 4
    for number in range(count):
        rows = captured(stage, config, number)
        composer = stage.composer(chosen(loss={"kind": kind}, train={"layout": "padded"}), once=False)
        pairs = list(chain.from_iterable(chain.from_iterable(composer.parts(rows, 3))))
        batch = collated(engine, [example for _, example in pairs], [entry.advantage for entry, _ in pairs])
        images |= set(batch["num_images"])
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        theirs = {name: w.grad.clone() for name, w in trainer.model.named_parameters() if w.grad is not None}
        clipped += trainer._metrics["train"]["clip_ratio/region_mean"][-1]
        mine, found = ours(stage, config, rows, ("shared", "packed", "padded")[number % 3])
        assert mine == pytest.approx(float(loss), abs=1e-6)
        assert found.keys() == theirs.keys()
        apart = torch.cat([(found[name] - theirs[name]).flatten() for name in theirs]).norm()
        whole = torch.cat([grad.flatten() for grad in theirs.values()]).norm()
        assert apart <= 1e-5 * whole
        for name, grad in theirs.items():
            assert (found[name] - grad).abs().max() <= 1e-5 * whole, name
    assert images >= ({0, 1, 2, 3, 4} if family == "qwen25" else {0, 1, 2})
    assert clipped / count > (0.05 if kind != "gspo" else -1)
