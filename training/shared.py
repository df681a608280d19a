"""Several conversations that begin alike as one row: what they share is run once, and none sees another.

After the shared beginning each conversation goes on with positions of its own, and attends to the beginning and
to itself alone, so that its losses are those it would have by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from .batches import Batch, note_names, pixels
from .examples import Example
from .trainable import Preparer

Bundle = Sequence[Example]


def shared(bundle: Bundle) -> int:
    """How many ids at the beginning the examples of a bundle have in common, none of them trained.

    The id before the first trained one is not shared, because from it that one is foretold.
    """
    first = bundle[0]
    length = min(int(np.append(np.flatnonzero(example.weights), len(example.ids))[0]) for example in bundle) - 1
    for other in bundle[1:]:
        same = first.ids[:length] == other.ids[:length]
        length = length if same.all() else int(same.argmin())
    return length


def width(bundle: Bundle) -> int:
    """How many ids a bundle has as one row."""
    begin = shared(bundle)
    return begin + sum(len(example.ids) - begin for example in bundle)


def collate_shared(bundles: Sequence[Bundle], preparer: Preparer, pad: int) -> Batch:
    """Bundles as rows. Images in what a bundle shares are prepared once; those after it are each example's own.

    Raises:
        ValueError: an example has no positions of its own, as those of other families than Qwen-VL.
    """
    rows, longest = len(bundles), max(map(width, bundles))
    ids = np.full((rows, longest), pad)
    weights = np.zeros((rows, longest), dtype=np.float32)
    positions = torch.zeros(3, rows, longest, dtype=torch.long)
    # 0 is the beginning, 1 and on are conversations, -1 is filling.
    owner = torch.full((rows, longest), -1, dtype=torch.long)
    targets = np.full((rows, longest), pad)
    names = note_names(example for bundle in bundles for example in bundle)
    notes = {name: np.zeros((rows, longest), dtype=np.float32) for name in names}
    shown = []
    for row, bundle in enumerate(bundles):
        begin = end = shared(bundle)
        for number, example in enumerate(bundle, 1):
            if example.positions is None:
                raise ValueError(f"{example.name} has no positions of its own")
            start, end = end, end + len(example.ids) - begin
            ids[row, start:end] = example.ids[begin:]
            positions[:, row, start:end] = example.positions[:, begin:]
            owner[row, start:end] = number
            targets[row, start : end - 1] = example.ids[begin + 1 :]
            weights[row, start : end - 1] = example.weights[begin + 1 :]
            for name, values in example.notes.items():
                notes[name][row, start : end - 1] = values[begin + 1 :]
        ids[row, :begin], owner[row, :begin] = bundle[0].ids[:begin], 0
        positions[:, row, :begin] = bundle[0].positions[:, :begin] if bundle[0].positions is not None else 0
        shown.append(_shown(bundle, begin))
    columns = np.flatnonzero(weights.any(axis=0))
    inputs = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": _mask(owner),
        "position_ids": positions,
        "logits_to_keep": torch.from_numpy(columns),
        **pixels(shown, preparer),
    }
    tokens = sum(map(width, bundles))
    kept = torch.from_numpy(targets[:, columns]), torch.from_numpy(weights[:, columns])
    said = {name: torch.from_numpy(values[:, columns]) for name, values in notes.items()}
    return Batch(inputs, *kept, tokens, ids.size, said)


def _shown(bundle: Bundle, begin: int) -> Example:
    """The first example with every image of the row in its order: what is shared, then each one's own."""
    own = [
        image
        for example in bundle[1:]
        for start, image in zip(example.starts, example.images, strict=False)
        if start >= begin
    ]
    return replace(bundle[0], images=(*bundle[0].images, *own)) if own else bundle[0]


def _mask(owner: torch.Tensor) -> torch.Tensor:
    """What is added to attention scores, rows x 1 x queries x keys: 0 where an id may look, else very negative."""
    same = owner[:, :, None] == owner[:, None, :]
    begin = (owner == 0)[:, None, :]
    order = torch.ones(owner.shape[1], owner.shape[1], dtype=torch.bool).tril()
    free = (same | begin) & order & (owner >= 0)[:, None, :] | torch.eye(owner.shape[1], dtype=torch.bool)
    return torch.zeros(free.shape).masked_fill(~free, torch.finfo(torch.float32).min)[:, None]
