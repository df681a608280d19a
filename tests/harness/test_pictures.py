"""Images that are decoded once."""

import io
import threading
from pathlib import Path

import pytest
from PIL import Image
from prh.harness import pictures as module
from prh.harness.errors import DataError
from prh.harness.pictures import LEAST, MOST, Pictures, room
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
    pictures = Pictures(cap=2 * 8 * 4 * 4)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert pictures.open(name, png(ord(name)), name).image.getpixel((0, 0)) == (ord(name), 0, 0)
    assert pictures.decoded == 4
    assert pictures._bytes <= 2 * 8 * 4 * 4


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


GIB = 1 << 30


@pytest.mark.parametrize(
    ("available", "limit", "expected"),
    [
        (24 * GIB, None, 96 * GIB // 1024),
        (24 * GIB, "max", 96 * GIB // 1024),
        (64 * GIB, str(20 * GIB), 80 * GIB // 1024),
        (20 * GIB, str(64 * GIB), 80 * GIB // 1024),
        (GIB // 8, "max", LEAST),
        (1000 * GIB, "max", MOST),
    ],
)
def test_the_room_is_a_small_share_of_what_is_free(
    tmp_path: Path, available: int, limit: str | None, expected: int
) -> None:
    (tmp_path / "proc").mkdir()
    text = f"MemTotal:       999999999 kB\nMemFree:            1234 kB\nMemAvailable:   {available >> 10} kB\n"
    (tmp_path / "proc/meminfo").write_text(text)
    if limit:
        (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    assert room(tmp_path) == expected


def test_where_nothing_is_told_the_room_is_still_bounded(tmp_path: Path) -> None:
    assert LEAST <= room(tmp_path) <= MOST


def test_images_are_decoded_once_as_far_as_there_is_room_and_no_more_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "room", lambda: 100 * 8 * 4 * 4)
    few, many = Pictures(), Pictures()
    for number in range(3000):
        few.open(str(number % 100), png(number % 100), "few")
        many.open(str(number % 101), png(number % 101), "many")
    assert few.decoded == 100
    assert many.decoded == 3000
    assert few._bytes == many._bytes == 100 * 8 * 4 * 4
