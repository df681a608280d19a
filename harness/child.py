"""A program in a process of its own that is asked one thing at a time, in JSON lines: for libraries that must not leak.

What it imports, patches and prints stays there, and it may run under another interpreter, whose packages need not fit
ours. The program has a class ``Served``; ``harness.serving`` runs there, reads requests from its standard input, and
writes each reply, ``{"ok": ...}`` or ``{"error": "..."}``, to the file descriptor that its last argument names.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from .errors import ModelError, Prerequisite
from .types import Json
from .untrusted import loads

TAIL = 2000
SERVING = Path(__file__).with_name("serving.py")


class ChildError(ModelError):
    """The program failed, or said that something else did."""


class Child:
    """A running program; it ends when its standard input is closed.

    Attributes:
        name: what messages call it.
    """

    def __init__(self, name: str, package: str, program: Path) -> None:
        """Start ``program`` under the interpreter that has ``package``. Raises Prerequisite or ChildError."""
        self.name = name
        python = python_with(package)
        self._lock = threading.Lock()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the program runs
        replies, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, under an interpreter that the user names
                [python, str(SERVING), str(program), str(theirs)],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs],
                env={**os.environ, "PYTHONSAFEPATH": "1"},  # its folder holds names that are others' packages too
            )
        except OSError as error:
            os.close(replies)
            self._log.close()
            raise ChildError(f"{name} cannot be started ({python}): {error.strerror or error}") from None
        finally:
            os.close(theirs)
        self._replies = os.fdopen(replies, "rb")

    def ask(self, **request: Json) -> Json:
        """What the program answers. Raises ChildError."""
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            stdin = self._process.stdin
            try:
                if stdin is None or stdin.closed:
                    raise BrokenPipeError
                stdin.write(line)
                stdin.flush()
                reply = self._replies.readline()
            except (BrokenPipeError, ValueError):
                reply = b""
        if not reply.endswith(b"\n"):
            raise ChildError(f"{self.name} ended unexpectedly: {self._last_words()}")
        value = _read(reply)
        if not isinstance(value, dict) or "ok" not in value:
            said = value.get("error") if isinstance(value, dict) else None
            raise ChildError(f"{self.name}: {said or 'it answered nothing that can be read'}")
        return value["ok"]

    def _last_words(self) -> str:
        """The last line that it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - TAIL))
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else f"exit code {self._process.returncode}"

    def close(self) -> None:
        """End the program; it may finish what it does."""
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._log.close()


def python_with(package: str) -> str:
    """The interpreter that has a package: ours, or the one that a variable such as PRH_LMMS_EVAL_PYTHON names.

    Raises:
        Prerequisite: the package is not installed here and no interpreter is named.
    """
    variable = f"PRH_{package.upper()}_PYTHON"
    chosen = os.environ.get(variable, "")
    if not chosen and importlib.util.find_spec(package) is None:
        name = package.replace("_", "-")
        message = f"{name} is not installed here: give it an environment of its own (`pip install {name}`)"
        raise Prerequisite(f"{message} and set {variable} to that environment's python")
    return chosen or sys.executable


def _read(reply: bytes) -> Json:
    """A reply, or None where it is no JSON."""
    try:
        return loads(reply.decode())
    except ValueError:
        return None


def script_beside(module: str, name: str) -> Path:
    """A program that stands beside a module's file."""
    return Path(module).with_name(name)
