"""Images that a person hands over, as RGB arrays."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from sazs_jax.errors import UserError

ImageLike = np.ndarray | Image.Image | str | os.PathLike  # an array is uint8 (H, W, 3), RGB


def read_image(path: str | os.PathLike) -> UInt8[np.ndarray, "H W 3"]:
    """An image file as RGB, turned upright as its EXIF orientation says. Greys of 16 bits are brought to 8.

    Raises:
      UserError: there is no such file, or it is not a whole image.
    """
    try:
        with Image.open(path) as image:
            return _upright_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "there is no such file" if not Path(path).exists() else str(error)
        raise UserError(f"cannot read the image {os.fspath(path)}: {reason}; give a whole JPEG or PNG file") from error


def _upright_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # greys of 16 bits, which Pillow would clip at 255
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    return np.array(image.convert("RGB"))


def as_rgb(image: ImageLike) -> UInt8[np.ndarray, "H W 3"]:
    """An image as an RGB array, from a path, a Pillow image or such an array.

    Raises:
      UserError: a file that is no whole image, or an array of another type or shape.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _upright_rgb(image)
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise UserError(
            f"expected an RGB image as uint8 (H, W, 3), or a list of them; this one is {image.dtype} {image.shape}"
        )
    return image


def distinct_names(images: Sequence[Path]) -> list[str]:
    """The images' stems, numbered where two would fall together (on a disk that ignores case too)."""
    names: dict[str, str] = {}
    for stem in (image.stem for image in images):
        numbered = itertools.chain([stem], (f"{stem}_{n}" for n in itertools.count(2)))
        name = next(name for name in numbered if name.lower() not in names)
        names[name.lower()] = name
    return list(names.values())
