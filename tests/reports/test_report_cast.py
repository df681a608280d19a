"""Who is in a report: one run, candidates, repeats, seeds, tasks that one lacks, and runs that are not whole."""

import re
from pathlib import Path

import pytest
from prh.harness.errors import UsageError
from prh.reports.limits import read_limits
from prh.reports.report import Options, documents, report
from prh.tests.reports import runs as scripted
from prh.tests.reports.looking import AFTER, BEFORE, FAILS, Look, answer, four, samples
from prh.tests.reports.reading import Tags, edited, prh
from prh.tests.reports.runs import make
from prh.tests.reports.unpack import parts as unpacked
from prh.tests.reports.unpack import sample


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


def test_an_episode_that_was_run_again_counts_once(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = edited(runs[1], tmp_path / "run", lambda row: None)
    lines = (run / "records.jsonl").read_bytes()
    (run / "records.jsonl").write_bytes(lines + lines)
    once, twice = (sample(report([str(one)], Options()), "s0") for one in (runs[1], run))
    assert len(twice["episodes"][0]) == len(once["episodes"][0]) == 1


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
