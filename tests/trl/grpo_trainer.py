"""TRL's GRPO trainer over rollouts of ours: what its own collation would give, in its own names."""

import copy

import torch
from datasets import Dataset
from prh.training.batches import pixels
from trl import GRPOConfig, GRPOTrainer

RATE = 1e-3


class Captured(GRPOTrainer):
    """Learns the rollouts that it is given, instead of sampling."""

    given = None

    def _prepare_inputs(self, generation_batch):
        return self.given()


def trl_trainer(engine, loss, out, *, rows, length, double=False, steps=1):
    """TRL's trainer with one of our losses."""
    options = GRPOConfig(
        output_dir=str(out),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        num_generations=2,
        max_completion_length=length,
        max_steps=steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        weight_decay=0.0,
        temperature=1.0,
        loss_type="grpo" if loss.kind == "gspo" else loss.kind,
        importance_sampling_level="sequence" if loss.kind == "gspo" else "token",
        epsilon=loss.low,
        epsilon_high=loss.high,
        beta=0.0,
        logging_steps=1 << 30,
        disable_tqdm=True,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        disable_dropout=True,
    )
    module = copy.deepcopy(engine.module)
    data = Dataset.from_dict({"prompt": ["x"] * (rows * steps)})
    trainer = Captured(
        module.double() if double else module,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=options,
        train_dataset=data,
        processing_class=copy.deepcopy(engine.processor.tokenizer),
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def collated(engine, examples, advantages):
    """Examples as TRL lays them out: prompts filled on the left, completions on the right, a mask of what was said."""
    starts = [int((example.weights > 0).argmax()) for example in examples]
    prompt = max(starts)
    longest = max(len(example.ids) - start for example, start in zip(examples, starts, strict=True))
    shape = (len(examples), prompt + longest)
    ids = torch.full(shape, engine.pad)
    mask, said = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    old = torch.zeros(shape)
    for row, (example, start) in enumerate(zip(examples, starts, strict=True)):
        place = slice(prompt - start, prompt - start + len(example.ids))
        ids[row, place] = torch.from_numpy(example.ids)
        mask[row, place] = 1
        said[row, place] = torch.from_numpy((example.weights > 0).astype("int64"))
        old[row, place] = torch.from_numpy(example.notes["old"])
    kinds = (ids == engine.module.config.image_token_id).int()
    shown = pixels(examples, engine.processor)
    return {
        "prompt_ids": ids[:, :prompt],
        "prompt_mask": mask[:, :prompt],
        "completion_ids": ids[:, prompt:],
        "completion_mask": mask[:, prompt:],
        "tool_mask": said[:, prompt:],
        "old_per_token_logps": old[:, prompt:],
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": said.sum(),
        "mm_token_type_ids": kinds,
        "num_images": [len(example.images) for example in examples],
        **{name: value for name, value in shown.items() if name in ("pixel_values", "image_grid_thw")},
    }
