"""Loss and gradients of a step, from a learner and from scratch.

Run as a script, under any launcher, it writes those of several steps of a learner into safetensors:

    python steps.py OUT FOLDER [FOLDER …]
"""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import torch
from prh.harness.engine import EngineOptions
from prh.models.transformers_engine import TransformersFactory
from prh.tests.models.support import patches
from prh.tests.training.lessons import examples, lesson, setting
from prh.training.batches import Feed, Share
from prh.training.examples import Cache, Performer
from prh.training.learner import Learner, new_accelerator
from prh.training.schedule import Optimisation
from prh.training.sft import blank
from prh.training.trajectories import perform
from torch.nn.functional import cross_entropy

# Five lessons, four a step: 3 and 7 show nothing, and with this seed the second of two processes has them alone. Of
# the second step it has nothing.
NUMBERS = (0, 1, 2, 3, 7)
STEPS, SEED, MICRO = 2, 6, 300
# Nothing is updated, so that every step's gradient is that of the same weights.
STILL = Optimisation(lr=0.0, clip=0.0, schedule="constant", warmup=0.0)


def feed(engine, setting, *, micro=1 << 30, layout="padded", seed=SEED, share=None, empty=None):
    made = Performer(engine, setting)
    return Feed(
        Cache(lambda numbers: made.examples([lesson(NUMBERS[number]) for number in numbers]), 1 << 30),
        engine.processor,
        count=len(NUMBERS),
        batch=4,
        micro=micro,
        seed=seed,
        pad=engine.pad,
        layout=layout,
        share=share or Share(),
        blank=empty,
    )


def gradients(learner, batches, idle=None):
    """A step's loss, and the gradients that the optimizer was given."""
    found = {}

    def look(*_):
        found.update({name: whole(w.grad) for name, w in learner.model.named_parameters() if w.grad is not None})

    hook = learner.optimizers[0].optimizer.register_step_pre_hook(look)
    made = learner.update(0, batches, idle)
    hook.remove()
    return made, {name.removeprefix("module."): grad for name, grad in found.items()}


def whole(grad):
    return (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).detach().clone()


def logits_of(folder, engine, number, ids):
    made = lesson(number)
    talk = asyncio.run(perform(made.sample, made.script, setting(), engine.fit)).conversation
    config = json.loads((folder / "preprocessor_config.json").read_text())
    inputs = {"input_ids": torch.tensor([ids])}
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == engine.module.config.image_token_id).int()
    images, patch = list(talk.images()), config["patch_size"]
    if images:
        cut = [patches(image, patch, config["image_mean"], config["image_std"]) for image in images]
        inputs["pixel_values"] = torch.from_numpy(np.concatenate(cut))
        inputs["image_grid_thw"] = torch.tensor([[1, i.height // patch, i.width // patch] for i in images])
    return engine.module(**inputs, use_cache=False).logits[0]


def from_scratch(engine, folder, numbers):
    """Each lesson alone, all of its logits, the family's own positions, its pixels made by hand."""
    module = engine.module
    module.zero_grad()
    made = examples(engine, numbers)
    total = sum(float(example.weights.sum()) for example in made)
    loss = 0.0
    for number, example in zip(numbers, made, strict=True):
        with torch.enable_grad():
            logits = logits_of(folder, engine, number, example.ids.tolist())
            part = cross_entropy(logits[:-1], torch.from_numpy(example.ids[1:]), reduction="none")
            part = (part * torch.from_numpy(example.weights[1:])).sum() / total
            part.backward()
        loss += float(part.detach())
    found = {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}
    module.zero_grad()
    return loss, found


def main(out, folders):
    from safetensors.torch import save_file

    accelerator = new_accelerator()
    assert accelerator.num_processes == 2
    for number, folder in enumerate(folders):
        engine = TransformersFactory().open(folder, EngineOptions(attention="eager", device="cpu"))
        empty = blank(engine, setting())
        share = Share(accelerator.process_index, accelerator.num_processes)
        learner = Learner(accelerator, engine.module, STILL, STEPS)
        fed = feed(engine, setting(), micro=MICRO, share=share, empty=empty)
        for step in range(STEPS):
            made, found = gradients(learner, fed.step(step), fed.idle())
            if accelerator.is_main_process:
                save_file({**found, "loss": torch.tensor(made.loss)}, Path(out) / f"{number}-{step}.safetensors")
        accelerator.wait_for_everyone()
        accelerator.free_memory()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
