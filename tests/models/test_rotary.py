"""Positions of text that are looked up are what the model's own embedding gives, far beyond the first table too."""

import pytest
import torch
from prh.models import rotary
from prh.models.rotary import Rotary
from prh.tests.models.support import core

PLACES = torch.tensor([0, 5, 7, 900, 2, 40])


class Counting:
    """A model's own embedding, of another kind where one is named."""

    def __init__(self, model, kind="default"):
        self.own, self.rope_type, self.asked = model.text.rotary_emb, kind, 0

    def __call__(self, like, positions):
        self.asked += 1
        return self.own(like, positions)


def given(family, kind="default"):
    model = core(family[1])
    counting = Counting(model, kind)
    return Rotary(counting, model.width), torch.zeros(6, model.text.config.hidden_size, dtype=model.dtype), counting


def test_what_is_looked_up_is_what_is_computed(family, monkeypatch):
    own, like, _ = given(family)
    monkeypatch.setattr(rotary, "FIRST", 4)
    for times in (1, 3, 1):
        positions = (times * PLACES).expand(3, -1)
        computed, found = own(like, positions), own.text(like, positions, int(positions.max()))
        assert all(map(torch.equal, computed, found))


def test_one_table_serves_until_a_position_is_beyond_it(family):
    own, like, counting = given(family)
    for _ in range(3):
        own.text(like, PLACES.expand(3, -1), 900)
    assert counting.asked == 1
    own.text(like, (2 * PLACES).expand(3, -1), 1800)
    assert counting.asked == 2


@pytest.mark.parametrize("kind", ["dynamic", "longrope", {"full_attention": "default"}])
def test_what_depends_on_the_longest_position_is_computed_each_time(family, kind):
    own, like, counting = given(family, kind)
    for _ in range(2):
        own.text(like, PLACES.expand(3, -1), 900)
    assert counting.asked == 2
