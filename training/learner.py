"""The step of a trainer: forward, loss, backward, update, over accelerate and on any number of processes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from typing import Any, cast

import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState
from PIL import Image
from torch.nn.functional import cross_entropy

from ..harness.errors import ModelError, UsageError
from .batches import Batch
from .schedule import Optimisation
from .trainable import Trainable

# What an adapter puts before the name of every parameter of its base.
ADAPTED = "base_model.model."
# What stands in the name of every parameter of a vision tower.
TOWER = "visual."
# The input that stands for images whose features are known, from a tower that is frozen.
FEATURES = "image_features"
PRECISIONS = ("auto", "no", "bf16")
# What a processor calls its units for bfloat16.
UNITS = ("avx512_bf16", "amx_bf16")


def new_accelerator(**how: Any) -> Accelerator:
    """An accelerator for a training, whatever this process trained before.

    Accelerate keeps one state for a process, and another training there would go on with the first one's precision.
    """
    AcceleratorState._reset_state()
    return Accelerator(**how)


@cache
def computed_in(precision: str) -> str:
    """``bf16`` or ``no`` of a precision; ``auto`` is bfloat16 where this processor has units for it, else float32."""
    if precision != "auto":
        return precision
    found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch does not tell
    return "bf16" if any(found.get(name) for name in UNITS) else "no"


def freeze(module: torch.nn.Module, patterns: Sequence[str]) -> list[str]:
    """Stop the training of every parameter whose name matches one of these; the patterns that match none.

    Names are those of the model without an adapter around it.
    """
    idle = []
    for pattern in patterns:
        named = ((name.removeprefix(ADAPTED), weight) for name, weight in module.named_parameters())
        hit = [weight for name, weight in named if fnmatch(name, pattern)]
        for weight in hit:
            weight.requires_grad = False
        if not hit:
            idle.append(pattern)
    return idle


def optimizers(module: torch.nn.Module, how: Optimisation) -> list[torch.optim.Optimizer]:
    """The optimizers of a module; vectors and embeddings have no weight decay."""
    named = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
    muon = how.optimizer == "muon"
    hidden = [one for one in named if muon and one[1].ndim == 2 and not _embeds(one[0])]
    taken = {name for name, _ in hidden}
    rest = [one for one in named if one[0] not in taken]
    made: list[torch.optim.Optimizer] = []
    if hidden:
        groups = _groups(hidden, how, how.muon_lr)
        made.append(torch.optim.Muon(groups, lr=how.muon_lr, adjust_lr_fn="original"))
    if rest:
        made.append(torch.optim.AdamW(_groups(rest, how, how.lr), lr=how.lr, betas=how.betas, eps=how.eps))
    return made


Named = Sequence[tuple[str, torch.nn.Parameter]]


def _groups(named: Named, how: Optimisation, rate: float) -> list[dict[str, Any]]:
    """Parameters by whether they decay and whether they are the vision tower's."""
    found: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, weight in named:
        found.setdefault((weight.ndim > 1 and not _embeds(name), TOWER in name), []).append(weight)
    return [
        {
            "params": held,
            "lr": rate,
            "tower": tower,
            "weight_decay": how.weight_decay if decays else 0.0,
        }
        for (decays, tower), held in found.items()
    ]


def _embeds(name: str) -> bool:
    return "embed" in name or "lm_head" in name


def look(engine: Trainable, images: Sequence[Image.Image]) -> torch.Tensor:
    """What an engine's vision tower makes of images: visual tokens x width of the language model."""
    inputs = engine.processor.tensors("", images)
    tower: Any = engine.module.model.visual
    found = tower(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    return cast(torch.Tensor, getattr(found, "pooler_output", found))


def _embedded(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Inputs with the embeddings of the ids, and in the place of visual tokens what a frozen tower made of them."""
    ids = inputs["input_ids"]
    embeddings = model.get_input_embeddings()(ids)
    seen = inputs[FEATURES].to(embeddings.dtype)
    embeddings = embeddings.masked_scatter((ids == model.config.image_token_id)[..., None], seen)
    return {
        **{name: value for name, value in inputs.items() if name not in ("input_ids", FEATURES)},
        "inputs_embeds": embeddings,
    }


def token_losses(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The weighted loss of each target, rows x columns, in float32."""
    inputs = _embedded(model, batch.inputs) if FEATURES in batch.inputs else batch.inputs
    logits = model(**inputs, use_cache=False).logits.float()
    losses = cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    return losses.view(batch.targets.shape) * batch.weights


@dataclass(frozen=True, slots=True)
class Update:
    """What a step did, on all processes.

    Attributes:
        loss: weighted mean over the whole step.
        norm: of the gradient, before clipping; None where a launcher's engine keeps it to itself.
        tokens: ids, padding excluded; ``area`` with padding.
    """

    loss: float
    norm: float | None
    tokens: int
    area: int


class Learner:
    """A model and its optimizers on this process.

    Attributes:
        model: as accelerate has wrapped it.
        steps: how many there will be, for the schedule.
    """

    def __init__(self, accelerator: Accelerator, module: torch.nn.Module, how: Optimisation, steps: int) -> None:
        self.accelerator = accelerator
        self.how = how
        self.steps = steps
        made = optimizers(module, how)
        self._engine = bool(accelerator.distributed_type == DistributedType.DEEPSPEED)
        if self._engine:
            if len(made) > 1:
                raise UsageError("optim.optimizer: DeepSpeed drives one optimizer; use adamw")
            held = accelerator.state.deepspeed_plugin.deepspeed_config
            held["train_micro_batch_size_per_gpu"] = held["gradient_accumulation_steps"] = 1
            held["gradient_clipping"] = how.clip
        prepared = accelerator.prepare(module, *made)
        if self._engine:
            _load_whole_again()
        self.model: torch.nn.Module = prepared[0]
        self.optimizers: list[torch.optim.Optimizer] = list(prepared[1:])
        self._pace = self._tower = 1.0
        self._peaks = [[float(group["lr"]) for group in one.param_groups] for one in self.optimizers]

    @property
    def sharded(self) -> bool:
        """Whether no process holds the whole model."""
        return self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)

    @property
    def driven(self) -> bool:
        """Whether DeepSpeed keeps weights and states in its own files."""
        return self._engine

    def update(self, step: int, batches: Sequence[Batch], idle: Batch | None = None) -> Update:
        """One step over this process's micro-batches.

        Args:
            idle: a batch without loss, run where another process has more of them.

        Raises:
            ModelError: loss or gradient is not finite; the weights stay as they were.
        """
        self.model.train()
        self._set_rate(step)
        count, total, tokens, area = self._agree(batches)
        if count > len(batches) and idle is None:
            raise ValueError("processes have different numbers of micro-batches and there is none to idle with")
        loss = torch.zeros((), device=self.accelerator.device)
        self.accelerator.gradient_accumulation_steps = count
        self.accelerator.step = 0
        for number in range(count):
            batch = batches[number] if number < len(batches) else cast(Batch, idle)
            loss += self._learn(batch, count, total)
        loss = cast(torch.Tensor, self.accelerator.reduce(loss, "sum"))
        norm = self._norm()
        if not math.isfinite(float(loss)) or (norm is not None and not math.isfinite(norm)):
            message = f"step {step + 1} has a loss of {float(loss)} and a gradient of norm {norm}"
            raise ModelError(f"{message}: lower optim.lr, or compute in float32")
        for one in self.optimizers:
            one.step()
            one.zero_grad()
        return Update(float(loss), norm, tokens, area)

    def _learn(self, batch: Batch, count: int, total: float) -> torch.Tensor:
        """Add one micro-batch's gradient; processes are averaged over, and accelerate divides by ``count``."""
        accelerator = self.accelerator
        with accelerator.accumulate(self.model):
            part = self.part(moved(batch, accelerator.device), total)
            accelerator.backward(part * accelerator.num_processes * (1 if self._engine else count))
        return part.detach()

    def part(self, batch: Batch, total: float) -> torch.Tensor:
        """What a micro-batch adds to the loss of a step whose targets weigh ``total``."""
        return token_losses(self.model, batch).sum() / total

    def _agree(self, batches: Sequence[Batch]) -> tuple[int, float, int, int]:
        """The most micro-batches of a process; over all, the weight of the targets, ids, and ids with padding."""
        weight = sum(float(batch.weights.sum(dtype=torch.float64)) for batch in batches)
        tokens, area = sum(batch.tokens for batch in batches), sum(batch.area for batch in batches)
        if self.accelerator.num_processes == 1:
            return len(batches), weight, tokens, area
        row = [float(len(batches)), weight, float(tokens), float(area)]
        mine = torch.tensor([row], dtype=torch.float64, device=self.accelerator.device)
        every = cast(torch.Tensor, self.accelerator.gather(mine))
        return int(every[:, 0].max()), float(every[:, 1].sum()), int(every[:, 2].sum()), int(every[:, 3].sum())

    def _norm(self) -> float | None:
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.how.clip or math.inf)
        if norm is None:
            return None
        return float(whole(norm)) if isinstance(norm, torch.Tensor) else float(norm)

    def pace(self, rate: float, share: float) -> None:
        """Learn at so many times the rate from now on, and the vision tower at a share of it.

        At a share of 0 the tower stays as it is, and costs less.
        """
        self._pace, self._tower = rate, share
        for name, weight in self.model.named_parameters():
            if TOWER in name:
                weight.requires_grad = share > 0

    def forget(self) -> None:
        """Go on with optimizers that remember nothing of the steps before."""
        for one in self.optimizers:
            one.state.clear()

    def _set_rate(self, step: int) -> None:
        share = self.how.rate(step, self.steps) * self._pace
        for one, peaks in zip(self.optimizers, self._peaks, strict=True):
            for group, peak in zip(one.param_groups, peaks, strict=True):
                group["lr"] = peak * share * (self._tower if group["tower"] else 1.0)

    def states(self) -> Iterable[tuple[int, Mapping[str, object]]]:
        """The state of each optimizer, by number, gathered onto the main process; every process must ask for it."""
        for number, one in enumerate(self.optimizers):
            held = cast("Mapping[int, Mapping[str, torch.Tensor]]", one.state_dict()["state"])
            yield number, {"state": {place: self._gathered(values) for place, values in held.items()}}

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights by name, gathered onto the main process; every process must ask for them."""
        if self._engine:
            return dict(self.accelerator.get_state_dict(self.model) or {})  # None on the other processes
        return self._gathered(self.model.state_dict())

    def _gathered(self, held: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = ((name, whole(value).detach()) for name, value in held.items())
        return {name: value.cpu() for name, value in found if self.accelerator.is_main_process}


def _load_whole_again() -> None:
    """Let transformers load whole models: those that draw and evaluate have no part in DeepSpeed's sharding."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor with all of its shards; every process must ask for it."""
    gather = getattr(value, "full_tensor", None)
    return cast(torch.Tensor, gather()) if gather else value


def moved(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device."""
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    notes = {name: value.to(device) for name, value in batch.notes.items()}
    return Batch(inputs, batch.targets.to(device), batch.weights.to(device), batch.tokens, batch.area, notes)
