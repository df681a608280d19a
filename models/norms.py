"""Norms of Qwen-VL text models, run as one operation of the library where that changes nothing."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch
    from torch import nn


class Norm:
    """A family's norm as one operation, for float32 on a processor: there that gives what the module gives, to the bit.

    Attributes:
        kind: the class whose modules are run so; None where the family's norm computes something else.
    """

    def __init__(self, norm: nn.Module) -> None:
        import torch

        self.kind: type[nn.Module] | None = None
        if not isinstance(getattr(norm, "weight", None), torch.nn.Parameter) or not hasattr(norm, "variance_epsilon"):
            return
        width, dice = len(cast("torch.Tensor", norm.weight)), torch.Generator().manual_seed(0)
        own = copy.copy(norm)
        own._parameters = {"weight": torch.nn.Parameter(torch.randn(width, generator=dice))}
        noise = torch.randn(64, width, generator=dice)
        with torch.inference_mode():
            self.kind = type(norm) if torch.equal(_at_once(own, noise), own(noise)) else None

    def __call__(self, norm: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        import torch

        weight = norm.weight if type(norm) is self.kind else None
        if (
            not isinstance(weight, torch.Tensor)
            or not weight.dtype == hidden.dtype == torch.float32
            or weight.device.type != "cpu"
            or norm._forward_hooks
            or norm._forward_pre_hooks
            or "forward" in vars(norm)
        ):
            return cast("torch.Tensor", norm(hidden))
        return _at_once(norm, hidden)


def _at_once(norm: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    import torch

    weight = cast("torch.Tensor", norm.weight)
    return torch.nn.functional.rms_norm(hidden, weight.shape, weight, cast(float, norm.variance_epsilon))
