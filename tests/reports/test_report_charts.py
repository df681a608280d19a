"""What a report draws: figures with their margins, trainings, published figures, and pictures of a size."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from prh.harness.errors import StoreError
from prh.reports.album import BUDGET, SIDES, Album
from prh.reports.baselines import published
from prh.reports.charts import Line, Point, curves, forest, parts
from prh.reports.curves import read_training, views
from prh.reports.episodes import visible
from prh.reports.limits import read_limits
from prh.reports.report import Options, report
from prh.tests.harness.test_plugins import install
from prh.tests.reports.reading import Tags, prh, training
from prh.tests.reports.runs import make


@settings(max_examples=8)
@given(st.text(max_size=30), st.floats(-1, 1), st.floats(0, 0.5))
def test_charts_have_no_style_and_are_the_same_twice(label: str, value: float, half: float) -> None:
    shown = visible(label)
    line = Line(shown, (Point(1, value, value - half, value + half),), half, strong=True, link="#task=x")
    drawn = [forest([line], [0.02], "A chart"), parts([("%", [line]), ("%", [line])], "A chart", "p")]
    assert drawn == [forest([line], [0.02], "A chart"), parts([("%", [line]), ("%", [line])], "A chart", "p")]
    for svg in drawn:
        assert not re.search(r"style=|<style|<metadata|<script|#0000[01]\d|<!--", svg)
        assert "var(--run-1)" in svg


def test_a_task_with_a_margin_of_its_own_has_a_line_of_its_own(tmp_path: Path) -> None:
    for model in ("base", "tuned"):
        make(tmp_path / model / "vstar", [1] * 40, model=model)
        make(tmp_path / model / "infographics", [1] * 40, model=model, task="infographicsvqa-mini")
    words = [str(tmp_path / model) for model in ("base", "tuned")]
    own = {"gate": {"margin": 0.1, "tasks": {"vstar-mini": {"margin": 0.03}}}}
    pages = [report(words, Options(limits=read_limits(config))) for config in (own, {"gate": {"margin": 0.1}})]
    texts = [" ".join(Tags(page).text) for page in pages]
    lies = "lies above \u221210 points on infographicsvqa-mini, \u22123 points on vstar-mini. Regression"
    assert lies in texts[0]
    assert "margin of the verdict, 10 points on infographicsvqa-mini, 3 points on vstar-mini." in texts[0]
    assert "lies above \u221210 points. Regression" in texts[1]
    assert "margin of the verdict, 10 points." in texts[1]
    dotted = [page.partition("</style>")[2].count('stroke-dasharray="') for page in pages]
    assert dotted[0] > dotted[1] == 1


def test_a_curve_has_a_band_where_seeds_differ() -> None:
    points = [(1.0, 0.5, 0.4, 0.6), (2.0, 0.6, 0.5, 0.7)]
    flat = [(step, value, value, value) for step, value, _, _ in points]
    assert "FillBetween" in curves([("a", points)], "t", "l", "c")
    assert "FillBetween" not in curves([("a", flat)], "t", "l", "c")


def test_trainings_that_differ_in_their_seed_alone_are_one_line_with_a_band(tmp_path: Path) -> None:
    own = [training(tmp_path / f"s{seed}", seed, [0.2 + 0.1 * seed, 0.5]) for seed in range(3)]
    other = training(tmp_path / "other", 0, [0.1, 0.2], rate=0.2)
    shown = views([read_training(folder) for folder in (*own, other)])
    assert len(shown) == 2  # RaPR and loss; what a step took is no curve
    assert "s0 and 2 more seeds" in str(shown[0]["svg"])
    assert ">other<" in str(shown[0]["svg"])
    page = report([str(folder) for folder in (*own, other)], Options())
    assert "Mean and 95 % band over 3 seeds." in page
    assert "Training s0" in page


def test_a_torn_last_line_of_a_log_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    folder = training(tmp_path / "a", 0, [0.1, 0.2])
    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    (folder / "log.jsonl").write_text(text + '{"step": 3, "ra', encoding="utf-8")
    assert len(read_training(folder).rows) == 2
    (folder / "log.jsonl").write_text('{"step": 3, "ra\n' + text, encoding="utf-8")
    with pytest.raises(StoreError, match="line 1 is no JSON"):
        read_training(folder)
    (folder / "log.jsonl").write_text('{"loss": 3}\n', encoding="utf-8")
    with pytest.raises(StoreError, match="line 1 has no step"):
        read_training(folder)


def test_published_figures_are_listed_with_their_sources(tmp_path: Path) -> None:
    listed = json.loads(prh("list", "baselines", "--json", cwd=tmp_path).stdout)["baselines"]
    paper = [row for row in listed if row["system"] == "Pixel-Reasoner-7B" and "2505.15966" in row["source"]]
    assert {row["task"]: row["value"] for row in paper} == {
        "vstar": 84.3,
        "tallyqa-complex": 73.8,
        "mvbench": 67.8,
        "infographicsvqa": 84.0,
    }
    assert all(row["measured"] and row["source"] and 0 < row["value"] <= 100 for row in listed)
    assert len({(row.task, row.system, row.measured, row.source) for row in published()}) == len(published())


def test_figures_of_other_packages_stand_on_the_page_and_broken_ones_do_not(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    row = {"task": "vstar", "system": "Theirs\u202e", "value": 91.25, "measured": "by them", "source": "a paper"}
    install(tmp_path, "theirs", {"prh.baselines": {"good": "theirs:good", "bad": "theirs:bad", "no": "theirs:no"}})
    code = (
        f"def good():\n    return [{row!r}]\ndef bad():\n    return [{row | {'value': 'high', 'system': 'Broken'}!r}]\n"
    )
    (tmp_path / "theirs.py").write_text(f"{code}def no():\n    raise SystemExit(3)\n", encoding="utf-8")
    prh("report", *runs, "-o", "r.html", "--images", "none", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.search(r"Theirs\\u202e</th><td class=\"end\">91\.2</td><td>by them</td><td>a paper</td>", page)
    assert "Pixel-Reasoner-7B" in page
    assert "Broken" not in page


def noise(path: Path, seed: int) -> None:
    Image.effect_noise((640, 480), 60 + seed).convert("RGB").save(path)


def drawing(path: Path, seed: int) -> None:
    image = Image.new("RGB", (640, 480), (120, 126, 118))
    ImageDraw.Draw(image).rectangle((60 + seed, 80, 300, 240), fill=(40, 90, 200))
    image.save(path)


@pytest.mark.parametrize("draw", [noise, drawing])
@pytest.mark.parametrize("pictures", [1, 30, 100, 300, 10**6])
def test_thumbnails_are_as_large_as_the_budget_allows_in_the_smaller_coding(
    draw: Callable[[Path, int], None], pictures: int, tmp_path: Path
) -> None:
    """What a search by halves finds is what trying every size finds."""
    probes = [(tmp_path, f"{n}.png") for n in range(2)]
    for number, (folder, name) in enumerate(probes):
        draw(folder / name, number)

    def weight(side: int, coder: Any) -> float:
        album = Album("thumb", side, coder)
        return pictures / 2 * sum(len(album.stored[album.add(run, [name])].uri) * 3 / 4 for run, name in probes)

    found = Album.sized("thumb", pictures, probes)
    assert found.coder == min(("AVIF", "WEBP"), key=lambda coder: weight(SIDES[-1], coder))
    fits = [side for side in SIDES if weight(side, found.coder) <= BUDGET]
    assert found.side == (fits[0] if fits else SIDES[-1])


def test_a_thumbnail_near_a_whole_part_is_that_part(tmp_path: Path) -> None:
    image = Image.effect_noise((640, 320), 90).convert("RGB")
    image.save(tmp_path / "a.png")
    sizes = {}
    for side in (288, 312, 320, 330, 213, 200):
        album = Album("thumb", side)
        sizes[side] = tuple(album.stored[album.add(tmp_path, ["a.png"])].size)
    assert sizes == {
        288: (320, 160),
        312: (320, 160),
        320: (320, 160),
        330: (330, 165),
        213: (214, 107),
        200: (214, 107),
    }


def test_a_thumbnail_is_no_larger_than_its_side_and_keeps_its_shape(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 400), (9, 9, 9)).save(tmp_path / "wide.png")
    album = Album("thumb", 200)
    stored = album.stored[album.add(tmp_path, ["wide.png"])]
    assert tuple(stored.size) == (200, 80)
    small = album.stored[album.add(tmp_path, ["wide.png"], 0.5)]
    assert tuple(small.size) == (100, 40)


def test_evaluations_and_terms_of_a_reward_are_drawn_bookkeeping_is_not(tmp_path: Path) -> None:
    folder = training(tmp_path / "a", 0, [0.1])
    rows = [
        {
            "step": 1,
            "rapr.needs_operation": 0.5,
            "reward.correct": 0.1,
            "trained_tokens": 9,
            "kl": None,
            "entropy": 0.2,
        },
        {"step": 1, "vstar-mini.accuracy": 0.5},
        {"step": 1, "end": "guard_rapr", "message": "RaPR fell"},
    ]
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.writelines(json.dumps(row) + "\n" for row in rows)
    titles = [re.search(r'aria-label="([^"]*) by step"', str(one["svg"])) for one in views([read_training(folder)])]
    names = [title[1] for title in titles if title]
    assert names == ["RaPR", "RaPR: needs operation", "vstar-mini: Accuracy", "reward: correct", "loss", "entropy"]
    assert "guard_rapr: RaPR fell" in report([str(folder)], Options())
