"""What a report costs to make and to open: ``make bench-report``.

CPU seconds, peak memory and size of ``prh report`` of two runs, each in a process of its own, the comparison included;
then, in headless Chromium, the first paint of the page and the time of a filter as the page itself reports it. Without
a browser those are left out, loudly; with ``PRH_REQUIRE_BROWSER=1`` that is a failure. The records are those of an
oracle on ``vstar-mini``, over and over under other ids; photographs are noise with a photograph's spectrum.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_compare import copies, spent
from measure import arguments, median, report
from PIL import Image
from prh.harness.store import encode_line, read_records

CASES = (
    ("the miniature's pictures", 191, "thumb"),
    ("the miniature's pictures", 5_000, "thumb"),
    ("no pictures", 5_000, "none"),
    ("photographs, 1024 x 768", 191, "thumb"),
    ("photographs, 1024 x 768", 191, "full"),
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FILTERS = ("outcome=lost", "q=diamond", "q=%2Fdot%7Cdigit%2F", "ops=1%2B", "sort=id")


def photograph(rng: np.random.Generator) -> Image.Image:
    """Noise with the spectrum of a photograph: amplitudes fall with frequency (Field 1987), colours hang together."""
    down, across = np.meshgrid(np.fft.fftfreq(768), np.fft.rfftfreq(1024), indexing="ij")
    fall = 1 / np.maximum(np.hypot(down, across), 1 / 1024)
    channels = np.stack([np.fft.irfft2(np.fft.rfft2(rng.normal(size=(768, 1024))) * fall) for _ in range(3)], -1)
    mixed = channels @ np.array([[1, 0.9, 0.8], [0.25, 0, -0.25], [0, 0.2, -0.1]])
    return Image.fromarray(np.clip(128 + 48 * mixed / mixed.std(), 0, 255).astype(np.uint8))


def photographs(run: Path, count: int) -> None:
    """Give each sample of a run a photograph of its own."""
    rng = np.random.default_rng(0)
    records = read_records(run)
    for number, record in enumerate(records[:count]):
        name = f"media/{number}.jpg"
        photograph(rng).save(run / name, quality=90)
        record["media"][0].update(files=[name], original=[1024, 768], root_box=[0, 0, 1024, 768])
    lines = [encode_line({key: value for key, value in record.items() if key != "crc"}) for record in records]
    (run / "records.jsonl").write_bytes(b"".join(lines))


def pair(folder: Path, oracle: Path, title: str, count: int) -> list[str]:
    runs = []
    for model in ("a", "b"):
        run = folder / f"{title}-{count}-{model}".replace(" ", "-").replace(",", "")
        if not run.exists():
            copies(oracle, run, count, model)
            shutil.copytree(oracle / "media", run / "media")
            if title.startswith("photographs"):
                photographs(run, count)
        runs.append(str(run))
    return runs


def opened(pages: list[tuple[str, int, Path]], runs: int) -> list[list[object]] | None:
    """First paint, readiness and the slowest filter of pages, in milliseconds; None where there is no browser."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        return missing("playwright is not installed")
    binary = os.environ.get("PRH_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        return missing("there is no chromium")
    rows = []
    with sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        except Error as error:
            return missing(f"{binary} does not start: {str(error).splitlines()[0]}")
        for title, count, path in pages:
            found = [_opened(browser, path) for _ in range(runs)]
            rows.append([title, count, *(median(one[at] for one in found) for at in range(3))])
        browser.close()
    return rows


def missing(reason: str) -> None:
    """Say that the browser's figures are left out. Raises SystemExit where they must not be."""
    text = f"NO BROWSER: {reason}; install it (apt-get install chromium) or name one in PRH_CHROMIUM"
    if os.environ.get("PRH_REQUIRE_BROWSER") == "1":
        sys.exit(text)
    print(f"\n{text}; the figures of the page itself are left out", file=sys.stderr)


def _opened(browser, path: Path) -> tuple[float, float, float]:
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready-ms]", state="attached", timeout=60_000)
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    ready = float(page.evaluate("document.documentElement.dataset.readyMs"))
    slowest = 0.0
    for wanted in FILTERS:
        page.evaluate(f"location.hash = '#task=vstar-mini&{wanted}'")
        page.wait_for_timeout(250)
        slowest = max(slowest, float(page.evaluate("document.documentElement.dataset.filterMs")))
    page.close()
    return paint, ready, slowest


def main():
    args = arguments(__doc__.splitlines()[0], runs=5, most=5_000)
    rows, pages = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        oracle = folder / "oracle"
        spent(["eval", "--model", "oracle", "--task", "vstar-mini", "--out", str(oracle)])
        for title, whole, images in CASES:
            count = min(whole, args.most)
            target = folder / f"{len(rows)}.html"
            words = ["report", *pair(folder, oracle, title, count), "--images", images, "-o", str(target)]
            found = [spent(words) for _ in range(args.runs)]
            seconds, peak = median(s for s, _ in found), median(mb for _, mb in found)
            rows.append([title, count, images, seconds, peak, target.stat().st_size / 1e6])
            pages.append((f"{title}, {images}", count, target))
        seen = opened(pages, args.runs)
    title, own = "The page in Chromium", ["page", "samples a run", "first paint ms", "ready ms", "slowest filter ms"]
    browser = None if seen is None else {"title": title, "columns": own, "rows": seen}
    columns = ["pictures", "samples a run", "--images", "CPU s", "peak MB", "file MB"]
    report("prh report of two runs", columns, rows, {"runs": args.runs, "browser": browser}, args.json)
    if seen is not None:
        report(title, own, seen, {}, None)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
