"""What the tests of sources share: small files, and what is said of those that are refused."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image
from prh.harness import registry
from prh.harness.errors import DataError, PrhError
from prh.harness.types import Json
from prh.training.seeds import Seed, SourceOptions

Values = dict[str, Any]
FIXTURE = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def png(width: int = 60, height: int = 40, colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def mp4(path: Path, seconds: int = 4, fps: int = 8) -> None:
    """Grey clips; frame n has level 4 * n and is shown at n / fps seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(seconds * fps):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * number % 256, np.uint8), "rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def seeds(source: str, data: Path | None, split: str = "train", seed: int = 0, **chosen: Json) -> list[Seed]:
    reader: Any = registry.make("sources", source)
    return list(reader.seeds(SourceOptions(data, split, seed, chosen)))


def check(error: PrhError, *said: str) -> None:
    """One line that names what it must."""
    message = str(error)
    assert message.isprintable(), message
    assert len(message) < 900, message
    for part in said:
        assert part in message, message


def refused(source: str, data: Path, *said: str, split: str = "train", **chosen: Json) -> None:
    with pytest.raises(DataError) as caught:
        seeds(source, data, split, **chosen)
    check(caught.value, *said)


def lines(path: Path, rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
