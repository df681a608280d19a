"""The losses against their definitions written out token by token, and their gradients against finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prh.harness.errors import UsageError
from prh.tests.training.acting import floats, reference
from prh.training.losses import KINDS, LossPart, Targets, k3, policy_loss

PARTS = [
    *(LossPart(kind) for kind in KINDS),
    LossPart("dapo", low=0.2, high=0.28, beta=0.04),
    LossPart("grpo", beta=0.1, correction="truncate", cap=1.5),
    LossPart("dr_grpo", correction="mask", cap=1.2),
    LossPart("dapo", correction="recompute"),
    LossPart("gspo", correction="truncate", level="sequence", cap=3.0),
    LossPart("dr_grpo", correction="mask", level="sequence", cap=2.0),
]


def rollouts(seed, count=5):
    """Log-probabilities far enough apart that ratios are clipped on both sides."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        length = int(rng.integers(1, 9))
        new = -rng.exponential(1.0, length)
        old, sampled = new + rng.normal(0, 0.4, length), new + rng.normal(0, 0.3, length)
        rows.append((new, old, sampled, float(rng.normal()), new + rng.normal(0, 0.2, length)))
    return rows


def ours(part, rows, order=None):
    """Loss and the gradient of each token's log-probability, in float64."""
    order = list(order if order is not None else range(len(rows)))
    weights = part.weights([len(row[0]) for row in rows])
    new = torch.tensor(np.concatenate([rows[place][0] for place in order]), requires_grad=True)

    def joined(values):
        return torch.tensor(np.concatenate([values(place) for place in order]))

    targets = Targets(
        joined(lambda place: rows[place][1]),
        joined(lambda place: np.full(len(rows[place][0]), rows[place][3])),
        joined(lambda place: np.full(len(rows[place][0]), weights[place])),
        joined(lambda place: part.factors(floats(rows[place][1]), floats(rows[place][2])).astype(float)),
        torch.tensor(np.concatenate([np.full(len(rows[place][0]), number) for number, place in enumerate(order)])),
        joined(lambda place: rows[place][4]) if part.beta else None,
    )
    loss, seen = policy_loss(part, new, targets)
    loss.backward()
    return float(loss.detach()), new.grad.numpy(), seen


def plain(part, rows):
    kept = [row if part.beta else (*row[:4], None) for row in rows]
    return reference(part, kept, [len(row[0]) for row in rows])


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_losses_are_what_they_are_defined_to_be(part):
    for seed in range(10):
        rows = rollouts(seed)
        loss, _, _ = ours(part, rows)
        assert loss == pytest.approx(plain(part, rows), rel=2e-5, abs=1e-7)  # factors are float32


@pytest.mark.parametrize("part", [part for part in PARTS if part.correction == "none"], ids=str)
def test_gradients_are_those_of_the_definition(part):
    rows = rollouts(3)
    _, gradient, _ = ours(part, rows)
    step, place = 1e-6, 0
    for number, row in enumerate(rows):
        for token in range(len(row[0])):
            values = []
            for sign in (1, -1):
                new = row[0].copy()
                new[token] += sign * step
                moved = [*rows[:number], (new, *row[1:]), *rows[number + 1 :]]
                values.append(plain(part, moved))
            assert gradient[place] == pytest.approx((values[0] - values[1]) / 2 / step, abs=1e-6)
            place += 1


@pytest.mark.parametrize("part", PARTS, ids=str)
@given(seed=st.integers(0, 1 << 16), cut=st.integers(1, 4))
@settings(max_examples=15)
def test_any_split_and_order_gives_the_same(part, seed, cut):
    """The divisor is that of the whole step: parts add up, whatever stands in them."""
    rows = rollouts(seed)
    whole, gradient, _ = ours(part, rows)
    weights = part.weights([len(row[0]) for row in rows])

    class Fixed(LossPart):
        def weights(self, lengths):
            return chosen

    total, pieces = 0.0, []
    for start in range(0, len(rows), cut):
        chosen = weights[start : start + cut]
        fixed = Fixed(part.kind, part.length, part.low, part.high, part.beta, part.correction, part.level, part.cap)
        loss, grad, _ = ours(fixed, rows[start : start + cut])
        total += loss
        pieces.append(grad)
    assert total == pytest.approx(whole, abs=1e-9)
    assert np.concatenate(pieces) == pytest.approx(gradient, abs=1e-12)
    order = list(np.random.default_rng(seed).permutation(len(rows)))
    assert ours(part, rows, order)[0] == pytest.approx(whole, abs=1e-9)


def test_a_duplicate_weighs_as_declared():
    """Another row alike: as much a row as any in grpo; as many tokens as it has in dapo."""
    short, long = [-1.0] * 2, [-1.0] * 8
    rows = [(np.array(short),) * 3 + (1.0, None), (np.array(long),) * 3 + (1.0, None)]
    _, grpo, _ = ours(LossPart("grpo"), rows)
    assert grpo.tolist() == pytest.approx([-0.25] * 2 + [-0.0625] * 8)
    _, dapo, _ = ours(LossPart("dapo"), rows)
    assert dapo.tolist() == pytest.approx([-0.1] * 10)
    _, doctor, _ = ours(LossPart("dr_grpo", length=200), rows)
    assert doctor.tolist() == pytest.approx([-1 / 400] * 10)
    _, twice, _ = ours(LossPart("dr_grpo", length=200), [*rows, rows[0]])
    assert twice.tolist() == pytest.approx([-1 / 600] * 12)


def test_the_papers_clip():
    """Ratios within [0.8, 1.35] keep their gradient; beyond, only where that loses."""
    part = LossPart("dapo", low=0.2, high=0.35)
    for ratio, advantage, kept in [
        (1.3, 1, True),
        (1.4, 1, False),
        (1.4, -1, True),
        (0.85, -1, True),
        (0.7, -1, False),
        (0.7, 1, True),
    ]:
        row = (np.array([np.log(ratio)]), np.zeros(1), np.zeros(1), float(advantage), None)
        _, gradient, seen = ours(part, [row])
        assert bool(gradient[0]) is kept
        assert bool(seen["clipped"]) is not kept


def test_nothing_to_learn_is_no_nan():
    empty = torch.zeros(0, requires_grad=True)
    none = torch.zeros(0)
    for kind in KINDS:
        part = LossPart(kind, beta=0.1)
        loss, _ = policy_loss(part, empty, Targets(none, none, none, none, none.long(), none))
        loss.backward()
        assert float(loss.detach()) == 0
        assert part.weights([0, 3])[1] > 0
    rows = [(np.array([-1.0, -2.0]),) * 3 + (0.0, None)]
    loss, gradient, _ = ours(LossPart("grpo"), rows)
    assert (loss, gradient.tolist()) == (0.0, [0.0, 0.0])


@given(st.floats(-8, 0), st.floats(-8, 0))
def test_the_estimate_of_kl_is_never_negative(new, old):
    found = float(k3(torch.tensor(new, dtype=torch.float64), torch.tensor(old, dtype=torch.float64)))
    assert found >= -1e-12


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "ppo"}, {"length": 0.0}, {"low": -0.1}, {"cap": 0.0}, {"correction": "drop"}, {"level": "row"}],
)
def test_settings_are_checked(wrong):
    with pytest.raises(UsageError, match="loss"):
        LossPart(**wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_which_all_was_filtered_weighs_nothing(kind):
    assert LossPart(kind=kind).weights([]) == []
