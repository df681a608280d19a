"""Questions whose options or answers are baked into a text."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prh.training.sources.baked import boxed, letters_of, unboxed, unpicked

plain = st.text(st.characters(codec="ascii", categories=["L", "N", "Zs"]), min_size=1, max_size=20).map(str.strip)
words = plain.filter(bool).filter(lambda text: len(text) > 1)
SHAPES: dict[str, Callable[[str], str]] = {
    "{}: ": lambda rows: f"\nchoices:\n{rows}",
    "({}) ": lambda rows: f"\nOptions:\n{rows}",
    "{}. ": lambda rows: f"\n{rows}",
}


@given(words, st.lists(words, min_size=2, max_size=26), st.sampled_from(sorted(SHAPES)), st.booleans(), st.booleans())
def test_options_are_unpicked_from_the_shapes_they_are_baked_in(
    text: str, options: list[str], shape: str, placed: bool, guided: bool
) -> None:
    rows = "\n".join(shape.format(chr(65 + place)) + option for place, option in enumerate(options))
    guide = "\n\n\n\nGuidelines: Understand the query. Put your answer within \\boxed{}." if guided else ""
    baked = ("<image>\n" if placed else "") + text + SHAPES[shape](rows) + guide
    assert unpicked(baked) == (text, tuple(options))


@given(st.text(max_size=200))
def test_unpicking_never_invents(text: str) -> None:
    question, choices = unpicked(text)
    assert question in text
    assert all(choice in text for choice in choices)
    assert not choices or (question and len(choices) >= 2)


@given(st.text(max_size=60))
def test_unboxing_never_fails(text: str) -> None:
    for wrapped in (text, f"\\boxed{{{text}}}", f"[{text}]", f"\\boxed{{[{text}]}}"):
        assert all(isinstance(answer, str) for answer in unboxed(wrapped))
    boxed(text)


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("\\boxed{B}", ("B",)),
        (" \\boxed{\\frac{1}{2}} ", ("\\frac{1}{2}",)),
        ("42%", ("42%",)),
        ("\\boxed{['two', \"it's 2\", 'don\\'t']}", ("two", "it's 2", "don't")),
        ('\\boxed{["two", 2]}', ("two", "2")),
        ("\\boxed{[1, 2.5]}", ("1", "2.5")),
        ("\\boxed{[__import__('os').getcwd()]}", ("[__import__('os').getcwd()]",)),
        ("\\boxed{[a] and [b]}", ("[a] and [b]",)),
        ("\\boxed{A} or \\boxed{B}", ("\\boxed{A} or \\boxed{B}",)),
        ("\\boxed{}", ()),
        ("\\boxed{A", ("\\boxed{A",)),
    ],
)
def test_golds_are_unboxed_and_never_evaluated(text: str, answers: tuple[str, ...]) -> None:
    assert unboxed(text) == answers


def test_letters_are_read_and_ambiguity_is_not_guessed() -> None:
    assert letters_of("(b)", ("x", "y")) == ()
    assert [letters_of(text, ("x", "y")) for text in ("B", "(B)", "B.", "y", "C")] == [("B",)] * 4 + [()]
    assert letters_of("A", ("B", "A")) == ()
    assert letters_of("A", ("A", "B")) == ("A",)
    assert letters_of("x", ("x", "y", "x")) == ("A", "C")
