"""The distribution that tokens are drawn from, against plain arithmetic."""

import math

import pytest
import torch
from prh.harness.engine import TurnSpec
from prh.models.sampling import NEAR_TIE, distribution, draw, locate


def law(scores, temperature=1.0, top_p=1.0):
    found = distribution(
        torch.tensor([scores], dtype=torch.float64), torch.tensor([temperature]), torch.tensor([top_p])
    )
    return found.logprobs.exp()[0].tolist()


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_temperature_divides_the_logits():
    powers = [math.exp(value / 0.5) for value in (1.0, 2.0, 0.0)]
    assert law([1.0, 2.0, 0.0], 0.5) == pytest.approx([power / sum(powers) for power in powers])


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(1.0, [0.5, 0.3, 0.15, 0.05]), (0.9, [0.5, 0.3, 0.15]), (0.79, [0.5, 0.3]), (0.5, [0.5]), (0.01, [0.5])],
)
def test_top_p_keeps_the_fewest_likely_tokens_that_reach_it(top_p, kept):
    share = [0.05, 0.5, 0.15, 0.3]
    expected = [value / sum(kept) if value in kept else 0.0 for value in share]
    assert law([math.log(value) for value in share], 1.0, top_p) == pytest.approx(expected)


def test_of_equal_tokens_top_p_keeps_the_first():
    assert law([0.0, 0.0, 0.0, 0.0], 1.0, 0.5) == pytest.approx([0.5, 0.5, 0.0, 0.0])


def test_a_uniform_number_finds_its_token_and_never_one_without_probability():
    rows = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]], dtype=torch.float64).log()
    for uniform, token, room in (
        (0.0, 1, 0),
        (0.2499, 1, 1e-4),
        (0.25, 3, 0),
        (0.6, 3, 0.35),
        (0.999, 3, 1e-3),
        (1.0, 3, 0),
    ):
        found, distance = locate(rows, torch.tensor([uniform], dtype=torch.float64))
        assert found.tolist() == [token]
        assert distance.tolist() == pytest.approx([room])


def test_frequencies_follow_the_distribution():
    share = torch.tensor([0.1, 0.2, 0.3, 0.4])
    spec = [TurnSpec(1, 1.0)] * 500
    own = generators(*range(500))
    counts = torch.zeros(4)
    for _ in range(20):
        counts += torch.bincount(torch.tensor(draw(share.log().repeat(500, 1), spec, own).tokens), minlength=4)
    assert (counts / counts.sum() - share).abs().max() < 0.02


def test_a_rows_draws_are_its_own_whatever_stands_beside_it():
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    specs = [TurnSpec(1, 1.0, 0.9), TurnSpec(1), TurnSpec(1, 0.7)]
    together = generators(1, 2, 3)
    alone = generators(1, 2, 3)
    for _ in range(30):
        row = draw(logits, specs, together)
        single = [draw(logits[i : i + 1], [specs[i]], [alone[i]]) for i in range(3)]
        assert row.tokens == [one.tokens[0] for one in single]
        assert row.logprobs == pytest.approx([one.logprobs[0] for one in single], abs=1e-9)
    assert row.tokens[1] == int(logits[1].argmax())


def test_bans_leave_the_rest_normalised_and_greedy_log_probabilities_raw():
    logits = torch.tensor([[5.0, 1.0, 0.0]])
    sampled = draw(logits, [TurnSpec(1, 1.0, banned_ids=(0, 2))], generators(0))
    assert (sampled.tokens, sampled.logprobs) == ([1], pytest.approx([0.0]))
    greedy = draw(logits, [TurnSpec(1, banned_ids=(0,))], generators(0))
    assert greedy.tokens == [1]
    assert greedy.logprobs == pytest.approx([1.0 - math.log(math.exp(5) + math.exp(1) + 1)])


def test_near_ties_of_greedy_rows_are_of_their_best_logits():
    logits = torch.tensor([[1.0, 1.00005, 0.0], [1.0, 1.5, 0.0], [9.0, 1.0, 1.00005]])
    specs = [TurnSpec(1), TurnSpec(1), TurnSpec(1, banned_ids=(0,))]
    assert [draw(logits[i : i + 1], specs[i : i + 1], generators(0)).near_ties for i in range(3)] == [1, 0, 1]
    assert draw(logits, specs, generators(0, 0, 0)).near_ties == 2


@pytest.mark.parametrize(
    ("share", "top_p", "near"),
    [
        ((0.3, 0.3, 0.4), 1.0, 0),
        ((0.0, 5e-5, -5e-5), 1.0, 1),
        ((0.0, -5e-5, 5e-5), 1.0, 1),
        ((0.0, 2e-4, -2e-4), 1.0, 0),
        ((0.6, 0.3, 0.1), 0.7, 0),
        ((0.6, 0.3, 0.1), 0.60005, 1),
        ((0.6, 0.3, 0.1), 0.59995, 1),
        ((0.4, 0.3, 0.3), 0.5, 1),
    ],
)
def test_near_ties_of_sampled_rows_are_of_the_ends_of_shares_and_of_what_top_p_keeps(share, top_p, near):
    number = float(torch.rand((), generator=generators(3)[0], dtype=torch.float64))
    assert 0.001 < number < 0.5
    if not share[0]:
        share = (0.0, number + share[1], 1 - number + share[2])
    logits = torch.tensor([share], dtype=torch.float64).log()
    assert draw(logits, [TurnSpec(1, 1.0, top_p)], generators(3)).near_ties == near


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_a_sampled_token_that_rounding_changes_is_counted(top_p):
    source = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(40_000, 30, generator=source, dtype=torch.float64)
    other = logits + 1e-4 * (torch.randint(0, 2, logits.shape, generator=source) - 0.5)
    specs, once, again = [TurnSpec(1, 1.0, top_p)] * len(logits), generators(2), generators(2)
    numbers = torch.rand(len(logits), generator=generators(2)[0], dtype=torch.float64)
    found, changed = draw(logits, specs, once * len(logits)), draw(other, specs, again * len(logits))
    assert found.near_ties < 0.02 * len(logits)
    differ = [row for row, pair in enumerate(zip(found.tokens, changed.tokens, strict=True)) if len({*pair}) > 1]
    assert len(differ) > 3
    chosen = torch.tensor(differ)
    law = distribution(logits[chosen], torch.ones(len(differ)), torch.full((len(differ),), top_p))
    _, room = locate(law.logprobs, numbers[chosen])
    assert (room - law.doubt).max() < NEAR_TIE
