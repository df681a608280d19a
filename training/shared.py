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
Span = tuple[int, int]


def shared(bundle: Bundle) -> int:
    """How many ids at the beginning the examples of a bundle have in common, none of them trained.

    The id before the first trained one is not shared, because from it that one is foretold.
    """
    first = bundle[0]
    length = min(map(_untrained, bundle)) - 1
    for other in bundle[1:]:
        same = first.ids[:length] == other.ids[:length]
        length = length if same.all() else int(same.argmin())
    return length


def _untrained(example: Example) -> int:
    """How many ids stand before the first trained one."""
    trained = example.weights != 0
    first = int(trained.argmax())
    return first if trained[first] else len(trained)


def width(bundle: Bundle) -> int:
    """How many ids a bundle has as one row."""
    return _width(bundle, shared(bundle))


def _width(bundle: Bundle, begin: int) -> int:
    return begin + sum(len(example.ids) - begin for example in bundle)


def collate_shared(bundles: Sequence[Bundle], preparer: Preparer, pad: int) -> Batch:
    """Bundles as rows. Images in what a bundle shares are prepared once; those after it are each example's own.

    Raises:
        ValueError: an example has no positions of its own, as those of other families than Qwen-VL.
    """
    begins = list(map(shared, bundles))
    widths = list(map(_width, bundles, begins))
    rows, longest = len(bundles), max(widths)
    ids = np.full((rows, longest), pad)
    weights = np.zeros((rows, longest), dtype=np.float32)
    positions = torch.zeros(3, rows, longest, dtype=torch.long)
    targets = np.full((rows, longest), pad)
    names = note_names(example for bundle in bundles for example in bundle)
    notes = {name: np.zeros((rows, longest), dtype=np.float32) for name in names}
    shown, spans = [], []
    for row, (bundle, begin) in enumerate(zip(bundles, begins, strict=True)):
        end = begin
        spans.append([(0, begin)])
        for example in bundle:
            if example.positions is None:
                raise ValueError(f"{example.name} has no positions of its own")
            start, end = end, end + len(example.ids) - begin
            ids[row, start:end] = example.ids[begin:]
            positions[:, row, start:end] = example.positions[:, begin:]
            spans[row].append((start, end))
            targets[row, start : end - 1] = example.ids[begin + 1 :]
            weights[row, start : end - 1] = example.weights[begin + 1 :]
            for name, values in example.notes.items():
                notes[name][row, start : end - 1] = values[begin + 1 :]
        ids[row, :begin] = bundle[0].ids[:begin]
        positions[:, row, :begin] = bundle[0].positions[:, :begin] if bundle[0].positions is not None else 0
        shown.append(_shown(bundle, begin))
    columns = np.flatnonzero(weights.any(axis=0))
    inputs = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": _mask(spans, longest),
        "position_ids": positions,
        "logits_to_keep": torch.from_numpy(columns),
        **pixels(shown, preparer),
    }
    kept = torch.from_numpy(targets[:, columns]), torch.from_numpy(weights[:, columns])
    said = {name: torch.from_numpy(values[:, columns]) for name, values in notes.items()}
    return Batch(inputs, *kept, sum(widths), ids.size, said)


def _shown(bundle: Bundle, begin: int) -> Example:
    """The first example with every image of the row in its order: what is shared, then each one's own."""
    own = [
        image
        for example in bundle[1:]
        for start, image in zip(example.starts, example.images, strict=False)
        if start >= begin
    ]
    return replace(bundle[0], images=(*bundle[0].images, *own)) if own else bundle[0]


def _mask(spans: Sequence[Sequence[Span]], longest: int) -> torch.Tensor:
    """What is added to attention scores, rows x 1 x queries x keys: 0 where an id may look, else very negative.

    Args:
        spans: of each row, where its beginning stands and where each conversation that goes on from it does.
    """
    mask = np.full((len(spans), longest, longest), np.finfo(np.float32).min, dtype=np.float32)
    for row, whole in zip(mask, spans, strict=True):
        np.fill_diagonal(row, 0.0)
        for start, end in whole:
            row[start:end, start:end] = np.triu(row[start:end, start:end], 1)
            row[start:end, : min(start, whole[0][1])] = 0.0
    return torch.from_numpy(mask)[:, None]
