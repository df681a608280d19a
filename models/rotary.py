"""Rotary positions of a Qwen-VL text model, those of single tokens of text looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Positions that the first table has.
FIRST = 1024


class Rotary:
    """Cosines and sines by position, as the model's own embedding computes them.

    The signs that ``rotate_half`` gives to the numbers are given to the sines instead, once for all layers.
    """

    def __init__(self, embedding: Any, width: int) -> None:
        self._embedding = embedding
        self._width = width
        self._table: tuple[torch.Tensor, torch.Tensor] | None = None
        kind = getattr(embedding, "rope_type", "default")
        # What the others give for a position depends on the longest position that is asked for beside it.
        self._fixed = isinstance(kind, str) and "dynamic" not in kind and kind != "longrope"

    def __call__(self, like: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of any tokens: tokens x 1 x width each.

        Args:
            like: tokens x hidden, whose kind of numbers and device they get.
            positions: 3 x tokens.
        """
        import torch

        cos, sin = (found[0, :, None] for found in self._embedding(like[None], positions[:, None]))
        half = self._width // 2
        return cos, torch.cat((-sin[..., :half], sin[..., half:]), -1)

    def text(self, like: torch.Tensor, positions: torch.Tensor, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of tokens whose three positions are alike.

        Args:
            last: the highest of them.
        """
        import torch

        if not self._fixed:
            return self(like, positions)
        if self._table is None or last >= len(self._table[0]):
            count = max(FIRST, 2 * last)
            whole = torch.arange(count, device=like.device).expand(3, -1)
            self._table = self(like[:1], whole)
        cos, sin = self._table
        return cos[positions[0]], sin[positions[0]]
