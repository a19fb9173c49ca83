"""Augmentation of one image and its label map: scale, rotation, crop, flip and colours."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from sazs_jax.label_map import IGNORED

FILL = (127, 127, 127)  # where there is no image; close to 0 once the encoders have normalised it


@dataclass(frozen=True)
class Augmentation:
    """Random view of an image, `crop` pixels a side; the same generator state gives the same view.

    Images are resized by an antialiased bilinear filter, label maps by nearest neighbour. Where there is no
    image the view is grey and its label `IGNORED`.
    """

    crop: int
    scale: tuple[float, float]  # range of the factor on the image's own size, drawn log-uniformly
    rotation: float  # largest angle either way, degrees
    flip: bool  # left and right exchanged half of the time
    jitter: float  # largest relative change of brightness, contrast and saturation

    def __call__(
        self,
        image: UInt8[np.ndarray, "height width 3"],
        label: UInt8[np.ndarray, "height width"],
        rng: np.random.Generator,
    ) -> tuple[UInt8[np.ndarray, "crop crop 3"], UInt8[np.ndarray, "crop crop"]]:
        """Draw one view of `image` and `label`."""
        view = self.draw(label.shape, rng)
        return view.of_image(image), view.of_label(label)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> "DrawnView":
        """Draw one view of what has this (height, width)."""
        scale = np.exp(rng.uniform(*np.log(self.scale)))
        angle = rng.uniform(-self.rotation, self.rotation)
        place = rng.uniform(size=2)
        flip = self.flip and rng.random() < 0.5
        factors = tuple(rng.uniform(1 - self.jitter, 1 + self.jitter, 3)) if self.jitter else ()

        size = np.maximum(np.round(np.array(shape[::-1]) * scale), 1).astype(int)  # (width, height)
        # On each axis the crop lies within the image, or the image within the crop.
        corner = np.floor(place * (np.abs(size - self.crop) + 1)).astype(int) * np.sign(size - self.crop)
        # A wider window, so that the crop is covered when the window is turned.
        turn = np.deg2rad(abs(angle))
        margin = int(np.ceil(self.crop * (np.cos(turn) + np.sin(turn) - 1) / 2))
        window = Window(size, corner - margin, self.crop + 2 * margin)
        return DrawnView(window, margin, angle, flip, factors)


@dataclass(frozen=True)
class DrawnView:
    """One view, for an image and for its label map."""

    window: "Window"
    margin: int  # of the window around the crop, pixels
    angle: float
    flip: bool
    factors: tuple[float, ...]  # of brightness, contrast and saturation; empty: colours stay

    def of_image(self, image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "crop crop 3"]:
        """The crop; grey where there is no image."""
        colors = self.window.cut(Image.fromarray(image), Image.Resampling.BILINEAR)
        for enhance, factor in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), self.factors, strict=False
        ):
            colors = enhance(colors).enhance(factor)
        return self._crop(colors, Image.Resampling.BILINEAR, FILL)

    def of_label(self, label: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "crop crop"]:
        """The crop; `IGNORED` where there is no image."""
        classes = self.window.cut(Image.fromarray(label), Image.Resampling.NEAREST)
        return self._crop(classes, Image.Resampling.NEAREST, IGNORED)

    def _crop(self, part: Image.Image, resampling: Image.Resampling, fill: int | tuple[int, int, int]) -> np.ndarray:
        whole = self.window.paste(part, fill)
        if self.angle:
            whole = whole.rotate(self.angle, resampling, fillcolor=fill)
        if self.flip:
            whole = ImageOps.mirror(whole)
        end = whole.width - self.margin
        return np.asarray(whole.crop((self.margin, self.margin, end, end)))


@dataclass(frozen=True)
class Window:
    """A square of `side` pixels with its corner at (x, y) `corner` of an image resized to (width, height) `size`.

    It may reach beyond the image. Only what lies within is resized.
    """

    size: np.ndarray
    corner: np.ndarray
    side: int

    @property
    def _inside(self) -> tuple[np.ndarray, np.ndarray]:
        return np.maximum(self.corner, 0), np.minimum(self.corner + self.side, self.size)

    def cut(self, image: Image.Image, resampling: Image.Resampling) -> Image.Image:
        """Resize the part of `image` within the window."""
        start, stop = self._inside
        factor = np.array(image.size) / self.size
        box = (*(start * factor).tolist(), *(stop * factor).tolist())
        return image.resize(tuple((stop - start).tolist()), resampling, box=box)

    def paste(self, part: Image.Image, fill: int | tuple[int, int, int]) -> Image.Image:
        """Put what `cut` returned in its place on a ground of `fill`."""
        whole = Image.new(part.mode, (self.side, self.side), fill)
        whole.paste(part, tuple((self._inside[0] - self.corner).tolist()))
        return whole
