"""What a trajectory must be to be kept: each gate looks at one thing and names what is wrong with it.

Nothing here mends anything. What a gate refuses is counted in the yield under the gate's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..harness.episode import Trajectory
from ..harness.errors import UsageError
from ..harness.ledger import Conversation
from ..harness.protocol import CLOSE, OPEN
from ..harness.types import LETTERS, Box, OperationRecord, Sample, Size
from .geometry import SLACK, runs
from .templates import Plan, Scene
from .trajectories import Script
from .wording import phrases

Gate = Literal[
    "unreadable", "evaluated", "evidence", "unfit", "teacher", "early-answer", "performed", "unseen", "answer"
]
# What stands in a conversation for itself and may not be said by anyone.
# Where something is says nothing of what it shows.
BOXES = re.compile(r"\[(?:\d+(?:\.\d+)?, ){3}\d+(?:\.\d+)?\]")
FORBIDDEN = re.compile(r"</?tool_call>|<\|[a-z_]+\|>|</?tools>")
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_DIGITS = tuple(map(str, range(len(NUMBERS))))
_PIECES = sorted(phrases(), key=len, reverse=True)


@dataclass(frozen=True, slots=True)
class Refused(Exception):  # noqa: N818 - what became of a seed, not a fault of ours
    """A gate's refusal, in one line."""

    gate: Gate
    reason: str


def check_split(split: str, source: str) -> None:
    """Refuse data that are there to evaluate with. Raises UsageError."""
    if not re.fullmatch(r"train(ing)?([-_.:/]\w+)?", split.strip().lower()):
        message = f"source {source}: split {split!r} is no training split"
        raise UsageError(f"{message}; trajectories are made of `train` alone")


def check_evidence(sample: Sample, sizes: Sequence[Size]) -> None:
    """Refuse evidence that is nowhere in the media it is said to be in. Raises Refused."""
    for evidence in sample.evidence:
        if not 1 <= evidence.media <= len(sample.media):
            raise Refused("evidence", f"evidence in media {evidence.media}, of which there are {len(sample.media)}")
        medium, size = sample.media[evidence.media - 1], sizes[evidence.media - 1]
        if medium.kind == "video" and evidence.box:
            raise Refused("evidence", "a box in a video is no evidence that a call can show; name its frames")
        if evidence.box and (not _within(evidence.box, size) or evidence.box.area < 1):
            raise Refused("evidence", f"box {tuple(evidence.box)} is not within {size.width}x{size.height}")
        if any(not 1 <= frame <= medium.frames for frame in evidence.frames):
            raise Refused("evidence", f"frames {evidence.frames} are not within 1 to {medium.frames}")
        if evidence.frames and medium.kind == "image":
            raise Refused("evidence", "frames of an image are no evidence")
    if len({evidence.media for evidence in sample.evidence}) > 1:
        raise Refused("evidence", "the evidence is in several media; one call shows one of them")


def _within(box: Box, size: Size) -> bool:
    low = min(box.left, box.top) >= -SLACK
    return low and box.right <= size.width + SLACK and box.bottom <= size.height + SLACK


def check_script(script: Script, plan: Plan, sample: Sample, named: Sequence[str] = ()) -> None:
    """Refuse an answer that is stated before its evidence, and text that is not what it seems. Raises Refused.

    Args:
        named: what the sentences name, such as ``red square``.
    """
    asked = sample.question.casefold()
    harmless = [name for name in named if name.casefold() in asked]
    for number, said in enumerate(script):
        calling = number < len(plan.steps)
        text = re.sub(rf"{OPEN}.*?{CLOSE}$", "", said.text, flags=re.DOTALL) if calling else said.text
        if found := FORBIDDEN.search(text):
            raise Refused("teacher", f"turn {number + 1} holds {found[0]!r}, which only a protocol may write")
        if calling and (early := stated(text, sample, harmless)):
            raise Refused("early-answer", f"turn {number + 1} says {early!r} before the evidence is shown")


def stated(text: str, sample: Sample, harmless: Sequence[str] = ()) -> str:
    r"""What of the answer a text gives away: a box, an accepted answer or the text or letter of the right option.

    The sentences of ``training.wording``, and what the question itself names, say nothing of it and are left out;
    one letter is compared as it is written, so that an article is no answer.
    """
    if "\\boxed" in text:
        return "\\boxed"
    plain = BOXES.sub(" … ", text)
    for piece in (*_PIECES, *sorted(harmless, key=len, reverse=True)):
        plain = plain.replace(piece, " … ")
    for answer in answers(sample):
        flags = re.NOFLAG if len(answer) == 1 else re.IGNORECASE
        if re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", plain, flags):
            return answer
    if sample.answer_kind == "option":
        letters = "|".join(map(re.escape, sample.gold))
        said = re.search(rf"(?i:answer|option|choice)\W+(?:(?i:is|be)\W+)?({letters})(?!\w)|\(({letters})\)", plain)
        return said[0] if said else ""
    return ""


def answers(sample: Sample) -> list[str]:
    """The accepted answers as they would be said: texts, of options theirs, small numbers in digits and in words."""
    chosen = [choice for letter, choice in zip(LETTERS, sample.choices, strict=False) if letter in sample.gold]
    found = [text.strip().rstrip(".") for text in (chosen if sample.answer_kind == "option" else sample.gold)]
    return [text for text in found if text] + [NUMBERS[int(text)] for text in found if text in _DIGITS]


def check_performed(trajectory: Trajectory, plan: Plan, scene: Scene) -> None:
    """Refuse a trajectory whose calls did not do what they are there for. Raises Refused."""
    operations = trajectory.operations
    if len(operations) != len(plan.steps):
        raise Refused("performed", f"{len(operations)} calls were read where {len(plan.steps)} were written")
    for step, operation in zip(plan.steps, operations, strict=True):
        if step.part == "failing":
            if operation.error is None:
                raise Refused("performed", "a call that is to fail was executed by this protocol")
            continue
        if operation.error is not None:
            raise Refused("performed", f"{step.operation} failed: {operation.message}")
        shows, slack = _shows(operation, trajectory.conversation, scene)
        if step.part == "wrong" and shows != "nothing":
            raise Refused("unseen", f"a wrong call shows {shows} of the evidence")
        if step.part != "wrong" and shows != "all":
            raise Refused("unseen", f"the {step.part} shows {shows} of the evidence, up to {slack:g} pixels")


def _shows(operation: OperationRecord, conversation: Conversation, scene: Scene) -> tuple[str, float]:
    """How much of the evidence a call showed: ``all``, ``nothing`` or ``part``; and the slack in pixels."""
    if scene.video:
        evidence, shown = scene.evidence_frames(), set(operation.frames)
        if not shown & set(evidence):
            return "nothing", 0.0
        whole = shown <= set(evidence) or all(shown & set(run) for run in runs(evidence))
        return ("all" if whole else "part"), 0.0
    item, size = conversation.item(scene.target), scene.sizes[scene.target - 1]
    slack = SLACK * max(1.0, item.original.width / size.width, item.original.height / size.height)
    boxes = [evidence.box for evidence in scene.sample.evidence if evidence.box]
    cut = operation.root_box or Box(0, 0, 0, 0)
    roomy = Box(cut.left - slack, cut.top - slack, cut.right + slack, cut.bottom + slack)
    if all(roomy.intersection(box) == box for box in boxes):
        return "all", slack
    return ("nothing" if all(cut.intersection(box).area == 0 for box in boxes) else "part"), slack
