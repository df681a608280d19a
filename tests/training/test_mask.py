"""What the loss covers: the trained turns with their ends, and not a position more."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from prh.tests.models.support import END
from prh.tests.training.lessons import RIGHT, WRONG, crop, examples, lesson, setting
from prh.training.batches import collate
from prh.training.examples import Performer, train_last, weigh
from prh.training.learner import token_losses
from prh.training.trajectories import Said

ANSWER = "It is so. \\boxed{B}"


def trained_texts(engine, example):
    """The runs of trained ids as text, and the text of the id after each."""
    decode = engine.processor.decode
    marks = np.flatnonzero(np.diff(np.concatenate([[0], example.weights > 0, [0]])))
    runs = list(zip(marks[::2], marks[1::2], strict=True))
    return [decode(example.ids[a:b].tolist()) for a, b in runs], [
        decode(example.ids[b : b + 1].tolist()) for _, b in runs
    ]


def test_the_trained_text_of_a_conversation_spelled_out(family):
    _, engine = family
    made = examples(engine, [1])[0]
    texts, after = trained_texts(engine, made)
    assert texts == [RIGHT + END, ANSWER + END]
    assert after == ["\n", ""]
    whole = engine.processor.decode(made.ids.tolist())
    assert f"<|im_start|>assistant\n{WRONG}{END}\n<|im_start|>user\n" in whole
    untrained = engine.processor.decode(made.ids[made.weights == 0].tolist())
    for part in ("What is in picture 1?", WRONG, "<|image_pad|>", "<|vision_start|>", "<|im_start|>assistant\n"):
        assert part in untrained
    assert not any("<|image_pad|>" in text or "<|im_start|>" in text for text in texts)


def test_last_two_is_the_rule_of_the_release(family):
    _, engine = family
    three = replace(lesson(0), script=(Said(RIGHT), Said(crop(0.2, 0.2, 0.9, 0.9), trained=False), Said(ANSWER)))
    made = Performer(engine, setting(), mask="last-two").examples([three, lesson(3)])
    assert trained_texts(engine, made[0])[0] == [crop(0.2, 0.2, 0.9, 0.9) + END, ANSWER + END]
    assert trained_texts(engine, made[1])[0] == [ANSWER + END]


def test_an_ablation_trains_erroneous_operations_too(family):
    _, engine = family
    script = (Said(WRONG, trained=False), Said(RIGHT), Said(ANSWER))
    (made,) = Performer(engine, setting(), mask="all").examples([replace(lesson(0), script=script)])
    assert trained_texts(engine, made)[0] == [WRONG + END, RIGHT + END, ANSWER + END]


@pytest.mark.parametrize(
    ("answer", "stressed"),
    [
        ("It is \\boxed{B}", "B"),
        ("Not \\boxed{A}, but \\boxed{12 dots}.", "12 dots"),
        ("\\boxed{}", ""),
        ("Never closed: \\boxed{B", "B" + END),
        ("No box, no {B}.", ""),
    ],
)
def test_what_is_boxed_at_last_counts_more(answer, stressed, family):
    _, engine = family
    one = replace(lesson(0), script=(Said(f"First \\boxed{{A}} in a turn.\n{RIGHT}"), Said(answer)))
    plain, made = (Performer(engine, setting(), answer=factor).examples([one])[0] for factor in (1.0, 4.0))
    assert set(np.unique(made.weights)) <= {0, 1, 4}
    assert ((made.weights > 0) == (plain.weights > 0)).all()
    text = engine.processor.decode(made.ids[made.weights == 4].tolist())
    if "\\boxed" not in answer:  # then it is the last box of all that is trained
        stressed = "A"
    assert text == stressed


def test_last_two_leaves_other_roles_alone(family):
    from prh.tests.models.support import conversation, say

    talk = conversation()
    for role in ("system", "user", "assistant", "user", "assistant", "user", "assistant"):
        say(talk, role, role)
    train_last(talk, 2)
    assert [segment.trained for segment in talk.segments] == [False] * 4 + [True, False, True]


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_the_gradient_is_exactly_zero_wherever_nothing_is_trained(family, layout):
    _, engine = family
    made = examples(engine, [0, 1, 2, 3])
    batch = collate(made, engine.processor, engine.pad, layout)
    states, logits = [], []
    keep = lambda tensor, into: (tensor.retain_grad(), into.append(tensor))  # noqa: E731
    hooks = [
        engine.module.model.register_forward_hook(lambda *call: keep(call[2].last_hidden_state, states) and None),
        engine.module.lm_head.register_forward_hook(lambda *call: keep(call[2], logits) and None),
    ]
    token_losses(engine.module, batch).sum().backward()
    for hook in hooks:
        hook.remove()
    engine.module.zero_grad()
    # A state at one position gives the logits of the next id.
    rows = [[example] for example in made] if layout == "padded" else [made]
    for row, group in enumerate(rows):
        moved = np.concatenate([np.append(example.weights[1:], 0) for example in group]) > 0
        has_gradient = states[0].grad[row].abs().sum(-1).numpy() > 0
        assert np.array_equal(has_gradient[: len(moved)], moved)
        assert not has_gradient[len(moved) :].any()
    kept = batch.weights > 0
    assert torch.all(logits[0].grad[~kept] == 0)
    assert torch.all(logits[0].grad[kept].abs().sum(-1) > 0)
    assert int(kept.sum()) == sum(int((example.weights > 0).sum()) for example in made)


def test_targets_of_prompts_and_observations_do_not_reach_the_loss(family):
    _, engine = family
    batch = collate(examples(engine, [0, 1, 2]), engine.processor, engine.pad)
    others = torch.where(batch.weights > 0, batch.targets, (batch.targets + 7) % 300)
    assert not torch.equal(others, batch.targets)
    with torch.no_grad():
        before = token_losses(engine.module, batch)
        after = token_losses(engine.module, replace(batch, targets=others))
    assert torch.equal(before, after)


def test_an_erroneous_call_is_context(family):
    """Its tokens are not learned, yet what is learned is learned after them."""
    _, engine = family
    made = examples(engine, [1])[0]
    first = int(np.flatnonzero(made.weights)[0])
    at = next(place for place in range(first) if WRONG in engine.processor.decode(made.ids[:place].tolist())) - 3
    ids = made.ids.copy()
    ids[at] = made.ids[at - 2]
    assert ids[at] != made.ids[at]
    assert not made.weights[at]
    with torch.no_grad():
        seen, other = (
            token_losses(engine.module, collate([one], engine.processor, engine.pad))
            for one in (made, replace(made, ids=ids))
        )
    assert (seen - other).abs().max() > 1e-6


def test_weights_count_tokens_samples_or_turns():
    trained = [False, True, True, False, True, False]
    turns = [(1, 3), (4, 5), (5, 6)]
    assert weigh(trained, turns, "tokens").tolist() == [0, 1, 1, 0, 1, 0]
    assert weigh(trained, turns, "samples").tolist() == pytest.approx([0, 1 / 3, 1 / 3, 0, 1 / 3, 0])
    assert weigh(trained, turns, "turns").tolist() == pytest.approx([0, 0.25, 0.25, 0, 0.5, 0])
