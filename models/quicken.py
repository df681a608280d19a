"""A vision tower that is faster on a processor, and computes what it always did.

Transformers runs attention of a Qwen-VL tower image by image, and its patches through a convolution. A batch of a
hundred small images is many small products then, and the gradient of the convolution costs as much as all attention.
Here images of one length attend at once, and patches, which never overlap, go through one product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """What a convolution whose kernel covers a patch does with patches, by one product of matrices."""

    kernel: torch.nn.Conv3d

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Patches x (colour, time, height, width) to patches x hidden."""
        import torch

        weight = self.kernel.weight
        return torch.nn.functional.linear(pixels.to(weight.dtype), weight.flatten(1), self.kernel.bias)


@contextmanager
def as_product(embed: Embedding) -> Iterator[None]:
    """Let patches be embedded by one matrix product while this lasts.

    It is what a convolution whose kernel covers a patch comes to, at a third of its time on a CPU.
    """
    kernel = _covering(embed)
    if kernel is None or "forward" in vars(embed):
        yield
        return
    with _forward(embed, Product(kernel)):
        yield


@contextmanager
def embedded(embed: Embedding, media: Sequence[torch.Tensor], *, still: bool) -> Iterator[torch.Tensor]:
    """What a tower is to be given of several media while this lasts: their patches, embedded one medium at a time.

    All pixels need not be copied together then. Where the embedding is no product of matrices, they are.

    Args:
        media: patches x (colour, time, height, width) each.
        still: whether all times of a patch are alike, as an image's are; one is then enough, in float32.
    """
    import torch

    kernel = _covering(embed)
    if kernel is None or not isinstance(vars(embed).get("forward", Product(kernel)), Product):
        yield torch.cat(list(media))
        return
    once = still and kernel.weight.dtype == torch.float32
    if once:
        _, colours, times, high, wide = kernel.weight.shape
        weight = kernel.weight.sum(2).flatten(1)
        firsts = (pixels.view(len(pixels), colours, times, high * wide)[:, :, 0].flatten(1) for pixels in media)
        rows = [torch.nn.functional.linear(first.to(weight.dtype), weight, kernel.bias) for first in firsts]
    else:
        rows = [Product(kernel)(pixels) for pixels in media]
    with _forward(embed, lambda made: made):
        yield torch.cat(rows)


def _covering(embed: Embedding) -> torch.nn.Conv3d | None:
    """The convolution of a patch embedding, where its kernel covers just a patch."""
    import torch

    kernel = embed.proj
    return kernel if type(kernel) is torch.nn.Conv3d and kernel.stride == kernel.kernel_size else None


@contextmanager
def _forward(embed: Embedding, forward: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Another forward while this lasts."""
    kept = vars(embed).get("forward")
    embed.forward = forward
    try:
        yield
    finally:
        del embed.forward
        if kept is not None:
            embed.forward = kept


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
