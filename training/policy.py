"""The step of a reinforcement: log-probabilities as they were sampled, the loss over them, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator

from .batches import Batch
from .lean import KEPT
from .learner import Learner, Update, moved
from .losses import LossPart, Targets, policy_loss
from .schedule import Optimisation

# What the examples of a reinforcement say of their targets.
NOTES = ("old", "sampled", "advantage", "factor", "sequence", "fresh")
# A micro-batch of one prompt and its eight replies has some hundreds of trained places; heads are as wide as this.
HEAD = 512


@dataclass(frozen=True, slots=True)
class Voice:
    """How tokens were drawn, so that their probabilities can be computed again.

    Attributes:
        banned: ids that could not be drawn.
        lean: whether the model has been taught ``lean.KEPT``.
    """

    temperature: float = 1.0
    banned: tuple[int, ...] = ()
    lean: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What a model says of the trained tokens of a batch, in order: a number a token.

    Attributes:
        logprobs: of the tokens, with their gradient.
        entropy: of the distribution that each was drawn from, without.
    """

    logprobs: torch.Tensor
    entropy: torch.Tensor


def token_logprobs(model: torch.nn.Module, batch: Batch, voice: Voice) -> Said:
    """Log-probabilities of a batch's trained tokens under the law they were drawn from, in float32 or wider."""
    kept = batch.weights > 0
    more = {KEPT: kept} if voice.lean else {}
    logits = model(**batch.inputs, **more, use_cache=False).logits
    logits = logits if voice.lean else logits[kept]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / voice.temperature
    if voice.banned:
        banned = torch.tensor(voice.banned, device=logits.device)
        logits = logits.index_fill(-1, banned, float("-inf"))
    law = logits.log_softmax(-1)
    chosen = law.gather(-1, batch.targets[kept][:, None])[:, 0]
    with torch.no_grad():
        entropy = torch.cat([-(part.exp() * part.clamp(min=-1e4)).sum(-1) for part in law.detach().split(HEAD)])
    return Said(chosen, entropy)


def targets(batch: Batch, reference: torch.Tensor | None = None) -> Targets:
    """What a batch says of its trained tokens, in order."""
    kept = batch.weights > 0
    held = {name: note(batch, name) for name in ("old", "advantage", "factor", "sequence")}
    return Targets(
        held["old"], held["advantage"], batch.weights[kept], held["factor"], held["sequence"].long(), reference
    )


def note(batch: Batch, name: str) -> torch.Tensor:
    """What is said of a batch's trained tokens, in order; zeros where nothing is."""
    return batch.notes.get(name, torch.zeros_like(batch.weights))[batch.weights > 0]


@dataclass(frozen=True, slots=True)
class PolicyUpdate:
    """What a step did, on all processes: means over its trained tokens.

    Attributes:
        update: see ``Update``.
        trained: tokens with a loss.
        clip: share of tokens whose gradient the clipping took.
        drift: estimate of the KL divergence from the weights that sampled; ``kl`` of that from the reference, or None.
        gap: mean absolute difference between the log-probabilities of learner and sampler over tokens that were
            sampled with these very weights; None where there are none.
    """

    update: Update
    trained: int
    entropy: float | None
    clip: float | None
    drift: float | None
    kl: float | None
    gap: float | None


class PolicyLearner(Learner):
    """A learner of what pays.

    Args:
        reference: the model that KL is measured from, of which nothing is trained; None for the base of an adapter,
            which is then switched off.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        module: torch.nn.Module,
        how: Optimisation,
        steps: int,
        loss: LossPart,
        voice: Voice,
        reference: torch.nn.Module | None = None,
    ) -> None:
        super().__init__(accelerator, module, how, steps)
        self.loss, self.voice = loss, voice
        self._reference = reference
        self._sums: dict[str, torch.Tensor] = {}

    def part(self, batch: Batch, total: float) -> torch.Tensor:
        """The loss of a micro-batch; its weights hold the divisor of the whole step."""
        said = token_logprobs(self.model, batch, self.voice)
        found = targets(batch, self._refer(batch) if self.loss.beta else None)
        loss, seen = policy_loss(self.loss, said.logprobs, found)
        fresh = note(batch, "fresh")
        gap = ((said.logprobs.detach() - note(batch, "sampled")).abs() * fresh).sum()
        count = torch.tensor(float(said.entropy.numel()), device=loss.device)
        self._count({**seen, "entropy": said.entropy.sum(), "gap": gap, "fresh": fresh.sum(), "trained": count})
        return loss

    def _count(self, seen: Mapping[str, torch.Tensor]) -> None:
        for name, value in seen.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value.detach().float()

    def learn(self, step: int, batches: Sequence[Batch], idle: Batch | None = None) -> PolicyUpdate:
        """One step, as ``update``. Raises ModelError."""
        self._sums = {}
        made = self.update(step, batches, idle)
        names = ["clipped", "drift", "entropy", "fresh", "gap", "kl", "trained"]
        none = torch.zeros((), device=self.accelerator.device)
        held = torch.stack([self._sums.get(name, none) for name in names])
        total = cast(torch.Tensor, self.accelerator.reduce(held, "sum")).tolist()
        sums = dict(zip(names, total, strict=True))
        trained, fresh = sums["trained"], sums["fresh"]

        def mean(name: str, count: float = trained) -> float | None:
            return sums[name] / count if count else None

        kl = mean("kl") if self.loss.beta else None
        parts = (mean("entropy"), mean("clipped"), mean("drift"), kl, mean("gap", fresh))
        return PolicyUpdate(made, round(trained), *parts)

    @torch.no_grad()
    def logprobs(self, batch: Batch) -> list[float]:
        """The log-probabilities of a batch's trained tokens as the weights are now."""
        self.model.train(mode=False)
        said = token_logprobs(self.model, moved(batch, self.accelerator.device), self.voice)
        return cast("list[float]", said.logprobs.tolist())

    @torch.no_grad()
    def _refer(self, batch: Batch) -> torch.Tensor:
        if self._reference is not None:
            return token_logprobs(self._reference, batch, self.voice).logprobs
        with switched_off(self.accelerator.unwrap_model(self.model)):
            return token_logprobs(self.model, batch, self.voice).logprobs


@contextmanager
def switched_off(module: Any) -> Iterator[None]:
    """Without a model's adapter, and without dropout, while this lasts."""
    training = module.training
    module.train(mode=False)
    with module.disable_adapter():
        yield
    module.train(mode=training)
