"""Rows of different lengths attend in runs, each read as far as its longest row, and get what they would together."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prh.models import flat
from prh.models.flat import Piece, Stream, runs_of
from prh.models.norms import Norm
from prh.tests.models.support import core


def keys_read(runs):
    return sum((end - start) * reach for start, end, reach in runs)


@given(lengths=st.lists(st.integers(1, 500), max_size=40), worth=st.integers(0, 2000))
def test_runs_hold_every_row_once_and_each_parting_saves_what_it_must(lengths, worth):
    runs = runs_of(lengths, worth)
    assert [row for start, end, _ in runs for row in range(start, end)] == list(range(len(lengths)))
    assert all(reach == max(lengths[start:end]) for start, end, reach in runs)
    whole = runs_of(lengths, None)
    assert len(whole) == bool(lengths)
    assert keys_read(whole) - keys_read(runs) >= (worth + 1) * (len(runs) - len(whole))


def test_rows_are_parted_where_that_saves_enough():
    assert runs_of([16, 16, 400, 400], 100) == [(0, 2, 16), (2, 4, 400)]
    assert runs_of([16, 16, 400, 400], 768) == [(0, 4, 400)]


def test_logits_are_the_same_in_runs_and_together(family, monkeypatch):
    model = core(family[1])
    random = np.random.default_rng(0)
    lengths = [3, 40, 5, 90, 17, 33]

    def stepped():
        slots = model.slots()
        slots.make_room(len(lengths), 100)
        for slot, length in enumerate(lengths):
            places = np.stack([np.arange(length)] * 3)
            model.forward(Stream(pieces=[Piece(slot, 0, ids[slot], places, np.zeros(0, np.int64))]), slots)
        return model.forward(Stream(0, [7] * len(lengths), lengths, lengths), slots)

    ids = [random.integers(1, 60, length) for length in lengths]
    parted = []
    monkeypatch.setattr(flat, "runs_of", lambda *given: parted.append(runs_of(*given)) or parted[-1])
    with torch.inference_mode():
        together = stepped()
        monkeypatch.setattr(flat, "CALL_BYTES", 0)
        apart = stepped()
    assert max(map(len, parted)) > 3
    assert (together - apart).abs().max() < 1e-5


def own_norm(family):
    """A copy of one of the family's norms, with weights that are not all 1."""
    norm = copy.deepcopy(core(family[1]).layers[0].input_layernorm)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    return norm


def calls(norm):
    """How often a norm's class has been called from now on, as a list that grows."""
    seen, forward = [], type(norm).forward
    type(norm).forward = lambda self, hidden: seen.append(self) or forward(self, hidden)
    return seen, lambda: setattr(type(norm), "forward", forward)


def test_a_norm_is_one_operation_where_that_is_the_same_to_the_bit(family):
    norm = own_norm(family)
    fast = core(family[1]).norm
    wanted = {rows: norm(torch.randn(rows, len(norm.weight), generator=generator(rows))) for rows in (1, 5, 300)}
    seen, undo = calls(norm)
    try:
        for rows, expected in wanted.items():
            noise = torch.randn(rows, len(norm.weight), generator=generator(rows))
            assert torch.equal(fast(norm, noise), expected)
    finally:
        undo()
    assert not seen
    with torch.no_grad():
        norm.weight *= 2
    noise = torch.randn(3, len(norm.weight))
    assert torch.equal(fast(norm, noise), norm(noise))


@pytest.mark.parametrize("change", ["bfloat16", "hook", "forward", "class"])
def test_a_norm_that_does_something_else_is_run_itself(family, change):
    norm = own_norm(family)
    fast, told = core(family[1]).norm, []
    if change == "bfloat16":
        norm = norm.bfloat16()
    elif change == "hook":
        norm.register_forward_hook(lambda *_: told.append(1))
    elif change == "forward":
        norm.forward = lambda hidden: told.append(1) or -hidden
    else:
        norm = torch.nn.LayerNorm(len(norm.weight))
    noise = torch.randn(64, len(norm.weight), dtype=norm.weight.dtype)
    assert torch.equal(fast(norm, noise), norm(noise))
    assert len(told) == 2 * (change in ("hook", "forward"))


def test_a_family_whose_norm_computes_something_else_has_its_own():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.variance_epsilon = torch.nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, hidden):
            return (1 + self.weight) * hidden

    assert Norm(Odd()).kind is None
    assert Norm(torch.nn.LayerNorm(4)).kind is None


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_a_last_layer_that_was_replaced_since_is_the_one_that_runs(family):
    model = core(family[1])
    known = model.base.lm_head
    slots = model.slots()
    slots.make_room(1, 8)
    piece = Piece(0, 0, np.arange(4), np.stack([np.arange(4)] * 3), np.arange(0))
    before = model.forward(Stream(pieces=[piece]), slots)
    model.base.lm_head = torch.nn.Sequential(known, torch.nn.Softmax(-1))
    try:
        torch.testing.assert_close(model.forward(Stream(pieces=[piece]), slots), before.softmax(-1))
    finally:
        model.base.lm_head = known
