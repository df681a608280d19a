"""Visual operations: what a model may do to an image or a video in the middle of its reasoning.

An operation is a plugin of the group ``prh.operations``. It receives untrusted arguments and a ``View`` of
the conversation, and returns drafts of new media items or raises an ``OperationError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from .errors import OperationError
from .ledger import Conversation, Draft, MediaItem
from .types import Box, Json, Size, finite


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation gave back.

    Attributes:
        drafts: the new media items, in order.
        media: the item it operated on.
        box: the box asked for, in pixels of that item's working image, before padding.
        frames: the frames taken, from 1.
        noun: what the images are, for the wording of the observation.
    """

    drafts: tuple[Draft, ...]
    media: int
    box: Box | None = None
    frames: tuple[int, ...] = ()
    noun: str = "result"


class Frame(Protocol):
    """How a protocol reads coordinates and numbers; ``harness.protocol.Protocol`` is one."""

    def read_target(self, arguments: Mapping[str, Json], conversation: Conversation) -> tuple[MediaItem, int]: ...
    def read_box(self, arguments: Mapping[str, Json], size: Size) -> tuple[Box, Box]: ...
    def read_frames(
        self, arguments: Mapping[str, Json], conversation: Conversation
    ) -> tuple[MediaItem, tuple[int, ...]]: ...
    def resolve_media(self, number: int, conversation: Conversation) -> tuple[MediaItem, int]: ...


@dataclass(frozen=True, slots=True)
class View:
    """What an operation may see: the conversation so far and the protocol's frame."""

    conversation: Conversation
    frame: Frame

    def target(self, number: int) -> tuple[MediaItem, int, Image.Image]:
        """The item a number means, the frame within it (0 for an image), and the image to work on."""
        item, frame = self.frame.resolve_media(number, self.conversation)
        return item, frame, self.image(item, frame)

    def image(self, item: MediaItem, frame: int = 0) -> Image.Image:
        """The image to work on, of a video the frame with this number. Others may share it: it must not be changed."""
        return self.conversation.pixels(item.index).working[max(frame, 1) - 1]


class Operation(Protocol):
    """A visual operation. ``parameters`` is the JSON schema that a model is shown."""

    name: str
    description: str
    parameters: Mapping[str, Json]

    def run(self, arguments: Mapping[str, Json], view: View) -> Outcome: ...


def whole_number(value: object, name: str) -> int:
    """An index from untrusted JSON; 2.0 counts as 2. Raises OperationError ``bad_arguments``."""
    number = finite(value)
    if number is None or number != int(number):
        raise OperationError("bad_arguments", f"`{name}` must be a whole number, not {shown(value)}")
    return int(number)


def four_numbers(value: object, name: str) -> list[float]:
    """A box from untrusted JSON. Raises OperationError ``bad_arguments``."""
    numbers = [finite(number) for number in value] if isinstance(value, list) else []
    known = [number for number in numbers if number is not None]
    if not len(numbers) == len(known) == 4:
        raise OperationError("bad_arguments", f"`{name}` must be four finite numbers, not {shown(value)}")
    return known


def shown(value: object) -> str:
    """An untrusted value cut to a length that a message can carry."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class CropImage:
    """Zoom in on a box of an image (Pixel Reasoner, section 3: ``CropImage``)."""

    name = "crop_image"
    description = "Zoom in on a part of an image given by a bounding box."
    parameters: Mapping[str, Json] = {
        "type": "object",
        "properties": {
            "bbox_2d": {"type": "array", "items": {"type": "number"}},
            "target_image": {"type": "number"},
        },
        "required": ["bbox_2d", "target_image"],
    }

    def run(self, arguments: Mapping[str, Json], view: View) -> Outcome:
        """Cut the box, padded as the protocol pads, out of the working image."""
        item, frame = view.frame.read_target(arguments, view.conversation)
        image = view.image(item, frame)
        asked, cut = view.frame.read_box(arguments, Size(*image.size))
        corners = (round(cut.left), round(cut.top), round(cut.right), round(cut.bottom))
        draft = Draft(image.crop(corners), item.index, Box(*corners), "crop", frame)
        return Outcome((draft,), item.index, asked, (frame,) if frame else (), "cropped image")


class SelectFrames:
    """Look closer at some frames of a video (Pixel Reasoner, section 3: ``SelectFrames``)."""

    name = "select_frames"
    description = "Select frames of a video to see them larger."
    parameters: Mapping[str, Json] = {
        "type": "object",
        "properties": {"target_frames": {"type": "array", "items": {"type": "integer"}}},
        "required": ["target_frames"],
    }

    def run(self, arguments: Mapping[str, Json], view: View) -> Outcome:
        """Take frames, numbered from 1, of the first video in the conversation."""
        video, frames = view.frame.read_frames(arguments, view.conversation)
        images = [view.image(video, frame) for frame in frames]
        drafts = tuple(
            Draft(image, video.index, Box(0, 0, *image.size), "frame", frame)
            for image, frame in zip(images, frames, strict=True)
        )
        return Outcome(drafts, video.index, None, frames, "selected frames")
