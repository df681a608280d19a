"""From a conversation to what a model is run on: ids, placeholder spans, positions and pixels, all computed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..harness.errors import ModelError
from ..harness.ledger import Conversation, Segment
from .render import Chunk, Layout, Renderer
from .visual import Medium, Processor, Video

if TYPE_CHECKING:
    import torch

Span = tuple[int, int]
Grid = tuple[int, int, int]
Places = Callable[["torch.Tensor", "torch.Tensor", Mapping[str, "torch.Tensor"]], "torch.Tensor"]
IMAGE, VIDEO = 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class TokenView:
    """A conversation as a model is run on it.

    Attributes:
        ids: token ids, each image's and video's placeholder expanded to one id a visual token.
        grids: for each image and each video shown whole its patches along time, height and width; empty
            outside the Qwen-VL families.
        spans: each run of visual tokens in ``ids``, half-open. An image of the Qwen-VL families has one; a video
            shown whole has one, or one for each step of time where the family writes the time between them.
        turns: for each assistant segment where its ids stand in ``ids``, half-open.
        trained: for each id whether a trainer's loss covers it.
        positions: 3 x ids (time, height, width) of M-RoPE; None where the model counts positions itself.
        inputs: the model's other inputs by name: ``pixel_values``, ``pixel_values_videos``, and what its family
            wants beside them.
        exact: whether the ids of every turn are those that were sampled; False after a template that
            rewrites history, whose ``turns`` are unknown.
    """

    ids: tuple[int, ...]
    grids: tuple[Grid, ...]
    spans: tuple[Span, ...]
    turns: tuple[Span, ...]
    trained: tuple[bool, ...]
    positions: torch.Tensor | None
    inputs: Mapping[str, torch.Tensor]
    exact: bool


class Encoder:
    """Encodes conversations for one model.

    Attributes:
        ends: ids that end a turn; the first is written where a reply has no ids of its own.
        places: positions from ids, modality of each id and the inputs that hold grids and times, or None.
        rewritten: how many times a template that rewrites history forced encoding as a whole.
    """

    def __init__(self, processor: Processor, renderer: Renderer, ends: Sequence[int], places: Places | None) -> None:
        self.processor = processor
        self.renderer = renderer
        self.ends = tuple(ends)
        self.places = places
        self.rewritten = 0

    def encode(self, conversation: Conversation, *, pixels: bool = True) -> TokenView:
        """The conversation, ending in its last reply or else in the header of the next.

        Args:
            pixels: whether ``inputs`` are to hold what is made of the images, or of that their grids alone.

        Raises:
            ModelError: the chat template refuses it, or ids and images or videos do not fit together.
        """
        layout = self.renderer.layout(conversation)
        self.rewritten += not layout.exact
        ids, turns, trained = self.join(layout.parts)
        made = self.processor.tensors(layout.text, layout.media) if pixels else self.processor.grids(layout.media)
        inputs: Mapping[str, torch.Tensor] = made
        spans = self.find_spans(ids, layout.media)
        grids: tuple[Grid, ...] = ()
        positions = None
        if self.places is None:
            inputs = self._typed(ids, inputs)
        else:
            positions = self.positions(self.places, ids, spans, layout.media, inputs)
            grids = _grids(layout, inputs)
        return TokenView(tuple(ids), grids, spans, tuple(turns), tuple(trained), positions, inputs, layout.exact)

    def join(
        self, parts: Sequence[Chunk | Segment], before: Sequence[int] = ()
    ) -> tuple[list[int], list[Span], list[bool]]:
        """Ids of parts that come after the ids ``before``, where among them replies stand, and which are trained."""
        ids: list[int] = []
        turns: list[Span] = []
        trained: list[bool] = []
        for part in parts:
            if isinstance(part, Chunk):
                last = ids[-1:] or list(before[-1:])
                new = self._chunk(part, opening=not last)
                ended = last == new[:1] and last[0] in self.ends if new else False
                new = new[1:] if ended else new
                trained += [False] * len(new)
            else:
                new = list(self._reply(part))
                turns.append((len(ids), len(ids) + len(new)))
                trained += [part.trained] * len(new)
            ids += new
        return ids, turns, trained

    def _chunk(self, chunk: Chunk, *, opening: bool) -> list[int]:
        ids: list[int] = []
        for text, media in chunk.pieces(self.renderer.tokens):
            if text:
                ids += self.processor.ids(text, media, opening=opening and not ids)
        return ids

    def _reply(self, segment: Segment) -> Sequence[int]:
        if segment.ids is not None:
            return segment.ids
        return [*self._chunk(Chunk(self.renderer.escape(segment.text), ()), opening=False), self.ends[0]]

    def find_spans(self, ids: Sequence[int], media: Sequence[Medium]) -> tuple[Span, ...]:
        """Each run of visual tokens, half-open. Raises ModelError where they are not those of the media."""
        wanted = self.processor.image_ids | self.processor.video_ids
        runs = self.processor.runs(media)
        places = [place for place, number in enumerate(ids) if number in wanted]
        if runs is None:
            starts = [place for place in places if place == 0 or ids[place - 1] not in wanted]
            ends = [place + 1 for place in places if place + 1 == len(ids) or ids[place + 1] not in wanted]
            return tuple(zip(starts, ends, strict=True))
        total = sum(count for _, count in runs)
        if len(places) != total:
            raise ModelError(f"{len(places)} image tokens stand for {total} visual tokens: a reply holds a stray one")
        spans = []
        for token, count in runs:
            here, places = places[:count], places[count:]
            if here[-1] - here[0] + 1 != count or any(ids[place] != token for place in here):
                raise ModelError("an image's tokens are torn apart: a reply before it holds a stray one")
            spans.append((here[0], here[-1] + 1))
        return tuple(spans)

    def positions(
        self,
        places: Places,
        ids: Sequence[int],
        spans: Sequence[Span],
        media: Sequence[Medium],
        inputs: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Positions of ids that nothing comes before, 3 x ids; those of videos by the family's rule.

        Args:
            inputs: what holds the grids, where it has been made.
        """
        import torch

        images = [medium for medium in media if not isinstance(medium, Video)]
        if len(images) == len(media):
            sizes = [(image.height // self.processor.factor, image.width // self.processor.factor) for image in images]
            return torch.from_numpy(image_places(len(ids), spans, sizes))
        kinds = torch.zeros(1, len(ids), dtype=torch.int32)
        for start, end in spans:
            kinds[0, start:end] = VIDEO if ids[start] in self.processor.video_ids else IMAGE
        grids = self.processor.grids(media) if inputs is None else inputs
        return places(torch.tensor([ids]), kinds, grids)[:, 0]

    def _typed(self, ids: Sequence[int], inputs: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Modality of each id, for the families whose processor gives it, made anew for the ids as they stand."""
        import torch

        kinds = torch.tensor([[int(number in self.processor.image_ids) for number in ids]])
        return {name: kinds if name.endswith("token_type_ids") else value for name, value in inputs.items()}


def image_places(length: int, spans: Sequence[Span], sizes: Sequence[Span]) -> NDArray[np.int64]:
    """Positions of so many ids among which images stand, 3 x length, as the Qwen-VL families count them.

    Text counts on by one along all axes; an image counts its cells from where it stands, then its longer side.

    Args:
        sizes: rows and columns of ids of each image.
    """
    places = np.empty((3, length), np.int64)
    at = done = 0
    for (start, end), (high, wide) in zip(spans, sizes, strict=True):
        places[:, done:start] = np.arange(at, at + start - done)
        at += start - done
        places[0, start:end] = at
        places[1, start:end] = np.repeat(np.arange(at, at + high), wide)
        places[2, start:end] = np.tile(np.arange(at, at + wide), high)
        at, done = at + max(high, wide), end
    places[:, done:] = np.arange(at, at + length - done)
    return places


def _grids(layout: Layout, inputs: Mapping[str, torch.Tensor]) -> tuple[Grid, ...]:
    """The grid of each medium, images and videos in the order of the conversation."""
    names = {False: "image_grid_thw", True: "video_grid_thw"}
    rows = {kind: iter(inputs[name].tolist() if name in inputs else ()) for kind, name in names.items()}
    found = (next(rows[isinstance(medium, Video)]) for medium in layout.media)
    return tuple((time, high, wide) for time, high, wide in found)
