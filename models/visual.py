"""What a model is shown: images and whole videos, and what its processor makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from PIL import Image

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    Tensors = dict[str, torch.Tensor]

Message = dict[str, object]


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """A video that is shown whole, not as so many images.

    Attributes:
        frames: of one size, that at which they are seen.
        seconds: when each frame is shown; empty where that is not known.
    """

    frames: tuple[Image.Image, ...]
    seconds: tuple[float, ...] = ()


Medium = Image.Image | Video


class Videos(Protocol):
    """What a family does with videos that are shown whole.

    Attributes:
        token: the text that stands for one video in the chat template's output.
        token_id: the id that holds a video's features.
    """

    token: str
    token_id: int

    def written(self, video: Video) -> str:
        """The text that takes the place of ``token``: a token an id that holds features, and what stands between."""
        ...

    def runs(self, video: Video) -> list[int]:
        """How many ids hold features in each of the runs in which they stand together."""
        ...

    def grids(self, videos: Sequence[Video]) -> Tensors:
        """Grids of videos in order, and the time between grids where the family wants it."""
        ...

    def tensors(self, videos: Sequence[Video]) -> Tensors:
        """Pixels of videos in order, and their grids."""
        ...


class Processor(Protocol):
    """What turns text and images into ids and tensors.

    Attributes:
        factor: seen sides are multiples of it; 1 where the family's own processor resizes.
        template: the chat template.
        image_token: the text that stands for one image in the chat template's output.
        video_token: the same for a video that is shown whole; empty where videos are shown as images.
        special: the spellings of special tokens, which text may hold and only the template may mean.
        image_ids: ids that hold an image's features.
        video_ids: ids that hold a video's; empty where videos are shown as images.
        vision_ids: ids that only an image may bring into a conversation.
        backend: which library prepares pixels.
    """

    tokenizer: PreTrainedTokenizerBase
    factor: int
    template: str
    image_token: str
    video_token: str
    special: frozenset[str]
    image_ids: frozenset[int]
    video_ids: frozenset[int]
    vision_ids: frozenset[int]
    backend: str

    def render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        """The chat template's text, with the header of the next reply where ``prompt``. Raises ModelError."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included."""
        ...

    def ids(self, text: str, media: Sequence[Medium], *, opening: bool) -> list[int]:
        """Ids of template text, each medium's placeholder expanded; ``opening`` where nothing stands before it."""
        ...

    def runs(self, media: Sequence[Medium]) -> list[tuple[int, int]] | None:
        """Each run of ids that hold features, as id and length, where that is known beforehand."""
        ...

    def tensors(self, text: str, media: Sequence[Medium]) -> Tensors:
        """What the model needs of the media, in the order of the text: pixels and their grids."""
        ...

    def grids(self, media: Sequence[Medium]) -> Tensors:
        """The grids among ``tensors``, from sizes alone; nothing where a family has none. Raises ModelError."""
        ...
