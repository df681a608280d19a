"""Pixels as Qwen's vision towers take them, by one look-up and one rearrangement.

What the family's own image processor makes of each of the 256 values of a colour is asked of it once; an image is
then a matter of indices. Used only where that gives what the processor gives, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

VALUES = 256


class Patches:
    """Images to patches: patches x (colour, time, height, width), float32.

    Attributes:
        exact: whether it gives what the processor gives, on an image of noise.
    """

    def __init__(self, images: Qwen2VLImageProcessorPil) -> None:
        self.patch, self.merge = int(images.patch_size), int(images.merge_size)
        self.repeats = int(images.temporal_patch_size)
        self.table = np.zeros((3, VALUES), np.float32)
        self.exact = False
        try:
            self._ask(images)
        except (ValueError, IndexError, KeyError, AttributeError, TypeError):  # another layout than this one
            return

    def _ask(self, images: Qwen2VLImageProcessorPil) -> None:
        side = self.patch * self.merge
        cells = -(-VALUES // side**2)
        flat = np.resize(np.arange(VALUES, dtype=np.uint8), (side, side * cells))
        made = self._given(images, np.stack([flat] * 3, -1))
        own = self.arrange(np.stack([flat] * 3, -1))
        for colour in range(3):
            width = own.shape[1] // 3
            values = made[:, colour * width : (colour + 1) * width]
            self.table[colour, own[:, colour * width : (colour + 1) * width]] = values
        noise = np.random.default_rng(0).integers(0, VALUES, (side * 2, side * 3, 3), np.uint8)
        self.exact = np.array_equal(self._given(images, noise), self(Image.fromarray(noise)).numpy())

    @staticmethod
    def _given(images: Qwen2VLImageProcessorPil, pixels: np.ndarray) -> np.ndarray:
        made = images(images=[Image.fromarray(pixels)], do_resize=False, return_tensors="pt")
        return np.asarray(made["pixel_values"].numpy())

    def arrange(self, pixels: np.ndarray) -> np.ndarray:
        """Values, height x width x 3, as patches x (colour, time, height, width), the cells of a token together."""
        grid = self._grid(pixels)
        return np.broadcast_to(grid, (len(grid), 3, self.repeats, self.patch**2)).reshape(len(grid), -1)

    def _grid(self, pixels: np.ndarray) -> np.ndarray:
        """The same of one time: patches x colour x 1 x (height, width)."""
        high, wide = pixels.shape[0] // self.patch, pixels.shape[1] // self.patch
        merge, patch = self.merge, self.patch
        grid = pixels.reshape(high // merge, merge, patch, wide // merge, merge, patch, 3)
        return grid.transpose(0, 3, 1, 4, 6, 2, 5).reshape(high * wide, 3, 1, patch * patch)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """One image, whose sides are multiples of the patch and the merge."""
        import torch

        grid = self._grid(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))
        seen = np.empty((len(grid), 3, self.repeats, self.patch**2), np.float32)
        for colour in range(3):
            seen[:, colour] = self.table[colour].take(grid[:, colour])
        return torch.from_numpy(seen.reshape(len(grid), -1))
