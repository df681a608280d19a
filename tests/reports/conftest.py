"""Runs that several modules show, and the page that is made of them."""

from pathlib import Path

import pytest
from prh.reports.report import Options, report
from prh.tests.reports.looking import two


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return two(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path]) -> str:
    return report([str(run) for run in runs], Options())
