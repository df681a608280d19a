"""A comparison and a verdict as JSON. The names are a public contract with a schema number of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import cast

from ..harness.types import Json
from .compare import Comparison, Delta, Result
from .gate import Verdict
from .statistics import RIGHT

SCHEMA = 1


def comparison_json(comparison: Comparison) -> dict[str, Json]:
    """Everything that ``compare`` found."""
    return {
        "schema": SCHEMA,
        "baseline": comparison.baseline,
        "candidates": list(comparison.candidates),
        "comparable": comparison.comparable,
        "missing": list(comparison.missing),
        "tasks": [
            {
                "task": task.task,
                "primary": task.primary,
                "profile": task.profile,
                "results": [_result(result) for result in task.results],
            }
            for task in comparison.tasks
        ],
    }


def verdict_json(verdict: Verdict) -> dict[str, Json]:
    """The verdict, its sentence, its exit code and every check."""
    return {
        "schema": SCHEMA,
        "verdict": verdict.verdict,
        "exit_code": verdict.exit_code,
        "sentence": verdict.sentence,
        "strict": verdict.strict,
        "baseline": verdict.baseline,
        "candidate": verdict.candidate,
        "notes": list(verdict.notes),
        "tasks": [
            {
                "task": task.task,
                "verdict": task.verdict,
                "sentence": task.sentence,
                "checks": [cast(Json, asdict(check)) for check in task.checks],
            }
            for task in verdict.tasks
        ],
    }


def sensitivity_json(comparisons: Mapping[str, Comparison]) -> dict[str, Json]:
    """The comparison under each profile."""
    return {name: comparison_json(comparison) for name, comparison in comparisons.items()}


def _result(result: Result) -> Json:
    pairing = result.pairing
    return {
        "candidate": result.label,
        "comparable": pairing.comparable,
        "mismatches": [cast(Json, asdict(mismatch)) for mismatch in pairing.mismatches],
        "runs": {
            "baseline": [str(run.folder) for run in pairing.baseline],
            "candidate": [str(run.folder) for run in pairing.candidate],
        },
        "samples": {
            "paired": len(pairing.ids),
            "baseline_only": list(pairing.baseline_only),
            "candidate_only": list(pairing.candidate_only),
        },
        "metrics": {delta.metric: _delta(delta) for delta in result.deltas},
        "parts": [{"part": delta.part, "metric": delta.metric, **_delta(delta)} for delta in result.parts],
        "flips": _flips(result),
        "agreement": cast(Json, asdict(result.agreement)) if result.agreement else None,
        "repeats": [cast(Json, asdict(side)) for side in result.repeats] if result.repeats else None,
    }


def _flips(result: Result) -> Json:
    """Ids of the samples that the candidate gained and lost, by the primary metric of a half or more."""
    pairing = result.pairing
    values = pairing.values(result.primary.metric, pairing.ids) if pairing.ids else None
    if values is None:
        return None
    before, after = (side.mean(1) >= RIGHT for side in values)
    pairs = list(zip(pairing.ids, before, after, strict=True))
    gained: list[Json] = [name for name, old, new in pairs if new and not old]
    lost: list[Json] = [name for name, old, new in pairs if old and not new]
    return {"gained": gained, "lost": lost}


def _delta(delta: Delta) -> dict[str, Json]:
    return {
        "baseline": cast(Json, asdict(delta.baseline)),
        "candidate": cast(Json, asdict(delta.candidate)),
        "difference": cast(Json, asdict(delta.difference)),
        "p_holm": delta.adjusted,
        "detectable": delta.detectable,
    }
