r"""Every sentence that a trajectory says by itself, as data: what stands here is all that a tokenizer need know.

A question whose form is known has sentences of its own; any other has the generic ones. ``{target}`` is what the
question is about, ``{value}`` what is found. They are short and plain on purpose: few words, the same each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

BOXED = "\\boxed{{{answer}}}"
# Between what is said in a turn and what is done in it.
BREAK = "\n"


@dataclass(frozen=True, slots=True)
class Words:
    """The sentences about one form of question.

    Attributes:
        subject: what is looked for, as the other sentences name it.
        overview: what is said of the whole input before anything is done.
        spot: what is said, before a crop of what is looked for, of where that is.
        zoom, select: what is said with a call.
        wrong_crop, wrong_frames: what is said of a crop or of frames that show something else.
        wide: what is said of a crop that shows too much.
        failed: what is said of a call that failed.
        noticed: what is said of the whole input in every trajectory, where the annotations know what it names.
        places: what is said of where the named things are, in an answer at once; needs their boxes.
        finding: what is said of the cue.
        one: the same where the value is 1.
    """

    subject: str = "the {target}"
    overview: str = "The question is about {subject}."
    spot: str = ""
    zoom: str = "Now I will zoom in to look closer at {subject}."
    select: str = "Now I will select some frames to look closer at {subject}."
    wrong_crop: str = "This does not show {subject}."
    wrong_frames: str = "These frames do not show it."
    wide: str = "This shows too much around {subject}."
    failed: str = "That did not work."
    noticed: str = ""
    places: str = ""
    finding: str = "It shows that the answer is {value}."
    one: str = ""

    def sentences(self) -> dict[str, str]:
        """The sentences by name, the subject filled in."""
        texts = {field.name: str(getattr(self, field.name)) for field in fields(self) if field.name != "subject"}
        return {name: text.replace("{subject}", self.subject) for name, text in texts.items()}

    def say(self, name: str, values: Mapping[str, str]) -> str:
        """One sentence with its values. Raises KeyError where one is missing."""
        chosen = "one" if name == "finding" and self.one and values.get("value") == "1" else name
        text = re.sub(r"\{(\w+)\}", lambda found: values[found[1]], self.sentences()[chosen])
        return text[:1].upper() + text[1:]


@dataclass(frozen=True, slots=True)
class Form:
    """A form of question: how it is known, and what is said about it."""

    name: str
    pattern: re.Pattern[str]
    words: Words


def _form(name: str, pattern: str, **sentences: str) -> Form:
    return Form(name, re.compile(pattern), Words(**sentences))


_ANY = "(?P<target>.+)"
# As the drills of a practice say where a thing is, so that a call has only to repeat it.
SPOT = "{subject} is at {box}."
_STATE = "(?P<target>object that is (?P<state>moving|stationary))"
FORMS: tuple[Form, ...] = (
    _form(
        "side",
        rf"Is the {_ANY} on the left or right side of the (?P<other>.+)\?",
        subject="the {target} and the {other}",
        places="The {target} is at {box}. The {other} is at {other_box}.",
        finding="{value}.",
    ),
    _form(
        "dot by state",
        rf"What is the colour of the dot on the {_STATE}\?",
        noticed="The {actor} is {state}.",
        finding="The dot is {value}.",
    ),
    _form(
        "digit by state",
        rf"Which digit is on the {_STATE}\?",
        noticed="The {actor} is {state}.",
        finding="The digit is {value}.",
    ),
    _form("dot", rf"What is the colour of the dot on the {_ANY}\?", spot=SPOT, finding="The dot is {value}."),
    _form("digit", rf"Which digit is on the {_ANY}\?", spot=SPOT, finding="The digit is {value}."),
    _form(
        "count",
        rf"How many dots are on the {_ANY}\?",
        spot=SPOT,
        finding="There are {value} dots.",
        one="There is {value} dot.",
    ),
    _form(
        "value",
        rf"What is the value of {_ANY}\?",
        subject="the value of {target}",
        spot=SPOT,
        finding="The value is {value}.",
    ),
    _form(
        "item",
        rf"Which item has the value {_ANY}\?",
        subject="the item with the value {target}",
        spot=SPOT,
        finding="The item is {value}.",
    ),
    _form(
        "direction",
        rf"What direction is the {_ANY} moving within the video\?",
        places="The {target} is at {box}. Then it is at {other_box}.",
        finding="It moves {value}.",
    ),
    _form("change", rf"What does the colour of the dot on the {_ANY} change to\?", finding="The dot is then {value}."),
    _form(
        "flashes",
        rf"How many times does a dot flash on the {_ANY}\?",
        finding="The dot flashes {value} times.",
        one="The dot flashes {value} time.",
    ),
    _form(
        "order",
        rf"Which letter is shown (?P<place>first|last) on the {_ANY}\?",
        finding="The {place} letter is {value}.",
    ),
)
GENERIC = Form("generic", re.compile(""), Words())
UNNAMED = "part that the question is about"


def form_of(question: str) -> tuple[Form, dict[str, str]]:
    """The form of a question and what it names; the generic form, which names nothing, for any other."""
    for form in FORMS:
        if found := form.pattern.fullmatch(question.strip()):
            return form, {name: str(value) for name, value in found.groupdict().items()}
    return GENERIC, {}


def phrases() -> list[str]:
    """Every fixed piece of the sentences, once: what stands between the values that are filled in."""
    return list(dict.fromkeys(_pieces()))


def _pieces() -> Iterator[str]:
    for form in (*FORMS, GENERIC):
        for name, text in form.words.sentences().items():
            if name == "spot":
                continue  # pieces that the drills have in common with it are there; more would be another vocabulary
            yield from (piece for piece in re.split(r"\{\w+\}", text) if len(piece.strip()) > 1)
    yield UNNAMED
