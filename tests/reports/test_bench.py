"""What ``make bench-report`` keeps of its figures, with a browser and without one."""

import json
import os
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prh.reports.report import Options, report
from prh.tests.reports.looking import two
from prh.tests.reports.test_browser import NAMES, missing

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The benchmark, of one page of two runs that are made beforehand; its figures go to figures.json."""
    runs = [str(run) for run in two(tmp_path)]

    def spent(words: list[str]) -> tuple[float, float]:
        if words[0] == "report":
            Path(words[-1]).write_text(report(runs, Options("none")), encoding="utf-8")
        return 0.5, 100.0

    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", ["bench_report.py", "--runs", "1", "--json", str(tmp_path / "figures.json")])
    main = runpy.run_path(str(FOLDER / "bench_report.py"))["main"]
    main.__globals__.update(CASES=(("no pictures", 10, "none"),), spent=spent, pair=lambda *_: runs)
    return main  # type: ignore[no-any-return]


def test_the_figures_of_the_page_in_a_browser_are_kept(
    bench: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("playwright")
    if not (os.environ.get("PRH_CHROMIUM") or any(map(shutil.which, NAMES))):
        missing("there is no chromium")
    bench()
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert found["rows"][0][:5] == ["no pictures", 10, "none", 0.5, 100.0]
    [row] = found["browser"]["rows"]
    assert row[:2] == ["no pictures, none", 10]
    assert all(value >= 0 for value in row[2:])
    assert len(row) == len(found["browser"]["columns"])
    assert "The page in Chromium" in capsys.readouterr().out


def test_without_a_browser_its_figures_are_left_out_loudly(
    bench: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("playwright")
    monkeypatch.setenv("PRH_CHROMIUM", "/nowhere/chromium")
    monkeypatch.delenv("PRH_REQUIRE_BROWSER", raising=False)
    bench()
    said = capsys.readouterr()
    assert "NO BROWSER: /nowhere/chromium does not start" in said.err
    assert "prh report of two runs" in said.out
    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["browser"] is None
    monkeypatch.setenv("PRH_REQUIRE_BROWSER", "1")
    with pytest.raises(SystemExit, match="NO BROWSER"):
        bench()
