"""Positions that are looked up are what the model's own embedding gives, far beyond the first table too."""

import pytest
import torch
from prh.models import rotary
from prh.models.rotary import Rotary
from prh.tests.models.support import core

PLACES = torch.tensor([0, 5, 7, 900, 2, 40])
ALIKE, APART = PLACES.expand(3, -1), torch.stack([PLACES, PLACES.flip(0), PLACES.roll(2)])


class Counting:
    """A model's own embedding, of another kind where one is named."""

    def __init__(self, model, kind="default", mixed=False):
        self.own, self.rope_type, self.mixed, self.asked = model.text.rotary_emb, kind, mixed, 0

    def __call__(self, like, positions):
        self.asked += 1
        cos, sin = self.own(like, positions)
        return (cos, sin + positions.sum(0)[..., None].to(sin)) if self.mixed else (cos, sin)


def given(family, **how):
    model = core(family[1])
    counting = Counting(model, **how)
    return Rotary(counting, model.width), torch.zeros(6, model.text.config.hidden_size, dtype=model.dtype), counting


def computed(counting, like, positions):
    cos, sin = (found[0, :, None] for found in counting(like[None], positions[:, None]))
    half = sin.shape[-1] // 2
    return cos, torch.cat((-sin[..., :half], sin[..., half:]), -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_looked_up_is_what_is_computed(family, monkeypatch, dtype):
    own, like, counting = given(family)
    like = like.to(dtype)
    monkeypatch.setattr(rotary, "FIRST", 4)
    for times in (1, 3, 1):
        for positions, alike in ((ALIKE, True), (ALIKE, False), (APART, False)):
            wanted = computed(counting, like, times * positions)
            found = own(like, times * positions, int((times * positions).max()), alike=alike)
            assert all(map(torch.equal, wanted, found))
            assert found[0].dtype is dtype


@pytest.mark.parametrize(("positions", "alike"), [(ALIKE, True), (APART, False)])
def test_one_table_serves_until_a_position_is_beyond_it(family, positions, alike):
    own, like, counting = given(family)
    own(like, positions, 900, alike=alike)
    made = counting.asked
    for _ in range(3):
        own(like, positions, 900, alike=alike)
    assert counting.asked == made
    own(like, 2 * positions, 1800, alike=alike)
    assert counting.asked == made + 1


@pytest.mark.parametrize("kind", ["dynamic", "longrope", {"full_attention": "default"}])
def test_what_depends_on_the_longest_position_is_computed_each_time(family, kind):
    own, like, counting = given(family, kind=kind)
    for _ in range(2):
        own(like, ALIKE, 900, alike=True)
    assert counting.asked == 2


def test_where_a_column_is_of_several_positions_it_is_computed(family):
    own, like, counting = given(family, mixed=True)
    assert all(map(torch.equal, computed(counting, like, APART), own(like, APART, 900)))


def test_a_position_that_is_very_high_is_computed_and_kept_nowhere(family):
    own, like, counting = given(family)
    own(like, APART, 900)
    high = 10**6 * APART + 1
    assert all(map(torch.equal, computed(counting, like, high), own(like, high, int(high.max()))))
    assert len(own._table.cos) == 1800
