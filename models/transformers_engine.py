"""The engine ``transformers``: checkpoints of the Hugging Face format, in this process.

Qwen2-VL, Qwen2.5-VL and Qwen3-VL run in batches that turns join and leave at any step, over a cache of what has been
read and seen before; other image-text-to-text models run through their own chat template and processor, one
conversation at a time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..harness.engine import Caps, EngineOptions, Turn, TurnSpec, smart_resize
from ..harness.errors import ModelError, PrhError
from ..harness.ledger import Conversation
from ..harness.types import Json, Size, Span
from .checkpoint import Checkpoint, accepts, defaults, fingerprint, resolve_model
from .decode import Work
from .encode import Encoder, TokenView
from .loading import base_model, choose_device, load_config, load_module, set_threads, versions
from .native_video import show_videos, video_mode
from .paths import cache_room, choose_path
from .processor import (
    QWEN,
    OtherProcessor,
    QwenProcessor,
    load_libraries,
    one_line,
    title,
    torchvision_state,
)
from .quicken import quickened
from .render import Renderer
from .saving import save_checkpoint
from .speech import end_tokens, rope_places, vocabulary
from .tiny import summaries
from .visual import Processor

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel


class TransformersEngine:
    """Serves turns of one checkpoint.

    Attributes:
        module: the model, with its adapter where it has one.
        processor: tokenizer and image processor.
        context: most tokens of prompt and reply together.
        pad: an id to fill rows with.
        vision_ids: ids that make a reply malformed; a trainer may ban them.
    """

    def __init__(
        self,
        module: PreTrainedModel,
        processor: Processor,
        checkpoint: Checkpoint,
        batch: int,
        room: int | None,
        notes: Mapping[str, Json],
    ) -> None:
        self.module = module
        self.processor = processor
        self.fingerprint = fingerprint(checkpoint)
        self._checkpoint = checkpoint
        self.vision_ids = processor.vision_ids
        self._notes = dict(notes)
        base = base_model(module)
        renderer = Renderer(processor.render, processor.image_token, processor.special, processor.video_token)
        ends = end_tokens(base.generation_config, processor, renderer)
        places = rope_places(base) if processor.factor > 1 else None
        self._encoder = Encoder(processor, renderer, ends, places)
        words = vocabulary(processor, ends)
        self.pad = words.pad
        self._path = choose_path(module, words, self._encoder, batch, room)
        self.context = int(getattr(base.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)
        tool = ("tool",) if re.search("""[\'"]tool[\'"]""", processor.template) else ()
        self.caps = Caps(
            renderer.append_only(),
            logprobs=True,
            seeds=True,
            roles=("system", "user", "assistant", *tool),
            native_video=bool(processor.video_token),
        )

    @property
    def near_ties(self) -> int:
        """Steps so far at which rounding could have chosen another token, greedy and sampled ones."""
        return self._path.near_ties

    def fit(self, size: Size, budget: Span) -> Size:
        """The size within the budget; a family other than Qwen-VL then resizes in its own way."""
        return smart_resize(size, budget, self.processor.factor)

    def encode(self, conversation: Conversation, *, pixels: bool = True) -> TokenView:
        """The conversation as the model is run on it, ending in its last reply or the next one's header.

        Args:
            pixels: whether to prepare its images; without, a family other than Qwen-VL has no inputs at all.

        Raises:
            ModelError: it cannot be shown to this model.
        """
        return self._encoder.encode(conversation, pixels=pixels)

    async def turn(self, conversation: Conversation, spec: TurnSpec) -> Turn:
        """The next turn, in a batch with whatever else runs. Raises ModelError."""
        return await self._path.scheduler.submit(lambda: self._prepare(conversation, spec))

    def _prepare(self, conversation: Conversation, spec: TurnSpec) -> Work:
        view = self._path.view(conversation)
        room = self.context - len(view.ids)
        if room <= 0:
            message = f"the conversation has {len(view.ids)} tokens and the model's context holds {self.context}"
            raise ModelError(f"{message}: lower the pixel budget or the number of turns")
        return Work(view, replace(spec, max_new_tokens=min(spec.max_new_tokens, room)))

    async def release(self, conversation: Conversation) -> None:
        """Forget what was kept of the conversation."""
        self._path.release(conversation)

    def forget(self) -> None:
        """Forget everything that was read and seen before the next turn, as if just opened, once nothing runs."""
        self._path.forget()

    def quickened(self) -> AbstractContextManager[None]:
        """The vision tower faster while this lasts, on a processor and for a family of Qwen-VL."""
        if self.module.device.type != "cpu" or self.module.config.model_type not in QWEN:
            return nullcontext()
        return quickened(base_model(self.module).model.visual)

    def describe(self) -> Mapping[str, Json]:
        """Name, checkpoint, numerics and versions, and what was counted so far."""
        return {
            **self._notes,
            "exact_history": self.caps.token_ids,
            "rewritten_histories": self._encoder.rewritten,
            "near_ties": self.near_ties,
            **self._path.summary(),
        }

    def save(
        self,
        folder: Path,
        module: PreTrainedModel,
        dtype: str,
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Write trained weights, or an adapter, and the files beside them that make the folder a checkpoint.

        Args:
            module: this engine's model as it has been trained, or an adapter around it.
            dtype: of the written weights; an adapter keeps its own.
            weights: the weights by name, where ``module`` holds only a part of them.

        Raises:
            ModelError: the folder cannot be written.
        """
        save_checkpoint(self._checkpoint, folder, module, dtype, weights)

    async def close(self) -> None:
        """Abandon running turns and free the weights."""
        if await self._path.scheduler.close():
            self._path.drop()
        import torch

        device = self.module.device.type
        torch.nn.Module.to(self.module, "meta")
        if device == "cuda":
            torch.cuda.empty_cache()


class TransformersFactory:
    """Opens checkpoints: embedded names, folders, adapters and hub ids."""

    summary = "a Hugging Face checkpoint in this process (torch)"
    models: Mapping[str, str] = MappingProxyType(summaries())

    def accepts(self, model: str) -> bool:
        """Whether the name can be a checkpoint."""
        return accepts(model)

    def defaults(self, model: str) -> Mapping[str, Json]:
        """The checkpoint's ``prh.json``."""
        return defaults(model)

    def open(self, model: str, options: EngineOptions) -> TransformersEngine:
        """Load a checkpoint; ``options.extra`` may hold ``video``. Raises ModelError, UsageError or Prerequisite."""
        video_mode(options.extra)
        load_libraries()
        checkpoint = resolve_model(model, options.revision, options.offline)
        device = choose_device(options.device)
        threads = set_threads() if device.type == "cpu" else 0
        try:
            return self._open(checkpoint, options, device, threads)
        except PrhError:
            raise
        except Exception as error:  # a stranger's files may hold anything
            message = f"{title(checkpoint.folder)} cannot be opened: {one_line(error)}"
            raise ModelError(f"{message}; check its config files for values of a wrong kind") from None

    def _open(
        self, checkpoint: Checkpoint, options: EngineOptions, device: torch.device, threads: int
    ) -> TransformersEngine:
        config = load_config(checkpoint.folder, options.trust_remote_code)
        processor = open_processor(config, checkpoint, options.trust_remote_code)
        videos = checkpoint.holding("video_preprocessor_config.json")
        shown = show_videos(video_mode(options.extra), processor, config, videos)
        module = load_module(checkpoint, options, device)
        notes: dict[str, Json] = {
            "name": "transformers",
            "family": config.model_type,
            "parameters": sum(weight.numel() for weight in module.parameters()),
            "adapter": checkpoint.adapter is not None,
            "revision": checkpoint.revision,
            "dtype": str(module.dtype).removeprefix("torch."),
            "device": str(device),
            "threads": threads,
            "attention": base_model(module).config._attn_implementation,
            "batch": options.batch,
            "pixels": processor.backend,
            **shown,
            "torchvision": torchvision_state(),
            "versions": {**versions()},
        }
        if processor.factor > 1:
            notes["factor"] = processor.factor
        return TransformersEngine(module, processor, checkpoint, options.batch, cache_room(options.extra), notes)


def open_processor(config: PreTrainedConfig, checkpoint: Checkpoint, trust_remote_code: bool) -> Processor:
    """The processor for a family. Raises ModelError or Prerequisite."""
    tokens = checkpoint.holding("tokenizer_config.json")
    if config.model_type in QWEN:
        return QwenProcessor(config, tokens, checkpoint.holding("preprocessor_config.json"), trust_remote_code)
    return OtherProcessor(config, checkpoint.holding("processor_config.json"), trust_remote_code)
