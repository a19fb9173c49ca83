"""Encoded bytes to arrays and back, with Pillow alone: OpenCV turns palette PNGs into colours."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def decode_image(encoded: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """RGB pixels of a JPEG or PNG. Raises OSError when it is broken or cut short."""
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def decode_label(encoded: bytes) -> UInt8[np.ndarray, "height width"]:
    """Class values of a label map: the indices of a palette PNG, the values of an 8-bit greyscale one.

    Raises:
        OSError: broken, or cut short.
        ValueError: a colour picture, or one of more than 8 bits, which holds no class values.
    """
    with Image.open(io.BytesIO(encoded)) as label:
        if label.mode not in ("P", "L"):
            raise ValueError(f"a picture of mode {label.mode}, not a palette or 8-bit greyscale one")
        return np.asarray(label)


def encode_png(pixels: UInt8[np.ndarray, "..."]) -> bytes:
    """PNG of an RGB image or of a label map; the latter as 8-bit greyscale, which every reader takes as values."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()
