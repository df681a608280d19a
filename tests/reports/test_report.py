"""The report as a file: what is in it, what can never be in it, and that it is the same bytes for the same runs."""

import base64
import hashlib
import json
import re
import shlex
import subprocess
import sys
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from prh.harness.errors import StoreError, UsageError
from prh.harness.store import decode_line, encode_line, read_manifest, write_json
from prh.reports.album import BUDGET, SIDES, Album
from prh.reports.baselines import published
from prh.reports.charts import Line, Point, curves, forest, parts
from prh.reports.curves import read_training, views
from prh.reports.episodes import visible
from prh.reports.limits import read_limits
from prh.reports.report import Options, documents, report
from prh.reports.reproduce import quote
from prh.tests.harness.test_plugins import install
from prh.tests.reports import runs as scripted
from prh.tests.reports.looking import (
    AFTER,
    BEFORE,
    FAILS,
    TARGET,
    Look,
    answer,
    crop,
    four,
    hostile,
    pick,
    samples,
    two,
)
from prh.tests.reports.runs import make
from prh.tests.reports.unpack import parts as unpacked
from prh.tests.reports.unpack import pictures, sample

HIDDEN = "\u202e\u2066\u200b\u0007\ue000\u2028"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return two(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path]) -> str:
    return report([str(run) for run in runs], Options())


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._silent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text.append(data)


def prh(*words: object, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    done = subprocess.run(
        [sys.executable, "-m", "prh", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_the_same_runs_are_the_same_bytes_whatever_the_process(runs: tuple[Path, Path], tmp_path: Path) -> None:
    made = []
    for number, seed in enumerate(("0", "1")):
        where = tmp_path / str(number)
        where.mkdir()
        prh("report", *runs, "-o", "r.html", cwd=where, PYTHONHASHSEED=seed, TZ=("UTC", "Asia/Tokyo")[number])
        made.append((where / "r.html").read_bytes())
    assert made[0] == made[1]


def test_nothing_heavy_is_loaded(runs: tuple[Path, Path], tmp_path: Path) -> None:
    code = f"""
import sys
sys.argv = ["prh", "report", {str(runs[0])!r}, {str(runs[1])!r}, "-o", {str(tmp_path / "r.html")!r}]
from prh.__main__ import main
try:
    main()
except SystemExit:
    print(sorted({{"torch", "transformers", "pandas", "datasets", "matplotlib.pyplot"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_the_policy_allows_our_own_script_and_style_and_nothing_else(page: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    text = policy[1].replace("&#39;", "'")
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"
        for body in (
            page.rpartition("<script>")[2].partition("</script>")[0],
            page.partition("<style>")[2].partition("</style>")[0],
        )
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in text.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == digests[0]
    assert rules["style-src"] == digests[1]
    assert rules["img-src"] == "data:"
    assert {"base-uri", "form-action", "require-trusted-types-for"} <= set(rules)


def test_no_tag_carries_a_style_a_handler_or_an_address_outside(page: str) -> None:
    for tag, attributes in Tags(page).tags:
        for name, value in attributes.items():
            assert name != "style", (tag, attributes)
            assert not name.startswith("on"), (tag, attributes)
            if name in ("href", "src", "xlink:href"):
                assert value is not None
                assert value.startswith(("#", "data:,")), (tag, attributes)


def test_identifiers_are_unique(page: str) -> None:
    names = [attributes["id"] for _, attributes in Tags(page).tags if "id" in attributes]
    assert len(set(names)) == len(names)


def test_it_says_the_verdict_its_reasons_and_what_was_compared(page: str) -> None:
    text = " ".join(" ".join(Tags(page).text).split())
    assert "tuned against base" in text
    assert "Too many errors" in text
    assert "1 of 10 episodes" in text
    assert "Alike in dataset, prompt, protocol" in text
    assert "Pixel-Reasoner-7B" in text
    assert "says nothing about the benchmark" in text
    assert "out of bounds" in text
    for section in ("Comparability", "Differences", "Metrics", "Samples", "Published figures", "Provenance"):
        assert section in text


def test_the_table_for_a_page_without_scripts_has_every_sample(page: str, runs: tuple[Path, Path]) -> None:
    table = page.partition("<noscript>")[2].partition("</noscript>")[0]
    for name in [*(f"s{n}" for n in range(8)), "v0", "v1"]:
        assert re.search(rf'<th scope="row" class="mono">{name}</th>', table)
    assert "△ error" in table


def test_boxes_are_the_records_own_in_pixels_of_the_source(page: str) -> None:
    looked = sample(page, "s0")["episodes"][0][0]["boxes"]
    assert looked[0]["asked"] == list(TARGET)
    assert looked[0]["iou"] == 1.0
    assert looked[0]["cut"] == [200, 30, 360, 170]
    assert looked[0]["state"] == "cut"
    within = sample(page, "s0")["episodes"][1][0]["boxes"][1]
    cut = sample(page, "s0")["episodes"][1][0]["boxes"][0]["cut"]
    wide, high = cut[2] - cut[0], cut[3] - cut[1]
    expected = [cut[0] + wide / 4, cut[1] + high / 3, cut[0] + wide * 3 / 4, cut[1] + high * 2 / 3]
    assert within["asked"] == pytest.approx(expected, abs=0.01)


def test_refused_boxes_are_drawn_where_their_numbers_point_near_the_image(page: str) -> None:
    outside, empty = sample(page, "s4")["episodes"][0][0]["boxes"]
    assert (outside["state"], outside["cause"]) == ("refused", "out_of_bounds")
    assert outside["asked"] == [-16, 20, 416, 120]  # 4 % of 400 beyond the edge, whatever was asked for
    assert (empty["cause"], empty["asked"]) == ("empty_box", [100, 100, 200, 200])


def test_a_box_on_a_video_has_the_number_of_its_frame_where_there_is_one(tmp_path: Path) -> None:
    empty, inside = (200, 200, 100, 100), (100, 75, 300, 225)
    says = {
        "v0": (crop(empty, 7), crop(inside, 7), crop(inside, 2), answer()),
        "v1": (crop(inside, 99), pick(5), crop(inside, 1), crop(inside, 2), answer()),
    }
    made = samples(tmp_path / "data", 0, 2)
    page = report([str(Look(made, says, task="mvbench-mini").at(tmp_path / "run"))], Options())
    found = [[(b["frame"], b["cause"]) for b in sample(page, f"v{n}")["episodes"][0][0]["boxes"]] for n in (0, 1)]
    assert found[0] == [(7, "empty_box"), (7, ""), (7, "")]
    assert found[1] == [(0, "bad_index"), (0, "bad_index"), (5, "")]


def test_frames_that_were_picked_twice_or_do_not_exist_are_there(page: str) -> None:
    assert sample(page, "v0")["episodes"][0][0]["frames"] == [{"turn": 1, "picked": [3, 3, 7], "cause": ""}]
    assert sample(page, "v1")["episodes"][1][0]["frames"][0] == {"turn": 1, "picked": [19.0], "cause": "bad_index"}


def test_every_turn_has_its_tokens_and_its_time(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Of the engine, and of the operations that it called; of a record that has neither, nothing."""

    def timed(row: dict[str, Any]) -> None:
        for number, segment in enumerate(row["segments"]):
            segment["seconds"] = float(number)
            if segment["role"] == "assistant":
                segment["new_tokens"] = 10 * number

    def old(row: dict[str, Any]) -> None:
        for segment in row["segments"]:
            segment.pop("seconds", None)
            segment.pop("new_tokens", None)

    run = edited(runs[1], tmp_path / "timed", timed)
    page = report([str(run)], Options("none"))
    turns = sample(page, "s0")["episodes"][0][0]["turns"]
    assert [(turn["tokens"], turn["seconds"], turn["operating"]) for turn in turns] == [
        (20, 2.0, 3.0),
        (40, 4.0, 5.0),
        (60, 6.0, None),
    ]
    text = " ".join(" ".join(Tags(page).text).split())
    assert "What a turn takes" in text
    assert re.search(r"1 10 20\.0 2 1\.8 ", text)  # ten turns of 20 tokens and 2 s, 3 s of operations after six of them
    told = json.loads(documents([str(run)], Options(), ["json"])["json"])["tasks"][0]["entrants"][0]["turns"]
    assert told[1] == {"turn": 2, "turns": 6, "new_tokens": 40.0, "seconds": 4.0, "operation_seconds": 10 / 6}
    bare = sample(report([str(edited(runs[1], tmp_path / "old", old))], Options("none")), "s0")
    assert {(t["tokens"], t["seconds"], t["operating"]) for t in bare["episodes"][0][0]["turns"]} == {
        (None, None, None)
    }


def test_sure_errors_come_before_unsure_ones(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """By the probability of the last turn's tokens, in tenths; among equals by how differently the two looked."""
    made = samples(tmp_path / "data", 4, 0)
    base = Look(made, {}).at(tmp_path / "base")
    wrong = {f"s{n}": (answer("B"),) for n in range(4)} | {"s2": (crop((0, 0, 9, 9)), answer("B"))}
    tuned = Look(made, wrong, "tuned").at(tmp_path / "tuned")
    likely = {"s0": -1.2, "s1": -0.05, "s2": -0.6, "s3": -0.61}

    def sure(row: dict[str, Any]) -> None:
        row["segments"][-1]["logprobs"] = [likely[row["id"]] - 0.02, likely[row["id"]] + 0.02]

    page = report([str(base), str(edited(tuned, tmp_path / "sure", sure))], Options("none"))
    rows = unpacked(page)["index"]["tasks"][0]["samples"]
    assert [row[0] for row in sorted(rows, key=lambda row: row[6][1])] == ["s1", "s2", "s3", "s0"]
    assert [row[5][1][6] for row in rows] == pytest.approx([0.301, 0.951, 0.549, 0.543])
    assert [row[5][0][6] for row in rows] == [None] * 4


@pytest.mark.parametrize("value", [[], "x", ["nan", None], [[]], {"a": 1}, ["-inf"]])
def test_log_probabilities_that_are_none_say_nothing(value: Any, runs: tuple[Path, Path], tmp_path: Path) -> None:
    def broken(row: dict[str, Any]) -> None:
        row["segments"][-1].update(logprobs=value, seconds="long", new_tokens=[])

    page = report([str(edited(runs[1], tmp_path / "run", broken))], Options("none"))
    assert sample(page, "s0")["episodes"][0][0]["sure"] is None


def test_of_several_repeats_it_is_sure_of_what_most_of_them_say(tmp_path: Path) -> None:
    made = samples(tmp_path / "data", 2, 0)
    run = Look(made, {"s0": (answer("B"),)}, repeats=4).at(tmp_path / "run")

    def differs(row: dict[str, Any]) -> None:
        if (row["id"], row["repeat"]) == ("s0", 2):
            row["segments"][-1]["parts"] = [{"text": answer("A")}]

    page = report([str(edited(run, tmp_path / "other", differs))], Options("none"))
    rows = {row[0]: row for row in unpacked(page)["index"]["tasks"][0]["samples"]}
    assert (rows["s0"][5][0][6], rows["s1"][5][0][6]) == (0.75, 1.0)


def test_a_cost_has_an_interval_of_its_own(page: str, runs: tuple[Path, Path]) -> None:
    cards = {}
    for card in re.findall(r'<div class="card"><h4>([^<]*)</h4>(.*?)</div>', page, re.S):
        cards[card[0]] = card[1]
    for name in ("Turns a sample", "New tokens a sample", "Seconds a sample"):
        assert re.search(r'<p class="interval num">95 % interval [\d.]+ \u2013 [\d.]+</p>', cards[name]), name
        assert re.search(r"</span> <span>[\d.]+ \[[\d.]+ \u2013 [\d.]+\]", cards[name]), name
    alone = report([str(runs[0])], Options("none"))
    assert re.search(r"Turns a sample</h4>.*?95 % interval [\d.]+ \u2013 [\d.]+</p>", alone, re.S)


def test_the_same_data_is_there_as_json_and_markdown(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """By the suffix, the same bytes twice; what the page counts and what the JSON counts are equal."""
    made = []
    for number, seed in enumerate(("0", "1")):
        where = tmp_path / str(number)
        where.mkdir()
        prh("report", *runs, "-o", "a.json", "-o", "a.md", cwd=where, PYTHONHASHSEED=seed)
        assert sorted(path.name for path in where.iterdir()) == ["a.json", "a.md"]
        made.append(((where / "a.json").read_bytes(), (where / "a.md").read_bytes()))
    assert made[0] == made[1]
    told = json.loads(made[0][0])
    assert told["verdicts"][0]["verdict"] == "incomparable"
    assert told["comparison"]["tasks"][0]["results"][0]["agreement"]["baseline_only"] == 1
    [task] = told["tasks"]
    base, tuned = task["entrants"]
    assert (base["errors"], base["ends"]["engine_error"], base["episodes"]) == (1, 1, 10)
    assert tuned["operation_errors"] == {"parse": 1, "unknown_operation": 1, "bad_index": 1}
    assert tuned["metrics"]["accuracy"]["n"] == tuned["metrics"]["turns"]["n"] == 10
    assert set(tuned["profiles"]) >= {"strict", "vlmevalkit"}
    by_id = {row["id"]: row for row in task["samples"]}
    assert [side["answer"] for side in by_id["s0"]["entrants"]] == ["A", "B"]
    assert by_id["s5"]["entrants"][0]["ends"] == ["engine_error"]
    assert len(told["provenance"]) == 2
    assert made[0][1].decode().startswith("## ❌ too many errors: tuned against base")


def test_without_a_name_all_three_forms_are_written_beside_each_other(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = prh("report", *runs, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
    assert done.stdout.count("wrote report.") == 3
    wrong = prh("report", *runs, "-o", "report.pdf", cwd=tmp_path, code=2)
    assert wrong.stderr.splitlines() == ["prh: report.pdf: the suffix says what to write; use .html, .json or .md"]


def test_one_run_and_a_training_are_told_as_json_and_markdown_too(runs: tuple[Path, Path], tmp_path: Path) -> None:
    folder = training(tmp_path / "train", 0, [0.1, 0.2])
    found = documents([str(runs[1]), str(folder)], Options(), ["json", "md"])
    told = json.loads(found["json"])
    assert told["comparison"] is None
    assert told["trainings"][0]["log"][1] == {"step": 2.0, "rapr": 0.2, "loss": 0.5, "seconds": 1.0}
    assert "## tuned on vstar&#45;mini" in found["md"] or "## tuned on vstar-mini" in found["md"]
    assert "| RaPR |" in found["md"]
    assert "## Training train, step 2" in found["md"]
    alone = documents([str(folder)], Options(), ["html", "json", "md"])
    assert json.loads(alone["json"])["trainings"][0]["name"] == "train"


def test_hostile_texts_are_no_markup_in_markdown_and_hide_in_neither_form(tmp_path: Path) -> None:
    found = documents([str(run) for run in hostile(tmp_path)], Options(), ["json", "md"])
    assert not set(HIDDEN) & set(found["json"] + found["md"])
    assert not re.search(r"<(?!/?details|/?summary)", found["md"])
    json.loads(found["json"])


def test_the_most_instructive_come_first_lost_before_won_before_errors(page: str) -> None:
    rows = unpacked(page)["index"]["tasks"][0]["samples"]
    order = [row[0] for row in sorted(rows, key=lambda row: row[6][1])]
    assert order[0] == "s0"
    assert set(order[1:3]) == {"s1", "v1"}
    assert order[3] == "s5"
    assert order[4] == "s2"


def test_a_picture_is_stored_once_however_many_show_it(page: str, runs: tuple[Path, Path]) -> None:
    found = pictures(page)
    assert len(set(found.values())) == len(found)
    shown = {sample(page, f"s{n}")["media"][0]["picture"] for n in range(8)}
    assert len(shown) == 4  # eight samples of four colours
    assert shown <= set(found)


@pytest.mark.parametrize("images", ["none", "full"])
def test_pictures_can_be_left_out_or_kept_as_they_are(images: Any, runs: tuple[Path, Path]) -> None:
    page = report([str(run) for run in runs], Options(images))
    found = pictures(page)
    if images == "none":
        assert not found
        assert sample(page, "s1")["media"][0]["file"].startswith("media/")
        return
    key = sample(page, "s1")["media"][0]["picture"]
    kept = base64.b64decode(found[key].partition(",")[2])
    assert kept == (runs[0].parent / "data" / "scene1.png").read_bytes()


def test_one_run_has_figures_and_no_verdict(runs: tuple[Path, Path]) -> None:
    done = prh("report", runs[1], cwd=runs[1].parent)
    page = (runs[1] / "report.html").read_text(encoding="utf-8")
    assert str(runs[1] / "report.html") in done.stdout
    text = " ".join(Tags(page).text)
    assert "One run, no verdict" in text
    assert "Comparability" not in text
    assert unpacked(page)["index"]["tasks"][0]["samples"][0][0] == "s0"


def test_more_runs_are_a_baseline_and_deltas(runs: tuple[Path, Path], tmp_path: Path) -> None:
    third = Look(samples(tmp_path / "data"), BEFORE, "third").at(tmp_path / "third")
    page = report([*map(str, runs), str(third)], Options())
    index = unpacked(page)["index"]
    assert [entrant["label"] for entrant in index["entrants"]] == ["base", "tuned", "third"]
    assert all(len(row[5]) == 3 and len(row[6]) == 3 for row in index["tasks"][0]["samples"])
    assert "2 checkpoints" in page
    assert "third against base" in page


def test_of_more_candidates_each_row_of_the_verdict_says_whose_it_is(tmp_path: Path) -> None:
    """Also where several things stand in the way; a card tells no difference where there is none to tell."""
    make(tmp_path / "base", [1] * 9)
    for model in ("second", "third"):
        make(tmp_path / model, [1] * 9, model=model, settings={"protocol": "direct"})
    page = report([str(tmp_path / name) for name in ("base", "second", "third")], Options())
    named = re.findall(r'<li class="incomparable"><b>.*?</b><span>(.*?)</span>', page)
    assert len(named) > 2
    assert all(name.startswith(("vstar-mini: second", "vstar-mini: third")) for name in named)
    assert named.count("vstar-mini: second, comparable") == named.count("vstar-mini: third, comparable") >= 1
    assert "Evaluate both alike, or say `--allow protocol" in page
    others = re.findall(r'<p class="other num">.*?</span> <span>(.*?)</span></p>', page)
    assert "\u2013" in others
    assert not any(text.rstrip().endswith(";") for text in others)


def test_each_runs_average_over_repeats_is_told_of_that_run(tmp_path: Path) -> None:
    made = samples(tmp_path / "data", 4, 0)
    wrong = {f"s{n}": (answer("B"),) for n in range(4)}
    half = {"s0": wrong["s0"], "s1": wrong["s1"]}
    says = {"base": {}, "half": half, "none": wrong}
    runs = [Look(made, own, name, repeats=2).at(tmp_path / name) for name, own in says.items()]
    text = " ".join(Tags(report([str(run) for run in runs], Options())).text)
    found = re.findall(r"(base|half|none): avg@2 ([\d.]+)", text)
    assert found == [("base", "100.0"), ("half", "50.0"), ("none", "0.0")]


def test_a_count_of_a_candidate_leads_to_the_list_of_that_candidate(runs: tuple[Path, Path], tmp_path: Path) -> None:
    third = Look(samples(tmp_path / "data"), BEFORE, "third").at(tmp_path / "third")
    two_runs = report([str(run) for run in runs], Options())
    more = report([*map(str, runs), str(third)], Options())
    for wanted in ("error=empty_box", "end=engine_error"):
        pattern = rf'<a href="#task=vstar-mini(\S*)&amp;{wanted}">([^<]*)</a>'
        linked = [re.findall(pattern, page) for page in (two_runs, more)]
        assert linked[0] == [("", wanted.partition("=")[2].replace("_", " "))]
        assert linked[1] == [("", "1"), ("&amp;vs=2", "1")]  # of the baseline and of the third; tuned has none


def test_a_checkpoint_that_shares_no_task_is_noted_and_the_others_are_judged(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    limits = read_limits({"gate": {"max_error_share": 1.0, "limits": {"rapr": {"min": 0.0}}}})
    other = Look(samples(tmp_path / "data"), {}, "other", "mvbench-mini").at(tmp_path / "other")
    page = report([*map(str, runs), str(other)], Options(limits=limits))
    text = " ".join(Tags(page).text)
    verdict = report([str(run) for run in runs], Options(limits=limits))
    assert re.search(r'<div class="verdict \w+">', page)[0] == re.search(r'<div class="verdict \w+">', verdict)[0]  # type: ignore[index]
    assert "other has no run of vstar-mini: not judged." in text
    assert "base has no run of mvbench-mini: not judged." in text
    missing = read_limits({"gate": {"limits": {"rappr": {"min": 0.0}}}})
    with pytest.raises(UsageError, match="no task has it"):
        report([*map(str, runs), str(other)], Options(limits=missing))


def test_a_limit_on_a_metric_of_a_task_that_one_candidate_lacks_is_no_mistake(tmp_path: Path) -> None:
    for model in ("base", "tuned", "third"):
        make(tmp_path / model / "vstar", [1] * 9, model=model)
        if model != "third":
            make(tmp_path / model / "infographics", [1] * 9, model=model, task="infographicsvqa-mini")
    limits = read_limits({"gate": {"limits": {"anls": {"min": 1.0}}}})
    page = report([str(tmp_path / model) for model in ("base", "tuned", "third")], Options(limits=limits))
    assert "third has no run of infographicsvqa-mini, which the baseline has" in page


def test_repeats_are_all_there(tmp_path: Path) -> None:
    made = samples(tmp_path / "data", 2, 0)
    run = Look(made, BEFORE, repeats=3).at(tmp_path / "run")
    own = sample(report([str(run)], Options()), "s0")["episodes"][0]
    assert [episode["repeat"] for episode in own] == [0, 1, 2]


def test_an_incomparable_pair_has_red_rows_and_no_verdict(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = Look(samples(tmp_path / "data", 4, 0), AFTER, "other").at(tmp_path / "other")
    page = report([str(runs[0]), str(other)], Options())
    assert '<tr class="blocks">' in page
    assert re.search(r'<div class="verdict (incomparable|errors)">', page)


def edited(run: Path, target: Path, change: Any) -> Path:
    """A copy of a run with every record changed, and nothing of it that was derived."""
    import shutil

    shutil.copytree(run, target)
    lines = (run / "records.jsonl").read_bytes().splitlines(keepends=True)
    rows = [record for line in lines if (record := decode_line(line))]
    for row in rows:
        change(row)
    (target / "records.jsonl").write_bytes(b"".join(encode_line(row) for row in rows))
    return target


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


def test_an_episode_that_was_run_again_counts_once(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = edited(runs[1], tmp_path / "run", lambda row: None)
    lines = (run / "records.jsonl").read_bytes()
    (run / "records.jsonl").write_bytes(lines + lines)
    once, twice = (sample(report([str(one)], Options()), "s0") for one in (runs[1], run))
    assert len(twice["episodes"][0]) == len(once["episodes"][0]) == 1


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


@settings(max_examples=40)
@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=30))
def test_a_quoted_id_is_itself_again_in_a_shell(text: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"printf %s {quote(text)}"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert done.stdout.decode() == text


def test_a_command_reproduces_one_sample(page: str) -> None:
    command = unpacked(page)["index"]["tasks"][0]["commands"][1][0]
    assert command == (
        "prh eval --model tuned --task vstar-mini --set padding=0.1 --set limits.turns=5 "
        "--set 'budget.crop=[784, 40000]' --seed 0"
    )


def rerun(run: Path) -> list[str]:
    """The words of the command that a report gives for a run."""
    command = unpacked(report([str(run)], Options(images="none")))["index"]["tasks"][0]["commands"][0][0]
    return shlex.split(command)


CONFIG = "padding = 0.3\nprotocol = 'pixel-reasoner-released'\n[limits]\nturns = 2\n"


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ((), ""),
        (("--set", "padding=0.3", "--set=limits.turns=2", "--temperature", "0.5", "--seed", "3"), ""),
        (("--set", "operations=['crop_image']"), CONFIG),
        (("--protocol", "direct", "--profile", "vlmevalkit"), CONFIG),
    ],
)
def test_a_command_reproduces_the_settings_without_the_file_that_gave_them(
    options: tuple[str, ...], config: str, tmp_path: Path
) -> None:
    (tmp_path / "prh.toml").write_text(config, encoding="utf-8")
    words = ("eval", "--model", "oracle", "--task", "vstar-mini", "--sample-id", "direct_attributes/0000")
    prh(*words, *options, "--out", "first", cwd=tmp_path)
    (tmp_path / "prh.toml").unlink()
    again = rerun(tmp_path / "first")
    assert again[:6] == ["prh", "eval", "--model", "oracle", "--task", "vstar-mini"]
    assert ("--set" in again) == bool(config or "--set" in options)
    prh(*again[1:], "--sample-id", "direct_attributes/0000", "--out", "second", cwd=tmp_path)
    first, second = (read_manifest(tmp_path / name) for name in ("first", "second"))
    assert second["identity"] == first["identity"]
    assert second["profile"] == first["profile"]


def test_a_command_leaves_out_who_ran_it_and_where_its_figures_went(tmp_path: Path) -> None:
    run = Look(samples(tmp_path / "data", 1, 0), {}).at(tmp_path / "run")
    manifest = read_manifest(run)
    by_whom = "--executor ray --set executor.workers=2 --set=executor=ray --track wandb --track=trackio --concurrency 3"
    manifest["command"] = [
        "prh",
        "eval",
        "--model",
        "base",
        "--task",
        "vstar-mini",
        *by_whom.split(),
        "--dtype",
        "float32",
    ]
    write_json(run / "run.json", manifest)
    assert not {"--executor", "--track", "wandb", "ray"} & set(rerun(run))
    assert not re.search("executor|track|concurrency", " ".join(rerun(run)))
    assert " ".join(rerun(run)).startswith("prh eval --model base --task vstar-mini --dtype float32 --set padding=0.1")


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


def training(folder: Path, seed: int, values: list[float], rate: float = 0.1) -> Path:
    folder.mkdir(parents=True)
    manifest = {"schema": 1, "kind": "grpo", "base": "tiny", "identity": {"train": {"seed": seed, "rate": rate}}}
    (folder / "training.json").write_text(json.dumps(manifest), encoding="utf-8")
    rows = [{"step": n + 1, "rapr": value, "loss": 1.0 / (n + 1), "seconds": 1.0} for n, value in enumerate(values)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


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


def test_runs_with_nothing_in_them_are_reported_as_such(tmp_path: Path) -> None:
    made = samples(tmp_path / "data", 2, 0)
    fails = {"s0": (FAILS,), "s1": (FAILS,)}
    broken, fine = Look(made, fails, "broken").at(tmp_path / "broken"), Look(made, {}).at(tmp_path / "fine")
    empty = edited(fine, tmp_path / "empty", lambda row: None)
    (empty / "records.jsonl").write_bytes(b"")
    single = Look(made[:1], {}, "single").at(tmp_path / "single")
    for words in ([broken], [empty], [single], [fine, broken], [broken, broken], [fine, empty], [single, single]):
        page = report([str(word) for word in words], Options())
        assert "nan" not in " ".join(Tags(page).text).lower().split()
        if len(words) > 1 and words[0] != single:
            assert re.search(r'<div class="verdict (incomparable|errors)">', page), words


def test_a_run_that_is_not_whole_says_so_first(tmp_path: Path) -> None:
    run = make(tmp_path / "run", [1] * 9)
    lines = (run / "records.jsonl").read_bytes().splitlines(keepends=True)
    (run / "records.jsonl").write_bytes(b"".join(lines[:4]))
    made = documents([str(run)], Options(), ["html", "md"])
    said = "run holds 4 of 9; "
    assert said in made["html"].partition("</section>")[0]
    assert said in made["md"].partition("|")[0]


def test_where_nothing_is_paired_each_card_has_the_runs_own_figure_and_count(tmp_path: Path) -> None:
    runs = [make(tmp_path / "ok", [1] * 9), make(tmp_path / "down", [scripted.FAILS] * 9, model="down")]
    page = report([str(run) for run in runs], Options())
    card = page.partition("<h4>Accuracy</h4>")[2].partition("</div>")[0]
    assert "100.0 [70.1 \u2013 100.0] %" in card
    assert "0 episodes" in card


def test_seeds_of_one_training_are_one_entrant_with_all_their_episodes(tmp_path: Path) -> None:
    made = samples(tmp_path / "data", 4, 0)
    base = [Look(made, {}, f"base-{seed}").at(tmp_path / f"b{seed}") for seed in (0, 1)]
    tuned = [Look(made, AFTER, f"tuned-{seed}").at(tmp_path / f"t{seed}") for seed in (0, 1)]
    page = report([",".join(map(str, side)) for side in (base, tuned)], Options())
    index = unpacked(page)["index"]
    assert len(index["entrants"]) == 2
    own = sample(page, "s0")["episodes"]
    assert [[episode["key"] for episode in side] for side in own] == [["b0 0", "b1 0"], ["t0 0", "t1 0"]]
    assert [len(commands) for commands in index["tasks"][0]["commands"]] == [2, 2]


def test_a_task_that_one_checkpoint_lacks_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    before, after = four(tmp_path)
    third = Look(samples(tmp_path / "data"), {}, "third").at(tmp_path / "third")
    page = report([str(before), str(after), str(third)], Options())
    tasks = unpacked(page)["index"]["tasks"]
    assert {task["name"]: [len(own) for own in task["commands"]] for task in tasks} == {
        "mvbench-mini": [1, 1, 0],
        "vstar-mini": [1, 1, 1],
    }
    assert "third has no run of mvbench-mini" in page


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
