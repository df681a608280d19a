"""The plain decode loop: a batch of turns, left-padded, with explicit positions and a cache that lives for the turn.

It runs what ``flat`` does not: other families, another attention than ``sdpa``, adapters that add tokens.

Nothing is read from the model object's own state: M-RoPE positions come from the whole conversation's ids and
grids and go on by one a token, so that batches of any composition give each row what it would get alone.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from ..harness.engine import Finish, Turn, TurnSpec, Usage
from ..harness.errors import ModelError
from .batching import Job
from .loading import base_model
from .sampling import draw

if TYPE_CHECKING:
    import torch
    from transformers import Cache, PreTrainedModel

    from .encode import TokenView
    from .trails import Prompt


NOT_FINITE = (
    "the model produced non-finite logits on this conversation in {}: "
    "try another --dtype, such as {}, or check its weights for NaN"
)


@dataclass(frozen=True, slots=True)
class Work:
    """One turn to produce: the encoded conversation and how to draw."""

    view: TokenView | Prompt
    spec: TurnSpec


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the loop knows of tokens.

    Attributes:
        decode: ids to text, special tokens included.
        size: ids from here on have no text.
        ends: ids that end a turn.
        vision: ids that only an image may bring; a reply that holds one is malformed.
        pad: an id to fill the left of shorter rows with.
    """

    decode: Callable[[Sequence[int]], str]
    size: int
    ends: frozenset[int]
    vision: frozenset[int]
    pad: int


class Causal(Protocol):
    """What a model's forward returns, as far as it is used."""

    logits: torch.Tensor
    past_key_values: Cache


@dataclass(slots=True, eq=False)
class Row:
    """A turn that is being produced."""

    job: Job[Work]
    words: Vocabulary
    generator: torch.Generator
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish | None = None

    def take(self, token: int, logprob: float) -> None:
        """Append a token and see whether it ends the turn."""
        spec = self.job.work.spec
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token in self.words.vision or token >= self.words.size:
            self.finish = "malformed"
        elif token in self.words.ends or self._stopped(spec.stop):
            self.finish = "stop"
        elif len(self.ids) >= spec.max_new_tokens:
            self.finish = "length"

    def _stopped(self, stop: Sequence[str]) -> bool:
        """Whether a stop string has just been completed; a string of n bytes is spelled by at most n tokens."""
        if not stop:
            return False
        tail = self.words.decode(self.ids[-max(len(text.encode()) for text in stop) - 1 :])
        return any(text in tail for text in stop)

    def turn(self, seconds: float, usage: Usage) -> Turn:
        """The finished turn. Text that the ids cannot be decoded to makes it malformed."""
        ended = self.ids[-1] in self.words.ends
        text = self.words.decode([token for token in (self.ids[:-1] if ended else self.ids) if token < self.words.size])
        finish = self.finish or "length"
        cut = text.rstrip("\ufffd") if finish == "length" else text
        if "\ufffd" in cut:
            finish = "malformed"
        return Turn(text, tuple(self.ids), tuple(self.logprobs), finish, usage=usage, seconds=seconds)


@dataclass(slots=True, eq=False)
class Batch:
    """What the model holds of a batch.

    Attributes:
        mask: rows x tokens so far, 0 on padding.
        place: the position that each row's next token has, or None where the model counts by itself.
    """

    cache: Cache
    mask: torch.Tensor
    place: torch.Tensor | None

    def keep(self, rows: Sequence[int]) -> None:
        """Let the other rows go."""
        import torch

        chosen = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(chosen)
        self.mask = self.mask[chosen]
        self.place = self.place[chosen] if self.place is not None else None


class Decoder:
    """Runs batches of turns on a model.

    Attributes:
        near_ties: tokens that rounding could have made others, as ``sampling.Draw`` counts them.
    """

    def __init__(self, module: PreTrainedModel, words: Vocabulary, device: torch.device) -> None:
        self.module = module
        self.words = words
        self.device = device
        self.near_ties = 0
        last = "logits_to_keep" in inspect.signature(base_model(module).forward).parameters
        self._last_only = {"logits_to_keep": 1} if last else {}

    def run(self, jobs: Sequence[Job[Work]]) -> None:
        """Produce every job's turn, finishing each as it ends and dropping those that are abandoned."""
        import torch

        start = time.perf_counter()
        rows = [Row(job, self.words, torch.Generator().manual_seed(job.work.spec.seed)) for job in jobs]
        with torch.inference_mode():
            batch, logits = self.prefill([cast("TokenView", row.job.work.view) for row in rows])
            while True:
                self._refuse(rows, logits)
                rows, logits = _let_go(batch, rows, logits)
                if not rows:
                    return
                tokens, logprobs, ties = draw(logits, [r.job.work.spec for r in rows], [r.generator for r in rows])
                self.near_ties += ties
                for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
                    row.take(token, logprob)
                    if row.finish:
                        usage = Usage(len(row.job.work.view.ids), len(row.ids))
                        row.job.finish(row.turn(time.perf_counter() - start, usage))
                rows, logits = _let_go(batch, rows, logits)
                if not rows:
                    return
                logits = self.step(batch, [row.ids[-1] for row in rows])

    def _refuse(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        """Fail the rows whose logits are no numbers to draw from."""
        import torch

        dtype = str(logits.dtype).removeprefix("torch.")
        other = "float32" if dtype == "bfloat16" else "bfloat16"
        for row, sound in zip(rows, torch.isfinite(logits).all(-1).tolist(), strict=True):
            if not sound:
                row.job.fail(ModelError(NOT_FINITE.format(dtype, other)))

    def prefill(self, views: Sequence[TokenView]) -> tuple[Batch, torch.Tensor]:
        """Run the prompts; returns the batch and the logits after each prompt, rows x vocabulary."""
        import torch

        longest = max(len(view.ids) for view in views)
        ids = torch.full((len(views), longest), self.words.pad)
        mask = torch.zeros(len(views), longest, dtype=torch.long)
        for row, view in enumerate(views):
            ids[row, longest - len(view.ids) :] = torch.tensor(view.ids)
            mask[row, longest - len(view.ids) :] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, **join_inputs(views)}
        places = [view.positions for view in views if view.positions is not None]
        next_place = None
        if places:
            positions = torch.zeros(3, len(views), longest, dtype=torch.long)
            for row, place in enumerate(places):
                positions[:, row, longest - place.shape[1] :] = place
            inputs["position_ids"] = positions
            # After the last token, not after the highest place: the steps of a long video count seconds and may lie
            # beyond the text that follows them. So a reply has the places that it has once it is history.
            next_place = torch.stack([place[:, -1].max() + 1 for place in places]).to(self.device)
        made = self._forward(inputs, None)
        return Batch(made.past_key_values, mask.to(self.device), next_place), made.logits[:, -1]

    def step(self, batch: Batch, tokens: Sequence[int]) -> torch.Tensor:
        """Run one token a row; returns the logits after it, rows x vocabulary."""
        import torch

        batch.mask = torch.cat([batch.mask, torch.ones_like(batch.mask[:, :1])], 1)
        inputs = {"input_ids": torch.tensor(tokens)[:, None], "attention_mask": batch.mask}
        if batch.place is not None:
            inputs["position_ids"] = batch.place[None, :, None].expand(3, -1, -1)
            batch.place = batch.place + 1
        made = self._forward(inputs, batch.cache)
        batch.cache = made.past_key_values
        return made.logits[:, -1]

    def _forward(self, inputs: Mapping[str, torch.Tensor], cache: Cache | None) -> Causal:
        moved = {name: value.to(self.device) for name, value in inputs.items()}
        made: Causal = self.module(**moved, past_key_values=cache, use_cache=True, **self._last_only)
        return made


def _let_go(batch: Batch, rows: list[Row], logits: torch.Tensor) -> tuple[list[Row], torch.Tensor]:
    """The rows that somebody still waits for, and their logits."""
    left = [number for number, row in enumerate(rows) if not row.job.abandoned]
    if left and len(left) < len(rows):
        batch.keep(left)
        logits = logits[left]
    return [rows[number] for number in left], logits


def join_inputs(views: Sequence[TokenView]) -> dict[str, torch.Tensor]:
    """The images of several conversations, in order; a family other than Qwen-VL comes one at a time."""
    import torch

    if len(views) == 1:
        return dict(views[0].inputs)
    names = {name for view in views for name in view.inputs}
    return {name: torch.cat([view.inputs[name] for view in views if name in view.inputs]) for name in sorted(names)}
