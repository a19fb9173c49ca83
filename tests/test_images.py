"""Images in the forms that people have them in."""

import numpy as np
import pytest
from PIL import Image

from sazs_jax.images import as_rgb, read_image


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 256, (6, 5), dtype=np.uint8)


def pgm(path, values: np.ndarray) -> None:
    header = f"P5\n{values.shape[1]} {values.shape[0]}\n65535\n".encode()
    path.write_bytes(header + values.astype(">u2").tobytes())


@pytest.mark.parametrize("name", ["photo.png", "photo.tif", "photo.pgm"])
def test_greys_of_16_bits_keep_their_brightness(grey, name, tmp_path):
    path, wide = tmp_path / name, grey.astype(np.uint16) * 257  # 65535 is white
    wide = np.where(wide > 0, wide - 100, wide)  # rounded, not cut off
    pgm(path, wide) if path.suffix == ".pgm" else Image.fromarray(wide).save(path)
    expected = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_image(path), expected)
    with Image.open(path) as image:
        assert image.mode in ("I", "I;16")
        np.testing.assert_array_equal(as_rgb(image), expected)


def test_a_grey_of_16_bits_is_turned_upright(grey, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side: upright after a quarter turn clockwise
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png")[..., 0], np.rot90(grey, -1))


def test_other_kinds_of_pixels(grey, tmp_path):
    expected = np.repeat(grey[..., None], 3, axis=-1)
    for mode in ("L", "P", "LA", "RGBA"):
        path = tmp_path / f"{mode}.png"
        Image.fromarray(grey).convert(mode).save(path)
        np.testing.assert_array_equal(read_image(path), expected)
