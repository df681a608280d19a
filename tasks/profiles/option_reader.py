"""The letter that a reply gives as its answer to a multiple-choice question."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from ...harness.types import LETTERS
from .replies import plain, undressed

_ALONE = re.compile(r"(?:(?:option|choice|answer)\b[\s:]*)?[(\[]?\s*([A-Za-z])\s*[)\]]?\s*[.,:;]?", re.IGNORECASE)
_HEADED = re.compile(r"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*[.:)]|([A-Za-z])\s+-)\s*(.+)", re.DOTALL)
_BRACKETED = r"[(\[]\s*(?P<in>[A-Za-z])\s*[)\]]"
_BARE = r"(?<![\w'])(?P<bare>[A-Z])(?![\w'])|(?<![\w'])(?P<small>[a-z])(?=[ \t]*(?:[.):]|$))"
_ARTICLE = re.compile(r"\s+(?!(?:is|and|or|because|since|as|with|which|for|given|based|due)\b)[a-z]")
_CUE = re.compile(
    r"\b(?:(?:answer|choice|option|selection)\b(?:\s+(?:to|for|here)\b[^.:\n]{0,60}?)?"
    r"(?:\s*[:=]|\s+(?:is|(?:would|should|must|will)\s+be)\b)"
    r"|(?:choose|pick|select|go(?:ing)?\s+with)\b)"
    r"[\s:\"']*(?:(?:the|an?)\s+)?(?:(?:option|choice|letter|answer)\b[\s:]*)?[\"'(]*$",
    re.IGNORECASE,
)
_JOIN = re.compile(
    r"[\s\"')\]]*(?:[,/&(:)-]|\band\b|\bor\b)[\s\"']*(?:(?:and|or)\s+)?(?:option\s+|the\s+|an?\s+)?", re.IGNORECASE
)
_CORRECT = re.compile(
    r"[\s)\]\"']*\bis\s+(?:\w+ly\s+)?(?:the\s+)?(?:correct|right|best|true|answer)\b"
    r"(?:\s+(?:answer|option|choice|one)\b)?(?=\s*(?:[.,;:!\n]|$|because\b|since\b|as\b))"
)
_OPTION = re.compile(r"\b(?:option|choice|answer)\s+$", re.IGNORECASE)
_LINE = re.compile(r"(?:^|\n)[ \t>#-]*$")
_HEAD = re.compile(r"[ \t]*(?:[.:)]|\n|$)|[ \t]+-")
_DENIED = re.compile(
    r"(?:\b(?:not|no(?! doubt)|never|neither|nor|cannot|unlikely|unsure|whether|if)|n't) +"
    r"(?:(?!so\b|and\b|but\b|hence\b|thus\b|therefore\b)[\w(\"']+ +){0,3}[(\"']*$",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"[\s)\]\"']*\b(?:(?:can)?not\b|(?:is|are|was|were|can|does|do|would|seems)\s*(?:n't|not)\b"
    r"|(?:is|are|can\s+be|seems)\s+(?:\w+ly\s+)?(?:wrong|incorrect|false|ruled|eliminated|excluded|unlikely|impossible))",
    re.IGNORECASE,
)


class Sighting(NamedTuple):
    """A place in a reply where an option is named.

    Attributes:
        letter: the option; empty where several options have this text.
        bare: a letter without brackets, which may be part of the prose.
    """

    letter: str
    start: int
    end: int
    bare: bool


class OptionReader:
    """Reads answers to one question.

    Options with the same text are one, the first of them. Texts that differ only in case or punctuation
    cannot be told apart, and a text that is itself an option's letter means that letter.
    """

    def __init__(self, choices: Sequence[str]) -> None:
        self.choices = choices
        self.letters = LETTERS[: len(choices)]

    # A letter in a box is read without these, which cost as much as reading a record.
    @cached_property
    def plain(self) -> tuple[str, ...]:
        """The options' texts without case and punctuation."""
        return tuple(map(plain, self.choices))

    @cached_property
    def texts(self) -> dict[str, str]:
        """The letter that a plain text means; empty where several options have it."""
        found: dict[str, str] = {}
        for letter, choice, key in zip(self.letters, self.choices, self.plain, strict=False):
            if key and key.upper() not in tuple(self.letters):
                known = found.setdefault(key, letter)
                if known and self.choices[self.letters.index(known)].strip() != choice.strip():
                    found[key] = ""
        return found

    @cached_property
    def longest(self) -> list[str]:
        """The plain texts, longest first."""
        return sorted(self.texts, key=len, reverse=True)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Where a reply names an option."""
        spaced = [r"\s+".join(map(re.escape, text.split())) for text in self.longest]
        options = "|".join(f"(?P<t{i}>(?<!\\w)(?i:{text})(?!\\w))" for i, text in enumerate(spaced))
        return re.compile("|".join(filter(None, (options, _BRACKETED, _BARE))), re.MULTILINE)

    def form(self, content: str) -> str | None:
        """The answer in a box: ``B``, ``(b)``, ``Option B.``, ``B: lion`` or an option's exact text."""
        text = " ".join(undressed(content).split()).strip("\"'_ ")
        alone = _ALONE.fullmatch(text)
        if alone and alone[1].upper() in self.letters:
            return alone[1].upper()
        if plain(content) in self.texts:
            return self.texts[plain(content)] or None
        headed = _HEADED.fullmatch(text)
        letter = next(filter(None, headed.groups()), "").upper() if headed else ""
        if headed is None or letter not in self.letters:
            return None
        own = plain(headed[4]) == self.plain[self.letters.index(letter)]
        return letter if own or {sighting.letter for sighting in self._seen(headed[4])} <= {letter} else None

    def prose(self, reply: str) -> tuple[str | None, str]:
        """The one option that a reply states or else mentions, and which; two, or a denied one, are no answer."""
        text = undressed(reply)
        seen = list(self._seen(text))
        if letters := set(_stated(text, seen)):
            rule = "stated"
        else:
            letters, rule = set(_mentioned(text, seen)), "option"
        letter = letters.pop() if len(letters) == 1 else None
        return (letter, rule) if letter else (None, "")

    def _seen(self, text: str) -> Iterator[Sighting]:
        for match in self.pattern.finditer(text):
            name = match.lastgroup or ""
            bare = name in ("bare", "small")
            letter = match[name].upper() if bare or name == "in" else self.texts[self.longest[int(name[1:])]]
            if name == "bare" and letter in "AI" and _ARTICLE.match(text, match.end()):
                continue
            if letter in self.letters:
                yield Sighting(letter, match.start(), match.end(), bare)


def _before(text: str, sighting: Sighting) -> str:
    return text[max(0, sighting.start - 100) : sighting.start]


def _stated(text: str, seen: Sequence[Sighting]) -> Iterator[str]:
    """Options named after "the answer is" and its like, those joined to them, and those called correct."""
    last: Sighting | None = None
    for sighting in seen:
        before = _before(text, sighting)
        cue = _CUE.search(before)
        joined = last is not None and _JOIN.fullmatch(text[last.end : min(sighting.start, last.end + 40)])
        if joined or (cue and not _DENIED.search(before[: cue.start()])):
            last = sighting
            yield sighting.letter
        elif _CORRECT.match(text, sighting.end) and not _DENIED.search(before):
            yield sighting.letter


def _mentioned(text: str, seen: Sequence[Sighting]) -> Iterator[str]:
    """Options pointed at: in brackets, after "option", at the head of a line, or by their text; "" for a denied one."""
    for sighting in seen:
        before = _before(text, sighting)
        headed = _LINE.search(before) and _HEAD.match(text, sighting.end)
        if not sighting.bare or headed or _OPTION.search(before):
            denied = _DENIED.search(before) or _REFUSED.match(text, sighting.end)
            yield "" if denied else sighting.letter
