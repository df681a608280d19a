"""A Qwen-VL forward that does only what a step needs: each image once, and the head at trained places only.

A batch holds each image's pixels once and, for every place where one is shown, which it is. The model's own forward
runs as it is, whatever is wrapped around it: hooks on it take the places away before it begins, give the tower's
features out again once for each place where they are shown, and let the head see trained places alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..harness.pictures import shown_digest
from .trainable import Preparer

if TYPE_CHECKING:
    from PIL import Image

# The inputs that say which of the unique images each place shows, and at which places (rows x columns) the head runs.
PLACES, KEPT = "image_places", "kept_places"


class Once:
    """Prepares each of several equal images once.

    Attributes:
        factor: see ``Preparer``.
    """

    def __init__(self, preparer: Preparer) -> None:
        self.preparer = preparer
        self.factor = preparer.factor

    def tensors(self, text: str, images: Sequence[Image.Image]) -> Mapping[str, torch.Tensor]:
        """Pixels of the images that differ, the grid of every image, and which of the former each one is."""
        first: dict[str, int] = {}
        different: list[Image.Image] = []
        places: list[int] = []
        for image in images:
            key = shown_digest(image)
            if key not in first:
                first[key] = len(different)
                different.append(image)
            places.append(first[key])
        made = dict(self.preparer.tensors(text, different))
        if len(different) == len(images):
            return made
        chosen = torch.tensor(places)
        return {**made, "image_grid_thw": made["image_grid_thw"][chosen], PLACES: chosen}


class Lean:
    """Teaches a model the inputs ``PLACES`` and ``KEPT``, the latter with logits of one row a kept place.

    Attributes:
        encoded: how many images have gone through the tower so far; ``shown``: in how many places.
    """

    def __init__(self, module: torch.nn.Module, tower: Any, head: torch.nn.Module) -> None:
        self.encoded = self.shown = 0
        self._places: torch.Tensor | None = None
        self._grids: torch.Tensor | None = None
        self._kept: torch.Tensor | None = None
        self._merge = int(tower.spatial_merge_size) ** 2
        module.register_forward_pre_hook(self._take, with_kwargs=True)
        tower.register_forward_pre_hook(self._narrow, with_kwargs=True)
        tower.register_forward_hook(self._spread)
        head.register_forward_pre_hook(self._pick)

    def _take(self, _: torch.nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given = dict(given)
        self._places, self._kept = given.pop(PLACES, None), given.pop(KEPT, None)
        return args, given

    def _narrow(self, _: torch.nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        grids: torch.Tensor = given["grid_thw"]
        self.shown += len(grids)
        if self._places is not None:
            count = int(self._places.max()) + 1
            first = [int((self._places == number).nonzero()[0]) for number in range(count)]
            grids = grids[torch.tensor(first, device=grids.device)]
        self.encoded += len(grids)
        self._grids = grids
        return args, {**given, "grid_thw": grids}

    def _spread(self, _: torch.nn.Module, args: Any, made: Any) -> Any:
        if self._places is None or self._grids is None:
            return made
        sizes = (self._grids.prod(-1) // self._merge).tolist()
        places: list[int] = self._places.tolist()

        def out(rows: torch.Tensor) -> torch.Tensor:
            parts = torch.split(rows, sizes)
            return torch.cat([parts[place] for place in places])

        made.pooler_output = out(made.pooler_output)
        if getattr(made, "deepstack_features", None) is not None:
            made.deepstack_features = [out(level) for level in made.deepstack_features]
        self._places = None
        return made

    def _pick(self, _: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
        if self._kept is None:
            return None
        kept, self._kept = self._kept, None
        return (args[0][kept], *args[1:])


def lean(module: torch.nn.Module) -> Lean | None:
    """Teach a model, or the one inside an adapter, to do no more than it must; None for a family that cannot be."""
    unwrap = getattr(module, "get_base_model", None)
    base = unwrap() if callable(unwrap) else module
    tower, head = getattr(getattr(base, "model", None), "visual", None), getattr(base, "lm_head", None)
    if not isinstance(tower, torch.nn.Module) or not isinstance(head, torch.nn.Module):
        return None
    return Lean(base, tower, head) if hasattr(tower, "spatial_merge_size") else None
