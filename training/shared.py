"""Several conversations that begin alike as one row: what they share is run once, and none sees another.

After the shared beginning each conversation goes on with positions of its own, and attends to the beginning and
to itself alone, so that its losses are those it would have by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

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
    names = note_names(example for bundle in bundles for example in bundle)
    rows = _Rows.empty(len(bundles), max(widths), names, pad)
    spans = [rows.lay(row, *one) for row, one in enumerate(zip(bundles, begins, strict=True))]
    columns = np.flatnonzero(rows.weights.any(axis=0))
    inputs = {
        "input_ids": torch.from_numpy(rows.ids),
        "attention_mask": _mask(spans, max(widths)),
        "position_ids": rows.positions,
        "logits_to_keep": torch.from_numpy(columns),
        **pixels(list(map(_shown, bundles, begins)), preparer),
    }
    kept = torch.from_numpy(rows.targets[:, columns]), torch.from_numpy(rows.weights[:, columns])
    said = {name: torch.from_numpy(values[:, columns]) for name, values in rows.notes.items()}
    return Batch(inputs, *kept, sum(widths), rows.ids.size, said)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """What a batch says of each id of each row.

    Attributes:
        positions: 3 x rows x ids.
        targets, weights, notes: of the id that comes next.
    """

    ids: NDArray[np.int64]
    positions: torch.Tensor
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]
    notes: Mapping[str, NDArray[np.float32]]

    @classmethod
    def empty(cls, rows: int, longest: int, names: Iterable[str], pad: int) -> _Rows:
        """Rows in which nothing is laid yet."""
        shape = rows, longest
        positions = torch.zeros(3, *shape, dtype=torch.long)
        notes = {name: np.zeros(shape, dtype=np.float32) for name in names}
        ids, targets = (np.full(shape, pad, dtype=np.int64) for _ in range(2))
        return cls(ids, positions, targets, np.zeros(shape, dtype=np.float32), notes)

    def lay(self, row: int, bundle: Bundle, begin: int) -> list[Span]:
        """Lay a bundle into a row: where its beginning stands and where each example goes on. Raises ValueError."""
        spans, end = [(0, begin)], begin
        for example in bundle:
            if example.positions is None:
                raise ValueError(f"{example.name} has no positions of its own")
            start, end = end, end + len(example.ids) - begin
            self.ids[row, start:end] = example.ids[begin:]
            self.positions[:, row, start:end] = example.positions[:, begin:]
            spans.append((start, end))
            self.targets[row, start : end - 1] = example.ids[begin + 1 :]
            self.weights[row, start : end - 1] = example.weights[begin + 1 :]
            for name, values in example.notes.items():
                self.notes[name][row, start : end - 1] = values[begin + 1 :]
        self.ids[row, :begin] = bundle[0].ids[:begin]
        self.positions[:, row, :begin] = bundle[0].positions[:, :begin] if bundle[0].positions is not None else 0
        return spans


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
