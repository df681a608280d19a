"""How weights are updated, as far as that can be said without a library."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..harness.errors import UsageError
from .examples import check_choice

SCHEDULES = ("constant", "linear", "cosine", "hold")
OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True, slots=True)
class Optimisation:
    """How weights are updated.

    Attributes:
        optimizer: ``adamw``, or ``muon``: Muon for the matrices of the hidden layers, AdamW for the rest.
        lr: of AdamW; ``muon_lr`` of Muon, as its authors scale it.
        schedule: after a linear warm-up, constant, or falling to ``floor`` times the peak: linearly, as a cosine,
            or held until half of the steps and then linearly.
        warmup: share of the steps; from 1 on, their number.
        clip: largest gradient norm; 0 for none.
    """

    optimizer: str = "adamw"
    lr: float = 1e-6
    muon_lr: float = 0.02
    schedule: str = "cosine"
    warmup: float = 0.1
    floor: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 1.0

    def __post_init__(self) -> None:
        check_choice(self.optimizer, OPTIMIZERS, "optim.optimizer")
        check_choice(self.schedule, SCHEDULES, "optim.schedule")
        for name in ("lr", "muon_lr", "warmup", "floor", "weight_decay", "eps", "clip"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UsageError(f"optim.{name} must be a number from 0, not {value}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"optim.betas must be two shares below 1, not {list(self.betas)}")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, from 0, as a share of the peak."""
        warm = self.warmup if self.warmup >= 1 else math.ceil(self.warmup * steps)
        if step < warm:
            return (step + 1) / warm
        gone = (step - warm) / max(1, steps - warm)
        if self.schedule == "hold":
            gone = max(0.0, 2 * step / max(1, steps) - 1)
        if self.schedule == "constant":
            return 1.0
        left = (1 + math.cos(math.pi * gone)) / 2 if self.schedule == "cosine" else 1 - gone
        return self.floor + (1 - self.floor) * left
