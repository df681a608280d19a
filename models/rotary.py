"""Rotary positions of a Qwen-VL text model, looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

# Positions that the first table has, and the most that one may have: a long video's count seconds.
FIRST, MOST = 1024, 1 << 16


class Table(NamedTuple):
    """Cosines, and sines with their signs, of positions or of tokens: so many x width each."""

    cos: torch.Tensor
    sin: torch.Tensor


class Rotary:
    """Cosines and sines by position, as the model's own embedding computes them.

    The signs that ``rotate_half`` gives to the numbers are given to the sines instead, once for all layers.
    """

    def __init__(self, embedding: Any, width: int) -> None:
        self._embedding = embedding
        self._width = width
        self._table: Table | None = None
        self._axes: torch.Tensor | None = None
        kind = getattr(embedding, "rope_type", "default")
        # What the others give for a position depends on the longest position that is asked for beside it.
        self._fixed = isinstance(kind, str) and "dynamic" not in kind and kind != "longrope"

    def __call__(
        self, like: torch.Tensor, positions: torch.Tensor, last: int, *, alike: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of some tokens: tokens x 1 x width each.

        Args:
            like: tokens x hidden, whose kind of numbers and device they get.
            positions: 3 x tokens.
            last: the highest of them.
            alike: whether every token's three positions are the same.
        """
        cos, sin = self._found(like, positions, last, alike=alike) or self._computed(like, positions)
        return cos[:, None], sin[:, None]

    def _computed(self, like: torch.Tensor, positions: torch.Tensor) -> Table:
        import torch

        cos, sin = (found[0] for found in self._embedding(like[None], positions[:, None]))
        half = self._width // 2
        return Table(cos, torch.cat((-sin[:, :half], sin[:, half:]), -1))

    def _found(self, like: torch.Tensor, positions: torch.Tensor, last: int, *, alike: bool) -> Table | None:
        """What is looked up; None where it must be computed."""
        import torch

        if not self._fixed or last >= MOST:
            return None
        if self._table is None or last >= len(self._table.cos):
            whole = torch.arange(min(max(FIRST, 2 * last), MOST), device=like.device).expand(3, -1)
            self._axes = self._asked(like) if self._table is None else self._axes
            self._table = self._computed(like[:1], whole)
        cos, sin = self._table
        if alike:
            return Table(cos[positions[0]], sin[positions[0]])
        if self._axes is None:
            return None
        places = positions[self._axes].t()
        return Table(cos.gather(0, places), sin.gather(0, places))

    def _asked(self, like: torch.Tensor) -> torch.Tensor | None:
        """Which of the three positions each column is of; None where it is not of one alone."""
        import torch

        # The sine is nought where a column does not see the one position that is not.
        alone = self._computed(like[:1].float(), torch.eye(3, dtype=torch.long, device=like.device)).sin
        seen = alone != 0
        return seen.int().argmax(0) if bool((seen.sum(0) == 1).all()) else None
