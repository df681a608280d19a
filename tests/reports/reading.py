"""What several tests of reports do: run a command, read a page, write a run or a training by hand."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from prh.harness.store import decode_line, encode_line

HIDDEN = "\u202e\u2066\u200b\u0007\ue000\u2028"


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._silent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text.append(data)


def prh(*words: object, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    done = subprocess.run(
        [sys.executable, "-m", "prh", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def edited(run: Path, target: Path, change: Any) -> Path:
    """A copy of a run with every record changed, and nothing of it that was derived."""
    import shutil

    shutil.copytree(run, target)
    lines = (run / "records.jsonl").read_bytes().splitlines(keepends=True)
    rows = [record for line in lines if (record := decode_line(line))]
    for row in rows:
        change(row)
    (target / "records.jsonl").write_bytes(b"".join(encode_line(row) for row in rows))
    return target


def training(folder: Path, seed: int, values: list[float], rate: float = 0.1) -> Path:
    folder.mkdir(parents=True)
    manifest = {"schema": 1, "kind": "grpo", "base": "tiny", "identity": {"train": {"seed": seed, "rate": rate}}}
    (folder / "training.json").write_text(json.dumps(manifest), encoding="utf-8")
    rows = [{"step": n + 1, "rapr": value, "loss": 1.0 / (n + 1), "seconds": 1.0} for n, value in enumerate(values)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder
