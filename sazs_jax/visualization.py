"""Pictures of label maps: palette, indexed PNG, overlay, legend, side-by-side sheet."""

import colorsys
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from sazs_jax.segmenter import Eigensegments

VOID = 255
_OPACITY = 0.5  # of the colour laid over the image
_FONT_SIZE = 14
_PADDING = 6  # pixels between the parts of a legend or sheet
_VOID_COLOUR = (224, 224, 192)  # VOC's

# The first labels: far apart in hue and lightness, bright enough to lie over a photograph.
_FIRST_COLOURS = (
    (230, 25, 75), (0, 130, 255), (255, 200, 0), (60, 200, 75), (200, 60, 230), (255, 125, 30),
    (70, 240, 240), (170, 110, 40), (250, 150, 190), (128, 128, 0), (0, 128, 128), (150, 0, 60),
    (190, 255, 60), (40, 40, 180), (170, 255, 195), (220, 190, 255), (255, 90, 200), (0, 90, 50),
    (255, 235, 140), (110, 60, 220),
)  # fmt: skip


def palette() -> UInt8[np.ndarray, "256 3"]:
    """RGB of labels 0 (black), 1 .. 254 and void."""
    colours: list[tuple[float, ...]] = [(0, 0, 0), *_FIRST_COLOURS]
    while len(colours) < 255:
        i = len(colours)
        hue = i * 0.618034 % 1.0  # steps of the golden ratio never fall together
        rgb = colorsys.hsv_to_rgb(hue, (1.0, 0.8, 0.65, 0.5, 0.9)[i % 5], (1.0, 0.75, 0.55)[i // 5 % 3])
        colours.append(tuple(round(255 * value) for value in rgb))
    return np.array([*colours, _VOID_COLOUR], np.uint8)


def indexed_png(labels: Integer[np.ndarray, "H W"]) -> bytes:
    """PNG file whose pixel values are the labels 0 .. 255, shown in the palette's colours."""
    if labels.size and not 0 <= labels.min() <= labels.max() <= 255:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; an indexed PNG holds 0 to 255")
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(palette().tobytes())
    return _encode(image)


def png(pixels: UInt8[np.ndarray, "H W *C"]) -> bytes:
    """PNG file of grey or RGB pixels."""
    return _encode(Image.fromarray(pixels))


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def overlay(image: UInt8[np.ndarray, "H W 3"], labels: Integer[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Colour an image's labelled pixels and edge each region in its full colour and white; label 0 stays as it is."""
    colours = palette()[np.asarray(labels, np.int64)]
    mixed = (1 - _OPACITY) * image + _OPACITY * colours
    edge = _differs_from_neighbour(labels)
    result = np.where((labels == 0)[..., None], image, mixed)
    inner = edge & (labels != 0)
    result = np.where(inner[..., None], colours, result)
    rim = edge & (labels == 0)  # a light line on the side of the background sets dark regions off
    result = np.where(rim[..., None], 255, result)
    return np.round(result).astype(np.uint8)


def grey(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of values in [0, 1], black to white."""
    return np.repeat(np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)[..., None], 3, axis=-1)


def _differs_from_neighbour(labels: np.ndarray) -> np.ndarray:
    padded = np.pad(labels, 1, mode="edge")
    height, width = labels.shape
    edge = np.zeros(labels.shape, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        edge |= padded[dy : dy + height, dx : dx + width] != labels
    return edge


def eigensegment_sheet(image: UInt8[np.ndarray, "H W 3"], found: "Eigensegments") -> UInt8[np.ndarray, "h w 3"]:
    """An image beside its eigenvectors (blue negative, white 0, red positive); below each, its eigensegment."""
    vectors = [("image", image)]
    masks = [("eigensegments", image)]
    for k, value in enumerate(found.values):
        vectors.append((f"eigenvalue {value:.3f}", _diverging(found.soft[..., k] / 2)))
        masks.append((f"eigensegment {k + 1}", overlay(image, found.masks[..., k].astype(np.uint8))))
    return sheet([vectors, masks])


def _diverging(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Values in [-1, 1] from blue over white to red."""
    share = np.clip(np.abs(values), 0, 1)[..., None]
    ends = np.where((values > 0)[..., None], np.array([200.0, 20.0, 40.0]), np.array([30.0, 70.0, 200.0]))
    return np.round(255 + share * (ends - 255)).astype(np.uint8)


def legend(names: Sequence[str], labels: Sequence[int], width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A strip of colour swatches with names, wrapped to `width` pixels (wider if one name needs it)."""
    font = ImageFont.load_default(_FONT_SIZE)
    line = _FONT_SIZE + _PADDING
    lengths = [line + int(font.getlength(name) + 1) + 2 * _PADDING for name in names]
    width = max([width, *(_PADDING + length for length in lengths)])
    places, x, y = [], _PADDING, _PADDING
    for length in lengths:
        if x + length > width:
            x, y = _PADDING, y + line
        places.append((x, y))
        x += length
    strip = Image.new("RGB", (width, y + line if names else 0), "white")
    draw = ImageDraw.Draw(strip)
    colours = palette()
    for (x, y), name, label in zip(places, names, labels, strict=True):
        colour = tuple(int(value) for value in colours[label])
        draw.rectangle((x, y, x + _FONT_SIZE, y + _FONT_SIZE), fill=colour, outline="black")
        draw.text((x + line, y + _FONT_SIZE / 2), name, fill="black", font=font, anchor="lm")
    return np.array(strip)


def overlay_with_legend(
    image: UInt8[np.ndarray, "H W 3"], labels: Integer[np.ndarray, "H W"], names: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """The overlay above its legend; `names[i]` is label i + 1."""
    picture = overlay(image, labels)
    return _stack([picture, legend(names, range(1, len(names) + 1), picture.shape[1])])


def sheet(rows: Sequence[Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]]]) -> UInt8[np.ndarray, "h w 3"]:
    """Rows of pictures side by side, each under its title, columns aligned."""
    font = ImageFont.load_default(_FONT_SIZE)
    cells = []
    for row in rows:
        cells.append([])
        for title, picture in row:
            width = max(picture.shape[1], int(font.getlength(title)) + 1)
            head = Image.new("RGB", (width, _FONT_SIZE + _PADDING), "white")
            ImageDraw.Draw(head).text((0, head.height / 2), title, fill="black", font=font, anchor="lm")
            cells[-1].append(_stack([np.array(head), picture]))
    num_columns = max(len(row) for row in cells)
    widths = [max(row[c].shape[1] for row in cells if c < len(row)) for c in range(num_columns)]
    strips = []
    for row in cells:
        height = max(cell.shape[0] for cell in row)
        strip = np.full((height + _PADDING, sum(widths) + _PADDING * (num_columns + 1), 3), 255, np.uint8)
        x = _PADDING
        for cell, width in zip(row, widths, strict=False):
            strip[: cell.shape[0], x : x + cell.shape[1]] = cell
            x += width + _PADDING
        strips.append(strip)
    return _stack(strips)


def _stack(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """One above the other, white to the right of the narrower ones."""
    width = max(picture.shape[1] for picture in pictures)
    filled = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(filled, axis=0)
