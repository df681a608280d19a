"""From a conversation to template text in which no sampled token is ever decoded and encoded again.

The chat template is rendered before and after each reply. Where the text after it begins with the text before
it and the reply, what follows is glue, observation and the next header; only that is encoded, and it is
appended to the ids that were sampled. A template that rewrites what was said before cannot be followed this
way: its conversations are encoded as a whole, and said to be inexact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..harness.errors import ModelError
from ..harness.ledger import Conversation, MediaRef, Segment, Text
from ..harness.types import Role
from .visual import Medium, Message, Video

# A Unicode noncharacter. It splits the spelling of a special token in a dataset's or a model's text, so that
# only the template can make one; text is encoded apart on either side of it, and it is never encoded itself.
CUT = "\ufdd0"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Text of the template between two replies, and the media whose placeholders stand in it, in order."""

    text: str
    media: tuple[Medium, ...]

    def pieces(self, tokens: Iterable[str]) -> list[tuple[str, tuple[Medium, ...]]]:
        """The text cut where special tokens were spelled, each piece with the media that ``tokens`` stand for in it."""
        found = []
        start = 0
        for text in self.text.split(CUT):
            count = sum(text.count(token) for token in tokens)
            found.append((text, self.media[start : start + count]))
            start += count
        return found


@dataclass(frozen=True, slots=True)
class Layout:
    """A conversation laid out for encoding.

    Attributes:
        parts: template text and assistant segments, in order.
        text: the whole, rendered at once.
        media: every image and video in order; a video that is not shown whole gives its frames as images.
        exact: whether every reply stands as it was sampled.
    """

    parts: tuple[Chunk | Segment, ...]
    text: str
    media: tuple[Medium, ...]
    exact: bool


@dataclass(slots=True)
class Story:
    """How far a conversation has been laid out, so that what comes next is laid out by itself.

    Attributes:
        segments, messages, media: all of them so far.
        covered: the template's text that has been given out as parts, replies included.
        start: the first segment that has not.
        headed: whether ``covered`` ends in the header of a reply.
    """

    segments: list[Segment] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    media: list[Sequence[Medium]] = field(default_factory=list)
    covered: str = ""
    start: int = 0
    headed: bool = False

    def begins(self, segments: Sequence[Segment]) -> bool:
        """Whether the segments go on from these very ones."""
        count = len(self.segments)
        return len(segments) >= count and all(a is b for a, b in zip(self.segments, segments, strict=False))


class Template(Protocol):
    """Messages to text, with the header of the next reply where ``prompt``."""

    def __call__(self, messages: Sequence[Message], *, prompt: bool) -> str: ...


class Rewritten(Exception):  # noqa: N818 - not an error: it chooses the other way of encoding
    """The template changed what it had said of an earlier part of the conversation."""


class Renderer:
    """Lays conversations out with a chat template.

    Attributes:
        template: the checkpoint's chat template.
        image_token: the text that stands for one image in the template's output.
        video_token: the text that stands for one video; empty where its frames are shown as images.
        tokens: those of the two that there are.
    """

    def __init__(self, template: Template, image_token: str, special: Iterable[str], video_token: str = ""):
        self.template = template
        self.image_token = image_token
        self.video_token = video_token
        self.tokens = tuple(token for token in (image_token, video_token) if token)
        spelled = sorted({*self.tokens, *(text for text in special if len(text) > 1)}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, spelled)))

    def escape(self, text: str) -> str:
        """Text in which no special token is spelled; ``CUT`` marks where one was."""
        return self._special.sub(lambda found: found[0][0] + CUT + found[0][1:], text)

    def layout(self, conversation: Conversation) -> Layout:
        """The conversation, ending in its last reply or else in the header of the next.

        Raises:
            ModelError: the template refuses it or does not show its images and videos.
        """
        story = Story()
        self._read(story, conversation)
        every = _flat(story.media)
        ended = bool(conversation.segments) and conversation.segments[-1].role == "assistant"
        whole = self.template(story.messages, prompt=not ended)
        try:
            return Layout(self._grow(story), whole, every, exact=True)
        except Rewritten:
            return Layout((self._chunk("", whole, every),), whole, every, exact=False)

    def extend(
        self, story: Story, conversation: Conversation
    ) -> tuple[tuple[Chunk | Segment, ...], tuple[Medium, ...]]:
        """The parts that have come since, and their media; the conversation must go on from the story's segments.

        Raises:
            Rewritten: the template changed what came before; the story is of no more use.
            ModelError: as ``layout``.
        """
        known = len(story.segments)
        self._read(story, conversation)
        return self._grow(story, known), _flat(story.media[known:])

    def _read(self, story: Story, conversation: Conversation) -> None:
        new = conversation.segments[len(story.segments) :]
        story.segments += new
        story.messages += [self._message(segment, conversation) for segment in new]
        story.media += [self._media(segment, conversation) for segment in new]

    def _grow(self, story: Story, known: int = 0) -> tuple[Chunk | Segment, ...]:
        """The parts of a story from its segment ``known`` on."""
        parts: list[Chunk | Segment] = []
        messages, media = story.messages, story.media
        for number, segment in enumerate(story.segments[known:], known):
            if segment.role != "assistant":
                continue
            at_hand = story.headed and number == known
            before = story.covered if at_hand else self.template(messages[:number], prompt=True)
            parts += [self._chunk(story.covered, before, _flat(media[story.start : number])), segment]
            after = self.template(messages[: number + 1], prompt=False)
            story.covered = before + _spoken(before, after, self.escape(segment.text))
            story.start, story.headed = number + 1, False
        if story.start < len(story.segments):
            whole = self.template(messages, prompt=True)
            parts.append(self._chunk(story.covered, whole, _flat(media[story.start :])))
            story.covered, story.start, story.headed = whole, len(story.segments), True
        return tuple(parts)

    def _chunk(self, covered: str, text: str, media: tuple[Medium, ...]) -> Chunk:
        if not text.startswith(covered):
            raise Rewritten
        rest = text[len(covered) :]
        found = re.findall("|".join(map(re.escape, self.tokens)), rest)
        if len(found) != len(media):
            what = "images and videos" if self.video_token else "images"
            raise ModelError(
                f"the chat template shows {len(found)} of {len(media)} {what}: it cannot hold this message"
            )
        if found != [self.video_token if isinstance(medium, Video) else self.image_token for medium in media]:
            raise ModelError("the chat template shows images and videos in another order than the conversation")
        return Chunk(rest, media)

    def _media(self, segment: Segment, conversation: Conversation) -> tuple[Medium, ...]:
        found: list[Medium] = []
        for part in segment.parts:
            if isinstance(part, MediaRef):
                found += self._shown(part, conversation)
        return tuple(found)

    def _shown(self, part: MediaRef, conversation: Conversation) -> tuple[Medium, ...]:
        """One medium as the model is shown it: a video whole, or as its frames."""
        pixels = conversation.pixels(part.index)
        if self.video_token and conversation.item(part.index).kind == "video":
            return (Video(pixels.seen, pixels.seconds),)
        return pixels.seen

    def _message(self, segment: Segment, conversation: Conversation) -> Message:
        content: list[dict[str, str]] = []
        for part in segment.parts or (Text(""),):
            if isinstance(part, MediaRef):
                shown = self._shown(part, conversation)
                content += [{"type": "video" if isinstance(medium, Video) else "image"} for medium in shown]
            elif content and content[-1]["type"] == "text":
                content[-1]["text"] += part.text
            else:
                content.append({"type": "text", "text": part.text})
        for entry in content:
            if "text" in entry:
                entry["text"] = self.escape(entry["text"])
        return {"role": segment.role, "content": content}

    def ending(self) -> str:
        """What the template writes after a reply; empty where that cannot be told."""
        messages = [_plain("user", "a"), _plain("assistant", "b")]
        try:
            before, after = self.template(messages[:1], prompt=True), self.template(messages, prompt=False)
            return after[len(before + _spoken(before, after, "b")) :]
        except (Rewritten, ModelError):
            return ""

    def append_only(self) -> bool:
        """Whether the template lets replies stand as they were sampled, tried on a text of two turns."""
        turns: tuple[tuple[Role, str], ...] = (("user", "a"), ("assistant", "b c"), ("user", "d"), ("assistant", "e"))
        segments = [Segment(role, (Text(text),)) for role, text in (*turns, ("user", "f"))]
        messages = [_plain(segment.role, segment.text) for segment in segments]
        try:
            self._grow(Story(segments, messages, [()] * len(segments)))
        except (Rewritten, ModelError):
            return False
        return True


def _spoken(before: str, after: str, reply: str) -> str:
    """The reply as the template wrote it: as it is, or with other space around it than was sampled."""
    if not after.startswith(before):
        raise Rewritten
    rest, bare = after[len(before) :], reply.strip()
    spaced = rest[: len(rest) - len(rest.lstrip())] + bare
    for text in (reply, reply.rstrip(), reply.lstrip(), bare, *([spaced] if bare else [])):
        if rest.startswith(text):
            return text
    raise Rewritten


def _plain(role: str, text: str) -> Message:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _flat(media: Sequence[Sequence[Medium]]) -> tuple[Medium, ...]:
    return tuple(medium for some in media for medium in some)
