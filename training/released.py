r"""The data that Pixel Reasoner's authors released (arXiv 2505.15966), read as they are.

**Trajectories**, ``TIGER-Lab/PixelReasoner-SFT-Data``: ``release.json``, a list of objects ``{"qid", "message_list"}``,
with ``images.zip`` and ``videos.zip`` to unpack beside it. ``message_list`` holds Qwen messages ``{"role",
"content"}``; ``content`` is a list of ``{"text": ..}``, ``{"image": path}`` and ``{"video": [paths of frames]}``, keys
that do not apply absent or null. System prompt, tool text and observations are part of it, the images already cut.
The first user message has the text before its image, with options as ``\nchoices:\nA: ..`` and the guidelines after.
Read off the release's trainer (``instruction_tuning/sft_tooltrainer.py``) and public readers of the data; whether a
``qid`` comes once is not known, so it need not.

**Questions**, ``TIGER-Lab/PixelReasoner-RL-Data``: see ``sources.pixelreasoner_rl``.

Paths are tried as they stand below the root, then below ``images`` and ``videos`` in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

from PIL import Image

from ..harness.errors import DataError, OperationError
from ..harness.ledger import Conversation, Draft, Fit, MediaRef, Part, Segment, Text
from ..harness.media import Media, load_image
from ..harness.operations import four_numbers
from ..harness.protocols import PixelReasoner, PixelReasonerReleased
from ..harness.types import BadCall, Box, Call, Json, PixelBudget, Role, Sample, Size
from .sources.baked import boxed, question, unboxed
from .sources.pixelreasoner_rl import COLUMNS, FOLDERS, clip, query
from .sources.rows import Row, is_text, table_rows
from .trajectories import Lesson, Said

Rule = Literal["derived", "positional"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class ReleasedMessage:
    """One message: texts and media in the order in which they stand."""

    role: Role
    parts: tuple[str | Media, ...]

    @property
    def text(self) -> str:
        """The texts, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def media(self) -> tuple[Media, ...]:
        """The media."""
        return tuple(part for part in self.parts if isinstance(part, Media))


@dataclass(frozen=True, slots=True)
class ReleasedConversation:
    """One trajectory as it was released; it ends in an assistant's message.

    Attributes:
        id: its ``qid``, else its row number.
        repeat: how many rows before it have the same id.
        where: file and row, for messages.
    """

    id: str
    repeat: int
    messages: tuple[ReleasedMessage, ...]
    where: str

    @property
    def opening(self) -> tuple[ReleasedMessage, ...]:
        """The messages before the assistant's first."""
        first = next(place for place, message in enumerate(self.messages) if message.role == "assistant")
        return self.messages[:first]


def read_message_list(path: Path, images_root: Path) -> Iterator[ReleasedConversation]:
    """The trajectories of a ``.json`` (list) or ``.jsonl`` file, in their order.

    Args:
        images_root: where paths start, which none may leave.

    Raises:
        DataError: naming file and row: not of this schema, or a file that is not there.
    """
    seen: dict[str, int] = {}
    for row in table_rows(path):
        name = row.identifier("qid") if row.has("qid") else str(row.origin["row"])
        messages = tuple(_message(child, images_root) for child in row.rows("message_list"))
        _check_order(row, [message.role for message in messages])
        yield ReleasedConversation(name, seen.get(name, 0), messages, row.where)
        seen[name] = seen.get(name, 0) + 1


def _check_order(row: Row, roles: Sequence[Role]) -> None:
    if "assistant" not in roles or roles[-1] != "assistant" or "user" not in roles[: roles.index("assistant")]:
        row.fail("`message_list` must hold a user's message, then turns of the assistant, and end in one")
    doubled = any(one == two == "assistant" for one, two in pairwise(roles))
    if doubled or "system" in roles[1:]:
        row.fail("`message_list` must have its system message first, and an answer between two of the assistant's")


def _message(row: Row, root: Path) -> ReleasedMessage:
    role = next((known for known in ROLES if known == row.values.get("role")), None)
    if role is None:
        row.refuse("role", f"one of {', '.join(ROLES)}")
    content = row.values.get("content")
    items = (Row(row.where, {"text": content}),) if isinstance(content, str) else row.rows("content")
    message = ReleasedMessage(role, tuple(part for item in items for part in _parts(item, root)))
    if not message.parts or (role in ("assistant", "system") and (message.media or not message.text.strip())):
        row.refuse("content", f"{'text' if role in ('assistant', 'system') else 'text or media'} of the {role}")
    return message


def _parts(row: Row, root: Path) -> tuple[str | Media, ...]:
    keys = [key for key in ("text", "image", "video") if row.has(key)]
    if len(keys) != 1:
        row.fail(f"expected one of text, image, video; found {', '.join(keys) or 'none of them'}")
    if keys[0] == "text":
        text = row.values["text"]
        if text != "" and (not isinstance(text, str) or not is_text(f"{text}.")):
            row.refuse("text", "text that can be written as UTF-8")
        return (text,) if isinstance(text, str) and text else ()
    names = row.texts(keys[0])
    paths = tuple(row.file(keys[0], root, name, FOLDERS) for name in names)
    if keys[0] == "video":
        return (clip(names[0], paths),)
    return tuple(Media("image", name, path) for name, path in zip(names, paths, strict=True))


def trained_turns(released: ReleasedConversation, rule: Rule = "derived") -> tuple[bool, ...]:
    """Which messages a trainer's loss covers, one flag a message; the assistant's alone may have one.

    ``positional`` is the release's: the last message and the third from the end, where they are the assistant's. It
    hides inserted errors, and with them every other step that comes early.

    ``derived`` is ours, since the record has no flags. A turn of the assistant is trained unless its call was in
    error: it cannot be read, the next message begins with ``Execution error``, or it is superseded. Inserted errors
    are boxes or frames that miss the evidence (Pixel Reasoner, section 4), so a call is superseded where the last
    call of the same operation on the same image has no pixel or frame in common with it. A box that holds the later
    one is a step towards it, and is trained. A sound look at two places is taken for an error: that loses a turn
    and teaches nothing false.
    """
    count = len(released.messages)
    turns = [message.role == "assistant" for message in released.messages]
    if rule == "positional":
        return tuple(turn and place in (count - 1, count - 3) for place, turn in enumerate(turns))
    calls = {place: _call(released.messages[place].text) for place, turn in enumerate(turns) if turn}
    return tuple(turn and not _in_error(released, place, calls) for place, turn in enumerate(turns))


def _call(text: str) -> Call | BadCall | None:
    """The call that a turn makes: its last, as the release executes it."""
    calls = PixelReasoner().parse(text)
    return calls[-1] if calls else None


def _in_error(released: ReleasedConversation, place: int, calls: dict[int, Call | BadCall | None]) -> bool:
    call = calls[place]
    if call is None:
        return False
    if isinstance(call, BadCall) or _failed(released, place):
        return True
    later = [other for at, other in calls.items() if at > place and not _failed(released, at)]
    same = [other for other in later if isinstance(other, Call) and other.name == call.name]
    return bool(same) and _apart(call.arguments, same[-1].arguments)


def _failed(released: ReleasedConversation, place: int) -> bool:
    """Whether the answer to a message is an execution error."""
    after = released.messages[place + 1 : place + 2]
    return bool(after) and after[0].text.lstrip().lower().startswith("execution error")


def _apart(one: Json, two: Json) -> bool:
    """Whether two calls look at the same image or video and at nothing in common."""
    if not isinstance(one, dict) or not isinstance(two, dict) or one.get("target_image") != two.get("target_image"):
        return False
    frames, others = one.get("target_frames"), two.get("target_frames")
    if isinstance(frames, list) and isinstance(others, list):
        return not any(frame in others for frame in frames)
    try:
        boxes = [Box(*four_numbers(arguments.get("bbox_2d"), "bbox_2d")) for arguments in (one, two)]
    except OperationError:
        return False
    return boxes[0].intersection(boxes[1]).area == 0


def to_conversation(
    released: ReleasedConversation, fit: Fit, budget: PixelBudget, rule: Rule = "derived"
) -> Conversation:
    """A trajectory as a ledger: its messages and their parts as they stand, every image an item of the registry.

    Media before the assistant's first turn are inputs. A later image is a crop, or a frame after ``select_frames``,
    seen at the budget of its kind; its place in its parent is what the call before it asked for, cut and padded as
    the release does, or the whole first input where that cannot be told. The sizes that the texts announce are the
    release's, not those seen here.

    Raises:
        DataError: naming file and row: an image or a video cannot be read.
    """
    conversation = Conversation(f"{released.id}#{released.repeat}", released.id, fit, budget)
    marks = trained_turns(released, rule)
    call: Call | BadCall | None = None
    try:
        for message, trained in zip(released.messages, marks, strict=True):
            _commit(conversation, message, call, trained)
            call = _call(message.text) if message.role == "assistant" else call
    except DataError as error:
        raise DataError(f"{released.where}: {' '.join(str(error).split())}") from None
    return conversation


def _commit(conversation: Conversation, message: ReleasedMessage, call: Call | BadCall | None, trained: bool) -> None:
    first = len(conversation.items) + 1
    made = conversation.turns and conversation.items and all(medium.kind == "image" for medium in message.media)
    images = [load_image(medium).image for medium in message.media] if made else []
    if not made:
        conversation.open(message.media)
    items, shown, _ = conversation.prepare(_drafts(conversation, call, images))
    numbers = iter(range(first, first + len(message.media)))
    parts: tuple[Part, ...] = tuple(
        Text(part) if isinstance(part, str) else MediaRef(next(numbers)) for part in message.parts
    )
    calls = PixelReasoner().parse(message.text) if message.role == "assistant" else ()
    conversation.commit(Segment(message.role, parts, calls, trained=trained), items, shown)


def _drafts(conversation: Conversation, call: Call | BadCall | None, images: Sequence[Image.Image]) -> list[Draft]:
    """Images that an observation shows, with the place that the call before them says."""
    if not images:
        return []
    kind = "frame" if isinstance(call, Call) and call.name == "select_frames" else "crop"
    try:
        places = _places(conversation, call) if isinstance(call, Call) else []
    except OperationError:
        places = []
    if len(places) != len(images):
        places = [(1, Box(0, 0, *conversation.pixels(1).working[0].size), 0)] * len(images)
    return [Draft(image, *place[:2], kind, place[2]) for image, place in zip(images, places, strict=True)]


def _places(conversation: Conversation, call: Call) -> list[tuple[int, Box, int]]:
    """Parent, box in its working image and frame of what a call makes. Raises OperationError."""
    arguments = call.arguments if isinstance(call.arguments, dict) else {}
    protocol = PixelReasonerReleased()
    if call.name == "select_frames":
        video, frames = protocol.read_frames(arguments, conversation)
        whole = Box(0, 0, *conversation.pixels(video.index).working[0].size)
        return [(video.index, whole, frame) for frame in frames]
    item, frame = protocol.read_target(arguments, conversation)
    size = Size(*conversation.pixels(item.index).working[max(frame, 1) - 1].size)
    _, cut = protocol.read_box(arguments, size)
    return [(item.index, Box(*map(round, cut)), frame)]


def released_lessons(path: Path, images_root: Path, rule: Rule = "derived") -> Iterator[Lesson]:
    """The trajectories of a released file as lessons, to be performed again under the checkpoint's own protocol.

    The assistant's texts are said as they stand; prompt, crops and wording of observations come from the harness, so
    what is trained is what an evaluation shows. For the release's own prompt and images see ``to_conversation``.

    Raises:
        DataError: as ``read_message_list``, or a conversation without a question.
    """
    for released in read_message_list(path, images_root):
        marks = trained_turns(released, rule)
        turns = zip(released.messages, marks, strict=True)
        script = tuple(Said(message.text, trained) for message, trained in turns if message.role == "assistant")
        origin: dict[str, Json] = {"file": path.name, "row": released.where.rpartition(" ")[2], "trained": rule}
        yield Lesson(f"{released.id}#{released.repeat}", _sample(released), script, origin)


def _sample(released: ReleasedConversation) -> Sample:
    asked = [message for message in released.opening if message.role != "system"]
    text = "".join(message.text for message in asked)
    media = tuple(medium for message in asked for medium in message.media)
    if not text.strip():
        raise DataError(f"{released.where}: the user's message has no text; a question is expected")
    said = boxed(released.messages[-1].text)
    return question(released.id, text, media, unboxed(said) if said else ())


def read_queries(path: Path, root: Path) -> Iterator[Sample]:
    """The questions of a ``.parquet``, ``.json`` or ``.jsonl`` file, in their order.

    Args:
        root: where paths start, which none may leave.

    Raises:
        DataError: naming file and row: not of this schema, an id for the second time, or a file that is not there.
    """
    seen: set[str] = set()
    for row in table_rows(path, COLUMNS):
        sample = query(row, root)
        if sample.id in seen:
            row.fail(f"the id {sample.id!r} is not the first of its name; ids must be unique")
        seen.add(sample.id)
        yield sample
