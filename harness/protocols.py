"""The built-in protocols: Pixel Reasoner's as the paper means it, as its release runs it, and without tools.

Wording is data that checkpoints were trained on and is pinned to the byte by tests. Sources: Pixel
Reasoner (arXiv 2505.15966, section 3) and its released code, whose prompt wraps the questions in
Qwen-Agent's function-calling text.

The released protocol takes what a call holds as the release takes it: ``true`` is 1, a box may have a fifth
number, NaN is a number. Where the release tells the model what Python said, it is said here too, in the words of
the Python that runs. Two things are left as they are, and differ:

- A call more than 32 levels deep is refused.
- A turn that closes a call it did not open gets the error of the system prompt's example, as in the release's
  first turn; in later turns the release finds the last call of the conversation and repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar

from .errors import OperationError, OperationErrorKind
from .ledger import Conversation, MediaItem, Part, Text
from .operations import Operation
from .protocol import CLOSE, OPEN, Protocol, Tool
from .types import LETTERS, BadCall, Box, Call, Limits, PixelBudget, Sample, Size, Span
from .untrusted import loads

GUIDELINES = (
    "Guidelines: Understand the given visual information and the user query. Determine if it is beneficial to "
    "employ the given visual operations (tools). For a video, we can look closer by `select_frames`. For an image, "
    "we can look closer by `crop_image`. Reason with the visual information step by step, and put your final answer "
    "within \\boxed{}."
)
NO_TOOLS = "Please think step by step, and put your final answer within \\boxed{}."
LOOK_CLOSER = (
    "Images are numbered from 1 in the order in which they are shown, those that a function returns included. Where a "
    "detail is too small to be seen, look closer with a function before you answer."
)
CROP = Tool(
    "crop_image_normalized",
    "Zoom in on the image based on the bounding box coordinates. It is useful when the object or text in the image "
    "is too small to be seen.",
    {
        "type": "object",
        "properties": {
            "bbox_2d": {
                "type": "array",
                "description": "coordinates for bounding box of the area you want to zoom in. Values should be within "
                "[0.0,1.0].",
                "items": {"type": "number"},
            },
            "target_image": {
                "type": "number",
                "description": "The index of the image to crop. Index from 1 to the number of images. Choose 1 to "
                "operate on original image.",
            },
        },
        "required": ["bbox_2d", "target_image"],
    },
)
SELECT = Tool(
    "select_frames",
    "Select frames from a video.",
    {
        "type": "object",
        "properties": {
            "target_frames": {
                "type": "array",
                "description": "List of frame indices to select from the video (no more than 8 frames in total).",
                "items": {"type": "integer", "description": "Frame index from 1 to 16."},
            }
        },
        "required": ["target_frames"],
    },
)
FAR = 1e9
WRONG_TARGET = "Execution Error: Incorrect `target_image` argument in `crop_image_normalized` operation."
NO_VIDEO = (
    "Execution Error: You attempted to `select_frames` from **image** not **video**. You should use "
    "`crop_image_normalized` instead for inspecting **image**."
)


class PixelReasoner(Protocol):
    """The paper's protocol with the faults of its release mended; what released checkpoints are prompted with.

    A box may touch 1.0, several calls in a turn are told apart, the numbers announced are the numbers
    that can be used, and both ``crop_image`` and ``crop_image_normalized`` are understood.
    """

    name = "pixel-reasoner"
    tools = MappingProxyType({"crop_image": CROP, "select_frames": SELECT})
    padding = 0.1
    trigger: ClassVar[str] = f"\n\n{GUIDELINES}"

    def question(self, sample: Sample) -> str:
        """Question, options as the training data writes them, then the guidelines after four newlines."""
        options = [f"{LETTERS[i]}: {choice}" for i, choice in enumerate(sample.choices)]
        lines = [sample.question, *(["choices:", *options] if options else [])]
        return "\n".join(lines) + f"\n\n{self.trigger}"


class PixelReasonerReleased(PixelReasoner):
    """The release to the letter, so that a published number can be chased."""

    name = "pixel-reasoner-released"
    working = "resized"
    length_answers = True
    budget = PixelBudget(
        input=Span.tokens(256, 8000),
        crop=Span.tokens(256, 5120),
        video_frame=Span.tokens(4, 512),
        selected_frame=Span(1, 1 << 40),
        final=Span(401408, 4014080),
    )

    def parse(self, text: str) -> tuple[Call | BadCall, ...]:
        """A turn calls only if it ends in ``</tool_call>``, bar ``<|im_end|>``; its last call alone counts."""
        if not text.replace("<|im_end|>", "").endswith(CLOSE):
            return ()
        said = text if OPEN in text else self.system_prompt()
        return (released_call(said.rsplit(OPEN, maxsplit=1)[-1].split(CLOSE, maxsplit=1)[0]),)

    def find(self, name: str) -> Operation | None:
        """Only the presented names are known: the ``crop_image`` of the guidelines is not."""
        return next((operation for operation in self.operations if name == self.present(operation).name), None)

    def read_target(self, arguments: Any, conversation: Conversation) -> tuple[MediaItem, int]:
        """See ``resolve_media``."""
        with python_words():
            number = revived(arguments)["target_image"]
        return self.resolve_media(number, conversation)

    def read_box(self, arguments: Any, size: Size) -> tuple[Box, Box]:
        """Padded and clamped as shares of the image, with the corners as they came."""
        with python_words():
            values = revived(arguments)["bbox_2d"]
            asked, shares = self.resolve_box(values, size), box_shares(values, size)
        return asked, self.large_enough(padded(shares, self.padding, size))

    def resolve_box(self, values: Any, size: Size) -> Box:
        """See ``box_shares``; an edge far outside is moved to where a record can hold it."""
        return Box(*(min(max(-FAR, edge), FAR) for edge in box_shares(values, size).scaled(*size)))

    def resolve_media(self, number: Any, conversation: Conversation) -> tuple[MediaItem, int]:
        """From 1; below that from the end of the inputs, and after a video only 2 and up are images."""
        with python_words():
            return released_item(number, conversation.items)

    def read_frames(self, arguments: Any, conversation: Conversation) -> tuple[MediaItem, tuple[int, ...]]:
        """From 1; 0 and below count from the end."""
        if not starts_with_video(conversation.items):
            raise OperationError("bad_index", NO_VIDEO)
        video = conversation.items[0]
        with python_words():
            return video, released_frames(revived(arguments)["target_frames"], len(video.frames), self.max_frames)

    def numbered(self, items: Sequence[MediaItem], shown: Sequence[MediaItem]) -> tuple[int, int]:
        """One less than the number that addresses it."""
        return len(shown), len(items) + len(shown) - 1

    def render_error(self, error: OperationError, call: Call | BadCall, conversation: Conversation) -> tuple[Part, ...]:
        """The message of the exception that the release meets first on its way through this call."""
        message = str(error)
        if isinstance(call, Call) and error.kind == "unknown_operation":
            message = repr(call.name)
        elif isinstance(call, Call) and error.kind == "bad_arguments" and not isinstance(call.arguments, dict):
            read = self.read_frames if call.name == SELECT.name else self.read_target
            message = told(read, call.arguments, conversation) or message
        return (Text(f"\nExecution error:\n{message}\n"),)


class Beyond(str):
    """A number that JSON cannot say, such as NaN or 1e999, kept in a call and its record as it was written."""


def revived(value: Any) -> Any:
    """The same value with the numbers that JSON cannot say."""
    if isinstance(value, Beyond):
        return float(value)
    if isinstance(value, list):
        return [revived(child) for child in value]
    return {key: revived(child) for key, child in value.items()} if isinstance(value, dict) else value


@contextmanager
def python_words() -> Iterator[None]:
    """Tells the model what Python says of a value that it cannot work with."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        kind: OperationErrorKind = "bad_index" if isinstance(error, IndexError) else "bad_arguments"
        raise OperationError(kind, str(error)) from None


def told(read: Callable[..., object], *given: object) -> str:
    """The message of the OperationError that this raises, empty where it raises none."""
    try:
        read(*given)
    except OperationError as error:
        return str(error)
    return ""


def released_call(body: str) -> Call | BadCall:
    """A call by its keys; the release looks its operation up before it looks at its arguments."""
    try:
        written: Any = loads(body, Beyond)
        value = revived(written)
        name, _ = value["name"], value["arguments"]
        if not isinstance(name, str):
            hash(name)
            raise KeyError(name)
    except (LookupError, TypeError, ValueError) as error:
        return BadCall(str(error), body[:200])
    return Call(name, written["arguments"])


def box_shares(values: Any, size: Size) -> Box:
    """A box in shares of the image: as they are if all four are below 1, else they are pixels."""
    pixels = not (values[0] < 1 and values[1] < 1 and values[2] < 1 and values[3] < 1)
    return Box(*(float(values[i]) / (side if pixels else 1) for i, side in enumerate((*size, *size))))


def padded(shares: Box, padding: float, size: Size) -> Box:
    """What is cut, in pixels. Raises OperationError for corners that are still reversed, as Pillow says it."""
    edges = (shares.left - padding, shares.top - padding, shares.right + padding, shares.bottom + padding)
    cut = Box(*(min(max(0.0, edge), 1.0) for edge in edges)).scaled(*size)
    if cut.right < cut.left:
        raise OperationError("empty_box", "Coordinate 'right' is less than 'left'")
    if cut.bottom < cut.top:
        raise OperationError("empty_box", "Coordinate 'lower' is less than 'upper'")
    return cut


def starts_with_video(items: Sequence[MediaItem]) -> bool:
    """Whether the conversation is about a video."""
    return bool(items) and items[0].kind == "video"


def released_item(number: Any, items: Sequence[MediaItem]) -> tuple[MediaItem, int]:
    """The item that a number means, and the frame within it. Raises OperationError, and what Python raises."""
    index, count = number - 1, len(items)
    given = f"but the current argument `target_image={number}`."
    if not starts_with_video(items):
        if not index < count:
            raise OperationError("bad_index", f"{WRONG_TARGET} You can only pick an image within [1,{count}]")
        inputs = [item for item in items if item.parent == 0]
        return (inputs if index < len(inputs) else list(items))[index], 0
    if count == 1:
        frames = len(items[0].frames)
        if not index < frames:
            can = f"You can only pick an image **from** the video within [1,{frames}]"
            raise OperationError("bad_index", f"{WRONG_TARGET} {can}, {given}")
        return items[0], list(range(1, frames + 1))[index]
    if not index >= 1:
        can = f"You can only pick an image within range [2,{count}]"
        raise OperationError("bad_index", f"{WRONG_TARGET} {can}, {given}")
    return items[index], 0


def released_frames(asked: Any, count: int, most: int) -> tuple[int, ...]:
    """Frames of a video that has ``count``. Raises OperationError, and what Python raises."""
    if len(asked) > most:
        told = f"You have selected {len(asked)} frames in total. Think again which frames you need to check in details"
        raise OperationError("bad_arguments", f"Execution Error: {told} (no more than 8 frames)")
    if not asked:
        raise OperationError("bad_arguments", "max() arg is an empty sequence")
    if max(asked) > count:
        told = f"There are {count} frames numbered in range [1,{count}]."
        wrong = f"Your selection `target_frames={asked}` is out of range."
        raise OperationError("bad_index", f"Execution Error: {told} {wrong}")
    return tuple(list(range(1, count + 1))[number - 1] for number in asked)


class OpenAITools(Protocol):
    """Function calling, for models behind an API: operations are declared beside the prompt and called beside the text.

    How a call is answered with an image on the wire is the engine's ``mode``; see ``docs/servers.md``.
    """

    name = "openai-tools"
    native = True
    tools = MappingProxyType(
        {"crop_image": Tool("crop_image", CROP.description, CROP.parameters), "select_frames": SELECT}
    )

    def system_prompt(self) -> str:
        """Without the tools, which are declared."""
        return "You are a helpful assistant."

    def question(self, sample: Sample) -> str:
        """Question and options, then what may be done and how to answer."""
        task = LOOK_CLOSER if self.operations else "Think step by step."
        form = "the letter of the right option" if sample.choices else "your final answer"
        return f"{super().question(sample)}\n\n{task} Then put {form} within \\boxed{{}}."


class Direct(PixelReasoner):
    """No tools: the release's ``notool`` prompt. A call in the text is just text."""

    name = "direct"
    operation_names = ()
    trigger = NO_TOOLS
    limits = Limits(turns=1, images=16, calls=0, new_tokens=2048, tokens=12 * 1024 - 200)

    def parse(self, text: str) -> tuple[Call | BadCall, ...]:
        """Nothing is a call."""
        return ()
