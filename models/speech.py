"""What a checkpoint says of its tokens and their places: which end a turn, what text they are, where they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from ..harness.errors import ModelError
from .decode import Vocabulary
from .encode import Places
from .render import Renderer
from .visual import Processor

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def end_tokens(generation: object, processor: Processor, renderer: Renderer) -> tuple[int, ...]:
    """The ids that end a turn: all of the generation config's, that which the template writes first.

    Raises:
        ModelError: the checkpoint names none.
    """
    named = getattr(generation, "eos_token_id", None)
    own = processor.tokenizer.eos_token_id
    ends = list(named) if isinstance(named, list | tuple) else [own if named is None else named]
    if not ends or None in ends:
        raise ModelError("the checkpoint names no end-of-turn token: set eos_token_id in generation_config.json")
    ending = renderer.ending()
    written = processor.ids(ending, (), opening=False)[:1] if ending else []
    for number in ends:
        if not isinstance(number, int) or not 0 <= number < 1 << 31:
            raise ModelError(f"the checkpoint's eos_token_id must be ids of tokens, not {number!r}: see its configs")
    first = written if written and written[0] in ends else [own] if own in ends else []
    return tuple(dict.fromkeys((*first, *ends)))


def rope_places(base: PreTrainedModel) -> Places:
    """The family's own rule for M-RoPE positions, from whole ids, so that no state of the model is read."""

    def places(ids: torch.Tensor, kinds: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        rule = cast("Callable[..., tuple[torch.Tensor, torch.Tensor]]", base.model.get_rope_index)
        read = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        return rule(ids, mm_token_type_ids=kinds, **{name: inputs[name] for name in read if name in inputs})[0]

    return places


def vocabulary(processor: Processor, ends: tuple[int, ...]) -> Vocabulary:
    """What the decode loop knows of a processor's tokens."""
    tokenizer = processor.tokenizer
    pad = ends[0] if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    return Vocabulary(processor.decode, len(tokenizer), frozenset(ends), processor.vision_ids, pad)
