"""TRL's SFT trainer over examples of ours: the same batches, labels where a turn is trained and -100 elsewhere."""

import copy

import torch
from datasets import Dataset
from prh.training.batches import collate
from trl import SFTConfig, SFTTrainer

RATE = 1e-3


class Recorded(SFTTrainer):
    """Keeps each loss as it is computed; what is logged is rounded."""

    def compute_loss(self, *arguments, **options):
        loss = super().compute_loss(*arguments, **options)
        self.losses.append(float(loss.detach()))
        return loss


def trl_trainer(engine, made, out, steps, batch, micro):
    """TRL's trainer over these examples in their order, ``batch`` a step in portions of ``micro``."""

    def collator(rows):
        chosen = [made[row["number"]] for row in rows]
        laid = collate(chosen, engine.processor, engine.pad)
        inputs = {name: value for name, value in laid.inputs.items() if name != "logits_to_keep"}
        labels = torch.full_like(inputs["input_ids"], -100)
        for row, example in enumerate(chosen):
            trained = torch.from_numpy(example.weights > 0)
            labels[row, : len(example.ids)][trained] = torch.from_numpy(example.ids)[trained]
        return {**inputs, "labels": labels}

    options = SFTConfig(
        output_dir=str(out),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // micro,
        max_steps=steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        weight_decay=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        train_sampling_strategy="sequential",
    )
    rows = Dataset.from_dict(
        {"number": list(range(len(made))), "input_ids": [[0]] * len(made), "labels": [[0]] * len(made)}
    )
    trainer = Recorded(
        copy.deepcopy(engine.module), options, collator, rows, processing_class=engine.processor.tokenizer
    )
    trainer.losses = []
    return trainer
