"""The commands that a report gives reproduce what it shows."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prh.harness.store import read_manifest, write_json
from prh.reports.report import Options, report
from prh.reports.reproduce import quote
from prh.tests.reports.looking import Look, samples
from prh.tests.reports.reading import prh
from prh.tests.reports.unpack import parts as unpacked


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
