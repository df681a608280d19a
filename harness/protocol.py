"""How a model family speaks: the base of every protocol, with the wire format most of them share.

A protocol is a class of the group ``prh.protocols``: six short methods (``system_prompt``,
``user_prompt``, ``parse``, ``resolve_box``, ``render_observation``, ``stop``) and two flags
(``observation_role``, ``coordinates``), with defaults here for a model that writes
``<tool_call>{"name": ..., "arguments": ...}</tool_call>`` in its text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

from .errors import OperationError
from .ledger import Conversation, MediaItem, MediaRef, Part, Text
from .operations import Operation, Outcome, four_numbers, shown, whole_number
from .types import LETTERS, BadCall, Box, Call, Json, Limits, PixelBudget, Role, Sample, Size, Span
from .untrusted import loads

OPEN, CLOSE = "<tool_call>", "</tool_call>"
TOOLS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


@dataclass(frozen=True, slots=True)
class Tool:
    """An operation as a protocol presents it: the name a model is shown and trained on, and its schema."""

    name: str
    description: str
    parameters: Mapping[str, Json]


def schemas(tools: Iterable[Tool]) -> str:
    """Tools as JSON, one a line, keys in the order Qwen-Agent writes them."""
    return "\n".join(json.dumps(function_schema(tool), ensure_ascii=False) for tool in tools)


def function_schema(tool: Tool) -> dict[str, Json]:
    """A tool as function calling declares it."""
    function: dict[str, Json] = {"name": tool.name, "description": tool.description}
    return {"type": "function", "function": {**function, "parameters": dict(tool.parameters)}}


class Protocol:
    """Base of the protocols.

    Attributes:
        observation_role: who speaks an observation.
        coordinates: frame of a box in a call: fractions, thousandths, or pixels of the image as it is
            stored (``original``) or as the model saw it (``seen``).
        working: whether operations cut from the ``original`` or the ``resized`` image.
        tools: how operations are presented, by canonical name; others present themselves.
        answer_tag: XML tag around a final answer, for reading it; empty where there is none.
        padding: share of the image added to a box on each side.
        min_side: a crop must be larger than this many pixels on both sides.
        max_frames: frames that one ``select_frames`` may take.
        length_answers: whether a turn cut by its token limit is read as if the model had ended it there.
        native: whether operations are declared to the engine beside the prompt, and called beside the text.
    """

    name: ClassVar[str] = ""
    observation_role: Role = "user"
    coordinates: Literal["unit", "per-mille", "original", "seen"] = "unit"
    working: Literal["original", "resized"] = "original"
    tools: Mapping[str, Tool] = MappingProxyType({})
    answer_tag: str = ""
    limits: Limits = Limits(turns=5, images=16, calls=1, new_tokens=2048, tokens=12 * 1024 - 200)
    budget: PixelBudget = PixelBudget(
        Span.tokens(512, 5120), Span.tokens(512, 5120), Span.tokens(4, 512), Span.tokens(512, 5120)
    )
    padding: float = 0.0
    min_side: int = 28
    max_frames: int = 8
    length_answers: bool = False
    native: ClassVar[bool] = False
    operation_names: tuple[str, ...] = ("crop_image", "select_frames")

    def __init__(self, operations: Sequence[Operation] = (), padding: float | None = None) -> None:
        self.operations = tuple(operations)
        if padding is not None:
            self.padding = padding

    # -- what the model is told ------------------------------------------------------------------

    def system_prompt(self) -> str:
        """The system message."""
        text = "You are a helpful assistant."
        return f"{text}\n\n{TOOLS.format(tools=self.schemas())}" if self.operations else text

    def user_prompt(self, sample: Sample, media: Sequence[MediaItem]) -> tuple[Part, ...]:
        """The first user message: media first, then the question with its options."""
        return (*(MediaRef(item.index) for item in media), Text(self.question(sample)))

    def question(self, sample: Sample) -> str:
        """The question with its options, one a line."""
        options = [f"({LETTERS[i]}) {choice}" for i, choice in enumerate(sample.choices)]
        return "\n".join([sample.question, *options])

    def schemas(self) -> str:
        """The tools as JSON, one a line."""
        return schemas(map(self.present, self.operations))

    def declared(self) -> tuple[Tool, ...]:
        """The tools that an engine is to declare, where they are not written into the prompt."""
        return tuple(map(self.present, self.operations)) if self.native else ()

    def present(self, operation: Operation) -> Tool:
        """How this protocol presents an operation."""
        own = Tool(operation.name, operation.description, operation.parameters)
        return self.tools.get(operation.name, own)

    # -- what the model says ---------------------------------------------------------------------

    def parse(self, text: str) -> tuple[Call | BadCall, ...]:
        """The calls in a turn; a turn without one is an answer."""
        found = [read_call(body) for body in call_bodies(text)]
        if text.rfind(OPEN) > text.rfind(CLOSE):
            found.append(BadCall("the last <tool_call> is not closed by </tool_call>", text[-200:]))
        return tuple(found)

    def find(self, name: str) -> Operation | None:
        """The operation that a called name means: the presented or the canonical one."""
        for operation in self.operations:
            if name in (operation.name, self.present(operation).name):
                return operation
        return None

    def read_target(self, arguments: Mapping[str, Json], conversation: Conversation) -> tuple[MediaItem, int]:
        """The item that ``target_image`` means, and the frame within it, 0 for an image. Raises OperationError."""
        return self.resolve_media(whole_number(arguments.get("target_image"), "target_image"), conversation)

    def read_box(self, arguments: Mapping[str, Json], size: Size) -> tuple[Box, Box]:
        """What ``bbox_2d`` asks for and what is cut, in pixels of an image of this size. Raises OperationError."""
        asked = self.resolve_box(four_numbers(arguments.get("bbox_2d"), "bbox_2d"), size)
        return asked, self.cut(asked, size)

    def read_frames(
        self, arguments: Mapping[str, Json], conversation: Conversation
    ) -> tuple[MediaItem, tuple[int, ...]]:
        """The first video and the frames of it that ``target_frames`` means, from 1. Raises OperationError."""
        asked = arguments.get("target_frames")
        if not isinstance(asked, list) or not asked:
            raise OperationError("bad_arguments", f"`target_frames` must be a list of numbers, not {shown(asked)}")
        videos = [item for item in conversation.items if item.kind == "video"]
        if not videos:
            raise OperationError("bad_index", "there is no video to select frames from; use `crop_image` on an image")
        if len(asked) > self.max_frames:
            message = f"{len(asked)} frames selected, at most {self.max_frames} are allowed"
            raise OperationError("bad_arguments", message)
        numbers = [whole_number(value, "target_frames") for value in asked]
        return videos[0], tuple(self.resolve_frame(number, len(videos[0].frames)) for number in numbers)

    def resolve_box(self, values: Sequence[float], size: Size) -> Box:
        """A box as the model wrote it, in pixels of an image of this size. Raises OperationError."""
        unit = {"unit": (1.0, 1.0), "per-mille": (1000.0, 1000.0)}.get(self.coordinates, (size.width, size.height))
        left, top, right, bottom = values
        inside = 0 <= left <= unit[0] and 0 <= right <= unit[0] and 0 <= top <= unit[1] and 0 <= bottom <= unit[1]
        if not inside:
            limits = f"[0, {unit[0]:g}] x [0, {unit[1]:g}]"
            raise OperationError("out_of_bounds", f"`bbox_2d` {list(values)} is not within {limits}")
        if left >= right or top >= bottom:
            raise OperationError("empty_box", f"`bbox_2d` {list(values)} has no area: it must be [x1, y1, x2, y2]")
        return Box(*values).scaled(size.width / unit[0], size.height / unit[1])

    def resolve_media(self, number: int, conversation: Conversation) -> tuple[MediaItem, int]:
        """The media item that a number means, and the frame within it where it is a video.

        Before anything was cut, the number means a frame of the video if that is all there is.
        """
        items = conversation.items
        if len(items) == 1 and items[0].kind == "video" and 1 <= number <= len(items[0].frames):
            return items[0], number
        if not 1 <= number <= len(items):
            raise OperationError("bad_index", f"`target_image` {number} is not within 1 to {len(items)}")
        if items[number - 1].kind == "video":
            raise OperationError("bad_index", f"`target_image` {number} is the video; choose a frame shown after it")
        return items[number - 1], 0

    def resolve_frame(self, number: int, count: int) -> int:
        """The frame that a number means, from 1. Raises OperationError ``bad_index``."""
        if not 1 <= number <= count:
            raise OperationError("bad_index", f"frames are numbered 1 to {count}, not {number}")
        return number

    def cut(self, box: Box, size: Size) -> Box:
        """The box that is really cut: padded, kept inside the image. Raises OperationError ``empty_box``."""
        x, y = self.padding * size.width, self.padding * size.height
        padded = Box(box.left - x, box.top - y, box.right + x, box.bottom + y)
        sides = (*size, *size)
        return self.large_enough(Box(*(min(max(0.0, edge), side) for edge, side in zip(padded, sides, strict=True))))

    def large_enough(self, cut: Box) -> Box:
        """The same box, unless a side of the crop is ``min_side`` or less. Raises OperationError ``empty_box``."""
        size = Size(round(cut.right) - round(cut.left), round(cut.bottom) - round(cut.top))
        if min(size) <= self.min_side:
            raise OperationError("empty_box", f"Cropped image is too small: {size.width}x{size.height}")
        return cut

    # -- what the model is shown back ------------------------------------------------------------

    def render_observation(
        self, outcome: Outcome, items: Sequence[MediaItem], sizes: Sequence[Size], shown: Sequence[MediaItem]
    ) -> tuple[Part, ...]:
        """Text and media for what an operation made.

        Args:
            items: the new items, numbered as they can be addressed.
            sizes: the size each is announced at.
            shown: the items in the conversation before them.
        """
        size = f"{sizes[0].width}x{sizes[0].height}"
        media = tuple(MediaRef(item.index) for item in items)
        if len(items) == 1 and items[0].kind != "frame":
            return (Text(f"\nHere is the {outcome.noun} (Image Size: {size}):"), *media)
        first, last = self.numbered(items, shown)
        return (Text(f"\nHere are the {outcome.noun} (Frame Size: {size}, Numbered {first} to {last}):"), *media)

    def numbered(self, items: Sequence[MediaItem], shown: Sequence[MediaItem]) -> tuple[int, int]:
        """The numbers announced for new items: those by which they can be addressed."""
        return items[0].index, items[-1].index

    def render_error(self, error: OperationError, call: Call | BadCall, conversation: Conversation) -> tuple[Part, ...]:
        """Text for an operation that failed."""
        return (Text(f"\nExecution error:\n{error}\n"),)

    def stop(self) -> tuple[str, ...]:
        """Strings that end a turn, besides the model's own end-of-turn token."""
        return ()

    def opening(self, sample: Sample, conversation: Conversation) -> tuple[tuple[Role, tuple[Part, ...]], ...]:
        """The messages that open an episode."""
        return (
            ("system", (Text(self.system_prompt()),)),
            ("user", self.user_prompt(sample, conversation.items)),
        )


def call_bodies(text: str) -> Iterator[str]:
    """What stands between each opening tag and the next closing one, in one pass."""
    end = 0
    while (start := text.find(OPEN, end)) >= 0:
        start += len(OPEN)
        stop = text.find(CLOSE, start)
        if stop < 0:
            return
        yield text[start:stop]
        end = stop + len(CLOSE)


def read_call(body: str) -> Call | BadCall:
    """One call as Qwen's tool format writes it: a JSON object with ``name`` and ``arguments``."""
    try:
        value = loads(body)
    except ValueError as error:
        return BadCall(f"the call is not valid JSON: {error}", body[:200])
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str):
        return BadCall('the call must be a JSON object with "name" and "arguments"', body[:200])
    return Call(name, value.get("arguments"))
