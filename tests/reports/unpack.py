"""What a report holds, read as its own script reads it."""

import base64
import json
import re
import zlib
from typing import Any

SCRIPT = re.compile(r'<script type="application/octet-stream" id="([^"]+)">([^<]*)</script>')
PICTURE = re.compile(r'<script type="text/plain" id="picture-([^"]+)"[^>]*>([^<]*)</script>')


def inflate(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text), -15))


def parts(page: str) -> dict[str, Any]:
    """Index and chunks by their id."""
    return {name: inflate(text) for name, text in SCRIPT.findall(page)}


def pictures(page: str) -> dict[str, str]:
    return dict(PICTURE.findall(page))


def sample(page: str, name: str) -> dict[str, Any]:
    """The row of a sample in the index, and all that its chunk says."""
    found = parts(page)
    index = found["index"]
    for task in index["tasks"]:
        for at, row in enumerate(task["samples"]):
            if row[0] == name:
                place = task["first"] + at
                return {"row": row, **found[f"chunk-{place // index['chunk']}"][place % index["chunk"]]}
    raise AssertionError(f"no sample {name}")
