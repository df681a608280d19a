"""Drawing the next token of each row of a batch, so that no row's draw depends on its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ..harness.engine import TurnSpec

if TYPE_CHECKING:
    import torch

NEAR_TIE = 1e-4


class Draw(NamedTuple):
    """One step's tokens, their log-probabilities, and how many of them rounding could have made others.

    A greedy one is within ``NEAR_TIE`` where the two best logits are. A sampled one is where the number that found it
    is that close to an end of its token's share, or would be with other tokens kept by a top-p that is as close to it.
    """

    tokens: list[int]
    logprobs: list[float]
    near_ties: int


class Law(NamedTuple):
    """What rows are drawn from.

    Attributes:
        logprobs: rows x vocabulary.
        doubt: the share of the tokens, a number for each row, of which top-p would keep more or fewer if
            probabilities or logits were ``NEAR_TIE`` apart from what they are; 0 without top-p.
    """

    logprobs: torch.Tensor
    doubt: torch.Tensor


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
    bans = {spec.banned_ids for spec in specs}
    if len(bans) == 1:
        banned = bans.pop()
        allowed = scores.index_fill(1, _places(banned, logits.device), float("-inf")) if banned else scores
    else:
        allowed = scores.clone()
        for row, spec in enumerate(specs):
            if spec.banned_ids:
                allowed[row, list(spec.banned_ids)] = float("-inf")
    best, ids = allowed.topk(2, dim=-1)
    tokens = ids[:, 0]
    logprobs = scores.gather(-1, ids[:, :1])[:, 0] - scores.logsumexp(-1)
    margins = best[:, 0] - best[:, 1]
    hot = [spec.temperature > 0 for spec in specs]
    if any(hot):
        uniform = [float(torch.rand((), generator=own, dtype=torch.float64)) for own in generators]
        temperature = torch.tensor([spec.temperature or 1.0 for spec in specs], dtype=wide, device=logits.device)
        top_p = torch.tensor([spec.top_p for spec in specs], dtype=wide, device=logits.device)
        law = distribution(allowed, temperature, top_p)
        drawn, room = locate(law.logprobs, torch.tensor(uniform, dtype=wide, device=logits.device))
        sampled = torch.tensor(hot, device=logits.device)
        tokens = torch.where(sampled, drawn, tokens)
        logprobs = torch.where(sampled, law.logprobs.gather(-1, drawn[:, None])[:, 0], logprobs)
        margins = torch.where(sampled, room - law.doubt, margins)
    # One list, so that the device is waited for once; ids are whole numbers far below what a float holds exactly.
    numbers, shares, gaps = torch.stack([tokens.to(wide), logprobs, margins]).tolist()
    return Draw([int(number) for number in numbers], shares, sum(gap < NEAR_TIE for gap in gaps))


@lru_cache(maxsize=64)
def _places(ids: tuple[int, ...], device: torch.device) -> torch.Tensor:
    import torch

    return torch.tensor(ids, device=device)


def distribution(scores: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor) -> Law:
    """The distribution after temperature and top-p.

    Of the tokens in order of probability, top-p keeps those before which less than ``top_p`` has been spent,
    the first always among them.
    """
    import torch

    law = (scores / temperature[:, None]).log_softmax(-1)
    doubt = torch.zeros_like(temperature)
    if bool((top_p < 1).any()):
        ordered, order = law.sort(dim=-1, descending=True, stable=True)
        share = ordered.exp()
        beyond = share.cumsum(-1) - share - top_p[:, None]
        dropped = (beyond >= 0) & (top_p[:, None] < 1)
        dropped[:, 0] = False
        doubt = torch.where(top_p < 1, _doubt(ordered, share, beyond, dropped) / top_p, doubt)
        dropped = torch.zeros_like(dropped).scatter(-1, order, dropped)
        law = law.masked_fill(dropped, float("-inf")).log_softmax(-1)
    return Law(law, doubt)


def _doubt(ordered: torch.Tensor, share: torch.Tensor, beyond: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
    """The share of the tokens near enough to top-p's cut to be on its other side, or to change places across it."""
    near = beyond.abs() < NEAR_TIE
    near[:, 0] = False
    last = (~dropped).sum(-1, keepdim=True) - 1
    first = (last + 1).clamp(max=ordered.shape[-1] - 1)
    tied = ordered.gather(-1, last) - ordered.gather(-1, first) < NEAR_TIE
    swapped = (share.gather(-1, last) * (tied & (first > last)))[:, 0]
    return (share * near).sum(-1) + swapped


def locate(law: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The token at which each row's cumulative distribution passes a number from [0, 1), and how far from either end.

    The distance is to the nearer end of the token's own share of the distribution.
    """
    import torch

    reached = law.exp().cumsum(-1)
    total = reached[:, -1:].contiguous()
    last = torch.searchsorted(reached, total)
    wanted = uniform[:, None] * total
    found = torch.minimum(torch.searchsorted(reached, wanted, right=True), last)
    high = reached.gather(-1, found)
    low = high - law.gather(-1, found).exp()
    return found[:, 0], torch.minimum(wanted - low, high - wanted)[:, 0]
