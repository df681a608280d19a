"""Questions and answers as released training data bake them: options and instructions in the text, answers boxed.

Unpicking is text work and takes back what it recognises alone: what does not have a known shape stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...harness.media import Media
from ...harness.protocols import NO_TOOLS
from ...harness.types import LETTERS, AnswerKind, Sample, finite
from ...harness.untrusted import loads

# instructions that stand at the end of Pixel Reasoner's prompts (datasets/prompts_dataset.py of its release)
INSTRUCTIONS = (NO_TOOLS, NO_TOOLS.replace("think", "reason"))
_GUIDELINES = re.compile(r"\n\s*\n\s*Guidelines:")
_PLACEHOLDERS = re.compile(r"\s*(?:<(?:image|video)>\s*)+")
_OPTION = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])[:.)])\s*(\S.*)")
_HEADING = re.compile(r"\s*(?:choices|options):\s*", re.IGNORECASE)
_ITEM = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?"""
_LIST = re.compile(rf"\[\s*(?:{_ITEM})(?:\s*,\s*(?:{_ITEM}))*\s*\]", re.DOTALL)


def unpicked(text: str) -> tuple[str, tuple[str, ...]]:
    """The bare question and the options of a baked text.

    Placeholders of media at its start go, as do a paragraph ``Guidelines: ..`` and other known instructions at its
    end. Options are lines at the end that begin with ``A: ``, ``A. ``, ``A) `` or ``(A) ``, from A on without a gap,
    below a line ``choices:`` or ``options:`` or none.
    """
    bare = _without_instructions(_PLACEHOLDERS.sub("", text, count=1) if _PLACEHOLDERS.match(text) else text)
    lines = bare.split("\n")
    found = _OPTION.fullmatch(lines[-1])
    count = LETTERS.index(found.group(1) or found.group(2)) + 1 if found else 0
    options = [_OPTION.fullmatch(line) for line in lines[-count:]] if 2 <= count < len(lines) else []
    head = lines[: len(lines) - len(options)]
    if options and len(head) > 1 and _HEADING.fullmatch(head[-1]):
        head.pop()
    question = "\n".join(head).strip()
    choices = tuple(option.group(3).strip() for option in options if option)
    letters = "".join(option.group(1) or option.group(2) for option in options if option)
    if not question or not choices or letters != LETTERS[: len(options)]:
        return bare, ()
    return question, choices


def _without_instructions(text: str) -> str:
    found = list(_GUIDELINES.finditer(text))
    text = (text[: found[-1].start()] if found else text).strip()
    for instruction in INSTRUCTIONS:
        text = text.removesuffix(instruction).strip()
    return text


def unboxed(text: str) -> tuple[str, ...]:
    r"""The accepted answers in a gold such as ``\boxed{B}`` or ``\boxed{['two', '2']}``; a plain text is itself."""
    inner = boxed(text)
    whole = text.strip()
    if inner is None or whole != f"\\boxed{{{inner}}}":
        inner = whole
    inner = inner.strip()
    return _listed(inner) or ((inner,) if inner else ())


def boxed(text: str) -> str | None:
    r"""What stands in the last ``\boxed{..}`` of a text, braces matched; None for none, or one that is not closed."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[begin:place]
    return None


def _listed(text: str) -> tuple[str, ...]:
    """The items of a list of texts and numbers written as JSON or as Python writes it; empty for anything else."""
    if not text.startswith("["):
        return ()
    try:
        value = loads(text)
    except ValueError:
        if not _LIST.fullmatch(text):
            return ()
        value = [_unquoted(item) for item in re.findall(_ITEM, text, re.DOTALL)]
    items = value if isinstance(value, list) else []
    if not all(isinstance(item, str) or finite(item) is not None for item in items):
        return ()
    return tuple(text for item in items if (text := str(item).strip()))


def _unquoted(item: str) -> str:
    return re.sub(r"\\(.)", r"\1", item[1:-1], flags=re.DOTALL) if item[0] in "'\"" else item


def letters_of(text: str, choices: Sequence[str]) -> tuple[str, ...]:
    """The letters that an answer means: a letter, bracketed or not, or the text of choices; empty where it is neither.

    Empty too where it is both, for different choices: it cannot be known which is meant.
    """
    known = LETTERS[: len(choices)]
    bare = re.fullmatch(r"\(?([A-Z])[).:]?", text.strip())
    letter = (bare.group(1),) if bare and bare.group(1) in known else ()
    same = tuple(name for name, choice in zip(known, choices, strict=True) if choice.strip() == text.strip())
    return () if letter and same and letter != same else letter or same


def kind_of(choices: Sequence[str], gold: Sequence[str]) -> AnswerKind:
    """What answers are: options where there are choices, whole numbers, numbers, else text."""
    if choices:
        return "option"
    if gold and all(re.fullmatch(r"-?[0-9]{1,18}", text) for text in gold):
        return "integer"
    return "number" if gold and all(re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", text) for text in gold) else "text"


def question(name: str, text: str, media: tuple[Media, ...], gold: tuple[str, ...]) -> Sample:
    """A sample from a baked question. Options whose answer is none of them stay in the question."""
    bare, choices = unpicked(text)
    letters = [letters_of(answer, choices) for answer in gold] if choices else []
    if choices and gold and not all(letters):
        options = "\n".join(f"{LETTERS[place]}: {choice}" for place, choice in enumerate(choices))
        bare, choices = f"{bare}\nchoices:\n{options}", ()
    if choices:
        gold = tuple(dict.fromkeys(letter for some in letters for letter in some))
    category = name.rpartition("-")[0]
    cluster = media[0].name if media else ""
    return Sample(name, bare, media, gold, kind_of(choices, gold), choices, category, (), cluster)
