"""One step, laid out in every way: the same loss and the same gradient."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from prh.tests.training import sharded, steps
from prh.tests.training.lessons import config, examples, setting
from prh.training.batches import Share, collate, order, split, step_seed
from prh.training.checkpoints import read_log
from prh.training.examples import Example
from prh.training.learner import Learner, new_accelerator, token_losses
from prh.training.sft import blank
from safetensors.torch import load_file

WITHIN = 1e-5


@pytest.fixture(scope="module")
def numbers():
    """The lessons of the first step of ``steps.feed``."""
    return [steps.NUMBERS[number] for number in order(len(steps.NUMBERS), 4, steps.SEED, 0)]


@pytest.fixture(scope="module")
def learners():
    made = {}

    def one(engine):
        if engine not in made:
            made[engine] = Learner(new_accelerator(), engine.module, steps.STILL, steps.STEPS)
        return made[engine]

    return one


def assert_same(found, wanted, within=WITHIN):
    (loss, grads), (true, right) = found, wanted
    assert loss == pytest.approx(true, abs=within)
    assert grads.keys() == right.keys()
    for name, grad in right.items():
        gap = (grads[name] - grad).abs().max() / grad.abs().max().clamp(min=1.0)
        assert gap < within, name


@pytest.mark.parametrize("micro", [1, 300, 700, 1 << 30])
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_every_split_and_layout_gives_the_step_of_each_row_alone(family, learners, numbers, layout, micro):
    folder, engine = family
    learner = learners(engine)
    batches = steps.feed(engine, setting(), layout=layout, micro=micro).step(0)
    assert sum(batch.tokens for batch in batches) == sum(len(one.ids) for one in examples(engine, numbers))
    if layout == "packed":
        assert all(batch.area == batch.tokens for batch in batches)
    made, grads = steps.gradients(learner, batches)
    assert_same((made.loss, grads), steps.from_scratch(engine, folder, numbers))


def test_a_blank_and_an_idle_batch_change_nothing(family, learners, numbers):
    folder, engine = family
    empty = blank(engine, setting())
    fed = steps.feed(engine, setting(), micro=1, empty=empty)
    batches = fed.step(0)
    assert all("pixel_values" in batch.inputs for batch in batches)
    made, grads = steps.gradients(learners(engine), [fed.idle(), *batches, fed.idle()])
    assert_same((made.loss, grads), steps.from_scratch(engine, folder, numbers))


def test_rows_do_not_reach_each_other(family):
    """Another second row leaves the losses of the first as they are, filled or packed."""
    _, engine = family
    one, two, other = examples(engine, [0, 1, 2])
    for layout in ("padded", "packed"):
        seen = []
        for second in (two, other):
            batch = collate([one, second], engine.processor, engine.pad, layout)
            with torch.no_grad():
                losses = token_losses(engine.module, batch)
            first = losses[0] if layout == "padded" else losses.flatten()[: int((one.weights > 0).sum())]
            seen.append(first[first > 0])
        assert torch.allclose(*seen, atol=WITHIN)


def test_images_stay_with_their_placeholders(family):
    """A packed or padded batch sees each row's own images in order: another order gives another loss."""
    _, engine = family
    made = examples(engine, [1, 2, 3, 0])
    batch = collate(made, engine.processor, engine.pad)
    shown = [engine.processor.tensors("", list(one.images))["pixel_values"] for one in made if one.images]
    assert torch.equal(batch.inputs["pixel_values"], torch.cat(shown))
    kept = Example(made[1].name, made[1].ids, made[1].weights, made[1].positions, inputs=views(engine, made[1]))
    mixed = collate([made[0], kept, *made[2:]], engine.processor, engine.pad)
    assert torch.equal(mixed.inputs["pixel_values"], batch.inputs["pixel_values"])
    assert torch.equal(mixed.inputs["image_grid_thw"], batch.inputs["image_grid_thw"])


def views(engine, example):
    return engine.processor.tensors("", list(example.images))


def test_image_tokens_have_three_rows_of_positions(family):
    _, engine = family
    made = examples(engine, [2])[0]
    image = made.ids == engine.module.config.image_token_id
    time, high, wide = (row[image] for row in made.positions.numpy())
    assert not np.array_equal(high, wide)
    assert not np.array_equal(time, high)


def test_examples_without_positions_stand_alone(family):
    _, engine = family
    made = [Example(one.name, one.ids, one.weights, None) for one in examples(engine, [3, 7])]
    with pytest.raises(ValueError, match="cannot share"):
        collate(made, engine.processor, engine.pad)


def test_micro_batches_hold_what_they_may():
    assert split([5, 9, 3, 9], 18) == [[1, 3], [0, 2]]
    assert split([5, 9, 3, 9], 18, "packed") == [[1, 3], [0, 2]]
    assert split([5, 5, 5, 3], 15, "packed") == [[0, 1, 2], [3]]
    assert split([4, 3, 3, 3], 13, "packed") == [[0, 1, 2, 3]]
    assert split([4, 3, 3, 3], 13) == [[0, 1, 2], [3]]
    assert split([50, 9], 18) == [[0], [1]]
    assert split([], 18) == []


def test_an_epoch_has_every_example_once_in_its_own_order():
    epochs = [[number for step in range(3) for number in order(10, 4, 7, 3 * epoch + step)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]
    assert len({step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(3)}) == 450


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def launch(*arguments, options=()):
    """Run a script in two processes with accelerate's own launcher, which with ``--cpu`` would start one."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(free_port()), *options, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PRH_TORCH_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)


def test_two_processes_give_the_step_of_one(qwen25, qwen3, opened, learners, tmp_path):
    """One of them has text alone, or fewer micro-batches, or a row less."""
    done = launch(steps.__file__, tmp_path, qwen25, qwen3)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = [steps.feed(opened(qwen25), setting(), micro=steps.MICRO, share=Share(rank, 2)) for rank in range(2)]
    batches = [[part.step(step) for part in parts] for step in range(steps.STEPS)]
    assert any(not any("pixel_values" in batch.inputs for batch in mine) for step in batches for mine in step)
    assert any(len(first) != len(second) for first, second in batches)
    for family, folder in enumerate((qwen25, qwen3)):
        engine = opened(folder)
        fed = steps.feed(engine, setting())
        for step in range(steps.STEPS):
            found = load_file(tmp_path / f"{family}-{step}.safetensors")
            made, grads = steps.gradients(learners(engine), fed.step(step))
            assert_same((float(found.pop("loss")), found), (made.loss, grads))


def test_two_processes_can_share_a_model_and_go_on_with_it(school, prh, tmp_path):
    """FSDP2 over gloo: the losses of one process, and after an end amid the training the same weights again."""
    path = config(tmp_path, school)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
    done = subprocess.run(
        [*command, str(free_port()), sharded.__file__, str(tmp_path), str(path)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, sets in sharded.VARIANTS.items():
        words = [word for one in sets for word in ("--set", one)]
        assert prh("train", "sft", path, "--out", tmp_path / name, *words) == 0
        one, two = (read_log(folder) for folder in (tmp_path / name, tmp_path / f"{name}-whole"))
        assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], abs=2e-3)
        assert two[0]["loss"] == pytest.approx(one[0]["loss"], abs=WITHIN)
    whole, parts = (load_file(tmp_path / f"full-{kind}/final/model.safetensors") for kind in ("whole", "parts"))
    assert all(torch.equal(weight, parts[name]) for name, weight in whole.items())
