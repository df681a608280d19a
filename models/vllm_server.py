"""A running ``vllm serve`` as what draws a trainer's rollouts: ids in, ids and log-probabilities out, versions kept.

What is used of it, as vLLM 0.31 to 0.33 have it (sources: ``entrypoints/scale_out/token_in_token_out``,
``entrypoints/rl/online``, ``entrypoints/serve``; recorded in ``tests/vllm/interface.json``):

    POST /inference/v1/generate   ``token_ids`` with one placeholder an image, the images as ``content_parts``
                                  (vLLM #51478), ``sampling_params``, ``return_token_ids``; ``--enable-scale-out``
    POST /collective_rpc          ``reload_weights`` from a folder, between ``/pause`` and ``/resume``;
                                  VLLM_SERVER_DEV_MODE=1
    POST /update_weight_version   names the weights, before and after they change; ``GET /weight_info`` tells the name
                                  (vLLM #49040)
    POST /v1/load_lora_adapter    an adapter under a name of its own; VLLM_ALLOW_RUNTIME_LORA_UPDATING=1

Each version has a name that no other training gives. From 0.32 on a reply says which weights drew its tokens; an older
server is asked for the name after every turn. Adapters are asked for by name. So a server that was started again, or
given other weights, ends the turn instead of adding to a rollout. Folders are handed over by their path, which the
server must see too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import cast

from ..harness.engine import Caps, Turn, TurnSpec, Usage, smart_resize
from ..harness.errors import ModelError, UsageError
from ..harness.ledger import Conversation
from ..harness.pictures import shown_digest
from ..harness.types import Json, Size, Span
from .openai_body import Placed, hold
from .openai_errors import ServerError
from .openai_messages import PngCache
from .openai_replies import count
from .openai_server import read_list
from .options import read_options, read_plain
from .vllm_engine import FAILED, Speech, sampling_fields
from .vllm_line import Line
from .vllm_prompts import Prompt

GENERATE, INFO, MODELS = "/inference/v1/generate", "/weight_info", "/v1/models"
# What a server calls the weights that it was started with.
UNTOUCHED = "default"
# A token that is drawn for certain has this log-probability at least, after what made it certain.
CERTAIN = -0.01


@dataclass(frozen=True, slots=True)
class ServedSettings:
    """The names and defaults of ``rollout.options`` with ``rollout.server``.

    Attributes:
        concurrency: most requests at once.
        timeout: seconds that a request may take, that of loading weights among them.
        retries: most retries of a turn; weights are handed over once.
        first_wait: seconds before the first retry, doubled for each further one, and at most ``longest_wait``.
        image_cache_mib: most MiB of encoded images that are kept.
        sleep: whether the server frees its GPU while the learner works, as one that shares it must
            (``--enable-sleep-mode``).
    """

    concurrency: int = 256
    timeout: float = 600.0
    retries: int = 4
    first_wait: float = 0.5
    longest_wait: float = 30.0
    image_cache_mib: int = 512
    sleep: bool = False

    @classmethod
    def read(cls, extra: Mapping[str, str]) -> ServedSettings:
        """Settings from text. Raises UsageError for an unknown name or a value that is none."""
        return read_options(cls, "vllm with a server", extra, _read)


def _read(name: str, text: str, default: object) -> object:
    """One setting. Raises UsageError where the text is none."""
    return read_plain("vllm with a server", name, text, default, zero=name in ("retries", "image_cache_mib"))


class ServedEngine:
    """Serves turns of one ``vllm serve``.

    Attributes:
        base: the served model's name; ``model`` is what turns are asked of: it, or an adapter beside it.
        weights: what the server must call its weights.
        lost: why nothing more can be drawn, once that is known.
    """

    def __init__(
        self, line: Line, card: Mapping[str, Json], speech: Speech, digest: str, settings: ServedSettings
    ) -> None:
        self.line, self.speech, self.fingerprint = line, speech, digest
        self.base = self.model = str(card["id"])
        self.context = count(card, "max_model_len")
        self.weights = UNTOUCHED
        self.lost = ""
        self.caps = Caps(speech.prompts.exact, logprobs=True, seeds=True)
        self._settings = settings
        self._images = PngCache(settings.image_cache_mib << 20)

    @property
    def vision_ids(self) -> frozenset[int]:
        """Ids that only an image may bring into a conversation."""
        return frozenset(self.speech.processor.vision_ids)

    def fit(self, size: Size, budget: Span) -> Size:
        """The size within the budget; one that the server's own limits change is refused by its turn."""
        return smart_resize(size, budget, self.speech.processor.factor)

    async def turn(self, conversation: Conversation, spec: TurnSpec) -> Turn:
        """The next turn, tried again where that may help. Raises ModelError."""
        start = time.perf_counter()
        prompt = await asyncio.to_thread(self.speech.prompts.write, conversation)
        params = sampling_fields(spec, prompt.room(self.context), self.speech.stops())
        placed = Placed(self._images)
        parts = await asyncio.to_thread(_parts, prompt, placed)
        hold(placed.held)
        reply = await self._ask(prompt.sent, params, parts)
        made = self._read(prompt, reply, time.perf_counter() - start)
        drew = weights_of(reply)
        if drew is None:
            await self.confirm()
        for name in drew or ():
            self._same(name)
        return made

    async def _ask(
        self, ids: Sequence[int], params: Mapping[str, object], parts: Sequence[Json] = ()
    ) -> Mapping[str, Json]:
        """What the server draws. Raises ModelError; where it is lost, every later turn's too."""
        if self.lost:
            raise ModelError(self.lost)
        body: dict[str, Json] = {
            "model": self.model,
            "token_ids": list(ids),
            "sampling_params": cast(Json, dict(params)),
            "return_token_ids": True,
        }
        body |= {"content_parts": list(parts)} if parts else {}
        try:
            reply = await self.line.ask(GENERATE, body)
            return await self.line.ask(GENERATE, body) if gave_up(reply) else reply
        except ServerError as fault:
            raise self._failed(fault) from None

    def _failed(self, fault: ServerError) -> ModelError:
        message = f"{self.line.root}: {fault}"
        if fault.status == 404 and self.model != self.base:
            message += f"; the adapter {self.model} is gone: was the server started again?"
        self.lost = message if fault.kind == "connection" or fault.status in (403, 404) else self.lost
        return ModelError(message)

    def _read(self, prompt: Prompt, reply: Mapping[str, Json], seconds: float) -> Turn:
        usage = reply.get("usage")
        used = usage if isinstance(usage, dict) else {}
        said = reply.get("prompt_token_ids")
        prompt.check(cast("list[int]", said) if isinstance(said, list) else None, count(used, "prompt_tokens"))
        ids, logprobs, reason = drawn(reply)
        details = used.get("prompt_tokens_details")
        cached = count(details, "cached_tokens") if isinstance(details, dict) else 0
        own = Usage(count(used, "prompt_tokens") or len(prompt.expanded or prompt.sent), len(ids), cached)
        return self.speech.turn(ids, logprobs, reason, own, seconds)

    async def confirm(self) -> None:
        """Make sure that the server still has the weights it was given. Raises ModelError."""
        try:
            reply = await self.line.ask(INFO)
        except ServerError as fault:
            raise self._failed(fault) from None
        self._same(reply.get("weight_version"))

    def _same(self, found: Json) -> None:
        """Raises ModelError where the server's weights are not those it was given."""
        if found != self.weights:
            self.lost = (
                f"{self.line.root} has the weights {found!r} where {self.weights!r} were handed over: "
                "it was started again, or another training uses it"
            )
            raise ModelError(self.lost)

    async def confirm_listed(self) -> None:
        """Make sure that the server has the adapter that turns are asked of. Raises ModelError."""
        try:
            cards = read_list(await self.line.send("GET", MODELS), self.line.mask)
        except ServerError as fault:
            raise self._failed(fault) from None
        if self.model not in cards:
            raise ModelError(
                f"{self.line.root} does not list the adapter {self.model}: several API servers, or a router?"
            )

    async def probe(self) -> None:
        """Make sure that log-probabilities are those that tokens were drawn by. Raises ModelError, UsageError.

        Two tokens are made certain by a bias, in turn: a log-probability from before it is certain of one at most.
        """
        for only in (self.speech.ends[0], self.speech.ends[0] - 1):
            spec = TurnSpec(1, temperature=1.0)
            params = {**sampling_fields(spec, 1, []), "logit_bias": {only: 100.0}}
            _, values, _ = drawn(await self._ask([only], params))
            if not values or values[0] < CERTAIN:
                message = "gives no log-probabilities, or those from before temperature and bans"
                raise UsageError(f"{self.line.root} {message}: start it with --logprobs-mode processed_logprobs")

    async def release(self, conversation: Conversation) -> None:
        """Nothing is kept for a conversation."""

    def describe(self) -> Mapping[str, Json]:
        """The server, what it calls its weights, and versions. Where it is counts for nothing and is not said."""
        return {
            "name": "vllm",
            "server": True,
            "model": self.base,
            "weights": self.weights,
            "dtype": "unknown",
            "device": "server",
            "pixels": "vllm",
            "video": "frames",
            "factor": self.speech.processor.factor,
            "exact_history": self.caps.token_ids,
            "context": self.context,
            "settings": cast(Json, asdict(self._settings)),
            "retried": self.line.retried,
            "versions": {name: version(name) for name in ("prh", "transformers")},
        }

    async def close(self) -> None:
        """Close the connections; the server stays, with the weights it has."""
        await self.line.close()


def _parts(prompt: Prompt, placed: Placed) -> list[Json]:
    """The images in the order of their placeholders, known by their pixels so that none is seen twice."""
    return [{"type": "image_url", "url": placed.url(one), "uuid": shown_digest(one)} for one in prompt.images]


def _choice(reply: Mapping[str, Json]) -> Mapping[str, Json]:
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def gave_up(reply: Mapping[str, Json]) -> bool:
    """Whether vLLM ended a turn through no fault of the prompt, which may not happen again."""
    return _choice(reply).get("finish_reason") in FAILED


def weights_of(reply: Mapping[str, Json]) -> list[Json] | None:
    """The names of the weights that drew a reply's tokens; None where it does not say that, as before vLLM 0.32."""
    spans = _choice(reply).get("weight_versions")
    return [one.get("version") if isinstance(one, dict) else None for one in spans] if isinstance(spans, list) else None


def drawn(reply: Mapping[str, Json]) -> tuple[list[int], list[float], str]:
    """Ids, log-probabilities and finish reason of a reply. Raises ModelError where it holds none of use."""
    choice = _choice(reply)
    said = choice.get("token_ids")
    ids = [one for one in said if isinstance(one, int)] if isinstance(said, list) else []
    if ids != said:
        raise ModelError("vLLM's reply holds no token ids")
    reason = str(choice.get("finish_reason") or "stop")
    if reason in FAILED:
        raise ModelError(f"vLLM ended the turn with {reason!r}")
    told = choice.get("logprobs")
    rows = told.get("content") if isinstance(told, dict) else None
    values = [_logprob(row, one) for row, one in zip(rows if isinstance(rows, list) else (), ids, strict=False)]
    return ids, values, reason


def _logprob(row: Json, number: int) -> float:
    """The log-probability of a token, said as ``token_id:7`` or with its id as a number. Raises ModelError."""
    value = row.get("logprob") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(value, int | float) or isinstance(value, bool):
        raise ModelError("vLLM gave no log-probability for each token; is its logprobs setting overridden?")
    if row.get("token_id", number) != number or row.get("token", f"token_id:{number}") != f"token_id:{number}":
        raise ModelError("vLLM gave the log-probability of another token than the one it drew")
    return float(value)
