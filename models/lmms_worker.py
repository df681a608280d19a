"""Serves one chat model of lmms-eval to a process that does not import it; see ``harness.child``.

Runs under any interpreter that has lmms-eval, through ``harness.serving``: it imports nothing of this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TASK, SPLIT = "prh", "turns"


class Served:
    """A chat model of lmms-eval."""

    def open(self, model: str, args: str) -> dict[str, Any]:
        """Load a model by its name and its ``--model_args``."""
        from importlib.metadata import version

        from lmms_eval.models import get_model

        kind = get_model(model)
        if kind.is_simple:
            raise ValueError(f"the model {model!r} takes no chat messages; choose one of lmms_eval/models/chat")
        self.model: Any = kind.create_from_arg_string(args, {"batch_size": 1, "device": None})
        return {"version": version("lmms_eval"), "class": kind.__name__}

    def turns(self, conversations: Sequence[Sequence[Mapping[str, Any]]], kwargs: Mapping[str, Any]) -> list[Any]:
        """The next turn of each conversation: its text and how many tokens it has, where that is known."""
        from lmms_eval.api.instance import Instance, unwrap_generation_output

        docs = {number: self._messages(talk) for number, talk in enumerate(conversations)}
        self.model.task_dict = {TASK: {SPLIT: docs}}
        requests = []
        for number, messages in docs.items():
            text = "\n".join(part["text"] for one in messages for part in one["content"] if part["type"] == "text")
            arguments = (text, lambda doc: doc, dict(kwargs), number, TASK, SPLIT)
            note = {"task": TASK, "doc_id": number, "repeats": 1}
            requests.append(Instance("generate_until", arguments, number, note))
        found = []
        for output in self.model.generate_until(requests):
            said, counts = unwrap_generation_output(output)
            found.append([str(said), getattr(counts, "output_tokens", None), getattr(counts, "input_tokens", None)])
        return found

    def _messages(self, talk: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{"role": one["role"], "content": [self._part(part) for part in one["content"]]} for one in talk]

    def _part(self, part: Mapping[str, str]) -> dict[str, Any]:
        if "text" in part:
            return {"type": "text", "text": part["text"]}
        from PIL import Image

        with Image.open(part["image"]) as image:
            return {"type": "image", "url": image.convert("RGB")}
