"""Answers a ``harness.child``: one JSON request a line, with the methods of the class ``Served`` of a program.

Runs by its path under any interpreter: it imports nothing of this package. Arguments: the program's path, and the
file descriptor of the replies.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from typing import Any


def reply(served: object, line: str) -> dict[str, Any]:
    """What one request comes to: ``{"do": METHOD, ARGUMENT: ...}``."""
    try:
        request = json.loads(line)
        name = request.pop("do")
        if name.startswith("_"):
            raise ValueError(f"there is no request {name!r}")
        return {"ok": getattr(served, name)(**request)}
    except Exception as error:  # whatever a library's own code raises
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:400]}


def main() -> None:
    """Answer requests until there are no more."""
    program, descriptor = sys.argv[-2:]
    served = runpy.run_path(program)["Served"]()
    with os.fdopen(int(descriptor), "w") as out:
        for line in sys.stdin:
            out.write(json.dumps(reply(served, line)) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
