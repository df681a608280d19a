"""The report in a real browser: what can be clicked, pressed, linked, seen in the dark, printed, and never executed.

Needs Chromium (Debian's ``chromium``, or what ``PRH_CHROMIUM`` names) and playwright. Without them these tests are
skipped, loudly; with ``PRH_REQUIRE_BROWSER=1`` that is a failure.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prh.reports.report import Options, report
from prh.tests.reports.looking import BEFORE, TARGET, Look, answer, crop, four, hostile, pick, samples
from prh.tests.reports.reading import edited, training
from prh.tests.reports.unpack import sample

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Pages:
    """Reports on the disk, and the browser that opens them."""

    folder: Path
    browser: Any = None
    problems: list[str] = field(default_factory=list)

    def open(self, name: str = "two", fragment: str = "", **options: Any) -> Any:
        """A page in a context of its own; whatever it complains of or asks for is noted."""
        context = self.browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        page = context.new_page()
        address = (self.folder / f"{name}.html").as_uri()
        page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.problems.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda request: self.asked(request.url, address))
        page.goto(f"{address}{fragment}")
        if options.get("java_script_enabled", True) and name != "training":
            page.wait_for_selector("html[data-ready-ms]", state="attached")
            self.settled(page)
        return page

    def asked(self, url: str, address: str) -> None:
        if url.partition("#")[0] != address and not url.startswith("data:"):
            self.problems.append(f"request: {url[:200]}")

    def settled(self, page: Any) -> None:
        """Wait until the sample that the address means is shown."""
        until(page, "document.querySelector('#detail').childElementCount > 0")


def until(page: Any, truth: str) -> None:
    """Wait for a condition. The driver's own way evaluates text in the page, which the page's policy forbids."""
    for _ in range(500):
        if page.evaluate(truth):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never came true: {truth}")


def missing(reason: str) -> None:
    text = f"NO BROWSER: {reason}; install it (apt-get install chromium) or name one in PRH_CHROMIUM"
    if os.environ.get("PRH_REQUIRE_BROWSER") == "1":
        pytest.fail(text)
    pytest.skip(text)


def surely(folder: Path) -> list[Path]:
    """A baseline that is right and a candidate that is wrong, sure of it or not, with the seconds of every turn."""
    made = samples(folder / "data", 3, 0)
    wrong = {f"s{n}": (answer("B"),) for n in range(3)} | {"s0": (crop((0, 0, 90, 90)), answer("B"))}
    likely = {"s0": 0.8, "s1": 0.9, "s2": 0.3}

    def told(row: dict[str, Any]) -> None:
        turns = [segment for segment in row["segments"] if segment["role"] != "system"][1:]
        for number, segment in enumerate(turns):
            segment.update(seconds=(2.0, 1.0, 3.0)[number], new_tokens=20)
        turns[-1]["logprobs"] = [math.log(likely[row["id"]])]

    runs = [Look(made, {}).at(folder / "base"), Look(made, wrong, "tuned").at(folder / "tuned")]
    return [edited(run, folder / f"timed {run.name}", told) for run in runs]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every page that is opened here; made before a browser holds the event loop."""
    folder = tmp_path_factory.mktemp("pages")
    before, after = four(folder / "runs")
    pages = {"two": [before, after], "one": [after]}
    pages["hostile"] = list(hostile(folder / "hostile runs"))
    clips, stills = samples(folder / "clips", 0, 1), samples(folder / "stills", 2, 0)
    boxes = crop((100, 75, 300, 225), 2), crop((0, 0, 200, 150), 4)
    says = (
        {"v0": (pick(5, 6), *boxes, crop((200, 150, 100, 75), 2), answer())},
        {"v0": (crop((40, 30, 240, 180), 7), answer())},
    )
    pages["frames"] = [
        Look(clips, own, model, "mvbench-mini").at(folder / "clips" / model)
        for own, model in zip(says, ("base", "tuned"), strict=True)
    ]
    pages["repeats"] = [
        Look(stills, BEFORE, model, repeats=3).at(folder / "stills" / model) for model in ("base", "tuned")
    ]
    pages["sure"] = surely(folder / "sure")
    pages["training"] = [training(folder / f"seed{n}", n, [0.1 * n, 0.3, 0.5]) for n in range(3)]
    for name, runs in pages.items():
        text = report([str(run) for run in runs], Options())
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pages(built: Path) -> Iterator[Pages]:
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        missing("playwright is not installed")
    binary = os.environ.get("PRH_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        missing("there is no chromium")
    with sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=binary, args=["--no-sandbox", "--disable-dev-shm-usage"])
        except Error as error:
            missing(f"{binary} does not start: {str(error).splitlines()[0]}")
        yield Pages(built, browser)
        browser.close()


@pytest.fixture
def seen(pages: Pages) -> Iterator[Pages]:
    """The same; a test ends with no complaint of a page and no request that left it."""
    pages.problems.clear()
    yield pages
    assert pages.problems == []
    for context in pages.browser.contexts:
        context.close()


def listed(page: Any) -> list[str]:
    return page.locator("#list a .id").all_inner_texts()


def shown(page: Any) -> str:
    return str(page.locator("#detail .head .id").inner_text())


def state(page: Any) -> dict[str, str]:
    return dict(page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))"))


def test_it_opens_on_the_most_instructive_sample_and_asks_for_nothing(seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini")
    assert shown(page) == "s0"
    assert listed(page)[:2] == ["s0", "s1"]
    assert page.locator("#count").inner_text() == "8 of 8 samples"
    assert page.locator("#detail .stage img").evaluate("node => node.complete && node.naturalWidth > 0")


@pytest.mark.parametrize(("cell", "names"), [("lost", ["s0"]), ("won", ["s1"]), ("both", ["s4", "s3", "s6", "s7"])])
def test_a_cell_of_the_matrix_asks_for_its_samples(cell: str, names: list[str], seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini")
    number = page.locator(f".task.on .matrix a[href*='outcome={cell}'] b").inner_text()
    page.locator(f".task.on .matrix a[href*='outcome={cell}']").click()
    until(page, f"location.hash.includes('outcome={cell}')")
    until(page, f"document.querySelectorAll('#list a').length === {number}")
    assert sorted(listed(page)) == sorted(names)
    assert int(number) == len(names)
    assert page.locator("#outcomes button[aria-pressed=true]").get_attribute("data-outcome") == cell


def test_a_kind_of_error_asks_for_its_samples(seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini")
    page.locator(".task.on a[href*='error=empty_box']").click()
    until(page, "document.querySelectorAll('#list a').length === 1")
    assert listed(page) == ["s4"]
    assert "empty box" in page.locator("#detail").inner_text()


def test_filters_narrow_and_stand_in_the_address(seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini")
    steps: list[tuple[Callable[[], object], list[str]]] = [
        (lambda: page.select_option("#category", "relative"), ["s1", "s3", "s5", "s7"]),
        (lambda: page.select_option("#slice", "needs_operation"), ["s1", "s3", "s5", "s7"]),
        (lambda: page.select_option("#error", "parse"), ["s3"]),
        (lambda: page.click("#clear"), [f"s{n}" for n in range(8)]),
        (lambda: page.select_option("#ops", "2"), ["s0", "s4"]),
        (lambda: page.select_option("#turns", "3"), ["s0", "s4"]),
        (lambda: page.click("#clear"), [f"s{n}" for n in range(8)]),
        (lambda: page.select_option("#end", "engine_error"), ["s5"]),
        (lambda: page.click("#clear"), [f"s{n}" for n in range(8)]),
        (lambda: page.fill("#q", "THING 6"), ["s6"]),
        (lambda: page.fill("#q", r"/thing [67]\?/"), ["s6", "s7"]),
        (lambda: page.fill("#q", "/(/"), []),
        (lambda: page.fill("#q", ""), [f"s{n}" for n in range(8)]),
    ]
    for act, names in steps:
        act()
        until(page, f"document.querySelectorAll('#list a').length === {len(names)}")
        assert sorted(listed(page)) == names
        own = state(page)
        again = seen.open(fragment="#" + page.url.partition("#")[2])
        assert listed(again) == listed(page), own
        again.context.close()


def test_sorting_changes_the_order_alone(seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini")
    page.select_option("#sort", "id")
    assert listed(page) == [f"s{n}" for n in range(8)]
    page.select_option("#sort", "ops")
    assert listed(page)[:2] == ["s0", "s4"]


def test_the_surest_errors_of_the_candidate_can_come_first(seen: Pages) -> None:
    page = seen.open("sure", "#task=vstar-mini&sort=sure")
    assert listed(page) == ["s1", "s0", "s2"]
    assert "0.90: probability of a token of the last turn" in page.locator(".panels").inner_text()
    page.select_option("#sort", "id")
    assert listed(page) == ["s0", "s1", "s2"]


def test_each_turn_shows_its_time_and_a_bar_of_its_length(seen: Pages) -> None:
    """2 s of a turn, 1 s of its operation and 3 s of the next are 2 : 1 : 3; the other run's 2 s are on their scale."""
    page = seen.open("sure", "#task=vstar-mini&sample=s0")
    cards = page.locator(".turn .bar-line").all_inner_texts()
    assert [re.findall(r"[\d.]+ s|\d+ tokens", card) for card in cards] == [
        ["20 tokens", "2.00 s"],
        ["20 tokens", "2.00 s", "1.00 s"],
        ["20 tokens", "3.00 s"],
    ]
    bars = page.locator(".timeline").evaluate_all(
        "bars => bars.map(bar => [...bar.children].map(part => part.getBoundingClientRect().width))"
    )
    unit = page.locator(".timeline").nth(1).bounding_box()["width"] / 6
    assert bars[0] == pytest.approx([2 * unit], abs=0.5)
    assert bars[1] == pytest.approx([2 * unit, unit, 3 * unit], abs=0.5)
    page.locator(".timeline").nth(1).locator("i").nth(2).hover()
    assert {node.get_attribute("data-turn") for node in page.locator(".turn.lit").all()} == {"2"}


def test_a_link_to_a_sample_and_a_turn_opens_on_it_and_the_way_back_works(seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini&sample=s4&turn=2")
    assert shown(page) == "s4"
    assert page.locator(".turn.lit").first.get_attribute("data-turn") == "2"
    page.locator("#list a", has_text="s6").click()
    assert shown(page) == "s6"
    page.go_back()
    until(page, "document.querySelector('#detail .id').textContent === 's4'")
    page.evaluate("location.hash = '#task=mvbench-mini&sample=v1'")
    until(page, "document.querySelector('#detail .id').textContent === 'v1'")
    assert page.locator(".tabs button[aria-pressed=true]").inner_text() == "mvbench-mini"


def test_keys_do_what_the_list_of_keys_says(seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini")
    order = listed(page)
    page.keyboard.press("j")
    until(page, f"document.querySelector('#detail .id').textContent === '{order[1]}'")
    page.keyboard.press("k")
    until(page, f"document.querySelector('#detail .id').textContent === '{order[0]}'")
    page.keyboard.press("ArrowRight")
    assert {node.get_attribute("data-turn") for node in page.locator(".turn.lit").all()} == {"1"}
    page.keyboard.press("ArrowRight")
    assert state(page)["turn"] == "2"
    assert page.locator(".stage g.box:not(.dim)").count() == 1
    page.keyboard.press("ArrowLeft")
    assert state(page)["turn"] == "1"
    page.keyboard.press("Escape")
    assert "turn" not in state(page)
    for number, outcome in enumerate(("lost", "won", "neither", "both", "error"), 1):
        page.keyboard.press(str(number))
        assert state(page)["outcome"] == outcome
    page.keyboard.press("0")
    assert "outcome" not in state(page)
    page.keyboard.press("/")
    page.keyboard.type("thing 3")
    until(page, "document.querySelectorAll('#list a').length === 1")
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    until(page, "location.hash.includes('mvbench')")
    page.keyboard.press("?")
    assert page.locator("#help").evaluate("node => node.open")
    page.keyboard.press("Escape")
    assert not page.locator("#help").evaluate("node => node.open")


@pytest.mark.parametrize("width", [1280, 1000, 420])
def test_a_boxs_corners_are_the_records_to_within_a_pixel(width: int, seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini&sample=s0", viewport={"width": width, "height": 900})
    text = (seen.folder / "two.html").read_text(encoding="utf-8")
    drawn = page.evaluate(
        """() => {
          const image = document.querySelector('.stage img').getBoundingClientRect();
          return [...document.querySelectorAll('.stage g.box')].map(group => {
            const edge = group.querySelector('.edge'), matrix = edge.getScreenCTM();
            const on = (x, y) => new DOMPoint(x, y).matrixTransform(matrix);
            const at = (x, y) => [on(x, y).x - image.x, on(x, y).y - image.y];
            const [x, y, w, h] = ['x', 'y', 'width', 'height'].map(name => edge[name].baseVal.value);
            return { run: group.dataset.run, turn: group.dataset.turn, size: [image.width, image.height],
                     box: [...at(x, y), ...at(x + w, y + h)] };
          });
        }"""
    )
    recorded = {
        (str(number), str(box["turn"])): box["asked"]
        for number, episodes in enumerate(sample(text, "s0")["episodes"])
        for box in episodes[0]["boxes"]
    }
    assert {(one["run"], one["turn"]) for one in drawn} == set(recorded)
    for one in drawn:
        assert one["size"][0] / one["size"][1] == pytest.approx(4 / 3, abs=0.02)  # no picture is stretched
        scale = (one["size"][0] / 400, one["size"][1] / 300)
        expected = [edge * scale[at % 2] for at, edge in enumerate(recorded[one["run"], one["turn"]])]
        assert one["box"] == pytest.approx(expected, abs=1)


def test_the_overlay_lies_on_the_pixels_it_means(seen: Pages) -> None:
    """The truth box of a drawn picture encloses its one coloured thing, on the screen."""
    page = seen.open(fragment="#task=vstar-mini&sample=s1")
    page.evaluate("document.querySelectorAll('.stage g.box').forEach(node => node.remove())")
    stage = page.locator(".stage")
    screen = Image.open(io.BytesIO(stage.screenshot())).convert("RGB")
    scale = screen.width / 400
    inside = [(TARGET.left + 8, TARGET.top + 8), (TARGET.right - 8, TARGET.bottom - 8)]
    outside = [(TARGET.left - 8, TARGET.top - 8), (TARGET.right + 8, TARGET.bottom + 8)]
    for points, blue in ((inside, True), (outside, False)):
        for x, y in points:
            red, _, shade = screen.getpixel((round(x * scale), round(y * scale)))  # type: ignore[misc]
            assert (shade - red > 80) == blue


@pytest.mark.parametrize("width", [1280, 420])
def test_crops_keep_their_shape(width: int, seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini&sample=s0", viewport={"width": width, "height": 900})
    shapes = page.locator(".turn img").evaluate_all(
        "nodes => nodes.map(n => [n.width / n.height, n.naturalWidth / n.naturalHeight])"
    )
    assert len(shapes) == 3
    for drawn, natural in shapes:
        assert drawn == pytest.approx(natural, abs=0.03)


@pytest.mark.parametrize("width", [1280, 420])
def test_a_box_on_a_frame_of_a_video_lies_on_the_cell_of_that_frame(width: int, seen: Pages) -> None:
    """Of a frame that was selected, of a crop of it, refused, and of a frame by its number alone."""
    page = seen.open("frames", "#task=mvbench-mini&sample=v0", viewport={"width": width, "height": 900})
    text = (seen.folder / "frames.html").read_text(encoding="utf-8")
    drawn = page.evaluate(
        """() => [...document.querySelectorAll('.frames .cell g.box')].map(group => {
          const cell = group.closest('.cell'), whole = cell.getBoundingClientRect();
          const edge = group.querySelector('.edge'), box = edge.getBoundingClientRect();
          const chip = document.querySelector(`.turn[data-turn='${group.dataset.turn}'] .chip`);
          return { ...group.dataset, frame: cell.dataset.frame, size: [whole.width, whole.height],
                   stroke: getComputedStyle(edge).stroke, chip: getComputedStyle(chip).backgroundColor,
                   box: [box.left - whole.left, box.top - whole.top, box.right - whole.left, box.bottom - whole.top] };
        })"""
    )
    recorded = {
        (str(number), str(box["turn"])): box
        for number, episodes in enumerate(sample(text, "v0")["episodes"])
        for box in episodes[0]["boxes"]
    }
    assert {(one["run"], one["turn"]): (one["frame"], one["state"]) for one in drawn} == {
        ("0", "2"): ("5", "cut"),
        ("0", "3"): ("5", "cut"),
        ("0", "4"): ("5", "refused"),
        ("1", "1"): ("7", "cut"),
    }
    assert recorded["0", "2"]["asked"] == [30, 22.5, 90, 67.5]
    for one in drawn:
        assert one["size"][0] / one["size"][1] == pytest.approx(4 / 3, abs=0.02)
        scale = (one["size"][0] / 120, one["size"][1] / 90)
        expected = [edge * scale[at % 2] for at, edge in enumerate(recorded[one["run"], one["turn"]]["asked"])]
        assert one["box"] == pytest.approx(expected, abs=1)
        assert one["stroke"] == one["chip"]
    assert "frame 5: 30, 23, 90, 68" in page.locator(".video .legend").inner_text()
    page.locator(".turn[data-run='0'][data-turn='2']").hover()
    assert page.locator(".frames g.box.lit").count() == 1
    assert page.locator(".frames g.box.dim").count() == 3


def test_the_repeat_that_is_shown_stands_in_the_address(seen: Pages) -> None:
    page = seen.open("repeats", "#task=vstar-mini&sample=s1")
    chosen = page.get_by_label("Repeat of tuned")
    assert chosen.input_value() == "repeat 0"
    chosen.select_option("repeat 2")
    until(page, "location.hash.includes('repeat1=repeat+2')")
    again = seen.open("repeats", "#" + page.url.partition("#")[2])
    assert shown(again) == "s1"
    assert again.get_by_label("Repeat of tuned").input_value() == "repeat 2"
    assert again.get_by_label("Repeat of base").input_value() == "repeat 0"
    assert "repeat 2" in again.locator(".panels > div").nth(1).inner_text()
    again.evaluate("location.hash = '#task=vstar-mini&sample=s1&repeat0=repeat+1'")
    until(again, "document.querySelector('.panels').textContent.includes('· repeat 1')")
    assert again.get_by_label("Repeat of tuned").input_value() == "repeat 0"


@pytest.mark.parametrize(
    ("fragment", "down"),
    [("#task=vstar-mini", False), ("#task=vstar-mini&vs=1", False), ("#task=vstar-mini&q=s3", True)],
)
def test_a_link_that_asks_for_samples_leads_to_them_and_one_to_a_task_does_not(
    fragment: str, down: bool, seen: Pages
) -> None:
    page = seen.open(fragment=fragment)
    assert (page.evaluate("scrollY") > 0) == down
    page = seen.open(fragment="#task=mvbench-mini")
    page.evaluate(f"location.hash = '{fragment}'")
    until(page, "document.querySelector('#detail .id').textContent.startsWith('s')")
    assert (page.evaluate("scrollY") > 0) == down


def test_refused_boxes_are_dashed_and_say_why(seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini&sample=s4")
    refused = page.locator(".stage g.box[data-state=refused]")
    assert refused.count() == 2
    assert refused.first.locator(".edge").evaluate("node => getComputedStyle(node).strokeDasharray") != "none"
    legend = page.locator(".legend").inner_text()
    assert "out of bounds" in legend
    assert "empty box" in legend


def test_the_turns_of_two_runs_stand_side_by_side(seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini&sample=s0")
    cards = page.locator(".strips .turn")
    boxes = cards.evaluate_all("nodes => nodes.map(n => n.getBoundingClientRect()).map(b => [b.x, b.y, b.width])")
    assert len(boxes) == 6  # two turns and one that had ended; three turns
    for left, right in zip(boxes[::2], boxes[1::2], strict=True):
        assert left[1] == right[1]
        assert left[0] + left[2] <= right[0]
    assert page.locator(".turn.absent").count() == 1


def test_hovering_a_turn_lights_its_box(seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini&sample=s0")
    page.locator(".turn[data-run='1'][data-turn='2']").hover()
    assert page.locator(".stage g.box.lit").evaluate_all("nodes => nodes.map(n => n.dataset.turn)") == ["2"]
    assert page.locator(".stage g.box.dim").count() == 2


def test_the_ruler_ticks_what_was_picked_and_marks_what_cannot_be(seen: Pages) -> None:
    page = seen.open(fragment="#task=mvbench-mini&sample=v0")
    assert page.locator(".frames .cell").count() == 16
    marks = page.locator(".ruler [data-frame]").evaluate_all("nodes => nodes.map(n => [n.tagName, n.dataset.frame])")
    assert sorted(marks) == sorted([["rect", "3"], ["rect", "3"], ["rect", "7"], ["circle", "5"], ["circle", "6"]])
    assert "3 picked more than once" in page.locator(".video").inner_text()
    truth = page.locator(".frames .cell[data-shown=yes]").evaluate_all("nodes => nodes.map(n => n.dataset.frame)")
    assert truth == ["5", "6"]
    page.keyboard.press("j")
    page.goto(page.url.partition("#")[0] + "#task=mvbench-mini&sample=v1")
    until(page, "document.querySelector('#detail .id').textContent === 'v1'")
    assert "19 outside 1 to 16; bad index" in page.locator(".video").inner_text()
    assert page.locator(".ruler .outside").count() == 1


def test_each_cell_of_the_ruler_shows_its_own_frame(seen: Pages) -> None:
    """Frame n of the clip is (10 n, 80, 200 - 10 n): what is on the screen must be near it."""
    page = seen.open(fragment="#task=mvbench-mini&sample=v1")
    for number in (1, 4, 5, 16):
        cell = page.locator(f".frames .cell[data-frame='{number}']")
        screen = Image.open(io.BytesIO(cell.screenshot())).convert("RGB")
        red, _, blue = screen.getpixel((screen.width // 2, screen.height // 2))  # type: ignore[misc]
        assert red == pytest.approx(10 * (number - 1), abs=9)
        assert blue == pytest.approx(200 - 10 * (number - 1), abs=9)


def test_what_was_read_and_how_to_run_it_again_is_there(seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini&sample=s0")
    panels = page.locator(".panels > div")
    assert panels.count() == 2
    text = panels.nth(1).inner_text()
    for part in (
        "boxed",
        "accepted",
        "accuracy 0",
        "prh eval --model tuned --task vstar-mini",
        "--sample-id s0",
        "manifest",
    ):
        assert part in text


def test_an_error_is_no_wrong_answer(seen: Pages) -> None:
    page = seen.open(fragment="#task=vstar-mini&outcome=error")
    assert listed(page) == ["s5"]
    assert "the server went away" in page.locator("#detail").inner_text()
    assert page.locator("#detail .is-failed").count() == 1


def test_one_run_is_filtered_by_right_and_wrong(seen: Pages) -> None:
    page = seen.open("one", "#task=vstar-mini")
    names = page.locator("#outcomes button").evaluate_all("nodes => nodes.map(n => n.dataset.outcome)")
    assert names == ["all", "wrong", "right", "error"]
    page.keyboard.press("1")
    assert sorted(listed(page)) == ["s0", "s2"]
    assert page.locator(".strips.two").count() == 0


def background(page: Any) -> tuple[int, ...]:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return tuple(int(number) for number in re.findall(r"\d+", colour)[:3])


def test_it_is_dark_where_the_system_is_and_can_be_switched(seen: Pages) -> None:
    light, dark = background(seen.open()), background(page := seen.open(color_scheme="dark"))
    assert min(light) > 200
    assert max(dark) < 60
    ink = page.locator("#metrics figure text").first.evaluate("node => getComputedStyle(node).fill")
    assert min(int(number) for number in re.findall(r"\d+", ink)[:3]) > 120
    page.click("#theme")
    assert background(page) == light


@pytest.mark.parametrize("name", ["two", "frames"])
def test_numbers_of_turns_can_be_read_in_the_dark_however_it_came(name: str, seen: Pages) -> None:
    chosen = seen.open(name)
    chosen.click("#theme")
    for page in (seen.open(name, color_scheme="dark"), chosen):
        for part in ("#detail .chip", "#detail .overlay g.box text", "#detail .picks i"):
            for node in page.locator(part).all():
                colour = node.evaluate("(own, svg) => getComputedStyle(own)[svg ? 'fill' : 'color']", "text" in part)
                assert max(int(number) for number in re.findall(r"\d+", colour)[:3]) < 60, part


def test_charts_and_wide_tables_are_scrolled_on_a_phone_and_not_squeezed(seen: Pages) -> None:
    page = seen.open(viewport={"width": 420, "height": 900})
    for part in ("#differences .chart svg", "#metrics .on .chart svg", "#comparability table"):
        assert page.locator(part).first.bounding_box()["width"] >= 640
    assert page.evaluate("document.documentElement.scrollWidth") == 420


def test_without_scripts_banner_cards_charts_and_table_are_there(seen: Pages) -> None:
    page = seen.open(java_script_enabled=False)
    assert page.locator(".verdict .sentence").is_visible()
    assert page.locator(".task .cards").nth(0).is_visible()
    assert page.locator(".task .cards").nth(1).is_visible()
    assert page.locator("#differences figure svg").is_visible()
    assert page.locator("noscript table tbody tr, table.rows tbody tr").count() == 10
    assert page.locator("table.rows").is_visible()
    assert not page.locator(".bench").is_visible()
    assert not page.locator("#filters").is_visible()


def test_on_paper_every_task_is_there_and_no_button(seen: Pages) -> None:
    page = seen.open()
    page.emulate_media(media="print")
    assert all(one.is_visible() for one in page.locator(".task").all())
    assert not page.locator("nav.sections").is_visible()
    assert not page.locator("#filters").is_visible()
    assert min(background(page)) == 255


def test_paper_is_white_and_ink_dark_where_the_dark_was_chosen(seen: Pages) -> None:
    page = seen.open()
    page.click("#theme")
    page.emulate_media(media="print")
    assert min(background(page)) == 255
    assert "27, 29, 31" in page.evaluate("getComputedStyle(document.body).color")


def test_the_curves_of_trainings_are_drawn(seen: Pages) -> None:
    page = seen.open("training")
    assert page.locator("#training figure svg").count() == 2
    assert page.locator("#help-open").count() == 0


def test_hostile_texts_are_text(seen: Pages) -> None:
    page = seen.open("hostile")
    names = listed(page)
    assert len(names) == 4
    for name in names:
        page.locator("#list a", has_text=name).first.click()
        until(page, "document.querySelector('#detail .id').textContent === " + json.dumps(name))
        page.evaluate("document.querySelectorAll('#detail details').forEach(node => { node.open = true; })")
        page.mouse.move(400, 400)
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], name
        assert page.locator("#detail").bounding_box()["height"] < 12_000, name
        assert "\u202e" not in page.locator("body").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("#detail script, #list script, .task script, header script").count() == 0
    assert page.locator("img[src='x'], svg[onload], [onmouseover], [onerror]").count() == 0


def test_the_policy_stops_what_would_be_injected(pages: Pages) -> None:
    page = pages.open()
    done = page.evaluate(
        """() => {
          const said = [];
          try { document.body.innerHTML += '<img src=x onerror="window.hacked=1">'; }
          catch (error) { said.push('html'); }
          try { document.body.append(Object.assign(document.createElement('script'), { text: 'window.hacked=2' })); }
          catch (error) { said.push('script'); }
          return said;
        }"""
    )
    page.evaluate("fetch('http://127.0.0.1:9/').catch(() => { window.stopped = true; })")
    until(page, "window.stopped === true")
    assert done == ["html", "script"]
    assert page.evaluate("window.hacked") is None
    page.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 420)])
@pytest.mark.parametrize("name", ["two", "one", "frames", "hostile", "sure", "training"])
def test_axe_finds_no_serious_fault(name: str, scheme: str, width: int, seen: Pages) -> None:
    """Also where tables are wider than the screen and must be scrolled."""
    from axe_playwright_python.sync_playwright import Axe

    page = seen.open(name, color_scheme=scheme, bypass_csp=True, viewport={"width": width, "height": 900})
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, json.dumps([[one["id"], [node["html"][:160] for node in one["nodes"][:4]]] for one in serious])
