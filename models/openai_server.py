"""Which server and which of its models a name means, how it is asked, and what it says of itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..harness.digests import json_digest
from ..harness.engine import Usage
from ..harness.errors import ModelError, UsageError
from ..harness.types import Json
from ..harness.untrusted import loads
from .openai_errors import Mask, ServerError, error_of
from .options import read_options, read_plain, refused

if TYPE_CHECKING:
    from openai import OpenAI

KEY = "OPENAI_API_KEY"
NO_KEY = "EMPTY"
# What identifies a model. Not `created`: vLLM and SGLang give the time of the question there.
IDENTITY = ("id", "root", "parent", "max_model_len", "owned_by")
# Answers of servers that have no list of models.
NO_LIST = (404, 405, 501)
LISTED = 10
MAY_BE_ZERO = ("retries", "image_cache_mib", "price_prompt", "price_cached", "price_new")
MODES = ("user", "tool", "responses", "text")
OPTIONAL = ("temperature", "top_p", "seed")
BASE = "a base URL usually ends in /v1"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server is asked: the names and defaults of ``EngineOptions.extra``.

    Attributes:
        factor: sides of images are multiples of it: 28 for Qwen2-VL and Qwen2.5-VL, 32 for Qwen3-VL.
        concurrency: most turns at the server at once; one that waits to try again counts.
        timeout: seconds that one request may take.
        turn_seconds: seconds that a turn may take, retries and waits included.
        retries: most retries of a turn.
        first_wait: seconds before the first retry, doubled for each further one.
        longest_wait: most seconds before a retry, whatever ``Retry-After`` asks for.
        image_cache_mib: most MiB of encoded images that are kept.
        mode: how a protocol's functions are carried: declared, with the image that answers a call in a ``user``
            message after it or in the ``tool`` message itself; through the ``responses`` API; or as ``text``, written
            into the system prompt and called in the reply.
        omit: fields that the server refuses, by comma: ``temperature``, ``top_p``, ``seed``.
        price_prompt, price_cached, price_new: dollars a million tokens; cached ones cost as others where only their
            price is not given.
    """

    factor: int = 28
    concurrency: int = 64
    timeout: float = 600.0
    turn_seconds: float = 1800.0
    retries: int = 8
    first_wait: float = 0.5
    longest_wait: float = 60.0
    image_cache_mib: int = 512
    mode: str = MODES[0]
    omit: str = ""
    price_prompt: float = 0.0
    price_cached: float | None = None
    price_new: float = 0.0

    @classmethod
    def read(cls, extra: Mapping[str, str]) -> Settings:
        """Settings from text. Raises UsageError for an unknown name or a value that is none."""
        return read_options(cls, "openai", extra, _read)

    @property
    def omitted(self) -> tuple[str, ...]:
        """The fields that are left out."""
        return tuple(name.strip() for name in self.omit.split(",") if name.strip())

    def cost(self, usage: Usage) -> float:
        """What a turn costs in dollars, 0 where no price is given."""
        cached = self.price_prompt if self.price_cached is None else self.price_cached
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
        parts = (fresh * self.price_prompt, usage.cached_tokens * cached, usage.new_tokens * self.price_new)
        return sum(parts) / 1e6


def _read(name: str, text: str, default: object) -> object:
    """One setting. Raises UsageError where the text is none."""
    if isinstance(default, str):
        allowed = MODES if name == "mode" else OPTIONAL
        words = [text] if name == "mode" else [word.strip() for word in text.split(",") if word.strip()]
        if any(word not in allowed for word in words):
            kind = "one" if name == "mode" else "some"
            raise refused("openai", name, f"{kind} of {', '.join(allowed)}", text)
        return text
    return read_plain("openai", name, text, default, zero=name in MAY_BE_ZERO)


@dataclass(frozen=True, slots=True)
class Address:
    """What ``--model`` says: the base URL, and the model's name or nothing."""

    url: str
    model: str = ""

    @classmethod
    def read(cls, text: str) -> Address:
        """``http://host:port/v1`` or ``http://host:port/v1#NAME``. Raises UsageError."""
        try:
            parts = urlsplit(text)
            hidden = parts.username is not None or parts.password is not None or bool(parts.query)
            sound = bool(parts.hostname) and text.isprintable() and " " not in text and parts.port != 0
        except ValueError:
            hidden, sound = "@" in text, False
        if hidden:
            # Not shown: the name of a model is stored and printed, and this one may hold a password.
            raise UsageError(f"the server's URL must hold no user, password or query; put the key in {KEY}")
        if not sound:
            raise UsageError(f"{text!r} is no base URL; it must look like http://127.0.0.1:8000/v1#NAME")
        return cls(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", parts.fragment)


def read_key() -> str:
    """The key from the environment, empty where there is none. Raises UsageError, without showing it."""
    key = os.environ.get(KEY, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"{KEY} holds characters that no HTTP header can carry; set it again")
    return "" if key == NO_KEY else key


@dataclass(frozen=True, slots=True)
class Server:
    """A server and its model.

    Attributes:
        card: what its list says of the model, empty where the model is not listed.
    """

    address: Address
    key: str = field(repr=False)
    card: Mapping[str, Json]

    @property
    def software(self) -> str:
        """What serves the model by its own word: vLLM and SGLang name themselves as the owner."""
        return str(self.card.get("owned_by", ""))

    @property
    def fingerprint(self) -> str:
        """Digest of the model's name and what the list says of it: the server's word, for there are no files to read.

        The URL does not count: a model is the same behind another port.
        """
        said = {name: self.card[name] for name in IDENTITY if name in self.card}
        return json_digest(["openai", self.address.model, said])


def find_model(client: OpenAI, address: Address, key: str) -> Server:
    """The model that an address means, asked of the server.

    A name that is not listed may be an alias: then the server is asked for one token, and a 404 settles it.

    Raises:
        ModelError: the server cannot be reached, refuses, is none, or has no such model.
    """
    mask = Mask(key)
    try:
        cards = _cards(client, mask, needed=not address.model)
    except ServerError as error:
        raise ModelError(f"{address.url}: {error}") from None
    names = listed(cards, mask)
    if not address.model and len(cards) != 1:
        raise ModelError(f"{address.url} serves {names}; choose with {address.url}#NAME")
    name = address.model or next(iter(cards))
    if name not in cards and _missing(client, name, mask):
        raise ModelError(f"{address.url} has no model {name!r}; it serves {names}; {BASE}")
    return Server(Address(address.url, name), key, cards.get(name, {}))


def _cards(client: OpenAI, mask: Mask, *, needed: bool) -> Mapping[str, Mapping[str, Json]]:
    try:
        body = client.models.with_raw_response.list().content
    except Exception as error:  # whatever the network stack raises
        fault = error_of(error, mask)
    else:
        return read_list(body, mask)
    if not fault.status:
        raise ServerError(f"cannot be reached: {fault}; check that the server runs and that its address is right")
    if fault.status not in NO_LIST:
        raise ServerError(f"GET /models: {fault}")
    if needed:
        raise ServerError(f"GET /models: {fault}; name the model after #; {BASE}")
    return {}


def read_list(body: bytes, mask: Mask) -> Mapping[str, Mapping[str, Json]]:
    """The models of a ``GET /models`` by name. Raises ServerError where it is no such list."""
    try:
        value = mask.value(loads(body.decode()))
    except ValueError:
        value = None
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, list):
        said = mask.said(body.decode("utf-8", "replace"))
        raise ServerError(f"GET /models gives no list of models: {said}; {BASE}")
    cards: dict[str, Mapping[str, Json]] = {}
    for card in data:
        name = card.get("id") if isinstance(card, dict) else None
        if isinstance(card, dict) and isinstance(name, str):
            cards[name] = card
    return cards


def listed(cards: Mapping[str, object], mask: Mask) -> str:
    """The names of models for a message, the first ten of them."""
    names = [mask.quote(name) for name in cards][:LISTED]
    more = f" and {len(cards) - LISTED} more" if len(cards) > LISTED else ""
    return ", ".join(names) + more if names else "no model that it lists"


def _missing(client: OpenAI, name: str, mask: Mask) -> bool:
    try:
        client.chat.completions.create(model=name, messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
    except Exception as error:  # what else is wrong, the first turn tells
        return error_of(error, mask).status == 404
    return False
