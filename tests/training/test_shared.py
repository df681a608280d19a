"""Conversations that share their beginning: one row, and the losses and gradients each would have alone."""

import random
from dataclasses import replace

import pytest
import torch
from prh.harness.settings import resolve
from prh.training.batches import collate
from prh.training.drills import drills
from prh.training.examples import encode
from prh.training.exercises import talk
from prh.training.learner import FEATURES, look, token_losses
from prh.training.pictures import Album
from prh.training.shared import collate_shared, shared, width
from prh.training.trainable import open_trainable


@pytest.fixture(scope="module")
def opened():
    engine, defaults = open_trainable("tiny-init", "float32", "eager")
    return engine, resolve([("prh.json", defaults)], 0)


@pytest.fixture(scope="module")
def bundles(opened):
    engine, setting = opened
    made = []
    for name in ("vstar-mini", "infographicsvqa-mini", "mvbench-mini"):
        album, rng = Album(name, 3), random.Random(0)
        for number in range(2):
            found = list(drills(album(number), rng))
            parts = ([one for one in found if one.frames and one.close == close] for close in (False, True))
            whole, close, text = *parts, [one for one in found if not one.frames]
            kept = [whole[:5], text[:5], *([one] for one in close[:2])]
            made += [[encode("x", talk(one, engine, setting), engine, "turns", 9999) for one in some] for some in kept]
    return made


def gradients(engine):
    return {name: weight.grad.clone() for name, weight in engine.module.named_parameters() if weight.grad is not None}


def test_losses_and_gradients_are_those_of_each_conversation_alone(opened, bundles):
    engine, _ = opened
    engine.module.zero_grad()
    alone = [
        token_losses(engine.module, collate([one], engine.processor, engine.pad)).sum() for b in bundles for one in b
    ]
    total = sum(alone)
    total.backward()
    expected = gradients(engine)
    engine.module.zero_grad()
    together = token_losses(engine.module, collate_shared(bundles, engine.processor, engine.pad)).sum()
    together.backward()
    assert together.item() == pytest.approx(total.item(), rel=1e-5)
    for name, found in gradients(engine).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-3, atol=1e-3)
    engine.module.zero_grad()


def test_a_conversation_does_not_see_its_neighbours(opened, bundles):
    engine, _ = opened
    bundle = next(one for one in bundles if len(one) > 2)
    with torch.no_grad():
        pair = token_losses(engine.module, collate_shared([bundle[:2]], engine.processor, engine.pad))
        other = token_losses(engine.module, collate_shared([[bundle[0], bundle[2]]], engine.processor, engine.pad))
    first = int((bundle[0].weights > 0).sum())
    torch.testing.assert_close(pair[pair > 0][:first], other[other > 0][:first], rtol=1e-5, atol=1e-6)


def test_what_is_shared_is_run_once(bundles):
    bundle = max((one for one in bundles if one[0].images), key=len)
    begin = shared(bundle)
    assert begin > 25
    assert width(bundle) == begin + sum(len(one.ids) - begin for one in bundle)
    assert width(bundle) < sum(len(one.ids) for one in bundle)
    assert all((one.ids[:begin] == bundle[0].ids[:begin]).all() for one in bundle)
    assert not any(one.weights[: begin + 1].any() for one in bundle)


def test_a_conversation_alone_keeps_every_trained_id(opened, bundles):
    engine, _ = opened
    for bundle in bundles:
        made = collate_shared([bundle[:1]], engine.processor, engine.pad)
        kept = made.targets[made.weights > 0].tolist()
        assert kept == bundle[0].ids[bundle[0].weights > 0].tolist()


def test_what_a_frozen_tower_made_of_images_stands_for_them(opened, bundles):
    engine, _ = opened
    with torch.no_grad():
        seen = [
            [replace(one, images=(), inputs={FEATURES: look(engine, one.images)}) if one.images else one for one in b]
            for b in bundles
        ]
        expected = token_losses(engine.module, collate_shared(bundles, engine.processor, engine.pad))
        found = token_losses(engine.module, collate_shared(seen, engine.processor, engine.pad))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
