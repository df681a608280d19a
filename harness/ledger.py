"""The ledger: one append-only record of a conversation and the media it shows.

Segments hold what was said, with the exact sampled token ids where the engine gives them. Media items
stand beside them in a registry that knows each item's parent, its place in the root image and the size
the model really saw. Masks, position ids, prompts, overlays and JSON are computed from here and stored
nowhere else; placeholder spans and grids follow from a seen size and the ids, so an engine computes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image

from .media import Media, resize
from .pictures import PICTURES, shown_digest
from .types import BadCall, Box, Call, PixelBudget, Role, Size, Span
from .video import read_frames

Fit = Callable[[Size, Span], Size]


@dataclass(frozen=True, slots=True)
class Text:
    """A text part of a segment."""

    text: str


@dataclass(frozen=True, slots=True)
class MediaRef:
    """A media part of a segment: an index into the registry, from 1."""

    index: int


Part = Text | MediaRef


@dataclass(frozen=True, slots=True)
class Segment:
    """One message of a conversation.

    Attributes:
        calls: the calls found in an assistant's text.
        ids: sampled token ids, the stop token included, or None where the engine gives no tokens.
        logprobs: log-probability of each sampled id under the distribution it was drawn from.
        finish: why the turn ended, for assistant segments.
        trained: whether a trainer's loss covers it.
        answers: of an observation of native calls: each call's id, and how many of the parts answer it, in order.
        new_tokens: of an assistant's turn, as its engine counts them; 0 where it does not.
        seconds: wall seconds that a turn took its engine, or an observation its operations.
    """

    role: Role
    parts: tuple[Part, ...]
    calls: tuple[Call | BadCall, ...] = ()
    ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    finish: str = ""
    trained: bool = False
    answers: tuple[tuple[str, int], ...] = ()
    new_tokens: int = field(default=0, compare=False)
    seconds: float = field(default=0.0, compare=False)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True, slots=True)
class MediaItem:
    """One entry of the media registry.

    Attributes:
        index: its number in the conversation, from 1.
        digest: ``Media.digest`` of an input, SHA-256 of size and pixels of a crop or frame.
        original: full size; a crop's is the size of the cut before resizing.
        seen: the size the model really saw.
        parent: index of the item it was made from, 0 for an input.
        root: index of the input it comes from.
        root_box: its place in pixels of the root's original.
        frame: its frame number in the root video, from 1, else 0.
        frames: digests of a video's frames.
    """

    index: int
    kind: str
    name: str
    digest: str
    original: Size
    seen: Size
    parent: int
    root: int
    root_box: Box
    frame: int = 0
    frames: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """The pixels behind a registry entry: what operations cut from, and what the model sees.

    An image has one of each; a video one a frame. ``encoded`` and ``suffix`` keep an input's own file.

    Attributes:
        seconds: when each frame of a video is shown, from its first frame; empty where no rate is known.
        decoder: what decoded a video, such as ``pyav 18.1.0``; ``frames`` for a folder.
    """

    working: tuple[Image.Image, ...]
    seen: tuple[Image.Image, ...]
    encoded: bytes = b""
    suffix: str = ""
    seconds: tuple[float, ...] = ()
    decoder: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A media item that an operation made and that is not in the registry yet.

    Attributes:
        box: its place in pixels of the parent's working image.
        frame: the frame number taken from a video parent, from 1, else 0.
    """

    image: Image.Image
    parent: int
    box: Box
    kind: str = "crop"
    frame: int = 0


@dataclass(slots=True, weakref_slot=True)
class Conversation:
    """The append-only ledger of one episode.

    Attributes:
        key: unique in a run; engines key caches by it.
        sample_id: the sample it is about.
        fit: the engine's rule for the size an image will be seen at.
        working: whether operations cut from the ``original`` or from the ``resized`` image.
    """

    key: str
    sample_id: str
    fit: Fit
    budget: PixelBudget
    working: str = "original"
    segments: list[Segment] = field(default_factory=list)
    items: list[MediaItem] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)

    def item(self, index: int) -> MediaItem:
        """The registry entry with this number, from 1. Raises ValueError where there is none."""
        if not 1 <= index <= len(self.items):
            raise ValueError(f"there is no media item {index}, only 1 to {len(self.items)}")
        return self.items[index - 1]

    def pixels(self, index: int) -> Shown:
        """The pixels of the registry entry with this number, from 1."""
        return self.shown[index - 1]

    def images(self) -> Iterator[Image.Image]:
        """Every image the model sees, in the order of the conversation; a video gives its frames."""
        for segment in self.segments:
            for part in segment.parts:
                if isinstance(part, MediaRef):
                    yield from self.pixels(part.index).seen

    def seen_size(self, size: Size, span: Span) -> tuple[Size, Size]:
        """The size after the budget's resize, and the size the model sees after the final one."""
        first = self.fit(size, span)
        return first, self.fit(first, self.budget.final) if self.budget.final else first

    def open(self, media: Sequence[Media]) -> None:
        """Register a sample's media, decoding them. Raises DataError."""
        for medium in media:
            if medium.kind == "video":
                self._open_video(medium)
            else:
                self._open_image(medium)

    def _open_image(self, medium: Media) -> None:
        data = medium.encoded()
        digest = hashlib.sha256(data).hexdigest()
        picture = PICTURES.open(digest, data, medium.name)
        resized, seen = self.seen_size(picture.size, self.budget.input)
        index = len(self.items) + 1
        whole = Box(0, 0, *picture.size)
        item = MediaItem(index, "image", medium.name, digest, picture.size, seen, 0, index, whole)
        original = self.working == "original"
        working = picture.image if original else PICTURES.resized(digest, picture.image, resized)
        shown = PICTURES.resized(digest, picture.image, resized, seen)
        self.items.append(item)
        self.shown.append(Shown((working,), (shown,), data, picture.suffix))

    def _open_video(self, medium: Media) -> None:
        clip = read_frames(medium)
        size = Size(*clip.frames[0].size)
        resized, seen = self.seen_size(size, self.budget.video_frame)
        index = len(self.items) + 1
        digests = tuple(shown_digest(frame) for frame in clip.frames)
        item = MediaItem(
            index, "video", medium.name, medium.digest(), size, seen, 0, index, Box(0, 0, *size), 0, digests
        )
        self.items.append(item)
        announced = tuple(resize(frame, resized) for frame in clip.frames)
        working = clip.frames if self.working == "original" else announced
        small = tuple(resize(frame, seen) for frame in announced)
        self.shown.append(Shown(working, small, seconds=clip.seconds, decoder=clip.decoder))

    def prepare(self, drafts: Sequence[Draft], pending: int = 0) -> tuple[list[MediaItem], list[Shown], list[Size]]:
        """Entries for what an operation made, numbered on from the registry and ``pending`` others, not yet in it.

        Returns:
            items, their pixels, and the size each is announced at (before any final resize).
        """
        items: list[MediaItem] = []
        shown: list[Shown] = []
        announced: list[Size] = []
        for draft in drafts:
            span = self.budget.selected_frame if draft.kind == "frame" else self.budget.crop
            size = Size(*draft.image.size)
            resized, seen = self.seen_size(size, span)
            small = resize(draft.image, resized)
            working = draft.image if self.working == "original" else small
            index = len(self.items) + pending + len(items) + 1
            parent = self.item(draft.parent)
            place = self.to_root(draft.parent, draft.box)
            frame = draft.frame or parent.frame
            digest = shown_digest(small)
            items.append(MediaItem(index, draft.kind, "", digest, size, seen, parent.index, parent.root, place, frame))
            shown.append(Shown((working,), (resize(small, seen),)))
            announced.append(resized)
        return items, shown, announced

    def to_root(self, index: int, box: Box) -> Box:
        """A box in pixels of an item's working image, in pixels of its root's original."""
        item = self.item(index)
        width, height = self.pixels(index).working[0].size
        x = (item.root_box.right - item.root_box.left) / width
        y = (item.root_box.bottom - item.root_box.top) / height
        return box.scaled(x, y).shifted(item.root_box.left, item.root_box.top)

    def commit(self, segment: Segment, items: Sequence[MediaItem] = (), shown: Sequence[Shown] = ()) -> None:
        """Append a segment and the media it shows, together or not at all.

        Raises:
            ValueError: a reference names no item, or the new items are not numbered on.
        """
        count = len(self.items)
        if [item.index for item in items] != list(range(count + 1, count + len(items) + 1)) or len(items) != len(shown):
            raise ValueError("media items must be numbered on from the registry")
        for part in segment.parts:
            if isinstance(part, MediaRef) and not 1 <= part.index <= count + len(items):
                raise ValueError(f"the segment shows media item {part.index}, of which there are {count + len(items)}")
        self.items.extend(items)
        self.shown.extend(shown)
        self.segments.append(segment)

    @property
    def turns(self) -> int:
        """How many turns the model has taken."""
        return sum(segment.role == "assistant" for segment in self.segments)
