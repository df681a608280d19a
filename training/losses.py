"""The losses of group-relative policy optimisation, as one sum over trained tokens.

With ``r`` the ratio of a token's probability now to that when it was sampled, ``A`` its rollout's advantage:

    sum over tokens of weight * (factor * -min(r A, clip(r, 1 - low, 1 + high) A) + beta * KL)

What the published losses differ in is the weight, which depends on the whole step and on no split of it, and for
``gspo`` the ratio: there it is that of the whole rollout, the geometric mean of its tokens' ratios. ``factor`` mends
the gap between the engine that sampled and the model that learns. Sources: DeepSeekMath (grpo), Dr. GRPO (dr_grpo),
DAPO (dapo), GSPO (gspo), and TRL 1.16, which the tests hold these against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..harness.errors import UsageError
from .examples import check_choice

if TYPE_CHECKING:
    import torch

KINDS = ("grpo", "dr_grpo", "dapo", "gspo")
CORRECTIONS = ("none", "recompute", "truncate", "mask")
LEVELS = ("token", "sequence")
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LossPart:
    """Which loss.

    Attributes:
        kind: ``grpo`` and ``gspo``: mean over rollouts of the mean over tokens; ``dapo``: mean over tokens;
            ``dr_grpo``: sum over tokens, divided by the number of rollouts and the constant ``length``.
        length: that constant; the release of Pixel Reasoner has 200.
        low, high: how far a ratio may fall below and rise above 1 to the rollout's gain.
        beta: weight of the KL divergence from the checkpoint that the training began with; 0 needs no copy of it.
        correction: of the gap between sampling and learning: ``none`` takes the log-probabilities of sampling as the
            old ones; otherwise the learner computes the old ones anew at the beginning of a round. ``recompute`` leaves
            it at that; ``truncate`` and ``mask`` weigh the loss by their ratio to those of sampling, cut off at
            ``cap``, or 0 above it.
        level: of that ratio: ``token``, or ``sequence`` for the product over a rollout.
    """

    kind: str = "dr_grpo"
    length: float = 200.0
    low: float = 0.2
    high: float = 0.35
    beta: float = 0.0
    correction: str = "none"
    level: str = "token"
    cap: float = 2.0

    def __post_init__(self) -> None:
        check_choice(self.kind, KINDS, "loss.kind")
        check_choice(self.correction, CORRECTIONS, "loss.correction")
        check_choice(self.level, LEVELS, "loss.level")
        for name in ("low", "high", "beta"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"loss.{name} must be a number from 0, not {getattr(self, name)}")
        for name in ("length", "cap"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"loss.{name} must be a number above 0, not {getattr(self, name)}")

    def weights(self, lengths: Sequence[int]) -> list[float]:
        """The weight of each token of each rollout of a step.

        Args:
            lengths: trained tokens of the rollouts of the whole step, on all processes; none where all were filtered.
        """
        if not lengths:
            return []
        if self.kind == "dapo":
            return [1 / max(1, sum(lengths))] * len(lengths)
        if self.kind == "dr_grpo":
            return [1 / (self.length * len(lengths))] * len(lengths)
        return [1 / (max(1, length) * len(lengths)) for length in lengths]

    def factors(self, old: Floats, sampled: Floats) -> Floats:
        """The factor of each token of one rollout, from the learner's and the sampler's log-probabilities."""
        gap = (old - sampled).astype(np.float64)
        if self.correction in ("none", "recompute"):
            return np.ones_like(old)
        if self.level == "sequence":
            gap = np.full_like(gap, gap.sum())
        found = np.exp(np.minimum(gap, 80.0))
        kept = np.minimum(found, self.cap) if self.correction == "truncate" else np.where(found > self.cap, 0.0, found)
        return kept.astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What the trained tokens of a micro-batch bring along; every tensor is as long as there are tokens.

    Attributes:
        old: log-probability by which the ratio is measured.
        advantage: of its rollout.
        weight, factor: as the loss is written above.
        sequence: number of its rollout in the micro-batch, from 0.
        reference: log-probability under the checkpoint at the beginning; None without KL.
    """

    old: torch.Tensor
    advantage: torch.Tensor
    weight: torch.Tensor
    factor: torch.Tensor
    sequence: torch.Tensor
    reference: torch.Tensor | None = None


def policy_loss(part: LossPart, new: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of a micro-batch's trained tokens, and sums over them for the log.

    Args:
        new: log-probability of each token, with its gradient.

    Returns:
        The loss, and without gradient: ``clipped`` tokens, ``drift``, an estimate of the KL divergence between the
        weights now and those that sampled, and ``kl``, that from the reference.
    """
    import torch

    change = new - targets.old
    if part.kind == "gspo":
        change = _sequence_mean(change, targets.sequence)
    ratio = change.exp()
    gain = torch.minimum(ratio * targets.advantage, ratio.clamp(1 - part.low, 1 + part.high) * targets.advantage)
    each = -gain * targets.factor
    seen = {
        "clipped": _clipped(part, ratio.detach(), targets.advantage),
        "drift": k3(change.detach(), torch.zeros_like(targets.old)),
    }
    if targets.reference is not None:
        divergence = k3(new, targets.reference)
        each = each + part.beta * divergence
        seen["kl"] = divergence.detach()
    return (each * targets.weight).sum(), {name: value.sum() for name, value in seen.items()}


def _clipped(part: LossPart, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
    high = (ratio > 1 + part.high) & (advantage > 0)
    return (high | ((ratio < 1 - part.low) & (advantage < 0))).float()


def k3(new: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Schulman's estimate of KL(new, reference) from tokens drawn under ``new``: never negative, and unbiased."""
    gap = reference - new
    return gap.exp() - gap - 1


def _sequence_mean(values: torch.Tensor, sequence: torch.Tensor) -> torch.Tensor:
    """The mean of each sequence's values, at each of its places."""
    import torch

    count = int(sequence.max()) + 1 if sequence.numel() else 0
    sums = torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, sequence, values)
    sizes = torch.bincount(sequence, minlength=count).clamp(min=1)
    return (sums / sizes)[sequence]
