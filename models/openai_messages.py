"""A conversation as chat-completion messages, and the images in it as data URLs."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from ..harness.errors import ModelError
from ..harness.ledger import Conversation, MediaRef, Part, Segment, Text
from ..harness.pictures import shown_digest
from ..harness.types import Call, Json

# Of a megapixel photo, level 1 takes 0.13 s and gives 2.1 MB; Pillow's 6 takes 0.4 s and gives 1.9 MB.
LEVEL = 1
ANSWERED = "Done; the next message shows the result."
REFUSED = "Not executed; the answer before says why."


@dataclass(slots=True, eq=False)
class _Entry:
    data: bytes = b""
    counted: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class PngCache:
    """Images as ``data:image/png;base64,...``, each encoded once while the cache holds it.

    PNG because every server decodes it and it loses nothing. An image is known by its pixels, which costs 2 ms a
    megapixel, once for each RGB object that holds it, and can show no wrong image; encoding costs some 0.13 s.

    Attributes:
        encoded: how many were encoded.
        reused: how many were not.
    """

    def __init__(self, limit: int) -> None:
        """Hold at most ``limit`` bytes; those used longest ago go first."""
        self.encoded = 0
        self.reused = 0
        self._limit = limit
        self._held = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def url(self, image: Image.Image) -> str:
        """The data URL of an image, exactly as large as it is."""
        return self.data(image).decode()

    def data(self, image: Image.Image) -> bytes:
        """The same as bytes, shared by all who ask. Threads that need the same image wait for it."""
        key = shown_digest(_plain(image))
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.lock:
            known = bool(entry.data)
            entry.data = entry.data or encode(image).encode()
        with self._lock:
            if known:
                self.reused += 1
            else:
                self.encoded += 1
                self._keep(key, entry)
        return entry.data

    def _keep(self, key: str, entry: _Entry) -> None:
        if self._entries.get(key) is entry:
            entry.counted = len(entry.data)
            self._held += entry.counted
        while self._held > self._limit:
            # One that is still being encoded is not counted yet, and will not be.
            self._held -= self._entries.popitem(last=False)[1].counted


def _plain(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def encode(image: Image.Image) -> str:
    """An image as a data URL: its pixels alone, without profiles or notes."""
    image = _plain(image)
    buffer = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(buffer, "PNG", compress_level=LEVEL)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


class Images(Protocol):
    """What names images in messages."""

    def url(self, image: Image.Image) -> str:
        """The URL that stands for an image."""
        ...


def write_messages(conversation: Conversation, images: Images, *, tool_images: bool = False) -> list[Json]:
    """The conversation as messages: every turn as it came, every image where it was shown, a video as its frames.

    Calls that came beside the text are written beside it again, and each is answered by a ``tool`` message with its
    id. In chat completions only text answers a call: an answer with images says that the next message shows it, and
    that message is the user's.

    Args:
        tool_images: show images in the answer itself, which some servers take.

    Raises:
        ModelError: an observation has the role ``tool`` and answers no such call.
    """
    written: list[Json] = []
    calls: Sequence[Call] = ()
    for segment in conversation.segments:
        if segment.role == "assistant":
            calls = native_calls(segment)
            written.append(_assistant(segment, calls))
            continue
        if segment.role == "tool" and not calls:
            message = (
                "the protocol speaks its observations as `tool`, which chat completions know for native calls alone"
            )
            raise ModelError(f"{message}: choose a protocol whose observations come from the user")
        role = "user" if segment.role == "tool" else segment.role
        parts: Sequence[Part] = segment.parts
        if calls:
            answers, parts = answer_calls(calls, segment, tool_images=tool_images)
            for call, answer in answers:
                content = _content(answer, conversation, images)
                written.append({"role": "tool", "tool_call_id": call.id, "content": content})
        if parts or not calls:
            written.append({"role": role, "content": _content(parts, conversation, images)})
        calls = ()
    return written


def native_calls(segment: Segment) -> list[Call]:
    """The calls that came beside a turn's text."""
    return [call for call in segment.calls if isinstance(call, Call) and call.id]


def answer_calls(
    calls: Sequence[Call], segment: Segment, *, tool_images: bool
) -> tuple[list[tuple[Call, Sequence[Part]]], list[Part]]:
    """What answers each call, and what of the observation is left for a message of the user's."""
    counts = dict(segment.answers)
    answers: list[tuple[Call, Sequence[Part]]] = []
    left: list[Part] = []
    start = 0
    for call in calls:
        end = start + counts.get(call.id, 0)
        own = segment.parts[start:end]
        start = end
        shows = any(isinstance(part, MediaRef) for part in own)
        if shows and not tool_images:
            left += own
        spoken = own if own and (tool_images or not shows) else (Text(ANSWERED if shows or not counts else REFUSED),)
        answers.append((call, spoken))
    return answers, [*left, *segment.parts[start:]]


def _assistant(segment: Segment, calls: Sequence[Call]) -> Json:
    if not calls:
        return {"role": "assistant", "content": segment.text}
    native: list[Json] = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call in calls
    ]
    return {"role": "assistant", "content": segment.text or None, "tool_calls": native}


def _content(parts: Sequence[Part], conversation: Conversation, images: Images) -> Json:
    """Plain text where there is no image; else parts, texts that follow each other as one, as servers may part them."""
    if all(isinstance(part, Text) for part in parts):
        return joined(parts)
    found: list[Json] = []
    for piece in pieces(parts, conversation):
        if isinstance(piece, str):
            found.append({"type": "text", "text": piece})
        else:
            found.append({"type": "image_url", "image_url": {"url": images.url(piece)}})
    return found


def joined(parts: Sequence[Part]) -> str:
    """The texts among the parts as one."""
    return "".join(part.text for part in parts if isinstance(part, Text))


def pieces(parts: Sequence[Part], conversation: Conversation) -> Iterator[str | Image.Image]:
    """Texts and images in order; texts that follow each other are one, and none is empty."""
    text = ""
    for part in parts:
        if isinstance(part, Text):
            text += part.text
            continue
        if text:
            yield text
            text = ""
        yield from conversation.pixels(part.index).seen
    if text:
        yield text
