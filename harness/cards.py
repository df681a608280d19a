"""Results as ``model-index`` metadata of a model card, where the hub shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from .errors import StoreError
from .store import METRICS, read_json, read_manifest
from .types import Json

SHOWN = ("rapr", "op_error_rate")
KIND = "image-text-to-text"


def update_card(card: Path, run: Path) -> int:
    """Write a run's figures into the metadata of a card (``README.md``), beside what others stand there.

    A figure of the same dataset, split, revision and metric is replaced. The text of the card stays as it is; a card
    that does not exist is made.

    Returns:
        how many figures of the run the card has now.

    Raises:
        StoreError: the run has no scores, or the card's metadata cannot be read.
    """
    import yaml
    from huggingface_hub import metadata_load, metadata_save
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    manifest = read_manifest(run)
    results = run_results(manifest, read_json(run / METRICS))
    try:
        metadata = (metadata_load(card) or {}) if card.is_file() else {}
        name, old = model_index_to_eval_results(metadata["model-index"]) if "model-index" in metadata else ("", [])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(f"the metadata of {card} cannot be read: {reason}; mend what stands between its ---") from None
    kept = [other for other in old if not any(other.unique_identifier == own.unique_identifier for own in results)]
    engine = cast("Mapping[str, Json]", manifest.get("engine") or {})
    model = name or str(engine.get("model") or manifest["model"]).rstrip("/").rpartition("/")[2]
    metadata["model-index"] = eval_results_to_model_index(model, [*kept, *results])
    try:
        metadata_save(card, metadata)
    except OSError as error:
        raise StoreError(f"cannot write {card}: {error.strerror or error}") from None
    return len(results)


def run_results(manifest: Mapping[str, Json], metrics: Mapping[str, Json]) -> list[Any]:
    """The primary metric, RaPR and the op-error rate of a run, as the hub's ``EvalResult``; rates in percent."""
    from huggingface_hub import EvalResult

    identity = cast("Mapping[str, Json]", manifest["identity"])
    source = cast("Mapping[str, Json]", manifest.get("dataset") or {})
    values = cast("Mapping[str, Mapping[str, float | None]]", metrics["metrics"])
    revision = source.get("revision")
    found = []
    for name in (str(metrics["primary"]), *SHOWN):
        metric = values.get(name)
        value = metric["value"] if metric else None
        if metric is None or value is None:
            continue
        low, high = (None if (edge := metric[key]) is None else round(100 * edge, 2) for key in ("low", "high"))
        found.append(
            EvalResult(
                task_type=KIND,
                dataset_type=str(source.get("repository") or manifest["task"]),
                dataset_name=str(manifest["task"]),
                dataset_split=str(identity["split"]),
                dataset_revision=str(revision) if revision else None,
                metric_type=name,
                metric_name=f"{name} (prh, {identity['protocol']}, profile {metrics['profile']})",
                metric_value=round(100 * value, 2),
                metric_args={"n": metric["n"], "low": low, "high": high},
            )
        )
    return found
