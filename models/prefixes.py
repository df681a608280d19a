"""Keys and values of what has been read before, found again by how a conversation begins.

A tree of token sequences: a conversation's next turn finds its own past here, samples of one prompt find the
prompt, questions on one image the image. What is looked for is copied out, so anything may be let go of at any
time: what is gone is read again. A token is known by its id, a visual token by its image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Keys = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Node:
    """A run of tokens after its parent's, with their keys and values: layers x 2 x heads x tokens x width."""

    keys: Keys
    held: torch.Tensor
    parent: Node | None
    children: dict[int, Node] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.held.numel() * self.held.element_size()


class Prefixes:
    """The tree, within a number of bytes; what was used longest ago goes first. For one thread.

    Attributes:
        cap: bytes that may be held.
        held: bytes that are held.
        evicted: tokens let go of for want of room.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.held = 0
        self.evicted = 0
        self._roots: dict[int, Node] = {}
        self._used: OrderedDict[int, Node] = OrderedDict()

    def find(self, keys: Keys) -> list[torch.Tensor]:
        """What is held of the longest known beginning, in pieces in order, each to be copied at once."""
        path = list(self._walk(keys))
        for node, _ in reversed(path):
            self._touch(node)  # parents last, so that a node is never older than what stands on it
        return [node.held[:, :, :, :length] for node, length in path]

    def insert(self, keys: Keys, save: Callable[[int], torch.Tensor]) -> None:
        """Add what is not known yet of the keys.

        Args:
            save: what is held of the keys from a place on, kept as it is; asked for only where something is added.
        """
        node: Node | None = None
        done = 0
        for node, length in self._walk(keys):
            done += length
            if length < len(node.keys) and done < len(keys):
                node = self._split(node, length)  # noqa: PLW2901 - the walk ends here
        if done < len(keys):
            self._add(Node(keys[done:].copy(), save(done), node))
            self._shrink()

    def forget(self, keys: Keys, start: int) -> None:
        """Let go of what stands from ``start`` on on the way along the keys and is shared with nothing."""
        path = list(self._walk(keys))
        end = sum(length for _, length in path)
        for node, length in reversed(path):
            end -= length
            if node.children or end < start or length < len(node.keys):
                return
            self._remove(node)

    def clear(self) -> None:
        """Let go of everything."""
        self._roots.clear()
        self._used.clear()
        self.held = 0

    def _walk(self, keys: Keys) -> Iterator[tuple[Node, int]]:
        """The nodes along the keys, each with how many of its tokens agree."""
        children, at = self._roots, 0
        while at < len(keys):
            node = children.get(int(keys[at]))
            if node is None:
                return
            length = agreeing(node.keys, keys[at:])
            yield node, length
            if length < len(node.keys):
                return
            children, at = node.children, at + length

    def _siblings(self, node: Node) -> dict[int, Node]:
        return self._roots if node.parent is None else node.parent.children

    def _split(self, node: Node, length: int) -> Node:
        """Make two nodes of one; returns the first."""
        self._remove(node)
        first = Node(node.keys[:length], node.held[:, :, :, :length].clone(), node.parent)
        second = Node(node.keys[length:], node.held[:, :, :, length:].clone(), first, node.children)
        for child in second.children.values():
            child.parent = second
        self._add(second)
        self._add(first)
        return first

    def _add(self, node: Node) -> None:
        self._siblings(node)[int(node.keys[0])] = node
        self._used[id(node)] = node
        self.held += node.nbytes
        parent = node.parent
        while parent is not None and id(parent) in self._used:
            self._touch(parent)
            parent = parent.parent

    def _remove(self, node: Node) -> None:
        del self._siblings(node)[int(node.keys[0])]
        del self._used[id(node)]
        self.held -= node.nbytes

    def _touch(self, node: Node) -> None:
        self._used.move_to_end(id(node))

    def _shrink(self) -> None:
        while self.held > self.cap and self._used:
            oldest = next(iter(self._used.values()))
            while oldest.children:
                oldest = next(iter(oldest.children.values()))
            self.evicted += len(oldest.keys)
            self._remove(oldest)


def agreeing(first: Keys, second: Keys) -> int:
    """How many keys two sequences have in common from their beginning on."""
    length = min(len(first), len(second))
    if not length:
        return 0
    differ = first[:length] != second[:length]
    place = int(differ.argmax())
    return place if differ[place] else length
