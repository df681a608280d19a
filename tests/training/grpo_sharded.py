"""Two processes that share a model by FSDP2 reinforce it: python grpo_sharded.py OUT."""

import sys
import tomllib
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from prh.tests.training import bandit, sharded
from prh.training import grpo, loop
from prh.training.checkpoints import read_log
from prh.training.config import build, override
from prh.training.grpo_config import GrpoConfig


def run(out):
    """Two rounds; their lines of the log."""
    bandit.register()
    values = override(
        tomllib.loads(bandit.CONFIG), ["train.rounds=2", "train.batch=8", "train.save=2", "loss.correction=recompute"]
    )
    grpo.train(build(GrpoConfig, values), out, Path())
    return log(out)


def log(out):
    return read_log(out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    loop.new_accelerator = sharded.sharding
    run(Path(sys.argv[1]) / "two")
    assert PartialState().distributed_type == DistributedType.FSDP
