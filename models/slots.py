"""Keys and values of the conversations that run at this moment: one slot each, side by side in one tensor.

A slot holds a conversation from its first token on, so joining is a copy into a slot and leaving is nothing at
all; the rows that run are slots ``0..n-1``, so that a step reads them as one view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Ints = NDArray[np.int64]

# Room is made in steps of this many tokens; a multiple of what masked attention kernels want their keys aligned to.
GRAIN = 64


class Slots:
    """The running conversations' cache.

    Attributes:
        layers, heads, width: of the keys and values: layers, key-value heads, numbers a head.
        room: tokens that every slot holds at present.
        count: slots that there are at present.
    """

    def __init__(self, layers: int, heads: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        import torch

        self.layers, self.heads, self.width = layers, heads, width
        self.count = self.room = 0
        self.buffer = torch.zeros(layers, 2, 0, heads, 0, width, dtype=dtype, device=device)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        return 2 * self.layers * self.heads * self.width * self.buffer.element_size()

    @property
    def nbytes(self) -> int:
        """Bytes that all slots take."""
        return self.buffer.numel() * self.buffer.element_size()

    def make_room(self, count: int, tokens: int) -> None:
        """Have at least so many slots of at least so many tokens each."""
        if count <= self.count and tokens <= self.room:
            return
        room = max(self.room, -(-tokens // GRAIN) * GRAIN)
        if self.room < tokens < self.room * 3 // 2:
            room = -(-self.room * 3 // 2 // GRAIN) * GRAIN
        if count > self.count:
            count = max(count, self.count * 2)
        count = max(count, self.count)
        # Zeros, not whatever memory held: a masked value still counts where it is no number.
        buffer = self.buffer.new_zeros(self.layers, 2, count, self.heads, room, self.width)
        buffer[:, :, : self.count, :, : self.room] = self.buffer
        self.buffer, self.count, self.room = buffer, count, room

    def drop(self) -> None:
        """Let all memory go."""
        self.count = self.room = 0
        self.buffer = self.buffer.new_zeros(self.layers, 2, 0, self.heads, 0, self.width)

    def load(self, slot: int, pieces: Sequence[torch.Tensor]) -> int:
        """Put saved pieces into a slot from its beginning; returns how many tokens they hold."""
        end = 0
        for piece in pieces:
            start, end = end, end + piece.shape[3]
            self.buffer[:, :, slot, :, start:end] = piece
        return end

    def save(self, slot: int, start: int, end: int) -> torch.Tensor:
        """A copy of a slot's tokens ``start..end-1``: layers x 2 x heads x tokens x width."""
        return self.buffer[:, :, slot, :, start:end].clone()

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy a slot's first tokens over another's."""
        self.buffer[:, :, target, :, :tokens] = self.buffer[:, :, source, :, :tokens]

    def wipe(self, slot: int) -> None:
        """Forget what a slot holds; needed after values that are no numbers, which a mask does not hide."""
        self.buffer[:, :, slot] = 0

    def places(self, rows: Ints, columns: Ints) -> Ints:
        """Where a stream of tokens goes in a layer of the buffer, seen as one list of heads.

        Args:
            rows: each token's slot.
            columns: each token's place in it.
        """
        side = np.arange(2)[:, None, None] * self.count
        head = np.arange(self.heads)
        return (((side + rows[:, None]) * self.heads + head) * self.room + columns[:, None]).ravel()

    def write(self, layer: int, places: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep a stream's keys and values, each tokens x heads x width, at ``places``."""
        import torch

        flat = self.buffer[layer].view(-1, self.width)
        flat.index_copy_(0, places, torch.stack((keys, values)).view(-1, self.width))
