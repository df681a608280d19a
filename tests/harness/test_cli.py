"""The command line as a user meets it: in a real process, with exit codes, and never a traceback."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from prh.harness.commands import eval_command
from prh.harness.store import read_json, read_manifest, read_records


def prh(*words: str, cwd: Path | None = None, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    values = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-m", "prh", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=values,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "oracle"
    prh("eval", "--model", "oracle", "--task", "vstar-mini", "--limit", "12", "--out", str(out))
    return out


LIGHT: Mapping[str, Sequence[str]] = {
    "help": ["--help"],
    "eval help": ["eval", "--help"],
    "score": ["score", "RUN"],
    "list tasks": ["list", "tasks"],
    "list engines": ["list", "engines"],
    "list models": ["list", "models"],
    "show": ["show", "RUN"],
    "compare": ["compare", "RUN", "RUN"],
    "gate": ["gate", "RUN", "--baseline", "RUN"],
    "power": ["power", "RUN"],
}


@pytest.mark.parametrize("words", LIGHT.values(), ids=LIGHT.keys())
def test_reading_commands_never_load_torch(words: Sequence[str], run: Path) -> None:
    chosen = [str(run) if word == "RUN" else word for word in words]
    code = f"""
import sys
sys.argv = ["prh", *{chosen!r}]
from prh.__main__ import main
try:
    main()
except SystemExit as error:
    heavy = sorted({{"torch", "transformers", "pandas", "datasets"}} & set(sys.modules))
    print("HEAVY", heavy, "CODE", error.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY [] CODE 0", done.stderr


def test_help_shows_every_option() -> None:
    assert not [option.name for option in eval_command.params if getattr(option, "hidden", False)]
    said = prh("eval", "--help").stdout
    assert "--executor" in said
    assert "wandb, trackio or" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["evl"], "did you mean eval?"),
        (["eval", "--model", "oracle", "--task", "vstar-mni"], "did you mean vstar-mini"),
        (["eval", "--model", "orcale", "--task", "vstar-mini"], "did you mean oracle?"),
        (
            ["eval", "--model", "oracle", "--task", "vstar-mini", "--engine", "transformer"],
            "did you mean transformers?",
        ),
        (["eval", "--model", "oracle", "--task", "vstar-mini", "--protocol", "pixel-reasonr"], "pixel-reasoner"),
        (["eval", "--model", "oracle", "--task", "vstar-mini", "--profile", "strct"], "did you mean strict?"),
        (["eval", "--model", "oracle", "--task", "vstar-mini", "--set", "limits.turn=3"], "turns"),
        (
            ["eval", "--model", "oracle", "--task", "vstar-mini", "--set", "budgets.input=3"],
            "`budgets` is not a setting",
        ),
        (["eval", "--model", "oracle", "--task", "vstar-mini", "--set", "budget.input=[5,1]"], "fewest <= most"),
        (["eval", "--model", "oracle", "--task", "vstar-mini", "--set", "padding=2"], "from 0 to 1"),
        (["eval", "--model", "oracle", "--task", "vstar-mini", "--sample-id", "nope"], "no sample"),
        (["eval", "--model", "oracle", "--task", "vstar-mini", "--config", "missing.toml"], "missing.toml"),
        (["eval", "--model", "oracle", "--task", "vstar", "--data", "/nowhere"], "/nowhere"),
        (["eval", "--model", "/no/such/folder", "--task", "vstar-mini"], "/no/such/folder"),
        (["score", "/nowhere"], "/nowhere"),
        (["show", "/"], "is no run"),
        (["resume", "/nowhere"], "/nowhere"),
    ],
)
def test_a_users_mistake_is_one_line_that_says_what_to_do(words: Sequence[str], hint: str, tmp_path: Path) -> None:
    done = prh(*words, cwd=tmp_path, code=2)
    assert hint in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("Usage:", "Try "))]
    assert len([line for line in lines if line]) == 1, done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_holds_what_the_contract_says(run: Path) -> None:
    manifest, metrics = read_manifest(run), read_json(run / "metrics.json")
    assert set(metrics) >= {
        "schema",
        "task",
        "model",
        "protocol",
        "profile",
        "primary",
        "n",
        "errors",
        "metrics",
        "categories",
        "slices",
    }
    for name in ("accuracy", "rapr", "op_error_rate"):
        assert set(metrics["metrics"][name]) == {"value", "low", "high", "n"}  # type: ignore[index, call-overload, arg-type]
    for record in read_records(run):
        assert set(record) >= {
            "id",
            "repeat",
            "cluster",
            "category",
            "slices",
            "gold",
            "end",
            "operations",
            "usage",
            "seconds",
            "segments",
        }
    identity = manifest["identity"]
    assert set(identity) >= {  # type: ignore[arg-type]
        "task",
        "dataset",
        "model",
        "protocol",
        "prompt",
        "limits",
        "budget",
        "sampling",
        "seed",
        "operations",
        "padding",
    }
    assert manifest["environment"]["versions"]["prh"]  # type: ignore[index, call-overload]
    assert manifest["finished"] >= manifest["started"]  # type: ignore[operator]
    assert (run / "scores" / "strict.jsonl").is_file()


def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_a_finished_run_is_not_run_again(run: Path, tmp_path: Path) -> None:
    out = copy(run, tmp_path)
    before = (out / "records.jsonl").read_bytes()
    prh("eval", "--model", "oracle", "--task", "vstar-mini", "--limit", "12", "--out", str(out))
    assert (out / "records.jsonl").read_bytes() == before
    prh("eval", "--model", "oracle", "--task", "vstar-mini", "--limit", "14", "--out", str(out))
    after = (out / "records.jsonl").read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == 14


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--model", "blind"], "model"),
        (["--protocol", "direct"], "protocol"),
        (["--protocol", "pixel-reasoner-released"], "protocol"),
        (["--temperature", "0.5"], "sampling.temperature"),
        (["--seed", "1"], "seed"),
        (["--set", "limits.turns=3"], "limits.turns"),
        (["--set", "budget.input=[784,7840]"], "budget.input"),
        (["--set", "padding=0.2"], "padding"),
        (["--set", "split=train"], "split"),
    ],
)
def test_a_run_begun_differently_is_refused_with_the_field(
    words: list[str], field: str, run: Path, tmp_path: Path
) -> None:
    out = copy(run, tmp_path)
    before = (out / "records.jsonl").read_bytes()
    model = [] if "--model" in words else ["--model", "oracle"]
    done = prh("eval", *model, "--task", "vstar-mini", "--out", str(out), *words, code=2)
    assert f"another {field}:" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (out / "records.jsonl").read_bytes() == before


def test_a_folder_that_is_no_run_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    done = prh("eval", "--model", "oracle", "--task", "vstar-mini", "--out", str(tmp_path), code=2)
    assert "is no run folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def mini(tmp_path: Path, count: int = 6) -> Path:
    """A small copy of the miniature's files, in V*'s layout."""
    out = tmp_path / "mini"
    prh("data", "mini", "vstar-mini", "--out", str(out))
    for folder in ("direct_attributes", "relative_position"):
        for path in sorted((out / folder).glob("*.json"))[count:]:
            path.unlink()
            path.with_suffix(".png").unlink()
    return out


def test_broken_images_cost_their_samples_and_too_many_the_run(tmp_path: Path) -> None:
    data = mini(tmp_path)
    broken = sorted((data / "direct_attributes").glob("*.png"))[:2]
    for path in broken:
        path.write_bytes(path.read_bytes()[:200])
    words = ["eval", "--model", "oracle", "--task", "vstar", "--data", str(data), "--out", str(tmp_path / "run")]
    done = prh(*words, code=3)
    assert done.stderr.count("data_error") == 2
    assert "not the whole of vstar" in done.stderr
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert metrics["errors"] == {"engine_error": 0, "data_error": 2}
    assert metrics["metrics"]["accuracy"] == {"value": 1.0, "low": pytest.approx(0.722, abs=1e-3), "high": 1.0, "n": 10}  # type: ignore[index, call-overload]
    prh(*words, "--set", "max_error_share=0.5")


def test_all_errors_give_nulls_and_no_numbers(tmp_path: Path) -> None:
    data = mini(tmp_path, 2)
    for path in data.glob("*/*.png"):
        path.write_bytes(b"")
    out = tmp_path / "run"
    done = prh("eval", "--model", "oracle", "--task", "vstar", "--data", str(data), "--out", str(out), code=3)
    assert "NaN" not in done.stdout
    metrics = read_json(out / "metrics.json")
    assert metrics["n"] == 0
    assert metrics["metrics"]["accuracy"] == {"value": None, "low": None, "high": None, "n": 0}  # type: ignore[index, call-overload]


def test_a_changed_pixel_refuses_to_resume(tmp_path: Path) -> None:
    data, out = mini(tmp_path, 2), tmp_path / "run"
    words = ["eval", "--model", "oracle", "--task", "vstar", "--data", str(data), "--out", str(out)]
    prh(*words)
    shutil.copy(*sorted(data.glob("direct_attributes/*.png"))[:2])
    assert "another dataset:" in prh(*words, code=2).stderr


def test_json_events(tmp_path: Path) -> None:
    words = [
        "eval",
        "--model",
        "oracle",
        "--task",
        "vstar-mini",
        "--limit",
        "3",
        "--out",
        str(tmp_path / "run"),
        "--json",
    ]
    events = [json.loads(line) for line in prh(*words).stdout.splitlines()]
    assert [event["event"] for event in events] == ["start", "episode", "episode", "episode", "end"]
    assert events[-1]["metrics"]["metrics"]["accuracy"]["value"] == 1.0
    last = events[-2]
    assert (last["done"], last["errors"], set(last["seconds"])) == (3, 0, {"media", "tools", "store"})
    assert last["new_tokens"] == sum(record["usage"]["new_tokens"] for record in read_records(tmp_path / "run"))  # type: ignore[index, call-overload, misc]


def test_the_count_says_where_time_goes(tmp_path: Path) -> None:
    """Beside the engine too: pictures, operations and the store."""
    words = ["--task", "vstar-mini", "--limit", "3", "--out", str(tmp_path / "run")]
    lines = prh("eval", "--model", "oracle", *words).stdout.splitlines()
    (count,) = [line for line in lines if line.startswith("3/3 episodes")]
    assert re.search(r", media \d+\.\d s tools \d+\.\d s store \d+\.\d s$", count)


def test_repeats_are_episodes_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "run"
    prh("eval", "--model", "oracle", "--task", "vstar-mini", "--limit", "3", "--repeats", "2", "--out", str(out))
    assert [(r["repeat"]) for r in read_records(out)] == [0, 1] * 3
    assert read_json(out / "metrics.json")["n"] == 6


def test_several_models_and_tasks_have_a_folder_each(tmp_path: Path) -> None:
    prh("eval", "--model", "oracle,blind", "--task", "vstar-mini", "--limit", "2", "--out", str(tmp_path / "runs"))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["vstar-mini-blind", "vstar-mini-oracle"]
    assert prh("score", str(tmp_path / "runs")).stdout.count("vstar-mini ·") == 2


def test_settings_from_a_file_are_overridden_by_flags(tmp_path: Path) -> None:
    (tmp_path / "prh.toml").write_text('protocol = "direct"\n[limits]\nnew_tokens = 7\n')
    words = ["eval", "--model", "oracle", "--task", "vstar-mini", "--limit", "1", "--out", "run"]
    prh(*words, cwd=tmp_path)
    manifest = read_manifest(tmp_path / "run")
    assert manifest["identity"]["protocol"] == "direct"  # type: ignore[index, call-overload]
    assert manifest["origins"]["limits.new_tokens"] == "prh.toml"  # type: ignore[index, call-overload]
    prh(*words[:-1], "other", "--protocol", "pixel-reasoner", cwd=tmp_path)
    other = read_manifest(tmp_path / "other")
    assert other["identity"]["limits"]["new_tokens"] == 7  # type: ignore[index, call-overload]
    assert other["origins"]["protocol"] == "command line"  # type: ignore[index, call-overload]


def test_show_escapes_what_a_terminal_would_obey(run: Path, tmp_path: Path) -> None:
    out = copy(run, tmp_path)
    from prh.harness.store import encode_line

    records = read_records(out)
    records[0]["segments"][-1]["parts"] = [{"text": "\x1b[31mred\u202e\x07"}]  # type: ignore[index, call-overload]
    (out / "records.jsonl").write_bytes(
        b"".join(encode_line({k: v for k, v in r.items() if k != "crc"}) for r in records)
    )
    said = prh("show", str(out), str(records[0]["id"])).stdout
    assert "\\x1b[31mred\\u202e\\x07" in said
    assert "\x1b[31mred" not in said
    assert str(out / "media") in said


def test_a_budget_above_the_proof_warns(tmp_path: Path) -> None:
    words = ["eval", "--model", "oracle", "--task", "vstar-mini", "--limit", "1", "--out", str(tmp_path / "run")]
    assert "proven illegible" in prh(*words, "--set", "budget.input=[784,200000]").stderr


def test_a_benchmark_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    done = prh("eval", "--model", "oracle", "--task", "vstar", cwd=tmp_path, code=2, HF_HOME=str(tmp_path / "hub"))
    assert "prh data fetch vstar" in done.stderr
    assert "vstar-mini" in done.stderr


def test_load_records_joins_records_and_scores(run: Path) -> None:
    import prh as package

    frame = package.load_records(run)
    assert len(frame) == 12
    assert set(frame.columns) >= {"id", "end", "answer", "rule", "accuracy", "run", "task", "model"}
    assert frame["accuracy"].tolist() == [1.0] * 12


def test_every_public_name_is_there() -> None:
    import prh as package

    for name in package.__all__:
        assert getattr(package, name) is not None
