"""Two processes that share a model by FSDP2 train it, end early, and go on: python sharded.py OUT CONFIG.

Accelerate offers FSDP for accelerators alone, though torch shards on the CPU as well; so it is told here that it may.
"""

import contextlib
import sys
import tomllib
from pathlib import Path

import torch
from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState
from prh.training import loop, sft
from prh.training.config import SftConfig, build, override
from prh.training.learner import new_accelerator

LAYERS = ["Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock"]


VARIANTS = {
    "full": ("model.saved=bfloat16",),
    "lora": ("lora.rank=4", "train.epochs=1"),
    "muon": ("optim.optimizer=muon", "model.freeze=['model.visual.*']", "train.epochs=1"),
}


def sharding(**options):
    made = new_accelerator(cpu=True, **options)
    made.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    made.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=LAYERS
    )
    return made


def main(out, path):
    torch.set_num_threads(1)
    loop.new_accelerator = sharding
    for name, sets in VARIANTS.items():
        config = build(SftConfig, override(tomllib.loads(path.read_text()), sets))
        sft.train(config, out / f"{name}-whole", path.parent)
        if name == "full":
            interrupted(config, out / "full-parts", path.parent)


def interrupted(config, out, root):
    """Ended by an error after the second step's checkpoint, then gone on with."""
    due = loop.Run._due

    def ends(self, step):
        if step == 3:
            raise RuntimeError
        return due(self, step)

    loop.Run._due = ends
    with contextlib.suppress(RuntimeError):
        sft.train(config, out, root)
    loop.Run._due = due
    sft.train(config, out, root)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
