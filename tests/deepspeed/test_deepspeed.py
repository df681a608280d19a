"""DeepSpeed itself: two processes that share a model by the recipe's ZeRO-3 end as one that has it whole.

Needs the environment of ``make test-deepspeed``.
"""

import importlib.util
import os
import subprocess
import sys
import time
from importlib.resources import files

import pytest
import yaml
from prh.tests.deepspeed import zero3
from prh.tests.training import lessons
from prh.tests.training.test_layouts import free_port
from prh.training.checkpoints import read_log
from safetensors.torch import load_file

if importlib.util.find_spec("deepspeed") is None:
    pytest.exit("DeepSpeed is not installed here: run `make test-deepspeed`", returncode=2)

WITHIN = 1e-5
# Adam's first steps are as long where a gradient is rounding alone as where it is not.
LEARNED = 1e-4
SFT = """
[model]
base = "tiny-base"
attention = "eager"

[data]
lessons = ["lessons"]

[train]
steps = 4
batch = 4
micro = 1024
save = 2

[eval]
limit = 8

[optim]
lr = 1e-4
"""
GRPO = """
[model]
base = "tiny-warm"
attention = "sdpa"

[[data]]
task = "vstar-mini"
slices = ["direct_attributes"]

[reward.correct]

[reward.curiosity-paper]
alpha = 0.5
beta = 0.05
target = 0.3
calls = 1

[rollout]
queries = 2
group = 4
temperature = 0.8
over_limit = "keep"

[loss]
kind = "dr_grpo"
length = 40.0

[train]
rounds = 2
batch = 8
micro = 4096
save = 1

[optim]
lr = 1.5e-4
schedule = "constant"
"""

WORDS = {
    "sft": ("train", "sft", "sft.toml"),
    "lora": ("train", "sft", "sft.toml", "--set", "lora.rank=4", "--eval", "vstar-mini", "--eval-every", "4"),
    "grpo": ("train", "grpo", "grpo.toml"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where trainings of one process have ended: ``sft``, ``lora`` and ``grpo``."""
    folder = tmp_path_factory.mktemp("zero3")
    lessons.write(folder / "lessons", 12)
    (folder / "sft.toml").write_text(SFT)
    (folder / "grpo.toml").write_text(GRPO)
    for kind, words in WORDS.items():
        done = subprocess.run(
            [sys.executable, "-m", "prh", *words, "--out", kind],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PRH_TORCH_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def environment():
    """What ``accelerate launch`` sets for the recipe, in float32."""
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    recipe = yaml.safe_load((files("prh.training") / "recipes" / "accelerate-zero3-8gpu.yaml").read_text())
    assert recipe["distributed_type"] == "DEEPSPEED"
    options = [word for name, value in recipe["deepspeed_config"].items() for word in (f"--{name}", str(value))]
    words = ["--use_deepspeed", *options, "--mixed_precision", "no", "--num_processes", "2", "--num_machines", "1", "x"]
    args = launch_command_parser().parse_args(words)
    args.deepspeed_fields_from_accelerate_config = ",".join(recipe["deepspeed_config"])
    _, made = prepare_deepspeed_cmd_env(args)
    own = {"OMP_NUM_THREADS": "1", "PRH_TORCH_THREADS": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return {**made, **own}


class Pair:
    """Two processes of one training, which can be killed as one."""

    def __init__(self, folder, *words):
        own = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.processes = [
                subprocess.Popen(
                    [sys.executable, zero3.__file__, *words],
                    cwd=folder,
                    env={**environment(), **own, "RANK": rank, "LOCAL_RANK": rank},
                    stdout=log,
                    stderr=log,
                )
                for rank in ("0", "1")
            ]

    @property
    def said(self):
        return self.log.read_text(errors="replace")

    @property
    def running(self):
        return all(one.poll() is None for one in self.processes)

    def end(self):
        """Their exit codes, once both have ended; where one fails the other is not waited for."""
        ended = time.monotonic() + 600
        while self.running and time.monotonic() < ended:
            time.sleep(0.05)
        try:
            return [one.wait(60) for one in self.processes]
        finally:
            self.kill()

    def kill(self):
        for one in self.processes:
            one.kill()
            one.wait()


def shared(folder, kind, out, *more):
    """A training of two processes, to its end: its exit codes and what it said."""
    pair = Pair(folder, *WORDS[kind], "--out", out, *more)
    return pair.end(), pair.said


def losses(folder):
    return [row["loss"] for row in read_log(folder) if "loss" in row]


def apart(one, two, name="model.safetensors"):
    """How far the weights of two trainings lie from each other at most."""
    first, second = (load_file(folder / "final" / name) for folder in (one, two))
    assert first.keys() == second.keys()
    return max(float((weight.float() - second[name].float()).abs().max()) for name, weight in first.items())


def test_a_training_ends_as_on_one_process(place):
    codes, said = shared(place, "sft", "two")
    assert codes == [0, 0], said[-3000:]
    assert (place / "two/step-000004/state/pytorch_model").is_dir(), "DeepSpeed has not taken part"
    assert losses(place / "two") == pytest.approx(losses(place / "sft"), abs=WITHIN)
    assert apart(place / "sft", place / "two") < WITHIN


def test_one_that_is_killed_goes_on_to_the_same_weights(place):
    pair = Pair(place, *WORDS["sft"], "--out", "killed")
    ended = time.monotonic() + 600
    while not (place / "killed/step-000002").is_dir() and pair.running and time.monotonic() < ended:
        time.sleep(0.01)
    pair.kill()
    assert not (place / "killed/final").exists(), pair.said[-3000:]
    codes, said = shared(place, "sft", "killed")
    assert codes == [0, 0], said[-3000:]
    assert "going on after step 2" in said
    assert apart(place / "sft", place / "killed") < WITHIN


def test_an_adapter_is_trained_and_evaluated_amid_the_training(place):
    codes, said = shared(place, "lora", "two-lora")
    assert codes == [0, 0], said[-3000:]
    assert losses(place / "two-lora") == pytest.approx(losses(place / "lora"), abs=WITHIN)
    assert apart(place / "lora", place / "two-lora", "adapter_model.safetensors") < WITHIN
    first, second = (
        [row for row in read_log(place / name) if "vstar-mini.accuracy" in row] for name in ("lora", "two-lora")
    )
    assert len(first) == 1
    assert first == second


def test_rollouts_are_drawn_with_whole_weights_and_learned_as_on_one_process(place):
    codes, said = shared(place, "grpo", "two-grpo")
    assert codes == [0, 0], said[-3000:]
    first, second = (read_log(place / name) for name in ("grpo", "two-grpo"))
    assert any(row["reward"] for row in first)
    assert [row["reward"] for row in second] == pytest.approx([row["reward"] for row in first], abs=1e-6)
    assert losses(place / "two-grpo") == pytest.approx(losses(place / "grpo"), abs=WITHIN)
    assert apart(place / "grpo", place / "two-grpo") < LEARNED


def test_two_optimizers_are_refused(place):
    codes, said = shared(place, "sft", "muon", "--set", "optim.optimizer=muon")
    assert codes == [2, 2]
    assert "optim.optimizer: DeepSpeed drives one optimizer; use adamw" in said
