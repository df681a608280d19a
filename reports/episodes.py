"""One episode as a page shows it: turns, boxes in pixels of the source image, frames on a ruler.

Everything here is computed from a record. Its texts are a model's or a dataset's: characters that hide or reorder
text are made visible, and what is longer than a page can bear is cut with a count of what is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ..harness.record import Record, text_of
from ..harness.terminal import safe
from ..harness.types import Box, Json, finite
from .album import CROP_SHARE, Album

LONGEST = 20_000
MOST_TURNS = 64
Table = dict[str, Json]
# How far outside an image a box is drawn, as a share of its longer side: one of 10^9 stays on the page.
BEYOND = 0.04


def visible(text: str, longest: int = LONGEST) -> str:
    """Untrusted text for a page: hidden and reordering characters escaped, no longer than ``longest``."""
    kept = text[:longest]
    if not kept.replace("\n", "").replace("\t", "").isprintable():
        kept = safe(kept.replace("\r\n", "\n"))
    return kept if len(text) <= longest else f"{kept}\n[{len(text) - longest:,} more characters in records.jsonl]"


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the records of one run for a page.

    Attributes:
        coordinates: how the run's protocol writes a box: ``unit``, ``per-mille`` or pixels.
        systems: system prompts by number, shared by every episode of the page.
    """

    run: Path
    album: Album
    coordinates: str
    systems: list[str]
    _places: dict[str, int] = field(default_factory=dict)

    def sample(self, record: Record, *, pictures: bool) -> Table:
        """What the runs share of a sample: the question, its media and where its answer is to be seen."""
        roots = [item for item in _rows(record, "media") if not item["parent"]]
        return {
            "question": visible(str(record["question"])),
            "choices": [visible(str(choice), 400) for choice in cast("list[Json]", record["choices"])],
            "gold": [visible(str(gold), 400) for gold in cast("list[Json]", record["gold"])],
            "kind": record["answer_kind"],
            "category": visible(str(record["category"]), 120),
            "slices": [visible(str(piece), 120) for piece in cast("list[Json]", record["slices"])],
            "media": [self._media(item, pictures=pictures) for item in roots],
            "evidence": record.get("evidence", []),
        }

    def episode(self, record: Record, score: Mapping[str, Json] | None, *, pictures: bool) -> Table:
        """One repeat: how it ended, what was read in it, how sure it was, and its turns."""
        usage, seconds = cast(Table, record["usage"]), cast(Table, record["seconds"])
        media = {cast(int, item["index"]): item for item in _rows(record, "media")}
        segments = _rows(record, "segments")
        return {
            "repeat": record["repeat"],
            "end": record["end"],
            "error": visible(str(record["error"]), 2000) if record["error"] else None,
            "answer": visible(str(score["answer"]), 2000) if score and score["answer"] is not None else None,
            "rule": visible(str(score["rule"]), 200) if score else "",
            "scores": score["scores"] if score else {},
            "system": self._system(segments),
            "prompt": visible(next((text_of(s) for s in segments if s["role"] == "user"), "")),
            "sure": confidence(segments),
            "turns": self._turns(record, segments, media, pictures=pictures),
            "boxes": self._boxes(record, media),
            "frames": _frames(record),
            "tokens": usage["new_tokens"],
            "prompt_tokens": usage["prompt_tokens"],
            "seconds": {name: value for name, value in seconds.items() if value},
        }

    def _system(self, segments: Sequence[Table]) -> int:
        text = next((text_of(segment) for segment in segments if segment["role"] == "system"), "")
        if text not in self._places:
            shown = visible(text)
            if shown not in self.systems:
                self.systems.append(shown)
            self._places[text] = self.systems.index(shown)
        return self._places[text]

    def _media(self, item: Table, *, pictures: bool) -> Table:
        files = [str(name) for name in cast("list[Json]", item["files"])]
        share = CROP_SHARE if item["parent"] else 1.0
        return {
            "index": item["index"],
            "kind": item["kind"],
            "name": visible(str(item["name"]), 300),
            "size": item["original"],
            "seen": item["seen"],
            "parent": item["parent"],
            "frame": item["frame"],
            "count": len(cast("list[Json]", item["frames"])),
            "picture": self.album.add(self.run, files, share) if pictures else "",
            "file": visible(files[0], 300) if files else "",
        }

    def _turns(
        self, record: Record, segments: Sequence[Table], media: Mapping[int, Table], *, pictures: bool
    ) -> list[Json]:
        """A table a turn: what was said, the operations, and what came back."""
        operations = _rows(record, "operations")
        turns: list[Table] = []
        for segment in segments:
            if segment["role"] == "assistant":
                number = len(turns) + 1
                turns.append(
                    {
                        "text": visible(text_of(segment)),
                        "finish": segment.get("finish", ""),
                        "tokens": _tokens(segment),
                        "seconds": finite(segment.get("seconds")),
                        "operating": None,
                        "operations": [_operation(o) for o in operations if o["turn"] == number],
                        "told": "",
                        "shown": [],
                    }
                )
            elif turns and segment["role"] != "system":
                shown = [media[index] for index in _references(segment) if index in media]
                turns[-1]["told"] = visible(text_of(segment), 2000)
                turns[-1]["operating"] = finite(segment.get("seconds"))
                turns[-1]["shown"] = [self._media(item, pictures=pictures) for item in shown]
        return cast("list[Json]", turns[:MOST_TURNS])

    def _boxes(self, record: Record, media: Mapping[int, Table]) -> list[Json]:
        """The boxes that were asked for, in pixels of the source image they mean."""
        found: list[Json] = []
        evidence = [e for e in _rows(record, "evidence") if e["box"]]
        for operation in _rows(record, "operations")[:MOST_TURNS]:
            drawn = _asked(operation, media, self.coordinates)
            if drawn is None:
                continue
            item, box = drawn
            root = media.get(cast(int, item["root"]), item)
            on_root = _to_root(box, item)
            whole = Box(0, 0, *cast("list[float]", root["original"]))
            clipped = on_root.intersection(whole) != on_root
            state = "refused" if operation["error"] else "clipped" if clipped else "cut"
            own = [Box(*cast("list[float]", e["box"])) for e in evidence if e["media"] == root["index"]]
            found.append(
                {
                    "turn": operation["turn"],
                    "root": root["index"],
                    "frame": _frame_of(operation, item),
                    "asked": _rounded(_near(on_root, whole)),
                    "cut": operation["root_box"],
                    "state": state,
                    "cause": operation["error"] or ("beyond the edge" if clipped else ""),
                    "iou": round(max(on_root.iou(box) for box in own), 3) if own else None,
                }
            )
        return found


def confidence(segments: Sequence[Table]) -> float | None:
    """The geometric mean of the probabilities of the last turn's tokens; None where they are not recorded."""
    last = next((segment for segment in reversed(segments) if segment["role"] == "assistant"), {})
    values = last.get("logprobs")
    numbers = [finite(value) for value in values] if isinstance(values, list) else []
    known = [number for number in numbers if number is not None]
    return round(math.exp(min(0.0, sum(known) / len(known))), 3) if known else None


def _tokens(segment: Table) -> int | None:
    """How many tokens a turn has: as its engine counted them, or its ids; None where neither is recorded."""
    counted, ids = finite(segment.get("new_tokens")), segment.get("ids")
    if counted is not None:
        return int(counted)
    return len(ids) if isinstance(ids, list) else None


def _operation(operation: Table) -> Json:
    return {
        "name": visible(str(operation["name"]), 100),
        "arguments": visible(_compact(operation["arguments"]), 2000),
        "error": operation["error"],
        "message": visible(str(operation["message"]), 1000),
        "frames": operation["frames"],
    }


def _frames(record: Record) -> list[Json]:
    """What every frame selection picked: numbers from 1, repeats among them, and what no frame has."""
    found: list[Json] = []
    for operation in _rows(record, "operations")[:MOST_TURNS]:
        arguments = operation["arguments"]
        if operation["frames"] and not operation["root_box"]:
            picked: list[Json] = list(cast("list[Json]", operation["frames"]))
        elif operation["error"] and isinstance(arguments, dict) and isinstance(arguments.get("target_frames"), list):
            numbers = [finite(value) for value in cast("list[Json]", arguments["target_frames"])[:64]]
            picked = [number for number in numbers if number is not None]
        else:
            continue
        found.append({"turn": operation["turn"], "picked": picked, "cause": operation["error"] or ""})
    return found


def _asked(operation: Table, media: Mapping[int, Table], coordinates: str) -> tuple[Table, Box] | None:
    """The image that a call means and the box it asks for, in pixels of that image; None where it asks for none.

    A call that was refused has no resolved box: its own numbers are read in the protocol's frame.
    """
    if operation["box"] is not None:
        item = media.get(cast(int, operation["media"]))
        return (item, Box(*cast("list[float]", operation["box"]))) if item else None
    arguments = operation["arguments"]
    if not operation["error"] or not isinstance(arguments, dict) or not media:
        return None
    values = arguments.get("bbox_2d")
    numbers = [finite(value) for value in values] if isinstance(values, list) else []
    if len(numbers) != 4 or None in numbers:
        return None
    target = finite(arguments.get("target_image"))
    item = media.get(int(target) if target is not None else 1) or media[min(media)]
    width, height = cast("list[float]", item["original"])
    x, y = {"unit": (width, height), "per-mille": (width / 1000, height / 1000)}.get(coordinates, (1.0, 1.0))
    return item, Box(*cast("list[float]", numbers)).scaled(x, y)


def _frame_of(operation: Table, item: Table) -> Json:
    """The frame of a video that a box lies on, from 1; 0 for an image, and where a refused call names none.

    A call before any frame was selected means a frame by its number.
    """
    if item["kind"] != "video":
        return item["frame"]
    taken, arguments = cast("list[Json]", operation["frames"]), operation["arguments"]
    if taken:
        return taken[0]
    if operation["error"] == "bad_index" or not isinstance(arguments, dict):
        return 0
    target = finite(arguments.get("target_image")) or 0.0
    return int(target) if target in range(1, len(cast("list[Json]", item["frames"])) + 1) else 0


def _to_root(box: Box, item: Table) -> Box:
    """A box of a crop in pixels of the image that it was cut from in the end."""
    if not item["parent"]:
        return box
    place = Box(*cast("list[float]", item["root_box"]))
    width, height = cast("list[float]", item["original"])
    x, y = (place.right - place.left) / max(width, 1), (place.bottom - place.top) / max(height, 1)
    return box.scaled(x, y).shifted(place.left, place.top)


def _near(box: Box, whole: Box) -> Box:
    """The box, its edges no further outside than a page can show, left before right and top before bottom."""
    margin = BEYOND * max(whole.right, whole.bottom)
    x = sorted(min(max(edge, -margin), whole.right + margin) for edge in (box.left, box.right))
    y = sorted(min(max(edge, -margin), whole.bottom + margin) for edge in (box.top, box.bottom))
    return Box(x[0], y[0], x[1], y[1])


def _rounded(box: Box) -> Json:
    return [round(edge, 2) for edge in box]


def _references(segment: Table) -> list[int]:
    return [cast(int, part["media"]) for part in cast("list[Table]", segment["parts"]) if "media" in part]


def _rows(record: Mapping[str, Json], name: str) -> list[Table]:
    return cast("list[Table]", record.get(name) or [])


def _compact(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
