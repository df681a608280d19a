"""CPU seconds of commands that load no model: ``make bench-startup``."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import arguments, median, report

MAKE = ["eval", "--model", "oracle", "--task", "vstar-mini", "--limit", "100", "--out"]


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spent(words: list[str]) -> float:
    before = children()
    subprocess.run([sys.executable, "-m", "prh", *words], check=True, capture_output=True)
    return children() - before


def main():
    args = arguments(__doc__, runs=7)
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        spent([*MAKE, run])
        commands = {"prh --help": ["--help"], "prh score RUN": ["score", run], "prh list tasks": ["list", "tasks"]}
        rows = []
        for name, words in commands.items():
            spent(words)
            rows.append([name, median(spent(words) for _ in range(args.runs))])
    report("Start-up (RUN has 100 episodes)", ["command", "CPU s"], rows, {"runs": args.runs}, args.json)


if __name__ == "__main__":
    main()
