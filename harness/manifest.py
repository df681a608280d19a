"""What a run was: the manifest ``run.json``, and the identity that a resume and a comparison check."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .digests import json_digest
from .errors import DataError, UsageError
from .types import LETTERS, Json, Sample

PACKAGES = ("prh", "torch", "transformers", "accelerate", "peft", "vllm", "pillow", "numpy", "av", "decord", "openai")


def check_samples(samples: Sequence[Sample], task: str) -> None:
    """Refuse samples that a run cannot hold apart, ask or record. Raises DataError naming the first."""
    seen: set[str] = set()
    for sample in samples:
        name = sample.id if isinstance(sample.id, str) else repr(sample.id)
        where = f"{task}, sample {name[:80]!r}"
        if not isinstance(sample.id, str) or not sample.id:
            raise DataError(f"{where}: an id must be a text that is not empty")
        if sample.id in seen:
            raise DataError(f"{where}: more than one sample has this id; ids must be unique")
        if len(sample.choices) > len(LETTERS):
            raise DataError(f"{where}: {len(sample.choices)} options; there are letters for {len(LETTERS)}")
        seen.add(sample.id)


def dataset_fingerprint(samples: Iterable[Sample]) -> str:
    """Digest of every row and of the content of its media; the folder's place does not matter."""
    return json_digest([sample_fingerprint(sample) for sample in samples])


def sample_fingerprint(sample: Sample) -> str:
    """Digest of one row: question, options, answers, labels and the content of its media."""
    media: list[Json] = []
    for medium in sample.media:
        try:
            media.append(medium.digest())
        except DataError:
            media.append(None)
    row: list[Json] = [sample.id, sample.question, list(sample.choices), list(sample.gold), sample.answer_kind]
    labels: list[Json] = [sample.category, list(sample.slices), sample.cluster]
    return json_digest([*row, *labels, media])


def check_same(old: Mapping[str, Json], new: Mapping[str, Json], run: Path) -> None:
    """Refuse to go on with a run that was begun differently. Raises UsageError naming the first field."""
    differences = list(differing(old, new))
    if differences:
        name, before, after = differences[0]
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise UsageError(
            f"{run} was begun with another {name}: {_short(before)}, now {_short(after)}{more}; "
            "repeat the old setting to go on, or choose another --out"
        )


def differing(old: Mapping[str, Json], new: Mapping[str, Json], prefix: str = "") -> Iterable[tuple[str, Json, Json]]:
    """The fields in which two identities differ: dotted name, old value, new value."""
    for name in dict.fromkeys([*new, *old]):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differing(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}", before, after


def environment() -> dict[str, Json]:
    """Versions, processors, memory and the state of the code, without importing anything heavy."""
    return {
        "versions": dict(_versions()),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "gpu": gpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": memory_gib(),
        "git": git_state(Path(__file__).parent),
    }


@cache
def _versions() -> Mapping[str, Json]:
    """Of Python and the packages that matter: they are read from disk, and a process keeps those that it began with."""
    versions: dict[str, Json] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


@cache
def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def gpu_model() -> str | None:
    """The name of the GPU that PyTorch computes on; None without one, and where PyTorch was not imported."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    try:
        return str(cuda.get_device_name()) if cuda is not None and cuda.is_available() else None
    except (RuntimeError, AssertionError):  # a driver that does not fit, or a GPU that has none to spare
        return None


def memory_gib() -> float | None:
    """Main memory in GiB, where the system says."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def git_state(folder: Path) -> Json:
    """Commit and whether the tree was changed, for code that runs from a checkout; else None."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty}


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - fixed words
    return done.stdout.strip()


def _short(value: Json) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
