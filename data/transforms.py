"""Augmentation of one image and its label map: scale, rotation, crop, flip and colours."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from data.folds import VOID

FILL = (127, 127, 127)  # where there is no image; close to 0 once the encoders have normalised it


@dataclass(frozen=True)
class Augmentation:
    """Random view of an image, `crop` pixels a side; the same generator state gives the same view.

    Images are resized by an antialiased bilinear filter, label maps by nearest neighbour. Where there is no
    image the view is grey and its label void.
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
        scale = np.exp(rng.uniform(*np.log(self.scale)))
        angle = rng.uniform(-self.rotation, self.rotation)
        place = rng.uniform(size=2)
        flip = self.flip and rng.random() < 0.5
        brightness, contrast, saturation = rng.uniform(1 - self.jitter, 1 + self.jitter, 3)

        size = np.maximum(np.round(np.array(label.shape[::-1]) * scale), 1).astype(int)  # (width, height)
        # On each axis the crop lies within the image, or the image within the crop.
        corner = np.floor(place * (np.abs(size - self.crop) + 1)).astype(int) * np.sign(size - self.crop)
        # A wider window, so that the crop is covered when the window is turned.
        turn = np.deg2rad(abs(angle))
        margin = int(np.ceil(self.crop * (np.cos(turn) + np.sin(turn) - 1) / 2))
        window = Window(size, corner - margin, self.crop + 2 * margin)

        colors = window.cut(Image.fromarray(image), Image.Resampling.BILINEAR)
        for enhance, factor in (
            (ImageEnhance.Brightness, brightness),
            (ImageEnhance.Contrast, contrast),
            (ImageEnhance.Color, saturation),
        ):
            if self.jitter:
                colors = enhance(colors).enhance(factor)
        view = window.paste(colors, FILL)
        classes = window.paste(window.cut(Image.fromarray(label), Image.Resampling.NEAREST), VOID)
        if angle:
            view = view.rotate(angle, Image.Resampling.BILINEAR, fillcolor=FILL)
            classes = classes.rotate(angle, Image.Resampling.NEAREST, fillcolor=VOID)
        if flip:
            view, classes = ImageOps.mirror(view), ImageOps.mirror(classes)
        box = (margin, margin, margin + self.crop, margin + self.crop)
        return np.asarray(view.crop(box)), np.asarray(classes.crop(box))


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
