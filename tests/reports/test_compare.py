"""What is paired, what is named, and that every figure is the run's own."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prh.harness.errors import UsageError
from prh.harness.evaluate import score
from prh.harness.scoring import read_metric
from prh.harness.store import encode_line, read_json, read_manifest, read_records, write_json
from prh.harness.types import Json
from prh.reports.compare import Comparison, Result, compare, compare_profiles
from prh.reports.documents import comparison_json
from prh.reports.gate import judge
from prh.reports.limits import read_limits
from prh.reports.markdown import comparison_markdown, escape, verdict_markdown
from prh.reports.pairing import ALLOWED
from prh.reports.runs import entrants
from prh.reports.statistics import paired_difference
from prh.tests.reports.runs import FAILS, flipped, make

SAME: Sequence[object] = [1] * 30 + [0] * 10


def prh(*words: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prh", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def only(comparison: Comparison) -> Result:
    [task] = comparison.tasks
    [result] = task.results
    return result


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    before, after = flipped(40, 20, 8, 3)
    make(folder / "old", before, calls=range(30), shared=2)
    make(folder / "new", after, model="tuned", calls=range(10, 20), shared=2)
    return folder


def test_each_side_has_the_figures_of_its_own_run(runs: Path) -> None:
    result = only(compare([str(runs / "old"), str(runs / "new")]))
    for side, name in (("baseline", "old"), ("candidate", "new")):
        own = read_json(runs / name / "metrics.json")["metrics"]
        for metric in ("accuracy", "rapr", "rapr_successful", "op_error_rate", "episodes_with_op_error"):
            delta = result.delta(metric)
            assert delta is not None
            assert getattr(delta, side) == read_metric(own[metric]), metric  # type: ignore[call-overload, index]
        for cost in ("turns", "new_tokens", "operations"):
            delta = result.delta(cost)
            assert delta is not None
            assert getattr(delta, side).value == pytest.approx(own[cost]["value"])  # type: ignore[call-overload, index]


def test_categories_and_slices_are_compared_with_the_metrics_of_the_run(runs: Path) -> None:
    result = only(compare([str(runs / "old"), str(runs / "new")]))
    own = read_json(runs / "new" / "metrics.json")["categories"]
    found = {part.part: part for part in result.parts if part.metric == "accuracy"}
    assert set(found) == {"category:part 0", "category:part 1"}
    for name, part in found.items():
        assert part.candidate == read_metric(own[name.partition(":")[2]]["accuracy"])  # type: ignore[call-overload, index, arg-type]
        assert part.adjusted is not None
        assert part.difference.p is not None
        assert part.adjusted >= part.difference.p


def test_samples_are_paired_by_id_and_those_of_one_side_are_named(tmp_path: Path) -> None:
    make(tmp_path / "old", SAME, asked=range(30))
    make(tmp_path / "new", [0] * 40, asked=range(10, 40), model="tuned")
    result = only(compare([str(tmp_path / "old"), str(tmp_path / "new")]))
    assert result.pairing.ids == tuple(f"s{n:04}" for n in range(10, 30))
    assert result.primary.baseline.value == 1.0
    assert len(result.pairing.baseline_only) == len(result.pairing.candidate_only) == 10
    assert [m.text for m in result.pairing.mismatches] == [
        "samples: 20 in both; 10 in the baseline alone, 10 in the candidate alone"
    ]
    assert result.pairing.comparable


def test_an_error_is_left_out_and_named_and_never_a_wrong_answer(tmp_path: Path) -> None:
    make(tmp_path / "old", [1] * 40)
    make(tmp_path / "new", [FAILS] + [1] * 39, model="tuned")
    result = only(compare([str(tmp_path / "old"), str(tmp_path / "new")]))
    assert result.primary.candidate.value == 1.0
    assert result.primary.difference.n == 39
    assert "1 of 40 episodes ended in an error and are left out" in result.pairing.mismatches[0].text


DIFFERENCES = {
    "limits": {"limits": {"new_tokens": 77}},
    "budget": {"budget": {"crop": [784, 7840]}},
    "sampling": {"sampling": {"top_p": 0.5}},
    "padding": {"padding": 0.25},
    "operations": {"operations": ["crop_image"]},
    "protocol": {"protocol": "pixel-reasoner-released"},
}


@pytest.mark.parametrize(("field", "values"), DIFFERENCES.items(), ids=DIFFERENCES.keys())
def test_a_setting_that_differs_is_named_first_and_can_be_allowed(
    field: str, values: dict[str, Json], tmp_path: Path
) -> None:
    make(tmp_path / "old", SAME)
    make(tmp_path / "new", SAME, model="tuned", settings=values)
    done = prh("compare", "old", "new", cwd=tmp_path, code=4)
    assert done.stdout.splitlines()[1].startswith("NOT COMPARABLE  ")
    fields = {line.split()[2].partition(".")[0].rstrip(":") for line in done.stdout.splitlines() if "NOT" in line}
    assert field in fields <= set(ALLOWED)
    allow = [word for name in fields for word in ("--allow", name)]
    done = prh("compare", "old", "new", *allow, cwd=tmp_path)
    assert done.stdout.splitlines()[1].startswith("note  ")
    assert done.stdout.count("(allowed)") == done.stdout.count("note  ")


def test_what_may_be_said_to_differ_is_named_as_the_command_takes_it(tmp_path: Path) -> None:
    """Also by the example of the command's own help: tools against none."""
    make(tmp_path / "runs/direct", SAME, settings={"protocol": "direct"})
    make(tmp_path / "runs/tools", SAME, model="tuned")
    example = next(line for line in prh("compare", "--help", cwd=tmp_path).stdout.splitlines() if "runs/direct" in line)
    words = example.split()[1:]
    assert words[:3] == ["compare", "runs/direct", "runs/tools"]
    prh(*words, cwd=tmp_path)
    refused = prh(*words[:3], cwd=tmp_path, code=4).stdout
    assert f"say `{' '.join(words[3:])}` where" in refused
    done = prh("gate", words[2], "--baseline", words[1], cwd=tmp_path, code=4)
    assert f"note  Evaluate both alike, or say `{' '.join(words[3:])}` where" in done.stdout


def test_what_stands_in_the_way_is_named_first_under_every_profile_too(tmp_path: Path) -> None:
    make(tmp_path / "old", SAME)
    make(tmp_path / "new", SAME, model="tuned", settings={"padding": 0.25})
    lines = prh("compare", "old", "new", "--profile", "all", cwd=tmp_path, code=4).stdout.splitlines()
    assert lines[0] == "vstar-mini · tuned"
    assert lines[1].startswith("NOT COMPARABLE  padding")
    assert sum("NOT COMPARABLE" in line for line in lines) == 1
    words = ("compare", "old", "new", "--profile", "all", "--markdown", "-")
    text = prh(*words, cwd=tmp_path, code=4).stdout
    assert "- NOT COMPARABLE  padding" in text.partition("| ")[0]
    assert "NOT" not in prh(*words, "--allow", "padding", cwd=tmp_path).stdout


def test_a_run_that_is_not_whole_has_advice_of_its_own(tmp_path: Path) -> None:
    make(tmp_path / "old", SAME)
    make(tmp_path / "new", SAME, model="tuned")
    (tmp_path / "new" / "records.jsonl").write_bytes(b"")
    assert "--allow" not in prh("compare", "old", "new", cwd=tmp_path, code=4).stdout


def test_the_engine_and_the_seed_are_worth_a_note(tmp_path: Path) -> None:
    for name in ("old", "new"):
        make(tmp_path / name, SAME, model=name, settings={"sampling": {"temperature": 0.7}})
    manifest = read_manifest(tmp_path / "new")
    manifest["identity"].update(seed=3, numerics={"name": "other"})  # type: ignore[union-attr]
    write_json(tmp_path / "new" / "run.json", manifest)
    result = only(compare([str(tmp_path / "old"), str(tmp_path / "new")]))
    assert [m.text for m in result.pairing.mismatches] == ["numerics.name: scripted, other", "seed: 0, 3"]
    assert result.pairing.comparable


def test_what_an_engine_was_told_to_show_must_be_alike(tmp_path: Path) -> None:
    for name, video, engine in (("old", "native", "one"), ("new", "frames", "one"), ("api", "frames", "other")):
        make(tmp_path / name, SAME, model=name)
        manifest = read_manifest(tmp_path / name)
        manifest["identity"].update(numerics={"name": engine, "video": video})  # type: ignore[union-attr]
        write_json(tmp_path / name / "run.json", manifest)
    old, new, api = (str(tmp_path / name) for name in ("old", "new", "api"))
    assert not compare([old, new]).comparable
    assert compare([old, new], allow=["numerics"]).comparable
    assert compare([old, api]).comparable


def test_samples_that_became_other_questions_are_not_paired(tmp_path: Path) -> None:
    make(tmp_path / "old", SAME)
    make(tmp_path / "new", SAME, model="tuned", question="Which?")
    found = compare([str(tmp_path / "old"), str(tmp_path / "new")], allow=["dataset"])
    assert only(found).pairing.ids == ()
    assert not found.comparable
    assert only(found).primary.difference.value is None


def test_repeats_are_averaged_and_their_noise_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    old, new = (rng.integers(0, 2, (60, 4)).tolist() for _ in range(2))
    make(tmp_path / "old", old)
    make(tmp_path / "new", new, model="tuned")
    result = only(compare([str(tmp_path / "old"), str(tmp_path / "new")]))
    means = [np.array(side, float).mean(1) for side in (old, new)]
    assert result.primary.difference == paired_difference(*means, range(60))
    assert result.repeats is not None
    assert result.repeats[0].k == 4
    assert result.repeats[0].within == pytest.approx(np.array(old, float).var(1, ddof=1).mean())
    assert "avg@4" in prh("compare", "old", "new", cwd=tmp_path).stdout


def test_seeds_joined_by_commas_are_one_column(tmp_path: Path) -> None:
    sides = [[[1, 0, 1, 1] * 10, [1, 1, 1, 0] * 10], [[0, 0, 1, 1] * 10, [1, 0, 0, 0] * 10]]
    for side, name in zip(sides, ("old", "new"), strict=True):
        for seed, own in enumerate(side):
            make(tmp_path / f"{name}-{seed}", own, model=f"{name}-{seed}")
    words = [",".join(str(tmp_path / f"{name}-{seed}") for seed in (0, 1)) for name in ("old", "new")]
    found = compare(words)
    matrices = [np.array(side, float).T for side in sides]
    assert only(found).primary.difference == paired_difference(*matrices, range(40))
    assert only(found).primary.difference.test == "score with seeds"


def test_a_run_of_one_checkpoint_joined_with_another_is_a_repeat_and_no_seed(tmp_path: Path) -> None:
    for number in (0, 1):
        make(tmp_path / f"old-{number}", [number] * 40)
        make(tmp_path / f"new-{number}", [1] * 40, model="tuned")
    found = compare([f"{tmp_path}/old-0,{tmp_path}/old-1", f"{tmp_path}/new-0,{tmp_path}/new-1"])
    assert only(found).primary.baseline.value == 0.5
    assert only(found).primary.difference.test == "score"


def test_folders_of_runs_are_matched_by_task_and_told_apart_by_checkpoint(tmp_path: Path) -> None:
    for task in ("vstar-mini", "tallyqa-complex-mini"):
        for model in ("base", "tuned"):
            make(tmp_path / "both" / f"{task}-{model}", SAME, task=task, model=model)
            make(tmp_path / model / task, SAME, task=task, model=model)
    every = sorted(str(path) for path in (tmp_path / "both").iterdir())
    for words in ([str(tmp_path / "both")], every, [str(tmp_path / "base"), str(tmp_path / "tuned")]):
        found = compare(words)
        assert (found.baseline, found.candidates, found.missing) == ("base", ("tuned",), ())
        assert sorted(task.task for task in found.tasks) == ["tallyqa-complex-mini", "vstar-mini"]


def test_more_than_two_are_each_compared_with_the_first(tmp_path: Path) -> None:
    for model, right in (("a", 30), ("b", 20), ("c", 35)):
        make(tmp_path / model, [1] * right + [0] * (40 - right), model=model)
    found = compare([str(tmp_path / model) for model in "bac"])
    [task] = found.tasks
    assert found.baseline == "b"
    assert [(r.label, r.primary.difference.value) for r in task.results] == [("a", 0.25), ("c", 0.375)]
    ps = [r.primary.difference.p for r in task.results]
    assert task.results[1].primary.adjusted == pytest.approx(2 * ps[1])  # type: ignore[operator]
    with pytest.raises(UsageError, match="one candidate, not 2"):
        judge(found, read_limits({}))


def test_labels_tell_entrants_apart_however_alike_they_are(tmp_path: Path) -> None:
    for name in ("x/run", "y/run", "z"):
        make(tmp_path / name, [1])
    words = [str(tmp_path / name) for name in ("x/run", "y/run", "z")]
    assert [e.label for e in entrants(words)] == words
    assert [e.label for e in entrants(words[1:])] == ["run", "z"]
    assert [e.label for e in entrants([words[0], words[0]])] == ["1 base", "2 base"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ((), "Missing argument"),
        (("one",), "alone cannot be compared"),
        (("one", "tally"), "there is only base (vstar-mini, tallyqa-complex-mini)"),
        (("one", "other"), "no task in common"),
        (("one", "nowhere"), "nowhere"),
        (("one", "one", "--allow", "task"), "cannot be allowed to differ"),
        (("one", "one", "--profile", "strct"), "did you mean strict"),
        (("one", "one", "--profile", "nothing"), "profile"),
        (("tally", "tally", "--profile", "lmms"), "no rules"),
        (("one", "one", "--markdown", "one/run.json/x.md"), "cannot write"),
        (("one", "one", "--markdown", "one/records.jsonl"), "is what a run is made of"),
        (("one", "one", "--markdown", "-", "--json"), "only one of"),
        (("one,./one", "one"), "names one twice"),
    ],
)
def test_a_mistake_is_one_line(words: Sequence[str], hint: str, tmp_path: Path) -> None:
    make(tmp_path / "one", [1])
    make(tmp_path / "tally", [1], task="tallyqa-complex-mini")
    make(tmp_path / "other", [1], task="tallyqa-complex-mini", model="tuned")
    done = prh("compare", *words, cwd=tmp_path, code=2)
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert hint in lines[0]
    assert len(lines) == 1


def test_an_episode_that_was_edited_is_named(tmp_path: Path) -> None:
    make(tmp_path / "one", [1, 1])
    records = read_records(tmp_path / "one")
    for record in records:
        record.pop("crc", None)
        record["operations"] = [{"name": "crop_image"}]
    (tmp_path / "one" / "records.jsonl").write_bytes(b"".join(map(encode_line, records)))
    done = prh("compare", "one", "one", cwd=tmp_path, code=2)
    assert "record 's0000' cannot be read" in done.stderr


@pytest.mark.parametrize("free", [(0,), (3, 4), range(40)])
def test_an_episode_that_cost_nothing_has_a_cost_of_nothing_where_others_have_one(
    free: Sequence[int], tmp_path: Path
) -> None:
    """A record leaves such a cost out; a run in which none costs anything has no prices."""
    for name in ("old", "new"):
        make(tmp_path / name, SAME, model=name)
        priced = range(40) if name == "old" else [n for n in range(40) if n not in free]
        records = [{k: v for k, v in record.items() if k != "crc"} for record in read_records(tmp_path / name)]
        for number in priced:
            records[number]["usage"]["cost"] = 0.5  # type: ignore[index, call-overload]
        (tmp_path / name / "records.jsonl").write_bytes(b"".join(map(encode_line, records)))
    delta = only(compare([str(tmp_path / "old"), str(tmp_path / "new")])).delta("cost")
    if len(free) == 40:
        assert delta is None
        return
    assert delta is not None
    assert delta.baseline.value == pytest.approx(0.5)
    assert delta.candidate.value == pytest.approx(0.5 * (40 - len(free)) / 40)


def test_a_profile_whose_denominator_is_its_own_is_aggregated_anew(tmp_path: Path) -> None:
    """lmms-eval leaves empty replies of MVBench out: a mean over samples would not be its figure."""
    old = ["A", ""] * 20
    make(tmp_path / "old", old, task="mvbench-mini")
    make(tmp_path / "new", ["A", "B"] * 20, task="mvbench-mini", model="tuned")
    for name in ("old", "new"):
        _say_plainly(tmp_path / name)
    result = only(compare([str(tmp_path / "old"), str(tmp_path / "new")], "lmms"))
    assert result.primary.difference.test == "bootstrap"
    assert result.primary.baseline.n == 20
    assert result.primary.difference.low is not None


def _say_plainly(run: Path) -> None:
    """Replies without their box; empty ones are empty. Gold is A."""
    records = read_records(run)
    for record in records:
        record.pop("crc", None)
        part = record["segments"][-1]["parts"][0]  # type: ignore[index, call-overload]
        part["text"] = part["text"].removeprefix("\\boxed{").removesuffix("}")  # type: ignore[index, call-overload, union-attr]
        record["gold"], record["choices"] = ["A"], ["x", "y"]
        record["answer_kind"] = "option"
    (run / "records.jsonl").write_bytes(b"".join(map(encode_line, records)))


def test_the_reading_of_answers_can_make_a_difference_and_is_shown(tmp_path: Path) -> None:
    """``A or B`` is no answer by the strict rules; others read one in it."""
    make(tmp_path / "old", [1] * 40)
    make(tmp_path / "new", ["A or B"] * 20 + [1] * 20, model="tuned")
    words = [str(tmp_path / "old"), str(tmp_path / "new")]
    found = compare_profiles(words, ("strict", "vlmevalkit"))
    values = {name: only(one).primary.difference.value for name, one in found.items()}
    assert values["strict"] == -0.5
    assert set(values) == {"strict", "vlmevalkit"}
    text = prh("compare", *words, "--profile", "all", cwd=tmp_path).stdout
    assert re.search(r"strict +100\.0 .* 50\.0 ", text)
    for name in ("old", "new"):
        own = score(tmp_path / name, *_readers(), "", derived=False)["metrics"]["accuracy"]["value"]  # type: ignore[index, call-overload]
        side = only(found["vlmevalkit"]).primary
        assert own == (side.baseline.value if name == "old" else side.candidate.value)


def _readers():  # type: ignore[no-untyped-def]
    from prh.harness.evaluate import load_profile, load_task

    return load_task("vstar-mini"), load_profile("vlmevalkit")


def test_json_says_everything_and_markdown_the_same_tables(runs: Path) -> None:
    done = prh("compare", "old", "new", "--json", "--markdown", "summary.md", cwd=runs)
    found = json.loads(done.stdout)
    assert found == json.loads(json.dumps(comparison_json(compare([str(runs / "old"), str(runs / "new")])))) | {
        "tasks": found["tasks"]
    }
    [result] = found["tasks"][0]["results"]
    assert result["metrics"]["accuracy"]["difference"]["value"] == pytest.approx(5 / 40)
    assert (len(result["flips"]["gained"]), len(result["flips"]["lost"])) == (8, 3)
    assert result["samples"] == {"paired": 40, "baseline_only": [], "candidate_only": []}
    text = (runs / "summary.md").read_text()
    assert "| accuracy % | 50.0 [" not in text, "brackets could make a link"
    assert "| accuracy % | 50.0 &#91;" in text
    assert prh("compare", "old", "new", "--markdown", "-", cwd=runs).stdout == text


HOSTILE = "</script><img src=x onerror=alert(1)> | `a` [x](javascript:x) @team *b* \u202eeven\n# more\x1b[31m"


def test_names_and_labels_stay_text(tmp_path: Path) -> None:
    make(tmp_path / "old", SAME)
    make(tmp_path / "new", SAME, model=HOSTILE)
    for name in ("old", "new"):
        data = (tmp_path / name / "records.jsonl").read_bytes()
        assert data
    found = compare([str(tmp_path / "old"), str(tmp_path / "new")])
    for text in (comparison_markdown(found), verdict_markdown(judge(found, read_limits({})), found)):
        body = text.replace("<details><summary>", "").replace("</summary>", "").replace("</details>", "")
        assert "<" not in body
        assert "\x1b" not in body
        assert "\u202e" not in body
        assert "@team" not in body
        assert "](" not in body
        for line in body.splitlines():
            assert not line.startswith("# ")
    done = prh("compare", "old", "new", cwd=tmp_path)
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout


@given(st.text(max_size=60))
def test_escaped_text_is_one_line_without_markup(text: str) -> None:
    found = escape(text)
    assert not re.search(r"[\n\r<>|`*_\[\]~\\]", found)
    assert not re.match(r"[-+#=]", found)


rows = st.lists(st.tuples(st.sampled_from([0, 1]), st.sampled_from([0, 1])), min_size=1, max_size=30)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows)
def test_any_two_runs_can_be_compared(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]]) -> None:
    folder = tmp_path_factory.mktemp("any")
    make(folder / "old", [before for before, _ in pairs])
    make(folder / "new", [after for _, after in pairs], model="tuned")
    result = only(compare([str(folder / "old"), str(folder / "new")]))
    table = result.agreement
    assert table is not None
    assert table.both + table.baseline_only + table.candidate_only + table.neither == len(pairs)
    assert result.primary.difference.value == pytest.approx((table.candidate_only - table.baseline_only) / len(pairs))
    assert judge(compare([str(folder / "new"), str(folder / "old")]), read_limits({})).exit_code in (0, 1)


def test_a_limit_can_be_on_a_metric_beside_the_primary_one(tmp_path: Path) -> None:
    """ANLS of a near miss is high; exact match may have a floor of its own."""
    make(tmp_path / "old", [1] * 400, task="infographicsvqa-mini")
    make(tmp_path / "new", ["7"] * 400, task="infographicsvqa-mini", model="tuned")
    words = [str(tmp_path / "old"), str(tmp_path / "new")]
    assert [d.metric for d in only(compare(words)).deltas][:2] == ["anls", "accuracy"]
    make(tmp_path / "near", ["seven"] * 400, task="infographicsvqa-mini", model="near")
    found = judge(
        compare([words[0], str(tmp_path / "near")]),
        read_limits({"gate": {"margin": 1.0, "limits": {"accuracy": {"margin": 0.02}, "anls": {"min": 0.5}}}}),
    )
    states = {check.name: check.state for check in found.tasks[0].checks}
    assert (states["accuracy margin"], states["anls min"]) == ("regression", "regression")


def test_a_split_without_answers_passes_no_gate(tmp_path: Path) -> None:
    for name in ("old", "new"):
        make(tmp_path / name, [1] * 400, task="infographicsvqa-mini", model=name)
        records = [{**record, "gold": []} for record in read_records(tmp_path / name)]
        lines = [encode_line({k: v for k, v in record.items() if k != "crc"}) for record in records]
        (tmp_path / name / "records.jsonl").write_bytes(b"".join(lines))
    found = compare([str(tmp_path / "old"), str(tmp_path / "new")])
    verdict = judge(found, read_limits({}))
    assert (verdict.verdict, verdict.exit_code) == ("incomparable", 4)
    assert only(found).delta("rapr") is not None


def test_power_reads_runs_or_a_number(runs: Path) -> None:
    two = json.loads(prh("power", "old", "new", "--json", cwd=runs).stdout)
    assert [(plan["n"], plan["measured"]) for plan in two] == [(40, True)]
    assert two[0]["discordance"] == pytest.approx(11 / 40)
    one = json.loads(prh("power", "old", "--discordance", "0.1", "--json", cwd=runs).stdout)
    assert [(plan["n"], plan["discordance"], plan["measured"]) for plan in one] == [(40, 0.1, False)]
    assert one[0]["design"] > 1, "two questions share each image"
    text = prh("power", "--samples", "191", cwd=runs).stdout
    assert re.search(r"191 samples +191 +10\.0 +1\.00 +6\.4 pt", text)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ((), "one run, two runs, or --samples"),
        (("old", "--samples", "3"), "one run, two runs, or --samples"),
        (("old", "new", "--discordance", "0.1"), "leave it out"),
        (("old", "new", "old"), "at most two"),
        (("nowhere",), "nowhere"),
        (("--samples", "9", "--effect", "0"), "effect"),
    ],
)
def test_power_answers_a_mistake_in_one_line(words: Sequence[str], hint: str, runs: Path) -> None:
    done = prh("power", *words, cwd=runs, code=2)
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert hint in lines[0]
    assert len(lines) == 1
