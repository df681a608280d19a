"""Images that are decoded once."""

import io
import threading

import pytest
from PIL import Image
from prh.harness.errors import DataError
from prh.harness.pictures import Pictures
from prh.harness.types import Size


def png(colour: int, size: tuple[int, int] = (8, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_is_decoded_once_whoever_asks_at_once() -> None:
    pictures = Pictures()
    found: list[Image.Image] = []
    threads = [
        threading.Thread(target=lambda: found.append(pictures.open("a", png(1), "a.png").image)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(image) for image in found}) == 1
    assert pictures.decoded == 1


def test_sizes_are_kept_apart_and_follow_one_another() -> None:
    pictures = Pictures()
    image = pictures.open("a", png(1), "a.png").image
    small = pictures.resized("a", image, Size(4, 2))
    assert small.size == (4, 2)
    assert pictures.resized("a", image, Size(4, 2)) is small
    assert pictures.resized("a", image, Size(4, 2), Size(2, 2)).size == (2, 2)
    assert pictures.resized("a", image, Size(2, 2)) is not pictures.resized("a", image, Size(4, 2), Size(2, 2))
    assert pictures.resized("a", image, Size(8, 4)) is image


def test_what_was_used_longest_ago_goes_and_is_made_again() -> None:
    pictures = Pictures(cap=2 * 8 * 4 * 3)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert pictures.open(name, png(ord(name)), name).image.getpixel((0, 0)) == (ord(name), 0, 0)
    assert pictures.decoded == 4
    assert pictures._bytes <= pictures.cap


def test_an_image_larger_than_the_room_is_given_and_not_kept() -> None:
    pictures = Pictures(cap=10)
    assert pictures.open("a", png(1), "a").image.size == (8, 4)
    assert pictures._bytes == 0


def test_a_fault_is_told_each_time_and_holds_nobody_up() -> None:
    pictures = Pictures()
    for _ in range(2):
        with pytest.raises(DataError, match=r"x\.png: not an image"):
            pictures.open("a", b"nonsense", "x.png")
    assert not pictures._making
