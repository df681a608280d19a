"""What is kept, by itself: the tree of prefixes, the slots, images on their way, pixels by look-up."""

import threading
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prh.models.flat import Features
from prh.models.gallery import Gallery, medium_key
from prh.models.patches import Patches
from prh.models.prefixes import Prefixes, agreeing
from prh.models.slots import GRAIN, Slots
from prh.models.visual import Video
from prh.tests.models.support import noise

TEXT = st.lists(st.integers(0, 2), min_size=1, max_size=9)


def held(keys, start=0):
    """Keys and values that say what they are of: each token's holds the sum of everything up to it."""
    sums = np.cumsum(np.asarray(keys) + 1)[start:]
    return torch.tensor(sums, dtype=torch.float32).expand(1, 2, 1, -1)[..., None].clone()


def known(tree, text):
    """How many of the first keys are known."""
    return sum(piece.shape[3] for piece in tree.find(np.array(text)))


@settings(max_examples=300)
@given(texts=st.lists(TEXT, min_size=1, max_size=12), asked=TEXT, forgotten=st.none() | TEXT)
def test_what_is_found_is_what_was_put_in(texts, asked, forgotten):
    tree = Prefixes(1 << 20)
    for text in texts:
        keys = np.array(text)
        tree.insert(keys, partial(held, text))
    if forgotten is not None:
        tree.forget(np.array(forgotten), 0)
    longest = max(agreeing(np.array(text), np.array(asked)) for text in texts)
    found = tree.find(np.array(asked))
    assert sum(piece.shape[3] for piece in found) == longest or forgotten is not None
    joined = torch.cat([torch.empty(1, 2, 1, 0, 1), *found], 3)
    assert torch.equal(joined, held(asked)[:, :, :, : joined.shape[3]])
    assert tree.held == sum(node.nbytes for node in tree._used.values())


@settings(max_examples=200)
@given(texts=st.lists(TEXT, min_size=1, max_size=20), cap=st.integers(0, 30))
def test_the_cap_is_kept_to_and_what_is_left_is_right(texts, cap):
    tree = Prefixes(cap * 8)
    for text in texts:
        keys = np.array(text)
        tree.insert(keys, partial(held, text))
        assert tree.held == sum(node.nbytes for node in tree._used.values()) <= cap * 8
        joined = torch.cat([torch.empty(1, 2, 1, 0, 1), *tree.find(keys)], 3)
        assert torch.equal(joined, held(text)[:, :, :, : joined.shape[3]])


def test_what_was_used_last_stays():
    tree = Prefixes(8 * 8)
    for text in ([1, 1, 1], [2, 2, 2]):
        tree.insert(np.array(text), partial(held, text))
    tree.find(np.array([1, 1, 1]))
    tree.insert(np.array([3, 3, 3]), partial(held, [3, 3, 3]))
    assert [known(tree, [n] * 3) for n in (1, 2, 3)] == [3, 0, 3]
    assert tree.evicted == 3


def test_a_forgotten_end_leaves_what_others_share():
    tree = Prefixes(1 << 20)
    for text in ([1, 2, 3, 4], [1, 2, 5, 6]):
        tree.insert(np.array(text), partial(held, text))
    tree.forget(np.array([1, 2, 3, 4]), 1)
    assert known(tree, [1, 2, 3, 4]) == 2
    assert known(tree, [1, 2, 5, 6]) == 4


def test_slots_grow_and_keep_what_they_hold():
    slots = Slots(2, 3, 4, torch.float32, torch.device("cpu"))
    slots.make_room(1, 5)
    assert (slots.count, slots.room) == (1, GRAIN)
    keys, values = torch.randn(5, 3, 4), torch.randn(5, 3, 4)
    places = torch.from_numpy(slots.places(np.zeros(5, np.int64), np.arange(5)))
    for layer in range(2):
        slots.write(layer, places, keys + layer, values - layer)
    slots.make_room(3, GRAIN + 1)
    saved = slots.save(0, 1, 5)
    assert torch.equal(saved[1, 0], (keys[1:] + 1).transpose(0, 1))
    assert torch.equal(saved[1, 1], (values[1:] - 1).transpose(0, 1))
    slots.move(0, 2, 5)
    slots.wipe(0)
    assert torch.equal(slots.save(2, 1, 5), saved)
    assert not slots.save(0, 0, 5).any()
    assert slots.load(1, [saved[:, :, :, :1], saved[:, :, :, 1:]]) == 4
    assert torch.equal(slots.save(1, 0, 4), saved)


class Processor:
    def __init__(self):
        self.made, self.gate = [], threading.Event()
        self.gate.set()

    def tensors(self, text, media):
        self.gate.wait(10)
        self.made.append(media[0].size)
        return {"pixel_values": torch.full((4, 1), float(media[0].width))}


def gallery(cap=1 << 20, faulty=()):
    seen = []

    def encode(media, *, video):
        sides = [int(tensors["pixel_values"][0]) for tensors in media]
        seen.append(sides)
        if set(sides) & set(faulty):
            raise RuntimeError("out of memory")
        return [Features(torch.full((2, 3), float(side))) for side in sides]

    return Gallery(Processor(), encode, cap), seen


def test_an_image_is_prepared_once_and_encoded_once_however_many_ask():
    own, seen = gallery()
    own.processor.gate.clear()
    image = noise((5, 5), 0)
    threads = [threading.Thread(target=own.prepare, args=("a0", image)) for _ in range(6)]
    for thread in threads:
        thread.start()
    own.processor.gate.set()
    for thread in threads:
        thread.join()
    assert own.features({"a0": image})["a0"].rows[0, 0] == 5
    own.prepare("a0", image)
    own.features({"a0": image})
    assert (len(own.processor.made), seen, own.encoded, own.again) == (1, [[5]], 1, 0)


def test_what_is_ready_goes_along_and_a_fault_in_it_is_its_own():
    images = {side: noise((side, side), side) for side in (4, 5, 6)}
    own, seen = gallery(faulty=(6,))
    for side, image in images.items():
        own.prepare(str(side), image)
    assert set(own.features({"4": images[4]})) == {"4"}
    assert seen == [[4, 5, 6], [4]]
    with pytest.raises(RuntimeError):
        own.features({"6": images[6]})
    own, seen = gallery()
    for side, image in images.items():
        own.prepare(str(side), image)
    own.features({"5": images[5]})
    own.features({"4": images[4], "6": images[6]})
    assert seen == [[5, 4, 6]]


def test_pixels_that_nobody_comes_for_are_let_go_of(monkeypatch):
    own, seen = gallery()
    monkeypatch.setattr("prh.models.gallery.WAITING_BYTES", 2 * 4 * 4)
    images = {str(side): noise((side, side), side) for side in (4, 5, 6, 7)}
    for key, image in images.items():
        own.prepare(key, image)
    assert list(own._waiting) == ["6", "7"]
    own.features({"4": images["4"]})
    assert (seen, own._held) == ([[4]], 2 * 4 * 4)
    own.features({"6": images["6"]})
    assert (seen, own._held, len(own._waiting)) == ([[4], [6, 7]], 0, 0)


def test_pixels_that_were_encoded_before_they_were_counted_are_not_counted():
    own, _ = gallery()
    image = noise((5, 5), 0)
    count = own._count

    def late(key, made):
        own._count = count
        own.features({key: image})
        own.clear()
        own.prepare(key, image)
        count(key, made)

    own._count = late
    own.prepare("a0", image)
    assert (own._held, own._ready) == (16, {"a0": 16})
    own.features({"a0": image})
    assert (own._held, len(own._ready)) == (0, 0)


def test_features_are_let_go_of_and_made_again():
    own, seen = gallery(cap=2 * 24)
    images = {str(side): noise((side, side), side) for side in (4, 5, 6)}
    for key, image in images.items():
        assert own.features({key: image})[key].rows[0, 0] == image.width
    assert own.missing("4")
    assert not own.missing("6")
    assert own.features({"4": images["4"]})["4"].rows[0, 0] == 4
    assert (own.encoded, own.again, len(seen)) == (4, 1, 4)


def test_a_medium_is_known_by_its_pixels_its_size_and_its_times():
    one, other = noise((4, 6), 0), noise((6, 4), 0)
    videos = [Video((one, one), (0.0, 1.0)), Video((one, one), (0.0, 2.0)), Video((one,), (0.0,)), Video((one, one))]
    keys = [medium_key(medium) for medium in (one, other, noise((4, 6), 1), *videos)]
    assert len(set(keys)) == len(keys)
    assert medium_key(one) == medium_key(one.copy())


@pytest.mark.parametrize("change", [{}, {"image_mean": [0.5] * 3}, {"patch_size": 16}, {"rescale_factor": 0.01}])
def test_pixels_by_look_up_are_the_processors_own(change):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    images = Qwen2VLImageProcessorPil(**change)
    own = Patches(images)
    assert own.exact
    side = own.patch * own.merge
    image = noise((3 * side, 2 * side), 7)
    given_by_it = images(images=[image], do_resize=False, return_tensors="pt")["pixel_values"]
    assert torch.equal(own(image), given_by_it)


def test_a_processor_of_another_kind_is_not_imitated():
    class Odd:
        patch_size, merge_size, temporal_patch_size = 14, 2, 2

        def __call__(self, images, **_):
            return {"pixel_values": torch.rand(len(images[0].tobytes()) // (14 * 14 * 3), 14 * 14 * 3 * 2)}

    assert not Patches(Odd()).exact
