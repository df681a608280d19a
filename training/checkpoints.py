"""A training's folder: checkpoints that can be evaluated and from which it goes on to the same end.

    training.json       what was trained, on what, with what
    log.jsonl           one line a step
    step-000123/        a checkpoint like any other, with training.json and, while it may be needed, state/
    final/              the last one
    .lock               held by the process that writes here

A checkpoint is written beside its place and moved there when it is whole and on the disk. Optimizer states are
safetensors.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from filelock import FileLock, Timeout

from ..harness.errors import StoreError
from ..harness.manifest import check_same
from ..harness.store import read_json, write_atomic, write_json
from ..harness.types import Json

if TYPE_CHECKING:
    import torch

MANIFEST, LOG, STATE, FINAL, EVALS, LOCK = "training.json", "log.jsonl", "state", "final", "evals", ".lock"
STEP = re.compile(r"step-(\d{6,})")
DAMAGED = "remove this checkpoint to begin again, or choose another --out"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder against other trainings. Raises StoreError where one holds it, or it cannot be written."""
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(f"another training is writing to {folder}; wait for it, or choose another --out") from None
    except OSError as error:
        raise StoreError(f"cannot write in {folder}: {error.strerror or error}; choose another --out") from None
    try:
        yield
    finally:
        lock.release()


def is_free(folder: Path) -> bool:
    """Whether a training may begin here: nothing is there, or what one leaves that ended before its manifest."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        path.name == LOCK or path.name.startswith(f".{MANIFEST}.") for path in folder.iterdir()
    )


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The whole checkpoints of a training by step, the earliest first."""
    found = ((STEP.fullmatch(path.name), path) for path in folder.glob("step-*") if path.is_dir())
    return sorted((int(match[1]), path) for match, path in found if match)


def latest(folder: Path) -> tuple[int, Path] | None:
    """The last checkpoint that a training can go on from."""
    return next(((step, path) for step, path in reversed(checkpoints(folder)) if (path / STATE).is_dir()), None)


def check_recipe(folder: Path, config: Mapping[str, Json], loose: Sequence[str]) -> None:
    """Refuse to go on with what another recipe began.

    Args:
        folder: a checkpoint whose manifest holds the recipe's part under ``config``.
        loose: keys that may change.

    Raises:
        UsageError: another recipe.
        StoreError: there is no such manifest.
    """
    held = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    began = held.get("config")
    if not isinstance(began, dict):
        raise StoreError(f"{folder} does not say what was trained; remove {folder.parent}, or choose another --out")
    here = cast("dict[str, Json]", json.loads(json.dumps(config)))
    before, now = ({key: value for key, value in part.items() if key not in loose} for part in (began, here))
    check_same(before, now, folder.parent)


def place(folder: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return folder / f"step-{step:06}"


def begin(target: Path) -> Path:
    """An empty folder beside ``target`` to write a checkpoint to. Raises StoreError."""
    workplace = scratch(target)
    try:
        shutil.rmtree(workplace, ignore_errors=True)
        workplace.mkdir(parents=True)
    except OSError as error:
        raise StoreError(f"cannot write {workplace}: {error.strerror or error}") from None
    return workplace


def scratch(target: Path) -> Path:
    """Where a checkpoint is written before it is moved to its place."""
    return target.with_name(f".{target.name}.tmp")


def finish(workplace: Path, target: Path) -> None:
    """Put a written checkpoint on the disk and move it to its place. Raises StoreError."""
    try:
        for path in workplace.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        shutil.rmtree(target, ignore_errors=True)
        workplace.rename(target)
    except OSError as error:
        raise StoreError(f"cannot move {workplace} to {target}: {error.strerror or error}") from None


def copy(source: Path, target: Path) -> None:
    """Make a copy of a checkpoint without its state; weights are linked where the disk allows it. Raises StoreError."""
    workplace = begin(target)
    try:
        shutil.copytree(
            source, workplace, dirs_exist_ok=True, ignore=shutil.ignore_patterns(STATE), copy_function=_linked
        )
    except OSError as error:  # shutil.Error is one
        raise StoreError(f"cannot copy {source} to {target}: {error}") from None
    finish(workplace, target)


def _linked(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
        return
    shutil.copy2(source, target)


def drop(folder: Path) -> None:
    """Remove a checkpoint that was only evaluated."""
    shutil.rmtree(folder, ignore_errors=True)


def prune(folder: Path, keep: int) -> None:
    """Drop the optimizer states before the last, and all but the last ``keep`` checkpoints; 0 keeps all."""
    found = checkpoints(folder)
    for _, path in found[:-1]:
        shutil.rmtree(path / STATE, ignore_errors=True)
    for _, path in found[: -1 - keep] if keep else ():
        shutil.rmtree(path, ignore_errors=True)


def forget(folder: Path, step: int) -> None:
    """Drop what a training left that was ended after this step: lines of its log, evaluations, half a checkpoint."""
    for path in (*folder.glob(".*.tmp"), *folder.glob(".evaluated*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    for path in (folder / EVALS).glob("step-*"):
        match = STEP.fullmatch(path.name)
        if match and int(match[1]) > step:
            shutil.rmtree(path, ignore_errors=True)
    trim_log(folder, step)


def save_states(folder: Path, states: Sequence[Mapping[str, object]], step: int) -> None:
    """Write optimizer states. Raises StoreError."""
    import torch

    tensors: dict[str, torch.Tensor] = {}
    for number, state in enumerate(states):
        for place_, values in cast("Mapping[int, Mapping[str, object]]", state["state"]).items():
            for key, value in values.items():
                made = value if isinstance(value, torch.Tensor) else torch.tensor(value)
                tensors[f"{number}.{place_}.{key}"] = made.detach().cpu().contiguous()
    save_tensors(folder / "optimizer.safetensors", tensors)
    write_json(folder / "step.json", {"step": step})


def load_states(folder: Path, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """Put saved states into optimizers of the same kind; returns how many steps were done. Raises StoreError."""
    tensors = load_tensors(folder / "optimizer.safetensors")
    try:
        for number, one in enumerate(optimizers):
            one.load_state_dict({**one.state_dict(), "state": _held(tensors, number, one)})
        return int(cast(int, json.loads((folder / "step.json").read_text(encoding="utf-8"))["step"]))
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise StoreError(f"{folder} cannot be gone on from: {' '.join(str(error).split())}; {DAMAGED}") from None


def _held(
    tensors: Mapping[str, torch.Tensor], number: int, optimizer: torch.optim.Optimizer
) -> dict[int, dict[str, torch.Tensor]]:
    """The saved state of one optimizer, by weight. Raises ValueError or LookupError where it is another's."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    held: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        which, place_, key = name.split(".", 2)
        if int(which) != number:
            continue
        weight = weights[int(place_)]
        if value.dim() and value.shape != weight.shape:
            raise ValueError(f"{name} has the shape {tuple(value.shape)}, its weight {tuple(weight.shape)}")
        held.setdefault(int(place_), {})[key] = sharded_as(value, weight)
    return held


def sharded_as(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A whole tensor in the shards that a weight has; as it is where the weight has none, or another shape."""
    mesh = getattr(weight, "device_mesh", None)
    if mesh is None or value.shape != weight.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    return distribute_tensor(value.to(weight.device), mesh, cast(DTensor, weight).placements, src_data_rank=None)


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors, none of which shares its memory with another, as safetensors. Raises StoreError."""
    from safetensors.torch import save_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), path)
    except Exception as error:  # safetensors has its own errors for a full disk
        raise StoreError(f"cannot write {path}: {' '.join(str(error).split())}") from None


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. Raises StoreError."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # a damaged file may fail in any way
        raise StoreError(f"{path} cannot be read: {' '.join(str(error).split())}; {DAMAGED}") from None


def append_log(folder: Path, row: Mapping[str, Json]) -> None:
    """Append one line to the training's log. Raises StoreError."""
    try:
        with (folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")
    except OSError as error:
        raise StoreError(f"cannot append to {folder / LOG}: {error.strerror or error}") from None


def trim_log(folder: Path, step: int) -> None:
    """Drop the lines of the steps after this one, which will be done again. Raises StoreError."""
    rows = [row for row in read_log(folder) if cast(int, row["step"]) <= step]
    if rows or (folder / LOG).exists():
        write_atomic(folder / LOG, "".join(f"{json.dumps(row)}\n" for row in rows).encode())


def read_log(folder: Path) -> list[dict[str, Json]]:
    """The whole lines of a training's log, in order; none where there is no log. Raises StoreError."""
    path = folder / LOG
    rows: list[dict[str, Json]] = []
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}; move it away to go on") from None
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # cut off while it was written
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows
