"""Loss and gradients of an update of a reinforcement, from a learner and from scratch.

Run as a script, under any launcher, it writes those of a learner over rollouts that are on the disk:

    python grpo_steps.py OUT MODEL LAYOUT
"""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
from prh.harness.engine import EngineOptions
from prh.models.transformers_engine import TransformersFactory
from prh.tests.models.support import patches
from prh.tests.training import acting, steps
from prh.tests.training.lessons import setting
from prh.training.lean import lean
from prh.training.learner import new_accelerator
from prh.training.policy import PolicyLearner, Voice
from prh.training.sft import blank

# 3 and 7 show nothing; 2 shows two pictures.
NUMBERS = (0, 2, 3, 7)
MICRO = 250


def chosen(**parts):
    """A configuration with one update of all the rollouts."""
    own = {"rollout": {"queries": len(NUMBERS)}, "train": {"batch": 8 * len(NUMBERS)}}
    merged = {name: {**own.get(name, {}), **value} for name, value in {**own, **parts}.items()}
    return acting.config(**merged)


def learner(engine, config, accelerator=None, *, slim=True, how=steps.STILL):
    """A learner of a copy of the model, so that nothing of it is left on the engine's."""
    module = copy.deepcopy(engine.module)
    slim = slim and lean(module) is not None
    voice = Voice(config.rollout.temperature, tuple(sorted(engine.vision_ids)), lean=slim)
    return PolicyLearner(accelerator or new_accelerator(), module, how, 1, config.loss, voice)


def logits_of(engine, talk, ids):
    """Logits of a conversation alone: the family's own positions, pixels made by hand."""
    config = json.loads((engine._checkpoint.folder / "preprocessor_config.json").read_text())
    inputs = {"input_ids": torch.tensor([list(ids)])}
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == engine.module.config.image_token_id).int()
    images, patch = list(talk.images()), config["patch_size"]
    if images:
        cut = [patches(image, patch, config["image_mean"], config["image_std"]) for image in images]
        inputs["pixel_values"] = torch.from_numpy(np.concatenate(cut))
        inputs["image_grid_thw"] = torch.tensor([[1, i.height // patch, i.width // patch] for i in images])
    return engine.module(**inputs, use_cache=False).logits[0]


def from_scratch(engine, stage, rows):
    """Each rollout alone, all of its logits, the loss by its definition over trained tokens."""
    module, part = engine.module, stage.config.loss
    module.zero_grad()
    records = {(one["id"], one["repeat"]): one for one in stage.records}
    lengths = [len(acting.spoken(records[row.id, row.repeat])) for row in rows]
    loss = 0.0
    for row, length in zip(rows, lengths, strict=True):
        record = records[row.id, row.repeat]
        (talk,) = stage.rollouts.again(acting.TASK, [record], engine)
        view = engine.encode(talk)
        logits = logits_of(engine, talk, view.ids) / stage.config.rollout.temperature
        law = logits.index_fill(-1, torch.tensor(sorted(engine.vision_ids)), float("-inf")).log_softmax(-1)
        places = np.flatnonzero(view.trained)
        new = law[torch.from_numpy(places - 1), torch.tensor(view.ids)[torch.from_numpy(places)]]
        old = torch.tensor(acting.spoken(record, "logprobs"))
        ratio = (new - old).mean().exp().expand(length) if part.kind == "gspo" else (new - old).exp()
        gain = torch.minimum(ratio * row.advantage, ratio.clamp(1 - part.low, 1 + part.high) * row.advantage)
        weight = {
            "grpo": 1 / length / len(rows),
            "gspo": 1 / length / len(rows),
            "dapo": 1 / sum(lengths),
            "dr_grpo": 1 / (part.length * len(rows)),
        }[part.kind]
        mine = -(gain * weight).sum()
        mine.backward()
        loss += float(mine.detach())
    found = {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}
    module.zero_grad()
    return loss, found


def main(out, model, layout):
    from safetensors.torch import save_file

    accelerator = new_accelerator()
    assert accelerator.num_processes == 2
    engine = TransformersFactory().open(model, EngineOptions(attention="eager", device="cpu"))
    config = chosen(loss={"kind": "dapo"}, train={"micro": MICRO, "layout": layout})
    stage = acting.on_disk(out, engine, config, acting.questions(NUMBERS))
    rank, world = accelerator.process_index, accelerator.num_processes
    composer = stage.composer(rank=rank, world=world, empty=blank(engine, setting()))
    made, found = steps.gradients(
        learner(engine, config, accelerator), composer.update(stage.rows(), 0), composer.idle()
    )
    if accelerator.is_main_process:
        save_file({**found, "loss": torch.tensor(made.loss)}, Path(out) / f"{layout}.safetensors")
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
