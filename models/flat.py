"""A Qwen-VL text model run over one flat stream of tokens: the next token of every running row, and new text of some.

The model's own submodules are called one after another, so that adapters and every family's layers stay what they
are; only attention reads and writes ``Slots``, and positions and visual features are given from outside. What it
gives is compared with the model's own forward when a checkpoint is opened.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .loading import base_model
from .norms import Norm
from .rotary import Rotary
from .slots import Slots

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
# Keys are read in steps of this many, which masked attention kernels want.
ALIGNED = 16
# Bytes of a layer's keys and values that a processor reads in about the time that one more call of attention takes.
CALL_BYTES = 1 << 18


class Attention(Protocol):
    """What is used of a layer's attention."""

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    o_proj: nn.Module
    head_dim: int
    scaling: float


class Normed(Protocol):
    """What Qwen3's attention has besides."""

    q_norm: nn.Module
    k_norm: nn.Module


class Layer(Protocol):
    """What is used of a layer."""

    input_layernorm: nn.Module
    self_attn: Attention
    post_attention_layernorm: nn.Module
    mlp: nn.Module


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the vision tower made of images: tokens x hidden, and for families with deepstack the same a level."""

    rows: torch.Tensor
    deep: tuple[torch.Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in (self.rows, *self.deep))

    def cut(self, start: int, end: int) -> Features:
        """The features of some of the tokens."""
        return Features(self.rows[start:end], tuple(level[start:end] for level in self.deep))


def join_features(parts: Sequence[Features]) -> Features:
    """Several features in a row. There must be at least one."""
    import torch

    if len(parts) == 1:
        return parts[0]
    deep = tuple(torch.cat(level) for level in zip(*(part.deep for part in parts), strict=True))
    return Features(torch.cat([part.rows for part in parts]), deep)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """New text of one row.

    Attributes:
        slot: where the row's cache is.
        start: how many tokens the slot holds already.
        ids: the new ids.
        positions: 3 x ids.
        visual: which of the new ids are visual tokens.
        features: of these.
    """

    slot: int
    start: int
    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    visual: NDArray[np.int64]
    features: Features | None = None


@dataclass(slots=True, eq=False)
class Stream:
    """What one forward runs: one token each of the slots ``first..first+n-1``, then pieces.

    Attributes:
        tokens, places, columns: of the single tokens: id, position, and how many tokens the slot held before it.
    """

    first: int = 0
    tokens: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    pieces: Sequence[Piece] = ()


class FlatModel:
    """The text model as this engine runs it.

    Attributes:
        levels: how many of the first layers take deepstack features.
        weights: all of the model's, the adapter's among them.
    """

    def __init__(self, module: PreTrainedModel) -> None:
        self.base = base = base_model(module)
        self.inner = base.model
        self.text = self.inner.language_model
        self.layers = cast("Sequence[Layer]", self.text.layers)
        first = self.layers[0].self_attn
        self.width = int(first.head_dim)
        self.normed = hasattr(first, "q_norm")
        self.rotary = Rotary(self.text.rotary_emb, self.width)
        config = base.config.get_text_config()
        self.heads, self.shared = int(config.num_attention_heads), int(config.num_key_value_heads)
        self.norm = Norm(self.text.norm)
        self.levels = len(getattr(base.config.vision_config, "deepstack_visual_indexes", None) or ())
        self.dtype, self.device = module.dtype, module.device
        self.weights = list(module.parameters())

    @property
    def head(self) -> nn.Module:
        """The last layer, which an adapter may have replaced since."""
        return cast("nn.Module", self.base.lm_head)

    def slots(self) -> Slots:
        """Slots of the right shape."""
        return Slots(len(self.layers), self.shared, self.width, self.dtype, self.device)

    def forward(self, stream: Stream, slots: Slots) -> torch.Tensor:
        """Run a stream, keeping its keys and values; returns the logits after each row, rows x vocabulary.

        The slots must have room. Nothing else of them changes, so that a forward that failed can be repeated.
        """
        import torch

        ids, positions, places = self._laid_out(stream, slots)
        hidden = self.text.embed_tokens(ids)
        visual, features = self._visual(stream)
        if features is not None:
            hidden = hidden.index_copy(0, visual, features.rows.to(hidden.dtype))
        highest = max([*stream.places, *(int(piece.positions.max()) for piece in stream.pieces)])
        cos, sin = self.rotary(hidden, positions, highest, alike=not stream.pieces)
        attention = _Attention(self, stream, slots, places)
        for number, layer in enumerate(self.layers):
            bare = self.norm(layer.input_layernorm, hidden)
            mixed = self._project(layer, bare, cos, sin, attention, number)
            hidden = hidden + layer.self_attn.o_proj(mixed)
            made = layer.mlp(self.norm(layer.post_attention_layernorm, hidden)[None])
            hidden = hidden + (made[0] if isinstance(made, tuple) else made)[0]
            if features is not None and number < len(features.deep):
                hidden = hidden.index_add(0, visual, features.deep[number].to(hidden.dtype))
        if stream.pieces:
            ends = np.cumsum([len(piece.ids) for piece in stream.pieces]) + len(stream.tokens) - 1
            last = torch.from_numpy(np.concatenate([np.arange(len(stream.tokens)), ends])).to(hidden.device)
            hidden = hidden[last]
        return cast("torch.Tensor", self.head(self.norm(self.text.norm, hidden)))

    def _laid_out(self, stream: Stream, slots: Slots) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids and positions (3 x tokens) of the whole stream, and where its keys go, on the device."""
        import torch

        count = len(stream.tokens)
        single = np.array([stream.tokens, *[stream.places] * 3, range(stream.first, stream.first + count)], np.int64)
        parts = [np.vstack([single, np.array(stream.columns, np.int64)])]
        for piece in stream.pieces:
            length = len(piece.ids)
            slot, column = np.full(length, piece.slot), np.arange(piece.start, piece.start + length)
            parts.append(np.vstack([piece.ids, piece.positions, slot, column]))
        packed = np.concatenate(parts, 1)
        places = torch.from_numpy(slots.places(packed[4], packed[5])).to(self.device)
        known = torch.from_numpy(packed[:4]).to(self.device)
        return known[0], known[1:], places

    def _visual(self, stream: Stream) -> tuple[torch.Tensor, Features | None]:
        """Where the visual tokens stand in the stream, and their features."""
        import torch

        places, found, start = [], [], len(stream.tokens)
        for piece in stream.pieces:
            if piece.features is not None:
                places.append(piece.visual + start)
                found.append(piece.features)
            start += len(piece.ids)
        if not found:
            return torch.empty(0, dtype=torch.long), None
        return torch.from_numpy(np.concatenate(places)).to(self.device), join_features(found)

    def _project(
        self,
        layer: Layer,
        bare: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        attention: _Attention,
        number: int,
    ) -> torch.Tensor:
        import torch

        own = layer.self_attn
        query = own.q_proj(bare).view(len(bare), self.heads, self.width)
        key = own.k_proj(bare).view(len(bare), self.shared, self.width)
        value = own.v_proj(bare).view(len(bare), self.shared, self.width)
        if self.normed:
            query, key = cast(Normed, own).q_norm(query), cast(Normed, own).k_norm(key)
        both = torch.cat((query, key), 1)
        both = torch.addcmul(both * cos, both.roll(self.width // 2, -1), sin)
        query, key = both[:, : self.heads], both[:, self.heads :]
        return attention.run(number, query, key, value, own.scaling).reshape(len(bare), -1)


class _Attention:
    """Attention of one stream, for all layers: what does not change between them is made once."""

    def __init__(self, model: FlatModel, stream: Stream, slots: Slots, places: torch.Tensor) -> None:

        self.slots = slots
        self.groups = model.heads // model.shared
        self.places = places
        self.first, self.count = stream.first, len(stream.tokens)
        lengths = [min(-(-(column + 1) // ALIGNED) * ALIGNED, slots.room) for column in stream.columns]
        worth = CALL_BYTES * slots.layers // slots.token_bytes if places.device.type == "cpu" else None
        columns = np.array(stream.columns, np.int64)
        self.runs = [
            (start, end, reach, blinkers(columns[start:end], reach, model.dtype, places.device)[:, None, None])
            for start, end, reach in runs_of(lengths, worth)
        ]
        self.pieces: list[tuple[int, int, int, torch.Tensor | None]] = []
        for piece in stream.pieces:
            end, length = piece.start + len(piece.ids), len(piece.ids)
            mask = None
            if piece.start:
                mask = blinkers(np.arange(piece.start, end), end, model.dtype, places.device)
            self.pieces.append((piece.slot, end, length, mask))

    def run(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Keep keys and values (tokens x heads x width) and attend: tokens x heads x width."""
        import torch

        self.slots.write(layer, self.places, key, value)
        keys, values = self.slots.buffer[layer].unbind(0)
        made = [] if self.count else [query[:0]]
        attend = torch.nn.functional.scaled_dot_product_attention
        for start, end, reach, unseen in self.runs:
            # A row's query heads that share a key stand as so many queries of that key's head.
            folded = query[start:end].reshape(end - start, -1, self.groups, query.shape[-1])
            here = slice(self.first + start, self.first + end)
            seen = (keys[here, :, :reach], values[here, :, :reach])
            made.append(attend(folded, *seen, attn_mask=unseen, scale=scale).flatten(1, 2))
        start = self.count
        for slot, end, length, mask in self.pieces:
            asked = query[start : start + length].transpose(0, 1)[None]
            seen = (self._spread(keys[slot, :, :end]), self._spread(values[slot, :, :end]))
            out = attend(asked, *seen, attn_mask=mask, is_causal=mask is None, scale=scale)
            made.append(out[0].transpose(0, 1))
            start += length
        return made[0] if len(made) == 1 else torch.cat(made)

    def _spread(self, heads: torch.Tensor) -> torch.Tensor:
        """Each key-value head once for each query head that shares it: 1 x heads x tokens x width."""
        return heads.repeat_interleave(self.groups, 0)[None] if self.groups > 1 else heads[None]


def blinkers(places: NDArray[np.int64], reach: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What is added to the scores of ``reach`` keys for queries at some places, so that none sees beyond its own."""
    import torch

    if device.type == "cpu":
        beyond = np.arange(reach) > places[:, None]
        return torch.from_numpy(np.where(beyond, np.float32("-inf"), np.float32(0))).to(dtype)
    hidden = torch.arange(reach, device=device) > torch.from_numpy(places).to(device)[:, None]
    return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))


def runs_of(lengths: Sequence[int], worth: int | None) -> list[tuple[int, int, int]]:
    """Rows in runs that attend together, each as its first, the one after its last, and its longest's length.

    All keys of a run are read as far as its longest goes.

    Args:
        worth: keys that must be saved for a run to be parted in two; None where none ever is.
    """
    if not lengths:
        return []
    count, reach = len(lengths), max(lengths)
    if worth is not None and count * (reach - min(lengths)) > worth:
        before = list(itertools.accumulate(lengths, max))
        after = list(itertools.accumulate(reversed(lengths), max))[::-1]
        least, at = min(
            (place * before[place - 1] + (count - place) * after[place], place) for place in range(1, count)
        )
        if count * reach - least > worth:
            rest = runs_of(lengths[at:], worth)
            return runs_of(lengths[:at], worth) + [(start + at, end + at, long) for start, end, long in rest]
    return [(0, count, reach)]


def unfit(module: PreTrainedModel, implementation: str) -> str:
    """Why a model cannot be run this way, in a few words; empty where it can."""
    import torch

    config: PreTrainedConfig = base_model(module).config
    if config.model_type not in FAMILIES:
        return f"the family {config.model_type} has no fast path"
    if implementation != "sdpa":
        return f"attention {implementation} was chosen"
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(text, "use_sliding_window", False):
        return "its layers have sliding windows"
    if any(getattr(own, "is_prompt_learning", False) for own in getattr(module, "peft_config", {}).values()):
        return "its adapter adds tokens of its own"
    try:
        with torch.inference_mode():
            gap = difference(module)
    except Exception as error:  # another release of the library may name things otherwise
        return f"its layers are not as expected ({type(error).__name__})"
    limit = 1e-3 if module.dtype == torch.float32 else 0.1
    return "" if gap <= limit else f"its own forward gives other logits (by {gap:.2g} of their size)"


def difference(module: PreTrainedModel) -> float:
    """How far logits lie from those of the model's own forward, as a share of these; 0 where those are no numbers."""
    import torch

    model = FlatModel(module)
    ids = torch.arange(1, 8, device=model.device)
    positions = torch.stack([ids // 2, ids, ids // 3 + 1])
    deep = torch.randn(model.levels, 2, model.text.config.hidden_size, generator=torch.Generator().manual_seed(0))
    deep = deep.to(model.device, model.dtype)
    embedded = model.text.embed_tokens(ids)
    given: dict[str, object] = {}
    if model.levels:
        marks = torch.zeros(1, 7, dtype=torch.bool, device=model.device)
        marks[0, 2:4] = True
        given = {"visual_pos_masks": marks, "deepstack_visual_embeds": list(deep)}
    slots = model.slots()
    slots.make_room(2, 8)
    numbers, places = ids.cpu().numpy(), positions.cpu().numpy()
    features = Features(embedded[2:4], tuple(deep))
    model.forward(Stream(pieces=[Piece(1, 0, numbers[:4], places[:, :4], np.arange(2, 4), features)]), slots)
    nothing = np.arange(0)
    before = model.forward(Stream(pieces=[Piece(1, 4, numbers[4:6], places[:, 4:6], nothing)]), slots)
    # A single token has one place along all axes, so the last one's are not tried; its logits are of its own kind.
    flat = torch.full((3, 1, 1), 9, device=model.device)
    whole = torch.cat([positions[:, None, :6], flat], -1)
    own = model.text(inputs_embeds=embedded[None], position_ids=whole, use_cache=False, **given)
    expected = model.head(own.last_hidden_state[0, 5:])
    after = model.forward(Stream(1, [int(numbers[6])], [9], [6]), slots)
    if not bool(torch.isfinite(expected).all()):
        return 0.0
    return float((torch.cat([before, after]) - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
