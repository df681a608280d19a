"""Hostile images end as a DataError naming the item, or are read as a person would see them."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prh.harness.errors import DataError
from prh.harness.media import Media, decode, inside, load_image


def save(image: Image.Image, fmt: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def photo(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in some 200 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"GIF89a", "scene"),
        (b"not an image at all", "not an image"),
        (save(photo(), "PNG")[:300], "cannot be decoded"),
        (save(photo(), "JPEG")[:400], "cannot be decoded"),
        (bomb(), "decompression bomb"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "not an image"),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match="scene") as caught:
        decode(data, "scene.png")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cmyk_and_grey_and_palette_become_rgb() -> None:
    for mode, fmt in (("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("1", "PNG"), ("LA", "PNG")):
        assert decode(save(photo().convert(mode), fmt), "x").image.mode == "RGB", mode


def test_sixteen_bits_keep_their_order_of_brightness() -> None:
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    grey = np.asarray(decode(save(Image.fromarray(ramp), "PNG"), "x").image)[..., 0].astype(int)
    assert grey[0, 0] == 0
    assert grey[-1, -1] == 255
    assert abs(grey[24, 0] - 128) <= 1
    assert (np.diff(grey.ravel()) >= 0).all()


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    data = save(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, "x").image.getpixel((5, 5)) == (255, 0, 0)


def test_rotation_in_exif_is_applied_and_the_file_is_not_kept_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    tall = decode(save(photo(size=(64, 48)), "JPEG", exif=exif), "x")
    assert tall.size == (48, 64)
    assert tall.suffix == ""
    assert decode(save(photo(), "JPEG"), "x").suffix == ".jpg"


def test_transparency_is_laid_over_white() -> None:
    assert decode(save(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "PNG"), "x").image.getpixel((4, 4)) == (255, 255, 255)


def test_one_pixel_and_a_wrong_suffix_are_read() -> None:
    assert decode(save(photo(size=(1, 1)), "PNG"), "x").size == (1, 1)
    assert decode(save(photo(), "JPEG"), "really.png").suffix == ".jpg"


@given(st.binary(max_size=400), st.integers(0, 3000))
def test_no_bytes_can_do_more_than_a_data_error(noise: bytes, cut: int) -> None:
    good = save(photo(size=(32, 32)), "PNG")
    for data in (noise, good[:cut] + noise + good[cut:]):
        try:
            mode = decode(data, "x").image.mode
        except DataError:
            continue
        assert mode == "RGB"


OUTSIDE = ("../secret.png", "/etc/passwd", "a/../../secret.png", "link.png", "circle.png", "nul\0.png")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_never_leaves_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(save(photo(), "PNG"))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "circle.png").symlink_to("circle.png")
    with pytest.raises(DataError):
        inside(folder, name)


def test_a_path_below_its_folder_is_found(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/./b.png") == tmp_path.resolve() / "a" / "b.png"


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, os.mkfifo])
def test_a_missing_file_a_folder_or_a_pipe_is_named(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "gone.png"
    make(path)
    with pytest.raises(DataError, match=r"gone\.png"):
        load_image(Media("image", "gone.png", path))


def test_digest_follows_content_not_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(save(photo(), "PNG"))
    first, second = (Media("image", name, tmp_path / name).digest() for name in ("a", "b"))
    assert first == second
    (tmp_path / "b").write_bytes(save(photo().transpose(Image.Transpose.FLIP_TOP_BOTTOM), "PNG"))
    assert Media("image", "b", tmp_path / "b").digest() != first
