"""The recipes that come with the package: whole, and what they say they are."""

from dataclasses import replace

import click.testing
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from prh.training import weights
from prh.training.config import SftConfig, build, override, read_recipe, recipe_files
from prh.training.train_commands import train_group

# Rows of the released trajectories.
ROWS = 7850
EPOCHS = {"sft-paper-7b": (5, 62), "sft-released-7b": (5, 62), "sft-lora-80gb": (3, 62)}
# What the comments of the tiny recipe say to add for an arm of the ablation.
ARMS = ("data.mask=all", 'data.without=["recrop-once", "recrop-twice", "further-zoom", "reselect"]')


def recipe(name):
    values, _ = read_recipe(name)
    return build(SftConfig, values)


def test_every_recipe_is_tested():
    names = {entry.name.removesuffix(".toml") for entry in recipe_files() if entry.name.startswith("sft-")}
    assert names == {*EPOCHS, "sft-tiny"}


def test_the_arms_of_an_ablation_differ_in_one_line():
    text = next(entry for entry in recipe_files() if entry.name == "sft-tiny.toml").read_text()
    values, _ = read_recipe("sft-tiny")
    whole = build(SftConfig, values)
    assert (whole.train.steps, whole.data.mask, whole.data.without) == (300, "flags", ())
    for arm in ARMS:
        assert arm in text
        made = build(SftConfig, override(values, [arm]))
        assert made != whole
        assert replace(made, data=whole.data) == whole


@pytest.mark.parametrize("name", EPOCHS)
def test_a_recipe_is_a_configuration(name):
    made = recipe(name)
    assert (made.train.epochs, -(-ROWS // made.train.batch)) == EPOCHS[name]
    assert made.train.save == 0
    assert made.model.freeze == ("model.visual.*",)
    steps = made.train.epochs * EPOCHS[name][1]
    rates = [made.optim.rate(step, steps) for step in range(steps)]
    assert rates.index(max(rates)) == -(-steps // 10) - 1
    assert rates[0] < 0.1
    assert rates[-1] < 0.01


def test_the_papers_numbers():
    made = recipe("sft-paper-7b")
    assert (made.optim.lr, made.optim.schedule, made.optim.warmup) == (1e-6, "cosine", 0.1)
    assert (made.train.batch, made.model.precision, made.model.saved, made.data.mask) == (
        128,
        "bf16",
        "bfloat16",
        "flags",
    )


def test_the_released_data_are_masked_as_released():
    made = recipe("sft-released-7b")
    assert made.data.mask == "last-two"
    assert made.data.released
    assert not made.data.lessons


@pytest.mark.parametrize("name", ["accelerate-fsdp2-8gpu.yaml", "accelerate-zero3-8gpu.yaml"])
def test_a_launchers_configuration_is_one(name, tmp_path):
    done = click.testing.CliRunner().invoke(train_group, ["recipe", name])
    assert done.exit_code == 0
    (tmp_path / name).write_text(done.output)
    made = load_config_from_file(str(tmp_path / name))
    assert made.num_processes == 8
    assert made.mixed_precision == "bf16"


def test_the_layers_that_are_sharded_exist():
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
    from transformers.models.qwen3_vl import modeling_qwen3_vl

    text = next(entry for entry in recipe_files() if "fsdp2" in entry.name).read_text()
    for module, names in (
        (modeling_qwen2_5_vl, "Qwen2_5_VLDecoderLayer,Qwen2_5_VLVisionBlock"),
        (modeling_qwen3_vl, "Qwen3VLTextDecoderLayer,Qwen3VLVisionBlock"),
    ):
        assert names in text
        assert all(hasattr(module, name) for name in names.split(","))


def test_what_a_recipe_freezes_and_adapts_is_there(opened, qwen25):
    from copy import deepcopy

    for name in ("sft-paper-7b", "sft-lora-80gb"):
        module = weights.ready(deepcopy(opened(qwen25).module), recipe(name))
        trained = {key for key, weight in module.named_parameters() if weight.requires_grad}
        assert trained
        assert not any("visual" in key for key in trained)


def test_recipes_are_listed():
    done = click.testing.CliRunner().invoke(train_group, ["recipe"])
    assert set(EPOCHS) <= {line.removesuffix(".toml") for line in done.output.splitlines()}
    assert click.testing.CliRunner().invoke(train_group, ["recipe", "none"]).exit_code != 0
