"""Two processes reinforce a model and draw apart from it: python grpo_ranks.py OUT KIND [SET ...].

KIND is ``whole`` or ``sharded``; or what one of them alone cannot do: ``open`` its engine, or write ``.spoken`` or
``step-000001`` once an update is made. vLLM's interface is imitated in each; what was asked of its engine is written
beside the log.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from accelerate import DistributedType, PartialState
from prh.harness.errors import PrhError, StoreError, UsageError
from prh.models.vllm_engine import VLLMFactory
from prh.tests.models import fake_vllm
from prh.tests.training import bandit, sharded
from prh.tests.training.test_grpo_run import made
from prh.training import checkpoints, loop

ROUNDS = ("rollout.engine=vllm", "optim.lr=5e-3", "advantage.uniform=0.01", "train.rounds=2", "train.batch=8")


def run(out, *sets, calls=None):
    """Two rounds; what was asked of the engines that this process started, also where it ends early."""
    calls = [] if calls is None else calls
    bandit.register()
    with pytest.MonkeyPatch.context() as patch:
        started = fake_vllm.install(patch)
        try:
            made(out, *ROUNDS, *sets)
        finally:
            calls += [[name, *map(str, args)] for engine in started for name, args, _ in engine.calls]
    return calls


def fail(kind, rank):
    """Make one process fail where the other does not."""
    if kind == "open" and rank == "1":

        def versioned(*_):
            raise UsageError("there is no GPU for it")

        VLLMFactory.versioned = versioned
    if kind.startswith((".", "step")) and rank == "0":
        begin = checkpoints.begin

        def full(target):
            if target.name == kind and (target.parent / checkpoints.LOG).exists():
                raise StoreError(f"cannot write {kind}: No space left on device")
            return begin(target)

        checkpoints.begin = full


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    if sys.argv[2] == "sharded":
        loop.new_accelerator = sharded.sharding
    rank = os.environ["RANK"]
    fail(sys.argv[2], rank)
    said, calls = "", []
    try:
        run(where, *sys.argv[3:], calls=calls)
    except PrhError as error:
        said = str(error)
    assert (PartialState().distributed_type == DistributedType.FSDP) == (sys.argv[2] == "sharded")
    (where / f"rank-{rank}.json").write_text(json.dumps({"calls": calls, "error": said}))
