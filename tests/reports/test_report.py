"""The report as a file: what is in it, what can never be in it, and that it is the same bytes for the same runs."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prh.reports.report import Options, documents, report
from prh.tests.reports.looking import TARGET, Look, answer, crop, pick, samples
from prh.tests.reports.reading import Tags, edited, prh, training
from prh.tests.reports.unpack import parts as unpacked
from prh.tests.reports.unpack import pictures, sample


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
