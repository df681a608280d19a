"""What the embedded checkpoints' tokenizer holds beside bytes: words, and texts that are always the same.

Nothing is said otherwise for it: a token stands for text that a protocol, a synthetic miniature or a trajectory
writes anyway. It makes a prompt of some thirty tokens of one that would have five hundred.
"""

from __future__ import annotations

import json
from itertools import product

from ..harness.errors import OperationError
from ..harness.ledger import Conversation, MediaItem
from ..harness.operations import CropImage, Outcome, SelectFrames
from ..harness.protocol import Protocol
from ..harness.protocols import CROP, SELECT, Direct, PixelReasoner
from ..harness.types import Box, Call, Sample, Size

CELL, CELLS = 28, 25
HEADERS = ("system\n", "user\n", "assistant\n")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
SHAPES = ("square", "circle", "triangle", "diamond")
DOTS = ("white", "yellow", "cyan", "magenta")
GOODS = "beans bread cocoa corn dates eggs fish glass gold honey iron limes milk nuts plums rice salt sugar wheat wool"
WORDS = (
    "What Which Where How Is Are Look The a an the of in on at to is are has and or not many much see this that there "
    "image picture frame video object shape color colour number digit word letter sign dot dots line box crop zoom "
    "red green blue yellow purple orange black white grey gray pink cyan brown dark light "
    "square circle triangle diamond star cross ring bar small large left right top bottom middle center above below "
    "between next near inside first last one two three four five six seven eight nine ten yes no answer"
)
# Sentences of the miniatures' questions and of the trajectories about them, cut where something is filled in.
PHRASES = (
    "What is the colour of the dot on the",
    "How many dots are on the",
    "Which digit is on the",
    "How many coloured",
    "s are there?",
    "Is the",
    " on the left or right side of the",
    " is on the left side of the",
    " is on the right side of the",
    "What is the value of",
    "Which item has the value",
    "What direction is the",
    " moving within the video?",
    " object that is moving?",
    " object that is stationary?",
    "What does the colour of the dot on the",
    " change to?",
    "How many times does a dot flash on the",
    "Which letter is shown first on the",
    "Which letter is shown last on the",
    " Up.",
    " Down.",
    " To the left.",
    " To the right.",
    " up",
    " down",
    " to the left",
    " to the right",
    "Where is the",
    "Where are the",
    "Where is the value of",
    "Where are the value of",
    "Where is the item with the value",
    "Where are the item with the value",
    " and the",
    " and the value of",
    " and the item with the value",
    "The value of",
    "The item with the value",
    " is at [",
    " Then it is at [",
    " The dot is",
    " The digit is",
    " It moves",
    "].",
    " is moving.",
    " is stationary.",
    " \\boxed{",
    " The",
    " The value of",
    " The item with the value",
    "The question is about the",
    "The question is about the value of",
    "The question is about the item with the value",
    "The question is about the object that is moving",
    "The question is about the object that is stationary",
    "Now I will zoom in to look closer at the",
    "Now I will zoom in to look closer at the value of",
    "Now I will zoom in to look closer at the item with the value",
    "Now I will zoom in to look closer at the object that is moving",
    "Now I will zoom in to look closer at the object that is stationary",
    "Now I will select some frames to look closer at the",
    "Now I will select some frames to look closer at the object that is moving",
    "Now I will select some frames to look closer at the object that is stationary",
    "This does not show the",
    "This does not show the value of",
    "This does not show the item with the value",
    "These frames do not show it.",
    "This shows too much around the",
    "This shows too much around the value of",
    "This shows too much around the item with the value",
    "That did not work.",
    "It shows that the answer is",
    "The dot is",
    "The dot is then",
    "The digit is",
    "There are",
    "There is",
    " dots.",
    " dot.",
    "The value is",
    "The item is",
    "It moves",
    "The dot flashes",
    " times.",
    " time.",
    "The first letter is",
    "The last letter is",
)
_MARK = "\0"
_NUMBER = 70707


def fixed_texts() -> list[str]:
    """The texts that the built-in protocols say or ask for again and again, without what varies in them."""
    operations = (CropImage(), SelectFrames())
    crop, both, direct = PixelReasoner(operations[:1]), PixelReasoner(operations), Direct()
    pieces = [protocol.system_prompt() for protocol in (crop, both, direct)]
    choices = (_MARK,) * 6
    for protocol in (both, direct):
        # The space before an option is the option's, so that it is the token it is amid a sentence.
        asked = protocol.question(Sample("", _MARK, (), (), "option", choices)).split(_MARK)
        pieces += [piece.removesuffix(" ") for piece in asked]
        pieces += protocol.question(Sample("", _MARK, (), (), "text")).split(_MARK)
    boxes = [f"{tenth / 10:.1f}" for tenth in range(11)]
    called = {CROP.name: {"bbox_2d": [_MARK], "target_image": _MARK}, SELECT.name: {"target_frames": [_MARK]}}
    for name, arguments in called.items():
        call = json.dumps({"name": name, "arguments": arguments}).replace(json.dumps(_MARK), _MARK)
        pieces += f"<tool_call>\n{call}\n</tool_call>".split(_MARK)
    pieces += _observations(both)
    return list(dict.fromkeys(piece for piece in [*pieces, *boxes, ", ", "\\boxed{"] if len(piece) > 1))


def _observations(protocol: Protocol) -> list[str]:
    item = MediaItem(_NUMBER, "crop", "", "", Size(1, 1), Size(1, 1), 0, 1, Box(0, 0, 1, 1))
    size = Size(_NUMBER, _NUMBER)
    pieces: list[str] = []
    for noun, items in (("cropped image", [item]), ("selected frames", [item, item])):
        for part in protocol.render_observation(Outcome((), 1, noun=noun), items, [size] * len(items), []):
            pieces += getattr(part, "text", "").split(str(_NUMBER))
    unused = Conversation("", "", lambda size, _: size, protocol.budget)
    for part in protocol.render_error(OperationError("parse", _MARK), Call("", None), unused):
        pieces += getattr(part, "text", "").split(_MARK)
    return pieces


def plain_tokens() -> list[str]:
    """The added tokens that are ordinary text: tool tags, fixed texts, and words with the space before them."""
    words = [word if word[0].isupper() else f" {word}" for word in (*WORDS.split(), *GOODS.split(), *DOTS)]
    alone = [*COLOURS, *DOTS, *GOODS.split(), *(f" {digit}" for digit in range(10))]
    names = [f" {colour} {shape}" for colour, shape in product(COLOURS, SHAPES)]
    sizes = [
        f"{CELL * wide}x{CELL * high}" for wide, high in product(range(1, CELLS + 1), repeat=2) if wide * high <= CELLS
    ]
    texts = ["<tool_call>", "</tool_call>", *fixed_texts(), *HEADERS, *PHRASES, *names, *words, *alone, *sizes]
    return list(dict.fromkeys(texts))
