"""Reports of runs that mean harm, were broken by hand, or are asked for in a way that cannot be."""

import json
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prh.harness.errors import StoreError, UsageError
from prh.harness.store import decode_line
from prh.reports.episodes import visible
from prh.reports.report import Options, documents, report
from prh.tests.reports.looking import AFTER, BEFORE, Look, answer, hostile, samples
from prh.tests.reports.reading import HIDDEN, Tags, edited, prh, training
from prh.tests.reports.runs import make
from prh.tests.reports.unpack import parts as unpacked
from prh.tests.reports.unpack import pictures, sample


def test_hostile_texts_are_no_markup_in_markdown_and_hide_in_neither_form(tmp_path: Path) -> None:
    found = documents([str(run) for run in hostile(tmp_path)], Options(), ["json", "md"])
    assert not set(HIDDEN) & set(found["json"] + found["md"])
    assert not re.search(r"<(?!/?details|/?summary)", found["md"])
    json.loads(found["json"])


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "/etc/passwd", "media/none.png", "records.jsonl", "\0"])
def test_a_file_outside_the_run_or_of_no_image_is_named_and_not_embedded(
    name: str, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    def point(row: dict[str, Any]) -> None:
        for item in row["media"]:
            item["files"] = [name for _ in item["files"]]

    page = report([str(edited(runs[1], tmp_path / "run", point))], Options())
    assert not pictures(page)
    assert "could not be embedded" in page
    assert "root:x:0" not in page


@pytest.mark.parametrize(
    "change",
    [
        {"media": [{"index": "x"}]},
        {"usage": {}},
        {"operations": [{"turn": 1, "name": "x", "error": "odd", "box": None, "arguments": {}, "frames": []}]},
        {"choices": 3},
    ],
)
def test_a_record_that_was_broken_by_hand_is_one_line(
    change: dict[str, Any], runs: tuple[Path, Path], tmp_path: Path
) -> None:
    def broken(row: dict[str, Any]) -> None:
        row.update(change)

    with pytest.raises(StoreError, match=r"was it edited|another tool"):
        report([str(edited(runs[1], tmp_path / "run", broken))], Options())


def test_hidden_characters_of_a_models_name_are_shown_wherever_it_stands(tmp_path: Path) -> None:
    """With repeats, a matrix and published figures, each of which says whose it is."""
    made = samples(tmp_path / "data", 2, 0)
    names = [f"{name}{HIDDEN}" for name in ("base", "tuned")]
    runs = [Look(made, BEFORE, name, "vstar", repeats=2).at(tmp_path / name[:4]) for name in names]
    for words in (runs, [*runs, Look(made, AFTER, f"third{HIDDEN}", "vstar").at(tmp_path / "third")]):
        page = report([str(run) for run in words], Options())
        assert not set(HIDDEN) & set(page)
        text = " ".join(Tags(page).text)
        shown = visible(names[1])
        for words_around in (f"{shown} against base", f"{shown}: avg@2"):
            assert words_around in text
        assert re.search(rf'<tr class="own"><th scope="row">{re.escape(shown)}</th>', page)


def test_hidden_characters_and_long_texts_are_shown_and_bounded(tmp_path: Path) -> None:
    made = samples(tmp_path / "data", 2, 0)
    says = {"s0": (answer("A", "x" * 1_000_000),), "s1": (f"{HIDDEN} <script>alert(1)</script> \\boxed{{B}}",)}
    page = report([str(Look(made, says).at(tmp_path / "run"))], Options())
    assert len(page) < 600_000
    long = sample(page, "s0")["episodes"][0][0]["turns"][0]["text"]
    assert long.startswith("x" * 1000)
    assert re.search(r"\[980,0\d\d more characters in records.jsonl\]$", long)
    shown = sample(page, "s1")["episodes"][0][0]["turns"][0]["text"]
    assert not set(HIDDEN) & set(shown)
    assert "\\u202e" in shown
    assert "<script>alert(1)</script>" in shown  # in the compressed data, which a page shows as text
    assert "<script>alert(1)" not in page


def test_no_hidden_character_of_a_hostile_run_is_in_the_page(tmp_path: Path) -> None:
    page = report([str(run) for run in hostile(tmp_path)], Options(images="none"))
    assert not {"\u202e", "\u2028"} & set(page)
    assert not {"\u202e", "\u2028"} & set(json.dumps(unpacked(page), ensure_ascii=False))


@given(st.text(), st.integers(0, 60))
def test_visible_text_has_no_character_that_hides_and_no_length(text: str, longest: int) -> None:
    shown = visible(text, longest)
    assert shown.replace("\n", "").replace("\t", "").isprintable() or not text.isprintable()
    assert not set(HIDDEN) & set(shown)
    shown.encode()
    assert len(shown) <= 10 * longest + 60


@pytest.mark.parametrize(
    ("words", "hint"),
    [(["/nowhere"], "/nowhere"), (["RUN", "--profile", "strct"], "did you mean strict"), (["RUN", "RUN", "RUN"], "")],
)
def test_a_mistake_is_one_line(words: list[str], hint: str, runs: tuple[Path, Path], tmp_path: Path) -> None:
    given_words = [str(runs[0]) if word == "RUN" else word for word in words]
    if not hint:
        prh("report", *given_words, cwd=tmp_path)  # the same run again: labels tell them apart
        return
    done = prh("report", *given_words, cwd=tmp_path, code=2)
    assert hint in done.stderr
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("target", ["run/run.json", "run/metrics.json", "trained/training.json"])
def test_what_a_run_is_made_of_is_not_written_over(target: str, tmp_path: Path) -> None:
    make(tmp_path / "run", [1])
    training(tmp_path / "trained", 0, [0.1])
    before = (tmp_path / target).read_bytes()
    done = prh("report", "run", "-o", target, cwd=tmp_path, code=2)
    assert f"{target} is what a run is made of" in done.stderr
    assert (tmp_path / target).read_bytes() == before
    prh("report", "run", "-o", "elsewhere/run.json", cwd=tmp_path)


def test_more_than_a_page_can_show_is_refused() -> None:
    from prh.reports.field import MOST, field_of
    from prh.reports.runs import Entrant

    with pytest.raises(UsageError, match="at most"):
        field_of([Entrant(str(n), {}) for n in range(MOST + 1)], None, ())


def test_numbers_that_are_none_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    def change(row: dict[str, Any]) -> None:
        row["media"][0]["original"] = [float("nan"), 3]

    run = edited(runs[1], tmp_path / "run", lambda row: None)
    lines = (run / "records.jsonl").read_bytes().splitlines()
    rows = [record for line in lines if (record := decode_line(line))]
    change(rows[0])
    rest = json.dumps(rows[0] | {"crc": ""})[1:].encode()
    rest = b'"schema":1,' + rest
    (run / "records.jsonl").write_bytes(b'{"crc":"%08x",' % zlib.crc32(rest) + rest + b"\n")
    with pytest.raises(StoreError, match="cannot be shown"):
        report([str(run)], Options())


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_one_line(package: str, runs: tuple[Path, Path], tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
sys.argv = ["prh", "report", {str(runs[1])!r}, "-o", {str(tmp_path / "r.html")!r}]
from prh.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'pip install "prh[report]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1
