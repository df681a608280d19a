"""Two processes reinforce a model and draw apart from it: python grpo_ranks.py OUT whole|sharded [SET ...].

vLLM's interface is imitated in each of them; what was asked of its engine is written beside the log.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from accelerate import DistributedType, PartialState
from prh.harness.errors import PrhError
from prh.tests.models import fake_vllm
from prh.tests.training import bandit, sharded
from prh.tests.training.test_grpo_run import made
from prh.training import loop

ROUNDS = ("rollout.engine=vllm", "optim.lr=5e-3", "advantage.uniform=0.01", "train.rounds=2", "train.batch=8")


def run(out, *sets):
    """Two rounds; what was asked of the engines that this process started."""
    bandit.register()
    with pytest.MonkeyPatch.context() as patch:
        started = fake_vllm.install(patch)
        made(out, *ROUNDS, *sets)
    return [[name, *map(str, args)] for engine in started for name, args, _ in engine.calls]


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    if sys.argv[2] == "sharded":
        loop.new_accelerator = sharded.sharding
    rank = os.environ["RANK"]
    said = ""
    try:
        calls = run(where, *sys.argv[3:])
    except PrhError as error:
        calls, said = [], str(error)
    assert (PartialState().distributed_type == DistributedType.FSDP) == (sys.argv[2] == "sharded")
    (where / f"rank-{rank}.json").write_text(json.dumps({"calls": calls, "error": said}))
