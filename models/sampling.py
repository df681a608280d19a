"""Drawing the next token of each row of a batch, so that no row's draw depends on its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..harness.engine import TurnSpec

if TYPE_CHECKING:
    import torch

NEAR_TIE = 1e-4


class Draw(NamedTuple):
    """One step's tokens, their log-probabilities, and how many greedy rows were within ``NEAR_TIE`` of a tie."""

    tokens: list[int]
    logprobs: list[float]
    near_ties: int


def draw(logits: torch.Tensor, specs: Sequence[TurnSpec], generators: Sequence[torch.Generator]) -> Draw:
    """The next token of each row.

    A sampled row takes one uniform number from its own generator and finds it on its cumulative distribution;
    its log-probability is under that distribution, after temperature, bans and top-p. A greedy row takes the
    highest logit that is not banned; its log-probability is the log-softmax of the logits as they are.

    Args:
        logits: rows x vocabulary.
        specs: how each row is drawn.
        generators: one a row, on the CPU, advanced once a step.
    """
    import torch

    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    scores = logits.to(wide)
    allowed = scores
    if any(spec.banned_ids for spec in specs):
        allowed = scores.clone()
        if all(spec.banned_ids == specs[0].banned_ids for spec in specs):
            allowed[:, list(specs[0].banned_ids)] = float("-inf")
        else:
            for row, spec in enumerate(specs):
                if spec.banned_ids:
                    allowed[row, list(spec.banned_ids)] = float("-inf")
    best, ids = allowed.topk(2, dim=-1)
    tokens = ids[:, 0]
    logprobs = scores.gather(-1, ids[:, :1])[:, 0] - scores.logsumexp(-1)
    hot = [spec.temperature > 0 for spec in specs]
    if any(hot):
        uniform = [float(torch.rand((), generator=own, dtype=torch.float64)) for own in generators]
        temperature = torch.tensor([spec.temperature or 1.0 for spec in specs], dtype=wide, device=logits.device)
        top_p = torch.tensor([spec.top_p for spec in specs], dtype=wide, device=logits.device)
        law = distribution(allowed, temperature, top_p)
        drawn = locate(law, torch.tensor(uniform, dtype=wide, device=logits.device))
        sampled = torch.tensor(hot, device=logits.device)
        tokens = torch.where(sampled, drawn, tokens)
        logprobs = torch.where(sampled, law.gather(-1, drawn[:, None])[:, 0], logprobs)
    # One list, so that the device is waited for once; ids are whole numbers far below what a float holds exactly.
    numbers, shares, gaps = torch.stack([tokens.to(wide), logprobs, best[:, 0] - best[:, 1]]).tolist()
    ties = sum(gap < NEAR_TIE and not sampled for gap, sampled in zip(gaps, hot, strict=True))
    return Draw([int(number) for number in numbers], shares, ties)


def distribution(scores: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Log-probabilities, rows x vocabulary, after temperature and top-p.

    Of the tokens in order of probability, top-p keeps those before which less than ``top_p`` has been spent,
    the first always among them.
    """
    import torch

    law = (scores / temperature[:, None]).log_softmax(-1)
    if bool((top_p < 1).any()):
        ordered, order = law.sort(dim=-1, descending=True, stable=True)
        share = ordered.exp()
        dropped = (share.cumsum(-1) - share >= top_p[:, None]) & (top_p[:, None] < 1)
        dropped[:, 0] = False
        dropped = torch.zeros_like(dropped).scatter(-1, order, dropped)
        law = law.masked_fill(dropped, float("-inf")).log_softmax(-1)
    return law


def locate(law: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The token at which each row's cumulative distribution passes a number from [0, 1)."""
    import torch

    reached = law.exp().cumsum(-1)
    total = reached[:, -1:].contiguous()
    last = torch.searchsorted(reached, total)
    found = torch.searchsorted(reached, uniform[:, None] * total, right=True)
    return torch.minimum(found, last)[:, 0]
