"""What the benchmarks share: CPU seconds of this process, the machine, tables and JSON."""

import argparse
import gc
import json
import os
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from prh.harness.manifest import cpu_model, memory_gib


def arguments(description: str, **numbers: int) -> argparse.Namespace:
    """``--json FILE`` and a whole number for each keyword."""
    parser = argparse.ArgumentParser(description=description)
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def cpu(work) -> tuple[float, object]:
    """CPU seconds of all threads of this process that a call takes, and what it returns."""
    gc.collect()
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


def alternate(ways: dict, runs: int) -> dict[str, list[float]]:
    """CPU seconds of each way, ``runs`` times, one after another in turn, after one run of each that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(runs + 1):
        for name, work in ways.items():
            seconds, _ = cpu(work)
            if number:
                found[name].append(seconds)
    return found


def median(values) -> float:
    return statistics.median(values)


def machine(*packages: str) -> dict:
    versions = {}
    for name in ("prh", "torch", "transformers", "pillow", *packages):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"cpu": cpu_model(), "cores": os.cpu_count(), "memory_gib": memory_gib(), "versions": versions}


def report(title: str, columns: list[str], rows: list[list[object]], figures: dict, file: Path | None) -> None:
    """Print a Markdown table, and write everything as JSON where that is asked for."""
    cells = [columns, *[[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
    print(f"\n{title}\n")
    for number, line in enumerate(cells):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    if file is not None:
        whole = {"title": title, "machine": machine(), "columns": columns, "rows": rows, **figures}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(whole, indent=2) + "\n")
