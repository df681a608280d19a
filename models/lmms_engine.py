"""The engine ``lmms:MODEL``: a chat model of lmms-eval, in a process of its own, as an engine of ours.

``prh eval --model CKPT --engine lmms:qwen2_5_vl`` gives CKPT to the model as its ``pretrained``. It is given whole
conversations and keeps nothing between turns; it resizes images in its own way, draws as its own arguments say, and
tells neither tokens nor why a turn ended, so that a turn counts as cut where it has as many tokens as were allowed.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from PIL import Image

from ..harness.child import Child, ChildError, script_beside
from ..harness.digests import json_digest
from ..harness.engine import Caps, EngineOptions, Finish, Turn, TurnSpec, Usage, smart_resize
from ..harness.errors import ModelError, UsageError
from ..harness.ledger import Conversation, MediaRef, Segment
from ..harness.media import pixel_digest
from ..harness.settings import refuse_secrets
from ..harness.types import Json, Size, Span
from .checkpoint import CONFIG, fingerprint, holds, resolve_model
from .openai_errors import Mask
from .openai_server import read_key
from .processor import VISION_TOKENS

OWN = ("key", "factor")
# What lmms-eval's clients give for a text where a request failed.
FAILED = "[LMMS_EVAL_REQUEST_FAILED"


@dataclass(eq=False)
class Waiting:
    """A turn that is waited for."""

    messages: list[Json]
    kwargs: dict[str, Json]
    result: asyncio.Future[tuple[str, int | None, int | None]]


class LmmsEngine:
    """Serves turns of one chat model of lmms-eval; turns that wait at the same time are asked for together."""

    def __init__(
        self, child: Child, digest: str, batch: int, factor: int, notes: Mapping[str, Json], mask: Mask
    ) -> None:
        self.caps = Caps()
        self.fingerprint = digest
        self._child = child
        self._batch = batch
        self._factor = factor
        self._notes = dict(notes)
        self._mask = mask
        self._folder = tempfile.TemporaryDirectory(prefix="prh-lmms-")
        self._waiting: list[Waiting] = []
        self._serving: asyncio.Task[None] | None = None
        self._requests = 0

    def fit(self, size: Size, budget: Span) -> Size:
        """The size that is given to the model, which then resizes in its own way."""
        return smart_resize(size, budget, self._factor)

    async def turn(self, conversation: Conversation, spec: TurnSpec) -> Turn:
        """The next turn. Raises ModelError; a failed request is never a text."""
        start = time.perf_counter()
        messages = await asyncio.to_thread(self._write, conversation)
        own = Waiting(messages, generation(spec), asyncio.get_running_loop().create_future())
        self._waiting.append(own)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        text, tokens, before = await own.result
        if text.startswith(FAILED):
            raise ModelError(f"the lmms-eval model gave a turn up: {self._mask.quote(text)}")
        finish: Finish = "length" if tokens is not None and tokens >= spec.max_new_tokens else "stop"
        if any(token in text for token in VISION_TOKENS) or "\ufffd" in text.rstrip("\ufffd"):
            finish = "malformed"
        usage = Usage(before or 0, tokens or 0)
        return Turn(text, finish=finish, usage=usage, seconds=time.perf_counter() - start)

    async def _serve(self) -> None:
        """Ask for what waits, as long as something does."""
        await asyncio.sleep(0)
        while self._waiting:
            first = self._waiting[0]
            chosen = [one for one in self._waiting if one.kwargs == first.kwargs][: self._batch]
            self._waiting = [one for one in self._waiting if one not in chosen]
            talks: list[Json] = [cast(Json, one.messages) for one in chosen]
            self._requests += 1
            try:
                made = await asyncio.to_thread(self._child.ask, do="turns", conversations=talks, kwargs=first.kwargs)
                found = cast("list[tuple[str, int | None, int | None]]", made)
                if len(found) != len(chosen):
                    raise ChildError(f"the lmms-eval model gave {len(found)} turns for {len(chosen)}")
            except ModelError as error:
                for one in chosen:
                    if not one.result.done():
                        one.result.set_exception(ModelError(self._mask.quote(str(error))))
                continue
            for one, (text, tokens, before) in zip(chosen, found, strict=True):
                if not one.result.done():
                    one.result.set_result((str(self._mask.value(text)), tokens, before))

    def _write(self, conversation: Conversation) -> list[Json]:
        return [self._message(segment, conversation) for segment in conversation.segments]

    def _message(self, segment: Segment, conversation: Conversation) -> Json:
        content: list[Json] = []
        for part in segment.parts:
            if isinstance(part, MediaRef):
                content += [{"image": self._put(image)} for image in conversation.pixels(part.index).seen]
            else:
                content.append({"text": part.text})
        return {"role": "user" if segment.role == "tool" else segment.role, "content": content}

    def _put(self, image: Image.Image) -> str:
        path = Path(self._folder.name) / f"{pixel_digest(image)}.png"
        if not path.exists():
            part = path.with_suffix(f".{time.monotonic_ns()}")
            image.save(part, "PNG", compress_level=1)
            part.replace(path)
        return str(path)

    async def release(self, conversation: Conversation) -> None:
        """Nothing is kept for a conversation."""

    def describe(self) -> Mapping[str, Json]:
        """The model, and how often it was asked."""
        return {**self._notes, "requests": self._requests}

    async def close(self) -> None:
        """End the model's process."""
        await asyncio.to_thread(self._child.close)
        self._folder.cleanup()


def generation(spec: TurnSpec) -> dict[str, Json]:
    """How a turn is drawn, as lmms-eval's ``generation_kwargs`` say it."""
    kwargs: dict[str, Json] = {"max_new_tokens": spec.max_new_tokens, "temperature": spec.temperature}
    return {**kwargs, "top_p": spec.top_p, "do_sample": spec.temperature > 0, "until": list(spec.stop)}


class LmmsFactory:
    """Opens chat models of lmms-eval, where ``--engine lmms:MODEL`` names one."""

    summary = "a chat model of lmms-eval, in a process of its own (--engine lmms:MODEL)"

    def __init__(self, name: str = "") -> None:
        self.name = name

    def accepts(self, model: str) -> bool:
        """Never by itself."""
        return False

    def defaults(self, model: str) -> Mapping[str, Json]:
        """What a checkpoint says of itself is meant for other engines."""
        return {}

    def open(self, model: str, options: EngineOptions) -> LmmsEngine:
        """Start lmms-eval with a model. Raises ModelError, UsageError or Prerequisite."""
        if not self.name:
            raise UsageError("name the chat model of lmms-eval, such as --engine lmms:qwen2_5_vl")
        if options.revision is not None:
            raise UsageError("the engine lmms takes no model_revision: give the model a folder that holds the revision")
        factor = options.extra.get("factor", "28")
        if not factor.isdigit() or int(factor) < 1:
            raise UsageError(f"option 'factor' of the engine lmms must be a whole number from 1, not {factor!r}")
        args = model_args(model, options.extra)
        mask = Mask(read_key())
        child = Child(f"lmms-eval's model {self.name}", "lmms_eval", script_beside(__file__, "lmms_worker.py"))
        try:
            about = cast("dict[str, Json]", child.ask(do="open", model=self.name, args=args))
        except ModelError as error:
            child.close()
            raise ModelError(mask.quote(str(error))) from None
        weights = fingerprint(resolve_model(model)) if holds(Path(model), CONFIG) else model
        digest = json_digest(["lmms", self.name, args.partition(",")[2], weights, about["version"]])
        notes: dict[str, Json] = {
            "name": f"lmms:{self.name}",
            "class": about["class"],
            "args": args,
            "factor": int(factor),
        }
        versions: dict[str, Json] = {"lmms_eval": about["version"]}
        return LmmsEngine(
            child, digest, options.batch, int(factor), {**notes, "dtype": "unknown", "versions": versions}, mask
        )


def model_args(model: str, extra: Mapping[str, str]) -> str:
    """``--model_args``: the checkpoint under the name that the model wants it by, then the engine's other options.

    Raises:
        UsageError: one holds a comma, by which lmms-eval parts them, or is a secret: a run keeps them.
    """
    refuse_secrets(extra, "the engine lmms")
    chosen = {extra.get("key", "pretrained"): model, **{name: text for name, text in extra.items() if name not in OWN}}
    for name, text in chosen.items():
        if "," in text or "=" in name:
            raise UsageError(f"lmms-eval cannot be given {name}={text!r}: its arguments hold no commas")
    return ",".join(f"{name}={text}" for name, text in chosen.items())
