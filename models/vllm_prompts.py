"""A conversation as vLLM takes it: one placeholder an image, and what it must have expanded them to.

vLLM expands placeholders itself. It looks for them from left to right and takes whatever looks like one: a run that is
expanded already, or a stray one in a reply, would move every image after it to the wrong place without an error. So
exactly one id is sent for each image, and what comes back as the prompt is compared with what this house says it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from PIL import Image

from ..harness.errors import ModelError
from ..harness.ledger import Conversation
from ..harness.pictures import shown_digest
from ..harness.types import Json
from .encode import Encoder
from .processor import QwenProcessor
from .render import Renderer
from .visual import Medium, Processor

if TYPE_CHECKING:
    from .processor import OtherProcessor

# Images arrive at the size they are seen at: no size that the house lets through is to be changed again.
LARGEST = 1 << 28


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent, and what it is to be expanded to.

    Attributes:
        sent: ids with one placeholder an image.
        expanded: ids with one placeholder a visual token; of families whose own processor decides that, empty.
        images: in the order of their placeholders.
    """

    sent: tuple[int, ...]
    expanded: tuple[int, ...]
    images: tuple[Image.Image, ...]

    def fields(self, factor: int) -> dict[str, object]:
        """The ``TokensPrompt`` of vLLM. Images are known by their pixels, so that none is seen twice."""
        prompt: dict[str, object] = {"prompt_token_ids": list(self.sent)}
        if not self.images:
            return prompt
        if factor > 1:
            size: dict[str, Json] = {"shortest_edge": factor**2, "longest_edge": LARGEST}
            prompt["mm_processor_kwargs"] = {"size": size}
        names = [shown_digest(image) for image in self.images]
        return {**prompt, "multi_modal_data": {"image": list(self.images)}, "multi_modal_uuids": {"image": names}}

    def room(self, context: int) -> int:
        """How many tokens a context of this size leaves for the reply. Raises ModelError where it leaves none."""
        length = len(self.expanded or self.sent)
        if length >= context:
            message = f"the conversation has {length} tokens and the model's context holds {context}"
            raise ModelError(f"{message}: lower the pixel budget or the number of turns")
        return context - length

    def check(self, said: Sequence[int] | None, count: int = 0) -> None:
        """Compare with the prompt that vLLM says it ran, or with its length where it says no more. Raises ModelError.

        Args:
            count: tokens of that prompt; 0 where that is not said.
        """
        same = count in (0, len(self.expanded)) if said is None else tuple(said) == self.expanded
        if not self.expanded or same:
            return
        read = count if said is None else len(said)
        message = f"vLLM read a prompt of {read} tokens where the conversation has {len(self.expanded)}"
        raise ModelError(f"{message}: it resized or moved an image; check its version and processor settings")


class _Compact:
    """A processor whose placeholders are not expanded."""

    def __init__(self, processor: QwenProcessor | OtherProcessor) -> None:
        self.processor = processor

    def ids(self, text: str, media: Sequence[Medium], *, opening: bool) -> list[int]:
        return self.processor.encode(text, opening=opening)


class Prompts:
    """Lays conversations out for vLLM.

    Attributes:
        exact: whether replies stand in the prompt as they were sampled.
    """

    def __init__(self, processor: QwenProcessor | OtherProcessor, renderer: Renderer, ends: Sequence[int]) -> None:
        self._processor = processor
        self._renderer = renderer
        self._known = isinstance(processor, QwenProcessor)
        self._compact = Encoder(cast(Processor, _Compact(processor)), renderer, ends, None)
        self._whole = Encoder(cast(Processor, processor), renderer, ends, None)
        self.exact = renderer.append_only()

    def write(self, conversation: Conversation) -> Prompt:
        """The conversation up to the header of its next reply.

        Raises:
            ModelError: the template refuses it, or a reply holds a placeholder of its own.
        """
        layout = self._renderer.layout(conversation)
        images = tuple(medium for medium in layout.media if isinstance(medium, Image.Image))
        sent = self._compact.join(layout.parts)[0]
        marks = sum(number in self._processor.image_ids for number in sent)
        if marks != len(images):
            raise ModelError(f"{marks} image tokens stand for {len(images)} images: a reply holds a stray one")
        expanded = tuple(self._whole.join(layout.parts)[0]) if self._known else ()
        return Prompt(tuple(sent), expanded, images)
