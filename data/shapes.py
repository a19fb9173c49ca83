"""The synthetic set of the demo: scenes of coloured shapes, where a fold hides combinations, never a colour or shape.

Class names are "red circle" and the like: 5 colours by 4 shapes, in four contiguous folds of five as in
PASCAL-5i. Each fold holds every colour once and every shape at least once, so what a fold leaves unseen is
five combinations of colours and shapes that are all seen otherwise.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from tqdm import tqdm

from data.builder import Example, SegmentationBuilder, prepare
from data.codecs import encode_png
from data.folds import NUM_FOLDS, contiguous_folds, pairs_by_pixels

SIZE = 64  # pixels a side
NUM_SCENES = {"train": 1500, "val": 200}
NUM_OBJECTS = (2, 4)  # in a scene, fewest and most
RADIUS = (9.0, 16.0)  # of an object, pixels
MIN_PIXELS = 48  # visible, for an object to be listed: about the share of 2048 in a VOC image
SUPERSAMPLING = 4
COLORS = {
    "red": (205, 45, 40),
    "green": (50, 165, 60),
    "blue": (45, 85, 205),
    "yellow": (225, 200, 45),
    "purple": (140, 55, 170),
}
SHAPES = ("circle", "square", "triangle", "star")
# Fold f holds, for colour c, the shape c + f modulo 4.
CLASS_NAMES = tuple(
    f"{color} {SHAPES[(c + fold) % len(SHAPES)]}" for fold in range(NUM_FOLDS) for c, color in enumerate(COLORS)
)
FOLDS = contiguous_folds(len(CLASS_NAMES))
HSNET_DRAWS = False
LISTS = ""  # made, never read


def prepare_splits(root: str, cache: Path, splits: Sequence[str]) -> dict[str, Path]:
    """Draw and prepare splits; `root` is not used. Returns split -> folder of its records."""
    settings = (SIZE, NUM_SCENES, NUM_OBJECTS, RADIUS, MIN_PIXELS, SUPERSAMPLING, COLORS, SHAPES, Shapes.VERSION)
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:16]
    folders = {split: cache / "shapes" / digest / split for split in splits}
    for split, folder in folders.items():
        prepare(lambda work, split=split: Shapes(split=split, data_dir=work), folder)
    return folders


class Shapes(SegmentationBuilder):
    """One split of the synthetic set; scene i is the same on every machine."""

    VERSION = tfds.core.Version("1.0.0")
    class_names = CLASS_NAMES
    description = "Synthetic scenes of coloured shapes on textured ground, with occlusion."

    @property
    def most_examples(self) -> int:
        """All scenes."""
        return NUM_SCENES[self.split]

    def examples(self) -> Iterator[Example]:
        """Scenes of the split, each from a generator of its own."""
        for i in tqdm(range(NUM_SCENES[self.split]), desc=f"drawing shapes, {self.split}", unit=" scenes"):
            image, label = draw_scene(np.random.default_rng([list(NUM_SCENES).index(self.split), i]))
            yield Example(f"{self.split}_{i:05d}", encode_png(image), label)

    def fold_lists(self, image_ids: list[str], counts: np.ndarray) -> dict[int, list[tuple[int, int]]]:
        """Every class that enough pixels of can be seen."""
        return pairs_by_pixels(counts, MIN_PIXELS, FOLDS)


def draw_scene(rng: np.random.Generator) -> tuple[UInt8[np.ndarray, "size size 3"], UInt8[np.ndarray, "size size"]]:
    """An image and its label map: 0 ground, c + 1 class c, later objects before earlier ones."""
    image = draw_ground(rng)
    label = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(rng.integers(NUM_OBJECTS[0], NUM_OBJECTS[1] + 1)):
        c = int(rng.integers(len(CLASS_NAMES)))
        color, shape = CLASS_NAMES[c].split()
        alpha = draw_outline(shape, rng)
        tint = np.array(COLORS[color]) * rng.uniform(0.8, 1.15) + rng.normal(0, 8, 3)
        surface = tint + 18 * smooth_noise(rng, cells=4)[..., None] + rng.normal(0, 5, (SIZE, SIZE, 1))
        image = image + alpha[..., None] * (surface - image)
        label[alpha > 0.5] = c + 1
    return np.clip(image.round(), 0, 255).astype(np.uint8), label


def draw_ground(rng: np.random.Generator) -> Float[np.ndarray, "size size 3"]:
    """Dull ground, 0..255: blotches of two greyish colours, stripes or not, and grain."""
    first, second = 128 + rng.uniform(-70, 70) + rng.normal(0, 12, (2, 3)) + rng.uniform(-35, 35, (2, 1))
    mix = 0.5 + 0.5 * smooth_noise(rng, cells=int(rng.integers(2, 9)))
    if rng.random() < 0.5:
        y, x = np.mgrid[:SIZE, :SIZE]
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(0.2, 0.9)
        mix = 0.6 * mix + 0.2 * (1 + np.sin(frequency * (x * np.cos(angle) + y * np.sin(angle))))
    return first + mix[..., None] * (second - first) + rng.normal(0, 7, (SIZE, SIZE, 3))


def smooth_noise(rng: np.random.Generator, cells: int) -> Float[np.ndarray, "size size"]:
    """Smooth random field in about -1..1 with `cells` blobs a side."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float64)


def draw_outline(shape: str, rng: np.random.Generator) -> Float[np.ndarray, "size size"]:
    """Coverage in 0..1 of one object at a random place, size and angle, with smooth edges."""
    radius, angle = rng.uniform(*RADIUS), rng.uniform(0, 2 * np.pi)
    center = rng.uniform(0.6 * RADIUS[0], SIZE - 0.6 * RADIUS[0], 2)
    mask = Image.new("L", (SIZE * SUPERSAMPLING, SIZE * SUPERSAMPLING))
    draw = ImageDraw.Draw(mask)
    if shape == "circle":
        radius *= 0.85  # about the area of the others
        draw.circle(tuple(center * SUPERSAMPLING), radius * SUPERSAMPLING, fill=255)
    else:
        corners, inner = {"square": (4, 1.0), "triangle": (3, 1.0), "star": (5, 0.42)}[shape]
        if inner < 1:
            radii, angles = np.tile([1.0, inner], corners), np.arange(2 * corners) * np.pi / corners
        else:
            radii, angles = np.ones(corners), np.arange(corners) * 2 * np.pi / corners
        points = radius * radii[:, None] * np.stack([np.cos(angles + angle), np.sin(angles + angle)], axis=1)
        draw.polygon([tuple(p) for p in (center + points) * SUPERSAMPLING], fill=255)
    return np.asarray(mask.resize((SIZE, SIZE), Image.Resampling.BOX), np.float64) / 255
