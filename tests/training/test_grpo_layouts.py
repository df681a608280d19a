"""One update, laid out in every way: the loss and the gradient of each rollout alone, and of what was said alone."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from prh.tests.training import acting, grpo_steps, steps
from prh.tests.training.grpo_steps import NUMBERS, chosen, from_scratch, learner
from prh.tests.training.lessons import setting
from prh.tests.training.test_layouts import WITHIN, assert_same, launch
from prh.training.compose import by_row
from prh.training.lean import PLACES
from prh.training.losses import LossPart, policy_loss
from prh.training.policy import Voice, targets, token_logprobs
from prh.training.sft import blank
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Thirty-two rollouts of four questions, for each family, some of them with looks and errors."""
    made = {}

    def one(engine):
        if engine not in made:
            folder = tmp_path_factory.mktemp("rollouts")
            made[engine] = acting.stage(folder, engine, None, chosen(), acting.questions(NUMBERS))
        return made[engine]

    return one


def found(stage, changed, rows=None, *, version=0, slim=True, once=True, empty=None):
    """Loss and gradients by our own way."""
    composer = stage.composer(changed, empty=empty, once=once)
    batches = composer.update(rows or stage.rows(), version)
    made, grads = steps.gradients(learner(stage.engine, changed, slim=slim), batches)
    return made.loss, grads


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo", "gspo"])
def test_an_update_is_that_of_each_rollout_alone(family, stages, kind):
    stage = stages(family[1])
    changed = chosen(loss={"kind": kind})
    assert_same(found(stage, changed), from_scratch(stage.engine, replace(stage, config=changed), stage.rows()))


@pytest.mark.parametrize("layout", ["shared", "padded", "packed"])
@pytest.mark.parametrize("micro", [1, 900])
def test_every_layout_and_split_gives_the_same(family, stages, layout, micro):
    stage = stages(family[1])
    right = found(stage, chosen(loss={"kind": "dapo"}))
    changed = chosen(loss={"kind": "dapo"}, train={"layout": layout, "micro": micro})
    assert_same(found(stage, changed), right)


def test_doing_no_more_than_is_needed_changes_nothing(family, stages):
    """With and without the head at all places, images once for each place, a blank beside rows without images."""
    stage = stages(family[1])
    changed = chosen(train={"layout": "padded", "micro": 700})
    right = found(stage, changed, slim=False, once=False)
    assert_same(found(stage, changed), right)
    assert_same(found(stage, changed, empty=blank(stage.engine, setting())), right)


def test_images_of_a_group_are_encoded_once(family, stages):
    """Twelve places show three pictures of two questions and four close-ups that differ, wherever they stand."""
    stage = stages(family[1])
    for layout in ("padded", "shared"):
        batch = stage.composer(chosen(train={"layout": layout})).update(stage.rows(), 0)[0]
        differ = len(batch.inputs["image_grid_thw"][np.unique(batch.inputs[PLACES], return_index=True)[1]])
        patches = batch.inputs["pixel_values"].shape[0]
        grids = batch.inputs["image_grid_thw"].prod(-1)
        assert differ == int(batch.inputs[PLACES].max()) + 1
        first = [int((batch.inputs[PLACES] == number).nonzero()[0]) for number in range(differ)]
        assert patches == int(grids[first].sum()) < int(grids.sum())
    assert differ < len(batch.inputs[PLACES])


def test_every_image_stays_with_its_place(family, stages):
    """What stands at the places of a batch is, row after row, what each conversation shows."""
    stage = stages(family[1])
    records = {(one["id"], one["repeat"]): one for one in stage.records}
    composer = stage.composer(chosen(train={"layout": "padded", "micro": 2500}))
    count = 0
    for part in composer.parts(stage.rows(), 0):
        batch = composer.batch(part)
        if "pixel_values" not in batch.inputs:
            continue
        grids = batch.inputs["image_grid_thw"]
        places = batch.inputs.get(PLACES, torch.arange(len(grids)))
        sizes = [int(grids[int((places == number).nonzero()[0])].prod()) for number in range(int(places.max()) + 1)]
        cut = batch.inputs["pixel_values"].split(sizes)
        seen = iter([cut[int(place)] for place in places])
        for entry, _ in chain.from_iterable(part):
            (talk,) = stage.rollouts.again(acting.TASK, [records[entry.id, entry.repeat]], stage.engine)
            for image in talk.images():
                assert torch.equal(next(seen), stage.engine.processor.tensors("", [image])["pixel_values"])
                count += 1
        assert next(seen, None) is None
    assert count > 20


def logprobs(composer, own, rows):
    """The log-probabilities of each rollout's tokens."""
    made = {}
    for part in composer.parts(rows, 0):
        batch, entries = composer.batch(part), [entry for entry, _ in chain.from_iterable(part)]
        made |= zip(entries, by_row(batch, own.logprobs(batch), len(entries)), strict=True)
    return made


def test_rows_do_not_reach_each_other(family, stages):
    """Another second rollout, or none, leaves what is computed of the first as it is; so does the layout."""
    stage = stages(family[1])
    first, second, other = (row for row in stage.rows() if row.id == "s0" and row.repeat in (0, 3, 6))
    own = learner(stage.engine, chosen())
    seen = [
        logprobs(stage.composer(chosen(train={"layout": layout})), own, rows)[first]
        for layout in ("shared", "padded", "packed")
        for rows in ([first, second], [first, other], [first])
    ]
    for values in seen[1:]:
        assert values == pytest.approx(seen[0], abs=WITHIN)


def test_what_was_not_said_has_no_gradient(family, stages):
    """Prompts, observations and filling: exactly nothing; and other targets there change nothing."""
    stage = stages(family[1])
    composer = stage.composer(chosen(train={"layout": "padded"}), once=False)
    (part,) = composer.parts([row for row in stage.rows() if row.id == "s0"], 0)
    batch = composer.batch(part)
    whole = replace(batch, inputs={name: value for name, value in batch.inputs.items() if name != "logits_to_keep"})
    with torch.no_grad():
        logits = stage.engine.module(**whole.inputs, use_cache=False).logits
    columns = batch.inputs["logits_to_keep"]
    logits.requires_grad_()

    def model(**_):
        return type("Made", (), {"logits": logits[:, columns]})

    said = token_logprobs(model, batch, Voice())
    policy_loss(LossPart("dapo", low=1.0, high=1e9), said.logprobs, targets(batch))[0].backward()
    kept = torch.zeros(logits.shape[:2], dtype=torch.bool)
    kept[:, columns] = batch.weights > 0
    assert not logits.grad[~kept].any()
    assert logits.grad[kept].abs().sum(-1).gt(0).all()
    other = replace(batch, targets=torch.where(batch.weights > 0, batch.targets, 7))
    assert torch.equal(token_logprobs(model, other, Voice()).logprobs, said.logprobs)


def test_ratios_are_to_what_was_stored(family, stages):
    """As after any number of updates: the ratio is exp(new - stored), and not 1."""
    stage = stages(family[1])
    changed = chosen(loss={"kind": "dapo"})
    composer = stage.composer(changed)
    rows = [row for row in stage.rows() if row.id == "s2"]
    (part,) = composer.parts(rows, 5)
    batch = composer.batch(part)
    own = learner(stage.engine, changed)
    with torch.no_grad():
        for weight in own.model.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.ndim)))
    new = by_row(batch, own.logprobs(batch), len(rows))
    records = {(one["id"], one["repeat"]): one for one in stage.records}
    stored = [acting.spoken(records[row.id, row.repeat], "logprobs") for row, _ in chain.from_iterable(part)]
    ratios = np.exp(np.concatenate(new) - np.concatenate(stored))
    assert np.abs(ratios - 1).min() > 1e-4
    made, _ = steps.gradients(own, [batch])
    drift = np.mean(ratios**-1 + np.log(ratios) - 1)
    told = own.learn(0, [batch])
    assert told.drift == pytest.approx(drift, rel=1e-3)
    assert told.gap is None
    entries = [entry for entry, _ in chain.from_iterable(part)]
    advantages = np.repeat([entry.advantage for entry in entries], [len(one) for one in stored])
    gains = np.minimum(ratios * advantages, np.clip(ratios, 0.8, 1.35) * advantages)
    assert made.loss == pytest.approx(-gains.mean(), abs=1e-5)
    clipped = ((ratios > 1.35) & (advantages > 0)) | ((ratios < 0.8) & (advantages < 0))
    assert told.clip == pytest.approx(clipped.mean())


def test_the_gap_is_told_of_what_these_weights_sampled(family, stages):
    stage = stages(family[1])
    told = learner(stage.engine, chosen()).learn(0, stage.composer().update(stage.rows(), 0))
    assert told.gap > 0.1
    assert told.trained == sum(len(acting.spoken(one)) for one in stage.records)
    assert told.entropy > 1


def test_rows_that_come_twice_count_twice(family, stages):
    stage = stages(family[1])
    rows = [row for row in stage.rows() if row.id == "s3"]
    changed = chosen(loss={"kind": "dr_grpo", "length": 100.0})
    once, _ = found(stage, changed, rows)
    twice, _ = found(stage, changed, [*rows, *rows])
    assert twice == pytest.approx(once, abs=1e-6)
    half, _ = found(stage, changed, [*rows, *[replace(row, advantage=0.0) for row in rows]])
    assert half == pytest.approx(once / 2, abs=1e-6)


def test_a_row_that_pays_nothing_moves_nothing(family, stages):
    stage = stages(family[1])
    rows = [replace(row, advantage=0.0) for row in stage.rows()]
    loss, grads = found(stage, chosen(), rows)
    assert loss == 0
    assert not any(bool(grad.any()) for grad in grads.values())


def test_two_processes_give_the_update_of_one(qwen25, opened, tmp_path):
    """Some micro-batches show no image, and the processes have different numbers of them."""
    engine = opened(qwen25)
    stage = acting.stage(tmp_path, engine, None, chosen(loss={"kind": "dapo"}), acting.questions(NUMBERS))
    parts = [
        stage.composer(chosen(train={"micro": grpo_steps.MICRO}), rank=rank, world=2).update(stage.rows(), 0)
        for rank in range(2)
    ]
    assert any("pixel_values" not in batch.inputs for part in parts for batch in part)
    assert len(parts[0]) != len(parts[1])
    right = found(stage, stage.config)
    for layout in ("shared", "padded"):
        done = launch(grpo_steps.__file__, tmp_path, qwen25, layout)
        assert done.returncode == 0, done.stderr[-3000:]
        made = load_file(tmp_path / f"{layout}.safetensors")
        assert_same((float(made.pop("loss")), made), right)


def test_log_probabilities_by_row_are_in_order(family, stages):
    stage = stages(family[1])
    rows = [*stage.rows()[:5], *stage.rows()[-4:]]
    own = learner(stage.engine, chosen())
    whole = logprobs(stage.composer(chosen(train={"layout": "shared"})), own, rows)
    alone = logprobs(stage.composer(chosen(train={"layout": "padded", "micro": 1})), own, rows)
    assert whole.keys() == alone.keys() == set(rows)
    for entry, values in whole.items():
        assert values == pytest.approx(alone[entry], abs=WITHIN)


def test_other_families_stand_alone(family, stages):
    """A model that counts positions itself gets each row by itself, whatever the layout."""
    stage = stages(family[1])
    composer = stage.composer()
    rows = list(chain.from_iterable(chain.from_iterable(composer.parts(stage.rows()[:3], 0))))
    bare = [(entry, replace(example, positions=None)) for entry, example in rows]
    parts = composer._grouped(bare)
    assert [len(bundle) for part in parts for bundle in part] == [1, 1, 1]
    assert len(parts) == 3
    assert all(composer.batch(part).inputs["input_ids"].shape[0] == 1 for part in parts)


def test_sharded_over_two_processes_it_ends_as_on_one(tmp_path):
    """FSDP2 over gloo, rollouts from a whole copy of the weights: the rewards and losses of one process."""
    from prh.tests.training import grpo_sharded
    from prh.tests.training.test_layouts import free_port

    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
    done = subprocess.run(
        [*command, str(free_port()), grpo_sharded.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = grpo_sharded.run(tmp_path / "one"), grpo_sharded.log(tmp_path / "two")
    assert [row["reward"] for row in two] == pytest.approx([row["reward"] for row in one], abs=1e-6)
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], abs=1e-5)
    assert [row["logprob_gap"] for row in two if row["logprob_gap"] is not None] == pytest.approx([0, 0], abs=1e-5)
