"""Images and words in, masks out: the Python API of a trained network."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import overload

import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image, ImageOps

from sazs_jax.errors import UserError
from sazs_jax.inference import CANVAS_STEP, Network, make_batches, upsample, upsampled_argmax
from sazs_jax.models.sazs import SAZS, cosine_logits
from sazs_jax.text import AnchorTable, TextTower, check_compatible, find_name, open_text, text_source
from sazs_jax.training.checkpoints import restore_model

OTHERS = "others"

ImageLike = np.ndarray | Image.Image | str | os.PathLike  # an array is uint8 (H, W, 3), RGB


@dataclass(frozen=True)
class ImageEmbedding:
    """What the network knows of an image: embed once, ask many times."""

    embeddings: Float[Array, "h w D"]  # at decoder resolution, on the device, not normalised
    size: tuple[int, int]  # the image's own height and width


@dataclass(frozen=True)
class Segmentation:
    """Masks of one image at its own size.

    Attributes:
      label_map: 0 background (never where background=None), i + 1 for labels[i].
      labels: the words asked for.
      confidence: cosine in [-1, 1] of whatever won the pixel: a label, "others", or the best label that stayed below
        the threshold.
      decoder_scores: cosine of each label, at decoder resolution.
    """

    label_map: Int[np.ndarray, "H W"]
    labels: tuple[str, ...]
    confidence: Float[np.ndarray, "H W"]
    decoder_scores: Float[np.ndarray, "h w K"]

    @property
    def legend(self) -> dict[int, str]:
        """Word by value of the label map, background (0) left out."""
        return dict(enumerate(self.labels, start=1))

    @cached_property
    def scores(self) -> Float[np.ndarray, "H W K"]:
        """Cosine in [-1, 1] of each label at every pixel. Made when first asked for: with many labels it is large."""
        height, width = self.label_map.shape
        sizes = np.array([[height, width]], np.int32)
        scores = np.asarray(_upsample(self.decoder_scores[None], sizes, _canvas((height, width))))
        return scores[0, :height, :width]

    def summary(self) -> dict:
        """Size, and of each label its value, area in pixels, share of the image and mean cosine on its own pixels."""
        labels = {}
        for value, label in self.legend.items():
            mask = self.label_map == value
            labels[label] = {
                "value": value,
                "pixels": int(mask.sum()),
                "fraction": float(mask.mean()),
                "mean_score": float(self.confidence[mask].mean()) if mask.any() else None,
            }
        return {"size": list(self.label_map.shape), "labels": labels}


class Segmenter:
    """Finds words in images with a SAZS network.

    Example:
        segmenter = Segmenter.from_workdir("runs/fold1")
        result = segmenter.segment("photo.jpg", ["cat", "sofa"])
        cat = result.label_map == 1
    """

    def __init__(
        self,
        model: SAZS,
        anchors: Mapping[str, np.ndarray],
        text: Callable[[], AnchorTable | TextTower],
        *,
        resize: int = 0,
        batch_size: int = 8,
    ):
        """Put the network on the devices.

        Args:
          model: the network.
          anchors: embeddings (D,) of the words known beforehand, "others" among them where it serves as background.
          text: opens the source of all other words; called when the first such word is asked for; may raise UserError.
          resize: 0, the image's own size, or the side that it is squashed to for the network.
          batch_size: most images a pass.
        """
        self._network = Network(model)
        self._anchors = {word: np.asarray(row, np.float32) for word, row in anchors.items()}
        self._open_text = text
        self._text: AnchorTable | TextTower | None = None
        self._resize = resize
        self._batch_size = batch_size

    @classmethod
    def from_workdir(
        cls, workdir: str | os.PathLike, *, text: str | os.PathLike | None = None, batch_size: int = 8
    ) -> "Segmenter":
        """The best checkpoint of a run.

        Args:
          workdir: as given to train.py.
          text: an anchor table (.npz) or a CLIP text tower (directory or hub id), for words that the run was not
            trained with; by default the run's own.
          batch_size: most images a pass.

        Raises:
          UserError: there is no checkpoint.
        """
        config, model, stored, _ = restore_model(workdir)

        def source() -> AnchorTable | TextTower:
            if text is not None:
                opened = open_text(text, config.text.templates)
            else:
                try:
                    opened = text_source(config.text)
                except UserError as error:
                    raise UserError(
                        f"the run stores its own classes alone, and its text source cannot be opened ({error}); "
                        "give an anchor table (.npz) that has the word, or the folder of a CLIP text tower, "
                        "by --text (in Python text=)"
                    ) from error
            check_compatible(stored.source, opened.source)
            return opened

        anchors = dict(zip(stored.names, stored.embeddings, strict=True))
        return cls(model, anchors, source, resize=config.eval.resize, batch_size=batch_size)

    def embed_words(self, words: Sequence[str]) -> Float[np.ndarray, "K D"]:
        """Text embeddings, not normalised; each word is looked up or encoded once and kept.

        Raises:
          UserError: a word is unknown and there is no text source that has it.
        """
        for word in words:
            if (known := find_name(word, tuple(self._anchors))) is not None:
                self._anchors[word] = self._anchors[known]
        missing = [word for word in words if word not in self._anchors]
        if missing:
            try:
                if self._text is None:
                    self._text = self._open_text()
                rows = self._text.embed(missing)
            except UserError as error:
                raise UserError(f"no text embedding for {', '.join(map(repr, missing))}: {error}") from error
            self._anchors.update(zip(missing, rows, strict=True))
        return np.stack([self._anchors[word] for word in words])

    def embed(self, images: Sequence[ImageLike]) -> list[ImageEmbedding]:
        """Pass images of any sizes through the network, in batches.

        Raises:
          UserError: a file is no readable image.
        """
        items = [(i, _to_array(image)) for i, image in enumerate(images)]
        batches = make_batches(
            items,
            lambda item: item[1],
            multiple=self._network.size_multiple,
            resize=self._resize,
            batch_size=max(1, min(self._batch_size, len(items))),
        )
        found: dict[int, ImageEmbedding] = {}
        for batch in batches:
            embeddings = self._network.embed(batch.pixels)
            for row, (i, image) in enumerate(batch.items):
                found[i] = ImageEmbedding(embeddings[row], image.shape[:2])
        return [found[i] for i in range(len(items))]

    @overload
    def segment(
        self,
        image_or_batch: ImageLike | ImageEmbedding,
        labels: Sequence[str],
        background: str | float | None = OTHERS,
    ) -> Segmentation: ...

    @overload
    def segment(
        self,
        image_or_batch: list,
        labels: Sequence[str],
        background: str | float | None = OTHERS,
    ) -> list[Segmentation]: ...

    def segment(
        self,
        image_or_batch: ImageLike | ImageEmbedding | list,
        labels: Sequence[str],
        background: str | float | None = OTHERS,
    ) -> Segmentation | list[Segmentation]:
        """The mask of each word.

        Args:
          image_or_batch: RGB uint8 (H, W, 3), a Pillow image, a path or what `embed` gave; or a list of these, of any
            sizes.
          labels: words, each once.
          background: which pixels are none of them. "others": those nearer to the anchor "others" than to any label;
            a number: those whose best cosine is not above it; None: no pixel.

        Returns:
          A `Segmentation`, or a list of them for a list.

        Raises:
          UserError: no labels, a label twice or unknown (see `embed_words`), a background that is none of the above, a
            broken image.
        """
        labels = _check_labels(labels, background)
        words = (OTHERS, *labels) if background == OTHERS else labels
        anchors = self.embed_words(words)
        images = image_or_batch if isinstance(image_or_batch, list) else [image_or_batch]
        plain = [image for image in images if not isinstance(image, ImageEmbedding)]
        embedded = iter(self.embed(plain))
        known = [image if isinstance(image, ImageEmbedding) else next(embedded) for image in images]
        found = [self._decide(image, anchors, labels, background) for image in known]
        return found if isinstance(image_or_batch, list) else found[0]

    def _decide(
        self, image: ImageEmbedding, anchors: np.ndarray, labels: tuple[str, ...], background: str | float | None
    ) -> Segmentation:
        height, width = image.size
        sizes = np.array([[height, width]], np.int32)
        scores, winner, best = jax.device_get(_winners(image.embeddings[None], anchors, sizes, _canvas(image.size)))
        label_map, confidence = winner[0, :height, :width].astype(np.int32), best[0, :height, :width]
        if background != OTHERS:
            label_map = label_map + 1
        if background not in (OTHERS, None):
            label_map = np.where(confidence > background, label_map, 0).astype(np.int32)
        return Segmentation(label_map, labels, confidence, scores[0, ..., len(anchors) - len(labels) :])


def read_image(path: str | os.PathLike) -> UInt8[np.ndarray, "H W 3"]:
    """An image file as RGB, turned upright as its EXIF orientation says.

    Raises:
      UserError: there is no such file, or it is not a whole image.
    """
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "there is no such file" if not Path(path).exists() else str(error)
        raise UserError(f"cannot read the image {os.fspath(path)}: {reason}; give a whole JPEG or PNG file") from error


def _to_array(image: ImageLike) -> np.ndarray:
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, Image.Image):
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise UserError(
            f"expected an RGB image as uint8 (H, W, 3), or a list of them; this one is {image.dtype} {image.shape}"
        )
    return image


def _check_labels(labels: Sequence[str], background: str | float | None) -> tuple[str, ...]:
    if isinstance(labels, str):
        raise UserError(f"labels is the one word {labels!r}; give a list of words")
    labels = tuple(labels)
    if not labels or not all(isinstance(label, str) and label.strip() for label in labels):
        raise UserError("no labels; give at least one word, and no empty one")
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(f"labels given twice: {', '.join(twice)}; give each once")
    is_threshold = isinstance(background, float | int) and -1 <= background <= 1
    if not (background is None or background == OTHERS or is_threshold):
        raise UserError(
            f"background is {background!r}; expected {OTHERS!r}, a threshold on the cosine between -1 and 1, or None"
        )
    if background == OTHERS and OTHERS in labels:
        raise UserError(f"{OTHERS!r} is the background and no label; leave it out or choose background=None")
    return labels


def _canvas(size: tuple[int, int]) -> tuple[int, int]:
    height, width = (-(-side // CANVAS_STEP) * CANVAS_STEP for side in size)
    return height, width


@partial(jax.jit, static_argnames="canvas")
def _winners(embeddings, anchors, sizes, canvas):
    scores = cosine_logits(embeddings, anchors)
    return scores, *upsampled_argmax(scores, sizes, canvas)


@partial(jax.jit, static_argnames="canvas")
def _upsample(scores, sizes, canvas):
    return upsample(scores, sizes, canvas)
