"""What judging runs costs: ``make bench-compare``.

CPU seconds and peak memory of whole commands, each in a process of its own: ``prh score`` of many records, and
``prh compare`` and ``prh gate`` of two runs. The records are those of an oracle on ``vstar-mini``, over and over under
other ids, two samples an image, their final answers right four times in five.
"""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import arguments, median, report
from prh.harness.store import encode_line, read_manifest, read_records, write_json

CASES = (
    ("prh score", 5_000, ["score", "RUN"]),
    ("prh score", 20_000, ["score", "RUN"]),
    ("prh compare, 2 runs", 191, ["compare", "RUN", "OTHER"]),
    ("prh compare, 2 runs", 5_000, ["compare", "RUN", "OTHER"]),
    ("prh gate", 5_000, ["gate", "OTHER", "--baseline", "RUN"]),
)


def spent(words: list[str]) -> tuple[float, float]:
    """CPU seconds and peak MB of a command; its exit code does not matter."""
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "prh", *words],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, _, used = os.wait4(pid, 0)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def copies(source: Path, folder: Path, count: int, model: str) -> Path:
    """A run of ``count`` episodes, made of those of another."""
    records = read_records(source)
    manifest = read_manifest(source)
    manifest.update(expected=count, model=model)
    manifest["identity"]["model"] = model
    folder.mkdir(parents=True)
    write_json(folder / "run.json", manifest)
    chance = random.Random(model)
    with (folder / "records.jsonl").open("wb") as file:
        for number in range(count):
            record = {key: value for key, value in records[number % len(records)].items() if key != "crc"}
            wrong = next(letter for letter in "ABCD" if letter not in record["gold"])
            said = record["gold"][0] if chance.random() < 0.8 else wrong
            segments = [*record["segments"][:-1], {**record["segments"][-1], "parts": [{"text": f"\\boxed{{{said}}}"}]}]
            new = {"id": f"s{number:06}", "cluster": f"c{number // 2}", "segments": segments}
            file.write(encode_line({**record, **new}))
    return folder


def main():
    args = arguments(__doc__.splitlines()[0], runs=5)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = ["eval", "--model", "oracle", "--task", "vstar-mini", "--out", str(folder / "oracle")]
        subprocess.run([sys.executable, "-m", "prh", *first], check=True, capture_output=True)
        sizes = dict.fromkeys(count for _, count, _ in CASES)
        runs = {
            count: [str(copies(folder / "oracle", folder / f"{count}-{model}", count, model)) for model in ("a", "b")]
            for count in sizes
        }
        for title, count, words in CASES:
            places = dict(zip(("RUN", "OTHER"), runs[count], strict=True))
            found = [spent([places.get(word, word) for word in words]) for _ in range(args.runs)]
            rows.append([title, count, median(s for s, _ in found), median(mb for _, mb in found)])
    report("Judging runs", ["command", "episodes a run", "CPU s", "peak MB"], rows, {"runs": args.runs}, args.json)


if __name__ == "__main__":
    main()
