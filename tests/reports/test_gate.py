"""The gate's truth table over real run folders in a real process, exit codes included, and what it writes."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from prh.harness.errors import UsageError
from prh.harness.settings import read_config
from prh.harness.types import Json
from prh.reports.compare import Comparison, check_allowed, compare
from prh.reports.gate import judge
from prh.reports.limits import GateLimits, read_limits
from prh.tests.reports.runs import FAILS, flipped, make

Build = Callable[[Path, Path], object]


def gate(*words: object, cwd: Path, code: int | None = None, settings: str = "") -> subprocess.CompletedProcess[str]:
    (cwd / "prh.toml").write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "prh", "gate", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    if code is not None:
        assert done.returncode == code, done.stdout + done.stderr
    return done


def pair(**options: object) -> Build:
    """Writes a baseline and a candidate that answer as told; options of the candidate alone begin with ``new_``."""

    def build(old: Path, new: Path) -> None:
        before, after = options["before"], options["after"]
        common = {key: value for key, value in options.items() if not key.startswith(("new_", "before", "after"))}
        own = {key.removeprefix("new_"): value for key, value in options.items() if key.startswith("new_")}
        make(old, before, **common)  # type: ignore[arg-type]
        make(new, after, **{"model": "tuned", **common, **own})  # type: ignore[arg-type]

    return build


def answers(*numbers: int) -> Mapping[str, Sequence[object]]:
    before, after = flipped(*numbers)
    return {"before": before, "after": after}


def empty(old: Path, new: Path) -> None:
    """A candidate that was killed before its first episode."""
    make(old, [1] * 40)
    make(new, [1] * 40, model="tuned")
    (new / "records.jsonl").write_bytes(b"")


def killed(old: Path, new: Path) -> None:
    """A candidate that was killed half way: what is there is all right, and no evidence."""
    make(old, [1] * 250)
    make(new, [1] * 250, model="tuned")
    lines = (new / "records.jsonl").read_bytes().splitlines(keepends=True)
    (new / "records.jsonl").write_bytes(b"".join(lines[:125]))


def torn(old: Path, new: Path) -> None:
    """A line that was cut off while it was written is no episode; with it gone the run is not whole."""
    make(old, [1] * 250)
    make(new, [1] * 250, model="tuned")
    data = (new / "records.jsonl").read_bytes()
    (new / "records.jsonl").write_bytes(data[:-20])


SAME = [1] * 300 + [0] * 100
TABLE: Mapping[str, tuple[Build, str, int, int]] = {
    # what: runs, verdict, exit code, exit code under --strict
    "improves": (pair(**answers(400, 240, 60, 10)), "pass", 0, 0),
    "is equal, sample by sample": (pair(before=SAME, after=SAME), "pass", 0, 0),
    "is equal, too few samples to tell": (pair(**answers(191, 140, 6, 6)), "inconclusive", 0, 5),
    "is better, too few samples to tell": (pair(**answers(20, 10, 2, 1)), "inconclusive", 0, 5),
    "regresses": (pair(**answers(400, 300, 5, 60)), "regression", 1, 1),
    "is surely worse, but by less than the margin": (pair(**answers(2000, 1500, 0, 12)), "pass", 0, 0),
    "may be worse": (pair(**answers(400, 300, 12, 20)), "inconclusive", 0, 5),
    "was asked other questions": (
        pair(before=SAME, after=SAME, new_question="Which is it?"),
        "incomparable",
        4,
        4,
    ),
    "had more turns": (pair(before=SAME, after=SAME, new_settings={"limits": {"turns": 9}}), "incomparable", 4, 4),
    "saw more pixels": (
        pair(before=SAME, after=SAME, new_settings={"budget": {"input": [784, 99999]}}),
        "incomparable",
        4,
        4,
    ),
    "was sampled": (pair(before=SAME, after=SAME, new_settings={"sampling": {"temperature": 1}}), "incomparable", 4, 4),
    "spoke another protocol": (
        pair(before=SAME, after=SAME, new_settings={"protocol": "direct"}),
        "incomparable",
        4,
        4,
    ),
    "was read by another profile": (pair(before=SAME, after=SAME, new_profile="vlmevalkit"), "incomparable", 4, 4),
    "is another task": (pair(before=[7], after=[7], new_task="tallyqa-complex-mini"), "", 2, 2),
    "has one error in a hundred": (pair(before=SAME, after=[FAILS] * 4 + SAME[4:]), "pass", 0, 0),
    "has errors in a tenth": (pair(before=SAME, after=[FAILS] * 40 + SAME[40:]), "incomparable", 3, 3),
    "has nothing but errors": (pair(before=SAME, after=[FAILS] * 400), "incomparable", 3, 3),
    "has a baseline of errors": (pair(before=[FAILS] * 400, after=SAME), "incomparable", 3, 3),
    "is empty": (empty, "incomparable", 4, 4),
    "was killed half way": (killed, "incomparable", 4, 4),
    "has a torn line": (torn, "incomparable", 4, 4),
    "is one sample, right": (pair(before=[1], after=[1]), "inconclusive", 0, 5),
    "is one sample, lost": (pair(before=[1], after=[0]), "inconclusive", 0, 5),
    "was asked a part": (pair(before=SAME, after=SAME, new_asked=range(250)), "pass", 0, 0),
    "was asked another part": (
        pair(before=SAME, after=SAME, asked=range(200), new_asked=range(200, 400)),
        "incomparable",
        4,
        4,
    ),
}


@pytest.mark.parametrize(("build", "verdict", "code", "strict"), TABLE.values(), ids=TABLE.keys())
def test_the_truth_table(build: Build, verdict: str, code: int, strict: int, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    build(old, new)
    done = gate(new, "--baseline", old, "--json", cwd=tmp_path, code=code)
    if verdict:
        found = json.loads(done.stdout)
        assert (found["verdict"], found["exit_code"]) == (verdict, code)
    else:
        assert len(done.stderr.splitlines()) == 1
    gate(new, "--baseline", old, "--strict", cwd=tmp_path, code=strict)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline and an equal candidate that calls an operation in 40 of 400 samples, each a failure."""
    folder = tmp_path_factory.mktemp("runs")
    make(folder / "old", SAME, calls=range(120))
    make(folder / "new", SAME, model="tuned", calls=range(40))
    return folder


@pytest.fixture(scope="module")
def found(runs: Path) -> Comparison:
    return compare([str(runs / "old"), str(runs / "new")])


def config(text: str, folder: Path) -> dict[str, Json]:
    (folder / "prh.toml").write_text(text, encoding="utf-8")
    return read_config(folder / "prh.toml")


LIMITS = {
    "rapr = {min = 0.2}": ("rapr min", "regression"),
    "rapr = {min = 0.05, max = 0.95}": ("rapr min", "pass"),
    "rapr = {max = 0.05}": ("rapr max", "regression"),
    "op_error_rate = {max = 0.5}": ("op_error_rate max", "regression"),
    "accuracy = {min = 0.8}": ("accuracy min", "regression"),
    "accuracy = {min = 0.75}": ("accuracy min", "pass"),
    "new_tokens = {max = 0.5}": ("new_tokens max", "regression"),
    "turns = {max_ratio = 0.8}": ("turns max_ratio", "regression"),
    "turns = {max_ratio = 1.0}": ("turns max_ratio", "pass"),
    "seconds = {max = 3600}": ("seconds max", "pass"),
    "rapr = {margin = 0.02}": ("rapr margin", "regression"),
    "error_share = {max = 0.0}": ("candidate error_share", "pass"),
    "turns = {margin = 0.1}": ("turns margin", "pass"),
    "operations = {margin = 0.1}": ("operations margin", "pass"),
    "new_tokens = {margin = 0.1}": ("new_tokens margin", "pass"),
    "seconds = {margin = 3600}": ("seconds margin", "pass"),
    "episodes_with_op_error = {margin = 0.02}": ("episodes_with_op_error margin", "pass"),
    "op_error_rate = {margin = 0.02}": ("op_error_rate margin", "pass"),
}


@pytest.mark.parametrize(("limit", "check", "state"), [(k, *v) for k, v in LIMITS.items()], ids=LIMITS.keys())
def test_a_limit_is_kept_or_named(limit: str, check: str, state: str, found: Comparison, tmp_path: Path) -> None:
    verdict = judge(found, read_limits(config(f"[gate.limits]\n{limit}\n", tmp_path)))
    states = {own.name: own.state for own in verdict.tasks[0].checks}
    assert states[check] == state
    assert states["accuracy"] == "pass"
    assert verdict.exit_code == (1 if state == "regression" else 0)


@pytest.mark.parametrize("name", ["turns", "operations", "episodes_with_op_error"])
def test_a_margin_is_broken_by_more_of_what_is_better_less(name: str, runs: Path) -> None:
    found = compare([str(runs / "new"), str(runs / "old")])
    verdict = judge(found, read_limits({"gate": {"limits": {name: {"margin": 0.02}}}}))
    states = {own.name: own.state for own in verdict.tasks[0].checks}
    assert states[f"{name} margin"] == "regression"


def test_a_task_has_limits_of_its_own(runs: Path, tmp_path: Path) -> None:
    """Which override those of every task; the command line overrides every margin."""
    settings = """
        [gate]
        margin = 0.0
        max_error_share = 0.01
        [gate.limits]
        rapr = {min = 0.5}
        [gate.tasks.vstar-mini]
        margin = 0.05
        limits = {rapr = {min = 0.05}}
    """
    words = (runs / "new", "--baseline", runs / "old", "--strict")
    gate(*words, cwd=tmp_path, settings=settings, code=0)
    gate(*words, "--margin", "0", cwd=tmp_path, settings=settings, code=5)


MISTAKES = {
    "[gate]\nmargins = 1": "`gate.margins` is not known",
    "[gate]\nmargin = 2": "share from 0 to 1",
    "[gate]\nmargin = nan": "share from 0 to 1",
    "[gate]\nstrict = 1": "`gate.strict` must be true or false",
    "[gate]\nallow = 'protocol'": "`gate.allow` must be a list",
    "[gate]\nallow = ['task']": "'task' cannot be allowed to differ",
    "gate = 3": "`gate` must be a table",
    "[gate.limits]\nrapr = 0.3": "`gate.limits.rapr` must be a table",
    "[gate.limits]\nrapr = {mini = 0.3}": "`gate.limits.rapr.mini` is not known",
    "[gate.limits]\nrapr = {}": "demands nothing",
    "[gate.limits]\nrapr = {min = 0.5, max = 0.4}": "min 0.5 is above max 0.4",
    "[gate.limits]\nturns = {min = 'much'}": "must be a number from 0",
    "[gate.limits]\nrapr = {max = 95}": "`gate.limits.rapr.max` must be a share from 0 to 1",
    "[gate.limits]\naccuracy = {margin = 2}": "`gate.limits.accuracy.margin` must be a share from 0 to 1",
    "[gate.limits]\nerror_share = {min = 0.1}": "`gate.limits.error_share.min` is not known; use one of max",
    "[gate.limits]\nerror_share = {max_ratio = 2}": "`gate.limits.error_share.max_ratio` is not known",
    "[gate.limits]\nrappr = {min = 0.3}": "no task has it",
    "[gate.tasks.vstar-mini.limits]\nanls = {min = 0.3}": "vstar-mini has",
    "[gate.tasks.vstar-mni]\nmargin = 0.03": "did you mean vstar-mini",
}


@pytest.mark.parametrize(("settings", "hint"), MISTAKES.items(), ids=MISTAKES.keys())
def test_a_wrong_limit_is_one_line(settings: str, hint: str, found: Comparison, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        judge(found, _checked(read_limits(config(settings, tmp_path))))
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def _checked(limits: GateLimits) -> GateLimits:
    check_allowed(limits.allow)
    return limits


def test_a_wrong_limit_is_refused_before_anything_is_judged(runs: Path, tmp_path: Path) -> None:
    done = gate(runs / "new", "--baseline", runs / "old", cwd=tmp_path, settings="[gate]\nmargins = 1", code=2)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_a_gate_does_not_stand_in_the_way_of_an_evaluation(tmp_path: Path) -> None:
    """One ``prh.toml`` serves both: a setting that is none is named, and [gate] is not it."""
    file = tmp_path / "prh.toml"
    file.write_text("profile = 'strict'\n[gate]\nmargin = 0.03\n", encoding="utf-8")
    assert read_config(file)["gate"] == {"margin": 0.03}


def test_junit_and_markdown_say_what_the_verdict_is(tmp_path: Path) -> None:
    before, after = flipped(400, 300, 5, 60)
    make(tmp_path / "old", before)
    make(tmp_path / "new", after, model="tuned")
    words = (tmp_path / "new", "--baseline", tmp_path / "old", "--junit", "gate.xml", "--markdown", "gate.md")
    gate(*words, cwd=tmp_path, code=1)
    first = (tmp_path / "gate.xml").read_bytes(), (tmp_path / "gate.md").read_bytes()
    root = ET.fromstring(first[0])  # noqa: S314 - our own file
    assert (root.tag, root.get("tests"), root.get("failures"), root.get("errors")) == ("testsuites", "4", "1", "0")
    [failure] = root.iter("failure")
    assert "paired n = 400" in str(failure.get("message"))
    text = first[1].decode()
    assert text.startswith("## ❌ regression: tuned against base")
    assert "| vstar-mini | accuracy | ❌ regression |" in text
    gate(*words, cwd=tmp_path, code=1)
    assert ((tmp_path / "gate.xml").read_bytes(), (tmp_path / "gate.md").read_bytes()) == first


@pytest.mark.parametrize(("strict", "kind"), [((), "skipped"), (("--strict",), "failure")])
def test_junit_skips_what_is_inconclusive_unless_strict(strict: Sequence[str], kind: str, tmp_path: Path) -> None:
    make(tmp_path / "old", [1, 0, 1])
    make(tmp_path / "new", [1, 0, 1], model="tuned")
    done = gate(tmp_path / "new", "--baseline", tmp_path / "old", "--junit", "-", *strict, cwd=tmp_path)
    root = ET.fromstring(done.stdout.encode())  # noqa: S314 - our own output
    assert len(list(root.iter(kind))) == 1
    assert done.returncode == (5 if strict else 0)


def test_several_tasks_are_judged_together(tmp_path: Path) -> None:
    """The gravest decides; a task that the candidate lacks is not passed over."""
    for name, tally in (("old", SAME), ("new", [0] * 400)):
        make(tmp_path / name / "vstar-mini", SAME, model=name)
        make(tmp_path / name / "tallyqa-complex-mini", tally, model=name, task="tallyqa-complex-mini")
    words = (tmp_path / "new", "--baseline", tmp_path / "old", "--json")
    found = json.loads(gate(*words, cwd=tmp_path, code=1).stdout)
    assert {task["task"]: task["verdict"] for task in found["tasks"]} == {
        "vstar-mini": "pass",
        "tallyqa-complex-mini": "regression",
    }
    assert found["sentence"].startswith("tallyqa-complex-mini: accuracy -75.0 pt")
    alone = (tmp_path / "new" / "vstar-mini", "--baseline", tmp_path / "old", "--json")
    found = json.loads(gate(*alone, cwd=tmp_path, code=4).stdout)
    assert found["sentence"] == (
        "tallyqa-complex-mini: new has no run of tallyqa-complex-mini, which the baseline has; evaluate it"
    )
    more = (tmp_path / "new", "--baseline", tmp_path / "old" / "vstar-mini", "--json")
    found = json.loads(gate(*more, cwd=tmp_path, code=0).stdout)
    assert found["notes"] == ["old has no run of tallyqa-complex-mini: not judged"]


def test_a_run_that_is_its_own_baseline_is_noted(tmp_path: Path) -> None:
    make(tmp_path / "old", [1] * 250)
    (tmp_path / "again").symlink_to(tmp_path / "old")
    done = gate("old", "--baseline", "again", "--json", cwd=tmp_path, code=0)
    assert json.loads(done.stdout)["notes"] == ["vstar-mini: old is its own baseline; was another one meant?"]
    pair(before=[1] * 40, after=[1] * 40)(tmp_path / "a", tmp_path / "b")
    assert "its own baseline" not in gate("b", "--baseline", "a", cwd=tmp_path).stdout


@pytest.mark.parametrize("where", ["gate.limits", "gate.tasks.infographicsvqa-mini.limits"])
def test_a_limit_on_a_task_that_the_candidate_lacks_is_no_wrong_use(where: str, tmp_path: Path) -> None:
    """The runs are what is wrong, so that it ends with 4; a misspelt task or metric is wrong use still."""
    for name in ("old", "new"):
        make(tmp_path / name / "vstar-mini", SAME, model=name)
    make(tmp_path / "old" / "infographicsvqa-mini", [1] * 9, model="old", task="infographicsvqa-mini")
    words = (tmp_path / "new", "--baseline", tmp_path / "old")
    done = gate(*words, "--json", cwd=tmp_path, settings=f"[{where}]\nanls = {{min = 0.5}}", code=4)
    assert "new has no run of infographicsvqa-mini" in json.loads(done.stdout)["sentence"]
    alone = (tmp_path / "new", "--baseline", tmp_path / "old" / "vstar-mini")
    gate(*alone, cwd=tmp_path, settings=f"[{where}]\nanls = {{min = 0.5}}", code=2 if where == "gate.limits" else 0)


def test_seeds_are_judged_as_one_training(tmp_path: Path) -> None:
    """A lucky seed passes alone and an unlucky one fails alone; of their training neither can be said."""
    before, lucky = flipped(400, 280, 60, 0)
    unlucky = flipped(400, 280, 0, 60)[1]
    for number in range(3):
        make(tmp_path / f"old-{number}", before, model=f"old-{number}")
    make(tmp_path / "new-0", lucky, model="new-0")
    make(tmp_path / "new-1", unlucky, model="new-1")
    old = ",".join(str(tmp_path / f"old-{number}") for number in range(3))
    gate(tmp_path / "new-0", "--baseline", tmp_path / "old-0", cwd=tmp_path, code=0)
    gate(tmp_path / "new-1", "--baseline", tmp_path / "old-0", cwd=tmp_path, code=1)
    done = gate(f"{tmp_path}/new-0,{tmp_path}/new-1", "--baseline", old, "--json", "--strict", cwd=tmp_path, code=5)
    assert json.loads(done.stdout)["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["nowhere", "--baseline", "old"], "nowhere"),
        (["old", "--baseline", "nowhere"], "nowhere"),
        (["old", "--baseline", "twice"], "join them by commas"),
        (["models", "--baseline", "old"], "holds runs of 2 checkpoints"),
        (["old", "--baseline", "old", "--profile", "strct"], "did you mean strict"),
        (["old", "--baseline", "old", "--config", "no.toml"], "no.toml"),
        (["old", "--baseline", "old", "--allow", "task"], "cannot be allowed"),
        (["gone", "--baseline", "old"], "records.jsonl"),
        (["edited", "--baseline", "old"], "was it written by another tool"),
        (["old", "--baseline", "old", "--junit", "prh.toml/gate.xml"], "cannot write"),
        (["old", "--baseline", "old", "--junit", "-", "--markdown", "-"], "only one of"),
    ],
)
def test_a_mistake_is_one_line(words: Sequence[str], hint: str, odd: Path) -> None:
    done = gate(*words, cwd=odd, code=2)
    assert hint in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    for name in ("old", "gone", "edited", "twice/a", "twice/b"):
        make(folder / name, [1, 0, 1])
    for model in ("a", "b"):
        make(folder / "models" / model, [1, 0, 1], model=model)
    (folder / "gone" / "records.jsonl").unlink()
    manifest = json.loads((folder / "edited" / "run.json").read_text())
    del manifest["identity"]
    (folder / "edited" / "run.json").write_text(json.dumps(manifest))
    return folder
