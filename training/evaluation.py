"""The real evaluator, run on a checkpoint as the training goes on."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..harness.evaluate import plan, run
from ..harness.request import Request
from ..harness.task import Selection
from ..harness.types import Json
from .config import EvalPart

CURVE = ("rapr", "op_error_rate")


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluates checkpoints into ``evals/`` of a training's folder."""

    part: EvalPart
    out: Path

    def __call__(self, checkpoint: Path, step: int) -> dict[str, Json]:
        """Primary metric, RaPR and op-error rate of each task, as ``TASK.METRIC``.

        Where more episodes than allowed ended in errors, their share is ``TASK.error_share``.

        Raises:
            PrhError: it cannot be evaluated.
            KeyboardInterrupt, SystemExit: it was ended by a signal, which ends the training.
        """
        row: dict[str, Json] = {}
        for task in self.part.tasks:
            folder = self.out / "evals" / f"step-{step:06}" / task
            request = Request(str(checkpoint), task, folder, selection=Selection(self.part.limit or None))
            result = run(plan(request))
            if result.signal:
                raise KeyboardInterrupt if result.signal == signal.SIGINT else SystemExit(128 + result.signal)
            values = cast("Mapping[str, Mapping[str, Json]]", result.metrics["metrics"])
            for name in (str(result.metrics["primary"]), *CURVE):
                row[f"{task}.{name}"] = values[name]["value"]
            if result.failed:
                row[f"{task}.error_share"] = result.error_share
        return row
