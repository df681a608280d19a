"""The recipes of reinforcement: whole, what they say they are, and the paper's ablations a line each."""

import click.testing
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from prh.training.config import build, override, read_recipe, recipe_files
from prh.training.grpo_config import GrpoConfig
from prh.training.rewards import compose
from prh.training.train_commands import train_group

# Updates a round, and in all.
STEPS = {"grpo-paper-7b": (8, 720), "grpo-lora-80gb": (2, 480), "grpo-tiny": (1, 300)}
ABLATIONS = ("reward.curiosity-paper.weight=0", "model.base=tiny-base", "model.base=runs/warm-without/final")


def recipe(name, *sets):
    return build(GrpoConfig, override(read_recipe(name)[0], sets))


def test_every_recipe_is_tested():
    names = {entry.name.removesuffix(".toml") for entry in recipe_files() if entry.name.startswith("grpo-")}
    assert names == set(STEPS)


@pytest.mark.parametrize("name", STEPS)
def test_a_recipe_is_a_configuration(name):
    made = recipe(name)
    assert (made.updates, made.steps) == STEPS[name]
    assert set(compose(made.reward).terms) == {"correct", "curiosity-paper"}
    rates = [made.optim.rate(step, made.steps) for step in range(made.steps)]
    assert rates[0] < rates[made.steps // 2]


def test_the_papers_numbers():
    made = recipe("grpo-paper-7b")
    assert (made.rollout.queries, made.rollout.group, made.rollout.temperature, made.train.batch) == (512, 8, 1.0, 256)
    assert (made.loss.low, made.loss.high, made.loss.length, made.loss.beta) == (0.2, 0.35, 200.0, 0.0)
    assert (made.advantage.scale, made.advantage.uniform, made.replay.age) == ("none", 0.01, 0)
    assert (made.optim.lr, made.optim.betas, made.optim.clip, made.optim.warmup) == (1e-6, (0.9, 0.95), 1.0, 0.03)
    assert min(made.optim.rate(step, made.steps) for step in range(22, made.steps)) >= 0.5
    bonus, term = compose(made.reward).terms["curiosity-paper"]
    assert (bonus, term.alpha, term.beta, term.target, term.calls) == (1.0, 0.5, 0.05, 0.3, 1)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("line", ABLATIONS)
def test_an_ablation_is_one_line(name, line):
    plain, changed = recipe(name), recipe(name, line)
    different = [
        key
        for key in ("model", "reward", "data", "rollout", "train", "loss")
        if getattr(plain, key) != getattr(changed, key)
    ]
    assert different == [line.partition(".")[0]]
    assert line.partition("=")[0].split(".")[0] in read_text(name)
    if "weight" in line:
        assert compose(changed.reward).terms["curiosity-paper"][0] == 0


def read_text(name):
    entry = next(one for one in recipe_files() if one.name == f"{name}.toml")
    return entry.read_text(encoding="utf-8")


def test_the_ablations_stand_in_the_recipes():
    for name in ("grpo-paper-7b", "grpo-tiny"):
        text = read_text(name)
        assert "--set reward.curiosity-paper.weight=0" in text
        assert text.count("--set model.base=") == 2


def test_a_launchers_configuration_for_four_machines(tmp_path):
    done = click.testing.CliRunner().invoke(train_group, ["recipe", "accelerate-fsdp2-4x8gpu.yaml"])
    assert done.exit_code == 0
    (tmp_path / "a.yaml").write_text(done.output)
    made = load_config_from_file(str(tmp_path / "a.yaml"))
    assert (made.num_processes, made.num_machines, made.mixed_precision) == (32, 4, "bf16")
