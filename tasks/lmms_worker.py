"""Serves one task of lmms-eval to a process that does not import it; see ``harness.child``.

Runs under any interpreter that has lmms-eval, through ``harness.serving``: it imports nothing of this package.
Nothing that it is sent is evaluated.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Served:
    """A task of lmms-eval."""

    def open(self, name: str, include: str, media: str) -> dict[str, Any]:
        """Load a task; ``include`` is a folder of tasks beside lmms-eval's own, or empty."""
        from lmms_eval.tasks import TaskManager, get_task_dict

        manager = TaskManager(include_path=include or None, include_defaults=not include, model_name="default")
        if name not in manager.all_subtasks:
            raise ValueError(f"there is no task {name!r}; it must be one task, no group")
        self.task: Any = get_task_dict([name], manager, "chat")[name]
        self.docs = self.task.eval_docs
        self.media = Path(media)
        self.media.mkdir(parents=True, exist_ok=True)
        if self.task.OUTPUT_TYPE != "generate_until":
            raise ValueError(f"task {name!r} is of the kind {self.task.OUTPUT_TYPE!r}; only generate_until can be run")
        from importlib.metadata import version

        higher = self.task.higher_is_better()
        metrics = {key: bool(higher.get(key, True)) for key in self.task.aggregation()}
        return {"docs": len(self.docs), "metrics": metrics, "version": version("lmms_eval")}

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Some rows: question, media and target."""
        return [self._doc(number) for number in range(start, min(stop, len(self.docs)))]

    def _doc(self, number: int) -> dict[str, Any]:
        doc = self.docs[number]
        target = self.task.doc_to_target(doc)
        return {
            "question": str(self.task.doc_to_text(doc)),
            "media": [self._medium(visual) for visual in self.task.doc_to_visual(doc) or ()],
            "target": [str(one) for one in target] if isinstance(target, (list, tuple)) else [str(target)],
        }

    def _medium(self, visual: Any) -> dict[str, str]:
        from PIL import Image

        if isinstance(visual, Image.Image):
            buffer = io.BytesIO()
            visual.convert("RGB").save(buffer, "PNG", compress_level=1)
            path = self.media / f"{hashlib.sha256(buffer.getvalue()).hexdigest()}.png"
            if not path.exists():
                part = path.with_suffix(f".{os.getpid()}")
                part.write_bytes(buffer.getvalue())
                part.replace(path)
            return {"kind": "image", "path": str(path)}
        if isinstance(visual, str):
            image = visual.lower().endswith((".png", ".jpg", ".jpeg", ".webp", ".bmp"))
            return {"kind": "image" if image else "video", "path": visual}
        raise ValueError(f"a visual of the type {type(visual).__name__} cannot be shown; images and video files can")

    def score(self, number: int, text: str) -> dict[str, float]:
        """The values of one reply that are numbers."""
        found = {key: _number(value) for key, value in self._results(number, text).items()}
        return {key: value for key, value in found.items() if value is not None}

    def _results(self, number: int, text: str) -> Mapping[str, Any]:
        results: Mapping[str, Any] = self.task.process_results(self.docs[number], [text])
        return results

    def aggregate(self, rows: Sequence[tuple[int, str]]) -> dict[str, float | None]:
        """The task's own figures over replies."""
        values: dict[str, list[Any]] = defaultdict(list)
        for number, text in rows:
            for key, value in self._results(number, text).items():
                values[key].append(value)
        functions = self.task.aggregation()
        return {key: _number(functions[key](values[key])) for key in functions if values[key]}


def _number(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = value.get("score")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
