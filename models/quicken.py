"""A vision tower that is faster on a processor, and computes what it always did.

Transformers runs attention of a Qwen-VL tower image by image, and its patches through a convolution. A batch of a
hundred small images is many small products then, and the gradient of the convolution costs as much as all attention.
Here images of one length attend at once, and patches, which never overlap, go through one product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

# Transformers gives all images at once to those attention functions alone that have "flash" in their names.
NAME = "flash_grouped_by_length"


class Embedding(Protocol):
    """What turns patches into the tower's hidden states."""

    proj: nn.Module
    forward: Callable[[torch.Tensor], torch.Tensor]


def attend(
    _: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    **_rest: object,
) -> tuple[torch.Tensor, None]:
    """Full attention within each of several sequences that lie one after another.

    Args:
        query, key, value: 1 x heads x ids x width of a head.
        cu_seq_lens_q: where the sequences begin, and where the last one ends.

    Returns:
        1 x ids x heads x width of a head.
    """
    import torch

    lengths = cu_seq_lens_q.diff()
    made = query.new_empty(query.shape[2], query.shape[1], query.shape[3])
    parts, places = [], []
    for length in sorted(set(lengths.tolist())):
        starts = cu_seq_lens_q[:-1][lengths == length]
        rows = (starts[:, None] + torch.arange(length, device=starts.device)).long()
        one, other, held = (part[0][:, rows].transpose(0, 1) for part in (query, key, value))
        scores = torch.softmax((one @ other.transpose(-1, -2)) * scaling, dim=-1, dtype=torch.float32)
        parts.append((scores.to(held.dtype) @ held).transpose(1, 2).flatten(0, 1))
        places.append(rows.flatten())
    return made.index_copy(0, torch.cat(places), torch.cat(parts))[None], None


@contextmanager
def as_product(embed: Embedding) -> Iterator[None]:
    """Let patches be embedded by one matrix product while this lasts.

    It is what a convolution whose kernel covers a patch comes to, at a third of its time on a CPU.
    """
    import torch

    kernel = embed.proj
    if type(kernel) is not torch.nn.Conv3d or kernel.stride != kernel.kernel_size or "forward" in vars(embed):
        yield
        return

    def product(pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(pixels.to(kernel.weight.dtype), kernel.weight.flatten(1), kernel.bias)

    embed.forward = product
    try:
        yield
    finally:
        del embed.forward


@contextmanager
def quickened(tower: Any) -> Iterator[None]:
    """A Qwen-VL model's vision tower, faster meanwhile."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    kept = tower.config._attn_implementation
    tower.config._attn_implementation = NAME
    try:
        with as_product(tower.patch_embed):
            yield
    finally:
        tower.config._attn_implementation = kept
