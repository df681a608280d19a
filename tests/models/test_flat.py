"""Rows of different lengths attend in runs, each read as far as its longest row, and get what they would together."""

import copy

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from prh.models import flat
from prh.models.flat import Piece, Stream, fused, runs_of
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


def test_a_norm_is_one_operation_where_that_is_the_same_to_the_bit(family):
    model = core(family[1])
    for norm, at_once in zip((layer.input_layernorm for layer in model.layers), model.norms, strict=True):
        assert at_once[0] is not norm
        for rows in (1, 5, 300):
            noise = torch.randn(rows, len(norm.weight))
            assert torch.equal(at_once[0](noise), norm(noise))


def test_a_norm_that_is_something_else_stays_what_it_is(family):
    norm = copy.deepcopy(core(family[1]).layers[0].input_layernorm)
    forward = type(norm).forward
    norm.forward = lambda hidden: forward(norm, hidden) + 1
    assert fused(norm) is norm
    plain = torch.nn.LayerNorm(4)
    assert fused(plain) is plain
