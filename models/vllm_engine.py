"""The engine ``vllm``: a checkpoint in vLLM's own engine, in this process; ids in, ids out.

vLLM and this package's other engines want different versions of transformers, so that vLLM has an environment of its
own; it is imported when a model is opened. Written against the interface of 0.22 to 0.33, which tests hold against
what is recorded of both and, where one is installed, against the package itself (``make test-vllm``).

Images go in at the size they are seen at. vLLM says which prompt it ran, and a turn whose prompt is another than the
conversation's is refused: what the model saw is what the registry says.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..harness.engine import Caps, EngineOptions, Finish, Place, Turn, TurnSpec, Usage, smart_resize
from ..harness.errors import ModelError, Prerequisite, PrhError
from ..harness.ledger import Conversation
from ..harness.types import Json, Size, Span
from .checkpoint import Checkpoint, defaults, fingerprint, resolve_model
from .loading import load_config
from .processor import OtherProcessor, QwenProcessor, load_libraries, one_line, title
from .render import Renderer
from .speech import end_tokens
from .transformers_engine import open_processor
from .vllm_prompts import Prompt, Prompts
from .vllm_settings import Settings, alone, changes_tower, engine_arguments, launched, own_gpu

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from .rollout import Synchronised

INSTALL = (
    "the engine vllm needs the package vllm, in an environment of its own: `pip install 'prh[vllm]'` there, "
    "or start `vllm serve` and give its URL as the model"
)
# What vLLM calls a turn that failed through no fault of the prompt, such as caches that drifted apart.
FAILED = ("error", "abort")
TRIES = 2
# Time, height and width, each with a part of the rotation.
AXES = 3
# A bias for more ids than this kills the engine's worker.
MOST_BANS = 1024
BAN = -100.0


class Logprob(Protocol):
    """Of one token."""

    logprob: float


class Completion(Protocol):
    """What is used of vLLM's ``CompletionOutput``."""

    token_ids: Sequence[int]
    logprobs: Sequence[Mapping[int, Logprob]] | None
    finish_reason: str | None


class Output(Protocol):
    """What is used of vLLM's ``RequestOutput``."""

    outputs: Sequence[Completion]
    prompt_token_ids: Sequence[int] | None
    num_cached_tokens: int | None


class AsyncLLM(Protocol):
    """What is used of vLLM's engine."""

    model_config: Any
    errored: bool

    def generate(
        self,
        prompt: Mapping[str, object],
        sampling_params: object,
        request_id: str,
        *,
        lora_request: object = None,
        data_parallel_rank: int | None = None,
    ) -> AsyncGenerator[Output, None]: ...

    def shutdown(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Speech:
    """What is known of a checkpoint's tokens without its weights."""

    processor: QwenProcessor | OtherProcessor
    prompts: Prompts
    ends: tuple[int, ...]

    @classmethod
    def read(cls, config: PreTrainedConfig, checkpoint: Checkpoint, trust_remote_code: bool) -> Speech:
        """Tokenizer, template and end tokens of a checkpoint. Raises ModelError or Prerequisite."""
        from transformers import GenerationConfig

        processor = cast("QwenProcessor | OtherProcessor", open_processor(config, checkpoint, trust_remote_code))
        renderer = Renderer(processor.render, processor.image_token, processor.special)
        generation = None
        if (checkpoint.folder / "generation_config.json").is_file():
            generation = GenerationConfig.from_pretrained(str(checkpoint.folder))
        ends = end_tokens(generation, processor, renderer)
        return cls(processor, Prompts(processor, renderer, ends), ends)

    def finish(self, ids: Sequence[int], text: str, reason: str) -> Finish:
        """How a turn ended: a vision token or what cannot be decoded makes it malformed."""
        finish: Finish = "length" if reason == "length" else "stop"
        whole = text.rstrip("\ufffd") if finish == "length" else text
        stray = any(number in self.processor.vision_ids for number in ids)
        return "malformed" if stray or "\ufffd" in whole else finish

    def text(self, ids: Sequence[int]) -> str:
        """What was said, without the token that ended it."""
        spoken = ids[:-1] if ids and ids[-1] in self.ends else ids
        return self.processor.decode([number for number in spoken if number < len(self.processor.tokenizer)])

    def stops(self) -> list[int]:
        """Ids that end a turn: the model's own, and those that only an image may bring."""
        return sorted({*self.ends, *self.processor.vision_ids})

    def turn(
        self, ids: Sequence[int], logprobs: Sequence[float] | None, reason: str, usage: Usage, seconds: float
    ) -> Turn:
        """A turn of what vLLM gave. Raises ModelError where tokens or their log-probabilities are missing."""
        if not ids:
            raise ModelError("vLLM ended the turn before its first token")
        if logprobs is None or len(logprobs) != len(ids):
            raise ModelError("vLLM gave no log-probability for each token; is its logprobs setting overridden?")
        text = self.text(ids)
        return Turn(text, tuple(ids), tuple(logprobs), self.finish(ids, text, reason), usage=usage, seconds=seconds)


class VLLMEngine:
    """Serves turns of one checkpoint.

    Attributes:
        llm: vLLM's engine.
        adapter: the adapter that every turn is drawn with, as vLLM's request for it, or None.
        failures: turns that vLLM gave up and that were asked for again.
    """

    def __init__(
        self, llm: AsyncLLM, speech: Speech, digest: str, settings: Settings, notes: Mapping[str, Json]
    ) -> None:
        self.llm = llm
        self.fingerprint = digest
        self.adapter: object = None
        self.failures = 0
        self.speech = speech
        self.context = int(llm.model_config.max_model_len)
        self.caps = Caps(speech.prompts.exact, logprobs=True, seeds=True)
        self._settings = settings
        self._notes = dict(notes)
        self._numbers = itertools.count(1)

    @property
    def vision_ids(self) -> frozenset[int]:
        """Ids that only an image may bring into a conversation."""
        return frozenset(self.speech.processor.vision_ids)

    def fit(self, size: Size, budget: Span) -> Size:
        """The size within the budget; a family other than Qwen-VL then resizes in its own way."""
        return smart_resize(size, budget, self.speech.processor.factor)

    def check_adapter(self, folder: Path) -> None:
        """Refuse an adapter of which vLLM would leave out what it has for the vision tower. Raises ModelError."""
        if not changes_tower(folder):
            return
        if not isinstance(self.speech.processor, QwenProcessor):
            raise ModelError(f"{folder} changes the vision tower, and vLLM takes such adapters of Qwen-VL alone")
        if not self._settings.tower_lora:
            raise ModelError(f"{folder} changes the vision tower, and vLLM was started without engine.tower_lora=true")

    async def turn(self, conversation: Conversation, spec: TurnSpec) -> Turn:
        """The next turn. Raises ModelError."""
        start = time.perf_counter()
        prompt = await asyncio.to_thread(self.speech.prompts.write, conversation)
        room = prompt.room(self.context)
        fields = await asyncio.to_thread(prompt.fields, self.speech.processor.factor)
        output = await self._generate(fields, sampling(spec, room, self.speech.stops()), self._copy(conversation))
        return self._read(prompt, output, time.perf_counter() - start)

    def _copy(self, conversation: Conversation) -> int | None:
        """Which copy of the model has this conversation's cache."""
        copies = self._settings.data_parallel
        return zlib.crc32(conversation.key.encode()) % copies if copies > 1 else None

    async def _generate(self, fields: Mapping[str, object], params: object, copy: int | None) -> Output:
        """The finished output. Raises ModelError, also where the engine has died."""
        reason: str | None = None
        for attempt in range(1, TRIES + 1):
            if self.llm.errored:
                raise ModelError("vLLM's engine has died; its log says why, and a resume starts a new one")
            number = f"prh-{next(self._numbers)}"
            last: Output | None = None
            try:
                made = self.llm.generate(fields, params, number, lora_request=self.adapter, data_parallel_rank=copy)
                async with contextlib.aclosing(made) as outputs:
                    async for output in outputs:
                        last = output
            except Exception as error:  # whatever vLLM and its preprocessing raise
                cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
                raise ModelError(f"vLLM refuses this turn: {one_line(cause)}") from None
            if last is None or not last.outputs:
                raise ModelError("vLLM gave nothing back for this turn")
            reason = last.outputs[0].finish_reason
            if reason not in FAILED:
                return last
            self.failures += attempt < TRIES
        raise ModelError(f"vLLM ended the turn with {reason!r}, {TRIES} times")

    def _read(self, prompt: Prompt, output: Output, seconds: float) -> Turn:
        prompt.check(output.prompt_token_ids)
        made = output.outputs[0]
        ids, rows = made.token_ids, made.logprobs or ()
        chosen = [float(row[number].logprob) for row, number in zip(rows, ids, strict=False)]
        usage = Usage(len(output.prompt_token_ids or prompt.sent), len(ids), output.num_cached_tokens or 0)
        return self.speech.turn(ids, chosen, made.finish_reason or "stop", usage, seconds)

    async def release(self, conversation: Conversation) -> None:
        """Nothing is kept for a conversation; its blocks of cache are freed when others need the room."""

    def describe(self) -> Mapping[str, Json]:
        """Name, settings and versions, and what was counted so far."""
        return {
            **self._notes,
            "exact_history": self.caps.token_ids,
            "context": self.context,
            "settings": cast(Json, asdict(self._settings)),
            "retried": self.failures,
        }

    async def close(self) -> None:
        """End vLLM's processes."""
        await asyncio.to_thread(self.llm.shutdown)


def sampling(spec: TurnSpec, room: int, stops: Sequence[int]) -> object:
    """One turn's parameters as vLLM takes them. Raises ModelError where it cannot be drawn so."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(**sampling_fields(spec, room, stops), output_kind=RequestOutputKind.FINAL_ONLY)


def sampling_fields(spec: TurnSpec, room: int, stops: Sequence[int]) -> dict[str, object]:
    """The same by name, as a server takes it too. Raises ModelError where it cannot be drawn so."""
    if len(spec.banned_ids) > MOST_BANS:
        raise ModelError(f"vLLM can ban {MOST_BANS} ids at most, not {len(spec.banned_ids)}")
    return {
        "temperature": spec.temperature,
        "top_p": spec.top_p,
        "seed": spec.seed,
        "max_tokens": min(spec.max_new_tokens, room),
        "stop": list(spec.stop),
        "stop_token_ids": list(stops),
        "include_stop_str_in_output": True,
        "detokenize": bool(spec.stop),
        "skip_special_tokens": False,
        "logprobs": 0,
        "logit_bias": dict.fromkeys(spec.banned_ids, BAN) or None,
    }


class VLLMFactory:
    """Opens checkpoints in vLLM, where ``--engine vllm`` asks for it."""

    summary = "a Hugging Face checkpoint in vLLM, in this process (--engine vllm; an environment of its own)"

    def accepts(self, model: str) -> bool:
        """Never by itself: a checkpoint is the transformers engine's unless --engine says otherwise."""
        return False

    def defaults(self, model: str) -> Mapping[str, Json]:
        """The checkpoint's ``prh.json``."""
        return defaults(model)

    def open(self, model: str, options: EngineOptions) -> VLLMEngine:
        """Start vLLM with a checkpoint, in ranks of a launcher each on a GPU of its own.

        Raises:
            ModelError, UsageError, Prerequisite: it cannot be started.
        """
        settings = Settings.read(options.extra)
        device = launched()
        if device is not None:
            own_gpu(settings)
        with alone(device):
            return self._start(model, options, settings)

    def _start(self, model: str, options: EngineOptions, settings: Settings) -> VLLMEngine:
        number = vllm_version()
        load_libraries()
        checkpoint = resolve_model(model, options.revision, options.offline)
        if checkpoint.adapter is not None:
            settings = replace(settings, tower_lora=settings.tower_lora or changes_tower(checkpoint.adapter))
        arguments = engine_arguments(checkpoint, options, settings)
        config = load_config(checkpoint.folder, options.trust_remote_code)
        check_rope(config, checkpoint.folder)
        speech = Speech.read(config, checkpoint, options.trust_remote_code)
        engine = VLLMEngine(start(arguments, checkpoint), speech, fingerprint(checkpoint), settings, {
            "name": "vllm",
            "family": config.model_type,
            "adapter": checkpoint.adapter is not None,
            "revision": checkpoint.revision,
            "dtype": options.dtype,
            "device": f"vllm, {settings.tensor_parallel} x {settings.data_parallel}",
            "pixels": "vllm",
            "video": "frames",
            "factor": speech.processor.factor,
            "versions": {"vllm": number, "transformers": version("transformers"), "torch": version("torch")},
        })  # fmt: skip
        if checkpoint.adapter is not None:
            engine.check_adapter(checkpoint.adapter)
            engine.adapter = lora_request("adapter", 1, str(checkpoint.adapter))
        return engine

    def versioned(self, model: str, options: EngineOptions, lora_rank: int, place: Place) -> Synchronised:
        """The same for a trainer: weights that come in versions, and a GPU that is shared with the learner.

        With several processes each has a vLLM of its own, on its own GPU. With ``place.server`` all draw from that
        ``vllm serve`` instead, and the first process alone hands it the weights; see ``vllm_weights``.

        Args:
            lora_rank: of the adapters that will come, 0 where whole weights do.

        Raises:
            ModelError, UsageError, Prerequisite: as ``open``.
        """
        from .rollout import InProcess, Synchronised

        if place.server:
            from .vllm_weights import open_served

            return open_served(model, options, place, adapters=lora_rank > 0)
        own = {"sleep": "true", "lora_rank": str(lora_rank), "tower_lora": str(lora_rank > 0)}
        extra = {**own, **options.extra}
        settings = Settings.read(extra)
        if place.world > 1:
            own_gpu(settings)
        with alone(place.device if place.world > 1 else None):
            engine = self.open(model, replace(options, extra=extra))
        return Synchronised(engine, InProcess(engine))


def vllm_version() -> str:
    """The installed vLLM's version. Raises Prerequisite, also where it does not import."""
    try:
        number = version("vllm")
    except PackageNotFoundError:
        raise Prerequisite(INSTALL) from None
    try:
        import vllm

        _ = vllm.AsyncEngineArgs, vllm.AsyncLLMEngine
    except Exception as error:  # its compiled parts fail in many ways on a machine they were not built for
        raise Prerequisite(f"vllm {number} is installed but does not import: {one_line(error)}") from None
    return number


def check_rope(config: PreTrainedConfig, folder: Path) -> None:
    """Refuse positions that vLLM cannot rotate by: its engine would die of the first turn. Raises ModelError."""
    rope = getattr(config.get_text_config(), "rope_parameters", None)
    section = rope.get("mrope_section") if isinstance(rope, dict) else None
    if isinstance(section, list) and "qwen" in config.model_type and len(section) != AXES:
        message = f"{title(folder)} rotates positions in {len(section)} parts (mrope_section) and vLLM in {AXES}"
        raise ModelError(f"vLLM cannot run it: {message}; use --engine transformers")


def start(arguments: Mapping[str, object], checkpoint: Checkpoint) -> AsyncLLM:
    """A running engine of vLLM's with a model in it. Raises ModelError."""
    import vllm

    try:
        return cast(AsyncLLM, vllm.AsyncLLMEngine.from_engine_args(vllm.AsyncEngineArgs(**arguments)))
    except PrhError:
        raise
    except Exception as error:  # whatever vLLM, its workers and the GPU raise
        raise ModelError(f"vLLM cannot start with {title(checkpoint.folder)}: {one_line(error)}") from None


def lora_request(name: str, number: int, folder: str) -> object:
    """An adapter as vLLM takes it beside a turn."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(name, number, folder)
