"""Drills as conversations in the protocol that a checkpoint will speak, and as what a training step needs of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from PIL import Image

from ..harness.ledger import Conversation, MediaItem, Part, Segment, Shown, Text
from ..harness.media import resize
from ..harness.operations import Outcome
from ..harness.settings import Setting
from ..harness.types import Box, Size, Span
from .drills import Drill
from .examples import Example, Weighing, encode
from .trainable import Trainable

TALL = 1 << 30
# Frames as they were reduced before, by frame and size, with the frame, so that its id stays its own.
Reduced = dict[tuple[int, Size], tuple[Image.Image, Image.Image]]


def exercise(
    name: str, drill: Drill, engine: Trainable, setting: Setting, how: Weighing, reduced: Reduced | None = None
) -> Example:
    """A drill as an example; what is given of its reply counts nothing. For ``reduced`` see `talk`."""
    made = encode(name, talk(drill, engine, setting, reduced), engine, how, TALL)
    if not drill.given:
        return made
    weights, left = made.weights.copy(), drill.given
    for place in np.flatnonzero(weights):
        left -= len(engine.processor.decode([int(made.ids[place])]))
        if left < 0:
            break
        weights[place] = 0
    return replace(made, weights=weights if how == "tokens" else weights * (made.weights.sum() / weights.sum()))


def talk(drill: Drill, engine: Trainable, setting: Setting, reduced: Reduced | None = None) -> Conversation:
    """A drill as a conversation in the setting's protocol, its reply trained.

    Args:
        reduced: frames that other drills have shown; what this one shows is added.
    """
    reduced = {} if reduced is None else reduced
    conversation = Conversation("drill", "drill", engine.fit, setting.budget)
    budget = setting.budget
    if drill.clip:
        _show(conversation, "video", drill.frames, budget.video_frame, reduced)
    else:
        for frame in drill.frames:
            span = (budget.selected_frame if len(drill.frames) > 1 else budget.crop) if drill.close else budget.input
            _show(conversation, "image", (frame,), span, reduced)
    for role, parts in setting.protocol.opening(drill.sample, conversation):
        conversation.commit(Segment(role, parts))
    if drill.call:
        conversation.commit(Segment("assistant", (Text(drill.call),)))
        conversation.commit(Segment(setting.protocol.observation_role, _announced(setting)))
    conversation.commit(Segment("assistant", (Text(drill.reply),), trained=True))
    return conversation


def _announced(setting: Setting) -> tuple[Part, ...]:
    """What is said of a crop, without the crop."""
    side = math.isqrt(setting.budget.crop[1])
    size = Size(side, side)
    item = MediaItem(2, "image", "", "", size, size, 1, 1, Box(0, 0, *size), 0, ())
    said = setting.protocol.render_observation(Outcome((), 1, noun="cropped image"), [item], [size], [])
    return tuple(part for part in said if isinstance(part, Text))


def _show(conversation: Conversation, kind: str, frames: tuple[Image.Image, ...], span: Span, reduced: Reduced) -> None:
    size = Size(*frames[0].size)
    seen = conversation.fit(size, span)
    index = len(conversation.items) + 1
    digests = tuple(map(str, range(len(frames)))) if kind == "video" else ()
    item = MediaItem(index, kind, "", "", size, seen, 0, index, Box(0, 0, *size), 0, digests)
    conversation.items.append(item)
    for frame in frames:
        if (id(frame), seen) not in reduced:
            reduced[id(frame), seen] = frame, resize(frame, seen)
    conversation.shown.append(Shown(frames, tuple(reduced[id(frame), seen][1] for frame in frames)))
