"""Make the example report: ``make example BASELINE=MODEL CANDIDATE=MODEL TRAININGS="FOLDER ..."``.

Evaluates two checkpoints on the four miniatures into ``runs/example`` (a run that is there goes on), writes
``docs/example/report.html`` and, with Chromium, the pictures of it beside it; Debian's ``fonts-inter`` and
``fonts-urw-base35`` make them look as the page does elsewhere.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent
RUNS = Path("runs/example")
TASKS = "vstar-mini,tallyqa-complex-mini,infographicsvqa-mini,mvbench-mini"
LOST = "#task=vstar-mini&outcome=lost"
SHOTS: tuple[tuple[str, str, Literal["light", "dark"]], ...] = (
    ("report", "", "light"),
    ("sample", LOST, "light"),
    ("dark", LOST, "dark"),
)


def prh(*words: object) -> None:
    """Run a command of prh; a failure ends this one."""
    subprocess.run([sys.executable, "-m", "prh", *map(str, words)], check=True)  # noqa: S603 - our own command


def photograph(page: Path) -> None:
    """The top of a report, and a sample that the candidate lost, as pictures."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, fragment, scheme in SHOTS:
            shot = browser.new_page(
                viewport={"width": 1280, "height": 860}, color_scheme=scheme, device_scale_factor=1.5
            )
            shot.goto(f"{page.resolve().as_uri()}{fragment}")
            shot.wait_for_selector("html[data-ready-ms]", state="attached")
            shot.wait_for_timeout(300)
            shot.screenshot(path=HERE / f"{name}.png")
        browser.close()


def main(baseline: str, candidate: str, *trainings: str) -> None:
    """Evaluate, report, photograph."""
    for name, model in (("baseline", baseline), ("candidate", candidate)):
        prh("eval", "--model", model, "--task", TASKS, "--out", RUNS / name)
    prh("report", RUNS / "baseline", RUNS / "candidate", *trainings, "-o", HERE / "report.html")
    photograph(HERE / "report.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
