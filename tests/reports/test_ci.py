"""The worked example of docs/ci.md, run as it stands there."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from prh.harness.settings import read_config
from prh.reports.limits import read_limits
from prh.tests.reports.runs import make

PAGE = Path(__file__).parents[2] / "docs" / "ci.md"


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    return str(found)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the script, ``prh`` on its path, and the runs of a baseline that answers everything right."""
    (tmp_path / "gate.sh").write_text(block("sh"), encoding="utf-8")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "prh").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m prh "$@"\n')
    (binaries / "prh").chmod(0o755)
    return tmp_path


def script(place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    values = {**os.environ, "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}", **environment}
    command = ["sh", "gate.sh"]
    return subprocess.run(command, cwd=place, env=values, capture_output=True, text=True, timeout=300, check=False)


def test_the_script_judges_a_checkpoint_and_leaves_everything(place: Path) -> None:
    tasks = "vstar-mini"
    first = ["eval", "--model", "oracle", "--task", tasks, "--out", "stored"]
    subprocess.run([sys.executable, "-m", "prh", *first], cwd=place, check=True, capture_output=True, timeout=300)
    done = script(place, CHECKPOINT="oracle", BASELINE="stored", TASKS=tasks)
    assert done.returncode == 0, done.stdout + done.stderr
    worse = script(place, CHECKPOINT="blind", BASELINE="stored", TASKS=tasks, OUT="worse")
    assert worse.returncode == 1, worse.stdout + worse.stderr
    for folder, failures in (("gate", "0"), ("worse", "1")):
        assert (place / folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        assert ET.parse(place / folder / "gate.xml").getroot().get("failures") == failures  # noqa: S314 - our own file
    assert (place / "gate" / "summary.md").read_text().startswith("## ✅ pass")
    assert (place / "worse" / "summary.md").read_text().startswith("## ❌ regression")


def test_the_script_wants_a_checkpoint_and_a_baseline(place: Path) -> None:
    done = script(place, CHECKPOINT="oracle")
    assert done.returncode == 2
    assert "BASELINE" in done.stderr


def test_the_limits_are_a_prh_toml(tmp_path: Path) -> None:
    file = tmp_path / "prh.toml"
    file.write_text(block("toml"), encoding="utf-8")
    limits = read_limits(read_config(file))
    assert limits.of("vstar").margin == 0.03
    assert limits.of("vstar").limits["rapr"].max == 0.95
    assert limits.of("infographicsvqa").limits["accuracy"].margin == 0.02
    assert tomllib.loads(block("toml"))["gate"]["strict"] is limits.strict


def test_the_workflow_runs_the_script_and_uploads_what_it_writes() -> None:
    flow = yaml.safe_load(block("yaml"))
    [job] = flow["jobs"].values()
    steps = {step.get("name"): step for step in job["steps"]}
    assert steps["Evaluate and judge"]["run"] == "sh gate.sh"
    written = {f"{job['env']['OUT']}/{name}" for name in re.findall(r'"\$OUT/([\w.]+\.(?:xml|md|html))"', block("sh"))}
    assert set(steps["Keep report and JUnit"]["with"]["path"].split()) == written
    needed = set(re.findall(r"\$\{(\w+):\?", block("sh")))
    assert needed <= set(job["env"])


def test_an_evaluation_with_too_many_errors_reaches_the_gate(place: Path) -> None:
    """``prh eval`` ends with 3; the script goes on, and the gate's own 3 is what it ends with."""
    make(place / "stored", [1] * 12)
    fake = place / "bin" / "prh"
    real = f"{shlex.quote(sys.executable)} -m prh"
    fake.write_text(f'#!/bin/sh\n[ "$1" = eval ] && exit 3\n[ "$1" = report ] && exit 0\nexec {real} "$@"\n')
    make(place / "gate" / "run", ["fails"] * 6 + [1] * 6, model="tuned")
    done = script(place, CHECKPOINT="x", BASELINE="stored")
    assert done.returncode == 3, done.stdout + done.stderr
