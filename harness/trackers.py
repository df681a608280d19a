"""Figures of an evaluation, handed to an experiment tracker: W&B, trackio or TensorBoard, by ``--track``.

What is handed over are the figures and what the run was; nothing that was said or shown, and no environment.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .errors import Prerequisite, UsageError
from .evaluate import Result
from .store import read_manifest
from .types import Json

PROJECT = "prh"
# What W&B would take note of by itself: the command, the machine, packages, the repository, the screen.
SILENT = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
PACKAGES = {"wandb": "wandb", "trackio": "trackio", "tensorboard": "tensorboard"}


def check_tracker(name: str) -> None:
    """Refuse a tracker that is not known or not installed, before anything is run. Raises UsageError."""
    if name not in PACKAGES:
        raise UsageError(f"--track {name!r} is not known: use one of {', '.join(PACKAGES)}")
    missing = [part for part in (PACKAGES[name], *_NEEDS.get(name, ())) if importlib.util.find_spec(part) is None]
    if missing:
        raise Prerequisite(f"--track {name} needs {missing[0]}, which is not installed: pip install {missing[0]}")


_NEEDS = {"tensorboard": ("torch",)}


def figures(metrics: Mapping[str, Json]) -> dict[str, float]:
    """The metrics of a run as names and numbers: ``TASK/accuracy``, its interval, and the same by category."""
    task = str(metrics["task"])
    parts = {"": cast("dict[str, dict[str, Any]]", metrics["metrics"])}
    for kind in ("categories", "slices"):
        sections = cast("dict[str, dict[str, dict[str, Any]]]", metrics[kind])
        parts |= {f"{name}/": values for name, values in sections.items()}
    found: dict[str, float] = {}
    for prefix, values in parts.items():
        for name, metric in values.items():
            for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
                if metric[key] is not None:
                    found[f"{task}/{prefix}{name}{suffix}"] = float(metric[key])
    return {**found, f"{task}/n": float(cast(int, metrics["n"]))}


@dataclass(frozen=True, slots=True)
class Handed:
    """What a tracker is given.

    Attributes:
        folder: the run's own, for one that writes files.
    """

    title: str
    config: Mapping[str, Json]
    values: Mapping[str, float]
    folder: Path


def track(name: str, result: Result) -> None:
    """Hand a run's figures to a tracker. Raises Prerequisite where the tracker refuses."""
    manifest = read_manifest(result.folder)
    config = {key: manifest[key] for key in ("task", "model", "profile", "identity")}
    title = f"{manifest['task']}-{result.folder.name}"
    try:
        _TRACKERS[name](Handed(title, config, figures(result.metrics), result.folder))
    except Exception as error:  # whatever a tracker and its network raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Prerequisite(
            f"{name} did not take the figures of {result.folder}: {reason}; they are kept there"
        ) from None


def _logged(package: str) -> Callable[[Handed], None]:
    """W&B's way, which trackio shares."""

    def send(handed: Handed) -> None:
        library = importlib.import_module(package)
        library.init(project=PROJECT, name=handed.title, config=dict(handed.config), **_silenced(library))
        library.log(dict(handed.values))
        library.finish()

    return send


def _silenced(library: Any) -> dict[str, object]:
    """Settings that this release knows, as an argument; W&B alone has such."""
    known = getattr(getattr(library, "Settings", None), "model_fields", {})
    chosen = {name: value for name, value in SILENT.items() if name in known}
    return {"settings": library.Settings(**chosen)} if chosen else {}


def _written(handed: Handed) -> None:
    writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(handed.folder / "tensorboard"))
    for name, value in handed.values.items():
        writer.add_scalar(name, value)
    writer.close()


_TRACKERS = {"wandb": _logged("wandb"), "trackio": _logged("trackio"), "tensorboard": _written}
