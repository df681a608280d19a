"""What ``python -m lmms_eval --model prh`` finds: the entry point of the group ``lmms_eval.models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """The model ``prh``, for chat tasks."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="prh", chat_class_path="prh.models.lmms_model.PrhModel")
