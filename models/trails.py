"""Conversations encoded as they grow: each turn, only what was said since is rendered, encoded and placed."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..harness.errors import ModelError
from ..harness.ledger import Conversation, Segment
from .encode import Encoder, Places
from .gallery import medium_key
from .render import Chunk, Rewritten, Story
from .visual import Medium

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shot:
    """A run of visual tokens: where it stands, of which medium, and which of the medium's features is its first."""

    start: int
    end: int
    key: str
    first: int


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Prompt:
    """A conversation as an engine's cache knows it.

    Attributes:
        ids: its token ids.
        keys: the same, a visual token by its image instead; equal keys have equal positions and features.
        positions: 3 x ids.
        shots: runs of visual tokens in order.
        media: their images and videos.
        past: tokens that stood there when the last turn was asked for, and that turn's own but for its last.
    """

    ids: Ints
    keys: Ints
    positions: Ints
    shots: tuple[Shot, ...]
    media: Mapping[str, Medium]
    past: int = 0


NOTHING = np.zeros(0, np.int64)


EMPTY = Prompt(NOTHING, NOTHING, NOTHING.reshape(3, 0), (), {})


@dataclass(slots=True, eq=False)
class Trail:
    """How far a conversation has been encoded; ``opening`` is the length of its first prompt."""

    story: Story = field(default_factory=Story)
    prompt: Prompt = EMPTY
    opening: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Trails:
    """Encodes conversations turn by turn. From any thread.

    Attributes:
        places: the family's rule for positions.
        restarted: how many times a conversation did not go on from what it was, and was encoded anew.
    """

    def __init__(self, encoder: Encoder, places: Places) -> None:
        self.encoder = encoder
        self.places = places
        self.restarted = 0
        self._trails: dict[int, tuple[weakref.ref[Conversation], Trail]] = {}
        self._openings: weakref.WeakValueDictionary[tuple[object, ...], Prompt] = weakref.WeakValueDictionary()

    def prompt(self, conversation: Conversation) -> Prompt:
        """The conversation up to here.

        Raises:
            ModelError: as ``Encoder.encode``.
        """
        trail = self._trail(conversation)
        with trail.lock:
            if not trail.story.begins(conversation.segments):
                self.restarted += 1
                trail.story = Story()
            before = trail.prompt if trail.story.segments else EMPTY
            try:
                parts, media = self.encoder.renderer.extend(trail.story, conversation)
                trail.prompt = self._after(before, parts, media) if before.ids.size else self._opening(parts, media)
            except Rewritten:
                trail.story = Story()
                layout = self.encoder.renderer.layout(conversation)
                self.encoder.rewritten += 1
                trail.prompt = self._after(EMPTY, layout.parts, layout.media)
            except BaseException:
                trail.story = Story()
                raise
            trail.opening = trail.opening or len(trail.prompt.ids)
            return trail.prompt

    def forget(self, conversation: Conversation) -> Trail | None:
        """Let a conversation go; returns how far it had been encoded, if it was."""
        return self._trails.pop(id(conversation), (None, None))[1]

    def _trail(self, conversation: Conversation) -> Trail:
        number = id(conversation)
        known, trail = self._trails.get(number, (None, None))
        if trail is None or known is None or known() is not conversation:
            gone = self._trails
            trail = Trail()
            self._trails[number] = weakref.ref(conversation, lambda ref: _let_go(gone, number, ref)), trail
        return trail

    def _opening(self, parts: Sequence[Chunk | Segment], media: Sequence[Medium]) -> Prompt:
        """A conversation's first prompt: one for all that begin alike, while any of them runs."""
        texts = [part.text for part in parts if isinstance(part, Chunk)]
        if len(texts) < len(parts):
            return self._after(EMPTY, parts, media)
        key = (*texts, *map(medium_key, media))
        found = self._openings.get(key)
        if found is None:
            self._openings[key] = found = self._after(EMPTY, parts, media)
        return found

    def _after(self, before: Prompt, parts: Sequence[Chunk | Segment], media: Sequence[Medium]) -> Prompt:
        base = len(before.ids)
        ids, turns, _ = self.encoder.join(parts, before.ids[-1:].tolist())
        if not ids:
            return before
        spans = self.encoder.find_spans(ids, media)
        positions: Ints = self.encoder.positions(self.places, ids, spans, media).numpy()
        if base:
            positions = positions + before.positions[:, -1].max() + 1
        keys = np.array(ids, np.int64)
        shots, known = [], dict(before.media)
        for start, end, key, medium, first in self._shots(spans, media):
            known[key] = medium
            keys[start:end] = -2 - int(key[:15], 16)
            shots.append(Shot(base + start, base + end, key, first))
        return Prompt(
            np.concatenate([before.ids, np.array(ids, np.int64)]),
            np.concatenate([before.keys, keys]),
            np.concatenate([before.positions, positions], 1),
            (*before.shots, *shots),
            known,
            base + turns[0][1] - 1 if base and turns else 0,
        )

    def _shots(
        self, spans: Sequence[tuple[int, int]], media: Sequence[Medium]
    ) -> Sequence[tuple[int, int, str, Medium, int]]:
        """Each run with its medium and how many of the medium's tokens came in runs before it."""
        found, left = [], list(spans)
        for medium in media:
            runs = self.encoder.processor.runs([medium])
            if runs is None:
                raise ModelError("this family does not say how many tokens an image has")
            key, first = medium_key(medium), 0
            for _, length in runs:
                start, end = left.pop(0)
                found.append((start, end, key, medium, first))
                first += length
        return found


def _let_go(trails: dict[int, tuple[weakref.ref[Conversation], Trail]], number: int, ref: object) -> None:
    if number in trails and trails[number][0] is ref:
        del trails[number]
