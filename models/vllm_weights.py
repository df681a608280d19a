"""The weights of a running ``vllm serve``, by version: how it is met, handed over to, and put aside.

The routes are told of in ``vllm_server``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..harness.engine import EngineOptions, Place
from ..harness.errors import ModelError, PrhError, UsageError
from ..harness.types import Json
from ..harness.untrusted import loads
from .checkpoint import ADAPTER, fingerprint, holds, resolve_model
from .loading import load_config
from .openai_errors import ServerError
from .openai_replies import count
from .openai_server import Address, read_key, read_list
from .processor import load_libraries
from .rollout import KEEP, Synchronised
from .vllm_engine import Speech
from .vllm_line import Line
from .vllm_server import INFO, MODELS, UNTOUCHED, ServedEngine, ServedSettings


class Served:
    """The weights of a ``vllm serve``, through its routes for developers.

    Args:
        name: of the training; ``NAME-VERSION`` is what the server calls a version of its weights.
        leads: whether this process hands weights over; the others only make sure that they are there.
        sleeps: whether the server frees its GPU while it is put aside.
    """

    def __init__(self, engine: ServedEngine, name: str, *, leads: bool, sleeps: bool) -> None:
        self._engine, self._name = engine, name
        self._leads, self._sleeps = leads, sleeps

    async def load(self, folder: Path, version: int) -> None:
        """As ``InProcess``; the folder must be one that the server sees. Raises ModelError."""
        engine, name = self._engine, f"{self._name}-{version}"
        if holds(folder, ADAPTER):
            if self._leads:
                await self._adapt(folder, name)
            engine.model = name
            await engine.confirm_listed()
        else:
            if self._leads:
                await self._replace(folder, name)
            engine.weights = name
        await engine.confirm()

    async def _adapt(self, folder: Path, name: str) -> None:
        """An adapter beside the weights that the server was started with, in the place of the one before."""
        await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        if self._engine.model != self._engine.base:
            await self._post("/v1/unload_lora_adapter", {"lora_name": self._engine.model})

    async def _replace(self, folder: Path, name: str) -> None:
        """Whole weights, while nobody's turn runs; whatever an older version computed goes.

        Their name goes before they do: whatever fails on the way leaves one that nobody takes for weights of theirs.
        """
        await self._post("/pause?mode=wait&clear_cache=true")
        try:
            await self._call_it(f"{name}-loading")
            body: dict[str, Json] = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
            await self._post("/collective_rpc", body)
            await self._forget()
            await self._call_it(name)
        except BaseException:
            with suppress(PrhError):  # what went wrong before is what there is to tell
                await self._post("/resume")
            raise
        await self._post("/resume")

    async def _call_it(self, name: str) -> None:
        await self._post("/update_weight_version", {"new_version": name})

    async def _forget(self) -> None:
        if not emptied(await self._post("/reset_prefix_cache")):
            raise ModelError(f"{self._engine.line.root} did not empty its prefix cache: a request still runs")
        await self._post("/reset_encoder_cache")

    async def _post(self, route: str, body: Mapping[str, Json] | None = None) -> bytes:
        try:
            return await self._engine.line.send("POST", route, body or {})
        except ServerError as fault:
            raise ModelError(f"{self._engine.line.root}: {fault}") from None

    async def sleep(self) -> None:
        """Weights to main memory, the cache given up, where the server is to free its GPU."""
        if self._leads and self._sleeps:
            await self._post(f"/sleep?level={KEEP}&mode=wait")

    async def wake(self) -> None:
        """Weights back, an empty cache."""
        if self._leads and self._sleeps:
            await self._post("/wake_up")
            await self._forget()


def emptied(answer: bytes) -> bool:
    """Whether a server says that it emptied its cache; one that says nothing did."""
    try:
        found = loads(answer.decode())
    except ValueError:
        return True
    return not (isinstance(found, dict) and found.get("success") is False)


def open_served(model: str, options: EngineOptions, place: Place, *, adapters: bool) -> Synchronised:
    """An engine over a running server, which speaks nothing before weights are handed over.

    Args:
        adapters: whether adapters will come, beside the weights that the server was started with.

    Raises:
        ModelError, UsageError, Prerequisite: it cannot be reached or lacks something, or the checkpoint cannot be read.
    """
    settings = ServedSettings.read(options.extra)
    address, line = Address.read(place.server), Line(place.server, read_key(), settings)
    load_libraries()
    checkpoint = resolve_model(model, options.revision, options.offline)
    config = load_config(checkpoint.folder, options.trust_remote_code)
    speech = Speech.read(config, checkpoint, options.trust_remote_code)
    engine = asyncio.run(_met(line, address.model, speech, fingerprint(checkpoint), settings))
    if adapters and engine.weights != UNTOUCHED:
        message = f"has the weights {engine.weights!r}, and an adapter needs those it was started with"
        raise UsageError(f"{line.root} {message}: start it again")
    leads = place.rank == 0
    holder = Served(engine, place.name, leads=leads, sleeps=settings.sleep)
    return Synchronised(engine, holder, version=-1, leads=leads)


async def _met(line: Line, name: str, speech: Speech, digest: str, settings: ServedSettings) -> ServedEngine:
    """Get to know a server. Raises ModelError, UsageError."""
    try:
        cards = read_list(await line.send("GET", MODELS), line.mask)
        info = await line.ask(INFO)
        engine = ServedEngine(line, _base(cards, name, line.root), speech, digest, settings)
        engine.weights = str(info.get("weight_version"))
        await engine.probe()
    except ServerError as fault:
        raise ModelError(f"{line.root}: {fault}") from None
    finally:
        await line.close()
    return engine


def _base(cards: Mapping[str, Mapping[str, Json]], name: str, root: str) -> Mapping[str, Json]:
    """What a server says of the model that is meant. Raises ModelError, UsageError."""
    bases = [one for key, one in cards.items() if not one.get("parent") and (not name or key == name)]
    if len(bases) != 1:
        raise UsageError(f"{root} serves {', '.join(cards) or 'nothing'}; choose with {root}#NAME")
    if not count(bases[0], "max_model_len"):
        raise ModelError(f"{root} does not say how long its context is: it is no vLLM")
    return bases[0]
