"""The two ways in which a checkpoint's turns are produced: the fast one, and plain batches for what it cannot run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..harness.errors import UsageError
from ..harness.ledger import Conversation
from ..harness.types import Json, finite
from .batching import Scheduler, Worker
from .continuous import Continuous
from .decode import Decoder, Vocabulary, Work
from .encode import Encoder, Places, TokenView
from .flat import FlatModel, unfit
from .gallery import Gallery, tower
from .loading import base_model
from .meter import Meter
from .prefixes import Prefixes
from .running import Batch
from .trails import Prompt, Trails

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

OPTION = "cache_gib"
GIB = 1 << 30
# Shares of the room for what can be made again: what has been read, what runs, what has been seen.
# On the CPU, tokens a row for which room is taken at most: what is kept longer is seldom asked for again.
MOST_KEPT = 4096
SHARES = {"prefixes": 0.6, "slots": 0.25, "gallery": 0.15}


class Path(Protocol):
    """How turns are produced."""

    @property
    def scheduler(self) -> Worker[Work]: ...

    @property
    def near_ties(self) -> int: ...

    def view(self, conversation: Conversation) -> TokenView | Prompt:
        """The conversation as this path runs it. Raises ModelError."""
        ...

    def release(self, conversation: Conversation) -> None:
        """Forget what was kept of a conversation."""
        ...

    def forget(self) -> None:
        """Forget everything that is kept before the next turn, once nothing runs."""
        ...

    def summary(self) -> Mapping[str, Json]:
        """For the manifest: what was counted."""
        ...

    def drop(self) -> None:
        """Free everything that is kept. Only once nothing runs."""
        ...


class Plain:
    """Batches of whole turns: nothing is kept between them.

    Attributes:
        reason: why this path was taken.
    """

    def __init__(self, module: PreTrainedModel, words: Vocabulary, encoder: Encoder, batch: int, reason: str) -> None:
        self.encoder = encoder
        self.decoder = Decoder(module, words, module.device)
        self.scheduler: Scheduler[Work] = Scheduler(self.decoder.run, batch)
        self.reason = reason

    @property
    def near_ties(self) -> int:
        return self.decoder.near_ties

    def view(self, conversation: Conversation) -> TokenView:
        return self.encoder.encode(conversation)

    def release(self, conversation: Conversation) -> None:
        pass

    def forget(self) -> None:
        pass

    def summary(self) -> Mapping[str, Json]:
        notice = f"{self.reason}: turns run in plain batches, and every turn reads its whole conversation again"
        return {"path": "plain", "notice": notice, "batch_splits": self.scheduler.splits}

    def drop(self) -> None:
        pass


class Fast:
    """Turns that join and leave a running batch, with a cache of what was read and seen before."""

    def __init__(
        self,
        module: PreTrainedModel,
        words: Vocabulary,
        encoder: Encoder,
        places: Places,
        batch: int,
        room: int | None,
    ) -> None:
        model = FlatModel(module)
        room = room or free_room(model.device, model.slots().token_bytes * batch * MOST_KEPT)
        self.meter = Meter(batch)
        self.trails = Trails(encoder, places)
        encode = tower(model.inner, model.device)
        self.gallery = Gallery(encoder.processor, encode, int(room * SHARES["gallery"]))
        self.prefixes = Prefixes(int(room * SHARES["prefixes"]))
        rows = Batch(model, self.prefixes, self.gallery, self.meter, int(room * SHARES["slots"]))
        self.scheduler = Continuous(rows, words)

    @property
    def near_ties(self) -> int:
        return self.scheduler.near_ties

    def view(self, conversation: Conversation) -> Prompt:
        prompt = self.trails.prompt(conversation)
        for shot in prompt.shots:
            if shot.start >= prompt.past and self.gallery.missing(shot.key):
                self.gallery.prepare(shot.key, prompt.media[shot.key])
        return prompt

    def release(self, conversation: Conversation) -> None:
        trail = self.trails.forget(conversation)
        if trail is None or not conversation.segments:
            return
        last = conversation.segments[-1]
        reply = np.array(last.ids or (), np.int64) if last.role == "assistant" else np.zeros(0, np.int64)
        self.scheduler.release(np.concatenate([trail.prompt.keys, reply]), trail.opening)

    def forget(self) -> None:
        self.scheduler.forget()

    def summary(self) -> Mapping[str, Json]:
        work = self.meter.summary()
        work["images_encoded"], work["images_encoded_again"] = self.gallery.encoded, self.gallery.again
        work["restarted"] = self.trails.restarted
        return {"path": "fast", "batch_splits": self.scheduler.splits, "work": work}

    def drop(self) -> None:
        self.prefixes.clear()
        self.gallery.clear()
        self.scheduler.batch.slots.drop()


def choose_path(
    module: PreTrainedModel, words: Vocabulary, encoder: Encoder, batch: int, room: int | None
) -> Fast | Plain:
    """The fast path where it gives what the model gives, else the plain one, which the summary's `notice` says.

    Args:
        batch: most turns at once.
        room: bytes for what is kept between them; None for a share of what is free.
    """
    reason = unfit(module, base_model(module).config._attn_implementation)
    if not reason and encoder.places is not None:
        return Fast(module, words, encoder, encoder.places, batch, room)
    return Plain(module, words, encoder, batch if encoder.places is not None else 1, reason)


def cache_room(extra: Mapping[str, str]) -> int | None:
    """The option ``cache_gib`` in bytes: room for everything that is kept besides the weights. None where not given.

    Raises:
        UsageError: it is no number above 0.
    """
    if OPTION not in extra:
        return None
    wanted = finite(_number(extra[OPTION]))
    if wanted is None or wanted <= 0:
        raise UsageError(f"engine.{OPTION} must be a number of GiB above 0, not {extra[OPTION]!r}")
    return int(wanted * GIB)


def free_room(device: torch.device, most: int) -> int:
    """Bytes for what is kept: most of a GPU's free memory, or a share of the machine's up to ``most``."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.7)
    try:
        return min(int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 0.2), most)
    except (ValueError, OSError, AttributeError):
        return min(2 * GIB, most)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
