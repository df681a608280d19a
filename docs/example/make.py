"""Make the example report: ``make example BASELINE=MODEL CANDIDATE=MODEL TRAININGS="FOLDER ..."``.

Evaluates two checkpoints on the four miniatures into ``runs/example`` (a run that is there goes on), writes
``docs/example/report.html`` and, with Chromium, the pictures of it beside it; Debian's ``fonts-inter`` and
``fonts-urw-base35`` make them look as the page does elsewhere. Without ``TRAININGS`` the curves are those that
``docs/learning-trap/results`` keeps, each point the mean of some steps.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent
RUNS = Path("runs/example")
TRAP = HERE.parent / "learning-trap" / "results"
ARMS = ("full", "no-curiosity")
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


def kept() -> list[Path]:
    """What is kept of the curves of the learning trap's trainings, as folders of trainings."""
    folders = []
    for path in sorted(path for arm in ARMS for path in TRAP.glob(f"{arm}-?.json")):
        folder = RUNS / "trainings" / path.stem
        folder.mkdir(parents=True, exist_ok=True)
        arm, _, seed = path.stem.rpartition("-")
        identity = {"arm": arm, "plan": "docs/learning-trap/plan.toml", "curves": "means of steps", "seed": int(seed)}
        manifest = {"schema": 1, "kind": "grpo", "identity": identity}
        (folder / "training.json").write_text(json.dumps(manifest), encoding="utf-8")
        curves = json.loads(path.read_text(encoding="utf-8"))["curves"]
        rows = [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
        (folder / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        folders.append(folder)
    return folders


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
    prh("report", RUNS / "baseline", RUNS / "candidate", *(trainings or kept()), "-o", HERE / "report.html")
    photograph(HERE / "report.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
