"""Images and words in, masks out: the Python API of a trained network."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from sazs_jax.calibration import Calibration, calibrate
from sazs_jax.errors import UserError
from sazs_jax.images import ImageLike, as_rgb
from sazs_jax.inference import Network, make_batches, upsample, upsampled_argmax
from sazs_jax.models.sazs import SAZS, cosine_logits
from sazs_jax.segmentation import Eigensegments, ImageEmbedding, Segmentation, canvas_of
from sazs_jax.spectral.eigen import Eigenvectors
from sazs_jax.spectral.eigensegmenter import Eigensegmenter
from sazs_jax.spectral.features import to_grid
from sazs_jax.spectral.fusion import RULES, WITHOUT_EIGENVECTORS, FusionSettings, fuse
from sazs_jax.spectral.segments import soft_segments
from sazs_jax.text import AnchorTable, TextTower, check_compatible, find_name, open_text, text_source
from sazs_jax.training.checkpoints import restore_model

OTHERS = "others"


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
        fusion: str = "none",
        spectral: ConfigDict | None = None,
        calibration: Calibration | None = None,
        resize: int = 0,
        batch_size: int = 8,
    ):
        """Put the network on the devices.

        Args:
          model: the network.
          anchors: embeddings (D,) of the words known beforehand, "others" among them where it serves as background.
          text: opens the source of all other words; called when the first such word is asked for; may raise UserError.
          fusion: rule that combines the network's logits with eigensegments, one of `spectral.fusion.RULES`.
          spectral: the `spectral` group of a config; needed by every rule but none, and by `eigensegments`.
          calibration: helps words that training did not know against those that it did.
          resize: 0, the image's own size, or the side that it is squashed to for the network.
          batch_size: most images a pass.

        Raises:
          UserError: an unknown rule, or features of eigensegments that cannot be had.
        """
        if fusion not in RULES:
            raise UserError(f"the fusion rule {fusion!r} is unknown; choose one of {', '.join(RULES)}")
        if spectral is None and fusion != "none":
            raise ValueError(f"the fusion rule {fusion!r} needs the settings of `spectral`")
        self._fusion = fusion
        self._spectral = spectral
        self._calibration = calibration
        self._settings = FusionSettings.of_config(spectral) if spectral is not None else None
        self._opened: Eigensegmenter | None = None
        if fusion not in WITHOUT_EIGENVECTORS:
            self._eigensegmenter()  # tell at once what is lacking
        self._network = Network(model)
        self._anchors = {word: np.asarray(row, np.float32) for word, row in anchors.items()}
        self._open_text = text
        self._text: AnchorTable | TextTower | None = None
        self._resize = resize
        self._batch_size = batch_size

    @classmethod
    def from_workdir(
        cls,
        workdir: str | os.PathLike,
        *,
        text: str | os.PathLike | None = None,
        fusion: str | None = None,
        features: str | None = None,
        calibrated: bool = True,
        batch_size: int = 8,
    ) -> "Segmenter":
        """The best checkpoint of a run.

        Args:
          workdir: as given to train.py.
          text: an anchor table (.npz) or a CLIP text tower (directory or hub id), for words that the run was not
            trained with; by default the run's own.
          fusion: rule that combines prediction and eigensegments; by default the run's `eval.fusion`.
          features: what eigensegments are made of; by default the run's `spectral.features`.
          calibrated: use the constant for untrained words, where the run has one (`python -m experiments calibration`).
          batch_size: most images a pass.

        Raises:
          UserError: there is no checkpoint; as the constructor.
        """
        config, model, stored, _ = restore_model(workdir)
        config.spectral.cache = ""  # it keeps an evaluation's images, not a person's photographs
        if features is not None:
            config.spectral.features = features

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
        return cls(
            model,
            anchors,
            source,
            fusion=config.eval.fusion if fusion is None else fusion,
            spectral=config.spectral,
            calibration=Calibration.load(workdir) if calibrated else None,
            resize=config.eval.resize,
            batch_size=batch_size,
        )

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
        """Pass images of any sizes through the network, in batches; decompose them where the fusion rule asks for it.

        Raises:
          UserError: a file is no readable image, or the network does not take images squashed to `resize`.
        """
        items = [(i, as_rgb(image)) for i, image in enumerate(images)]
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
            eigen = None
            if self._fusion not in WITHOUT_EIGENVECTORS:
                eigen = self._decompose(batch.pixels, embeddings)
            for row, (i, image) in enumerate(batch.items):
                own = None if eigen is None else jax.tree.map(lambda x, row=row: x[row : row + 1], eigen)
                found[i] = ImageEmbedding(embeddings[row], image.shape[:2], batch.pixels[row], own)
        return [found[i] for i in range(len(items))]

    def eigensegments(self, image: ImageLike | ImageEmbedding) -> Eigensegments:
        """The first `spectral.num_segments` eigensegments of an image.

        Raises:
          UserError: a broken image, or features that cannot be had.
        """
        known = image if isinstance(image, ImageEmbedding) else self.embed([image])[0]
        eigen = self._eigen(known)
        assert self._settings is not None
        height, width = known.size
        sizes = np.array([[height, width]], np.int32)
        soft = _soft_segments(eigen, self._settings.num_segments, sizes, canvas_of(known.size))
        soft = np.asarray(soft)[0, :height, :width]
        values = np.asarray(eigen.values)[0, : self._settings.num_segments]
        return Eigensegments(soft > 0, soft, values)

    def _eigen(self, image: ImageEmbedding) -> Eigenvectors:
        if image.eigen is not None:
            return image.eigen
        return self._decompose(image.pixels[None], image.embeddings[None])

    def _eigensegmenter(self) -> Eigensegmenter:
        if self._opened is None:
            if self._spectral is None:
                raise ValueError("eigensegments need the settings of `spectral`")
            self._opened = Eigensegmenter(self._spectral)
        return self._opened

    def _decompose(self, pixels: UInt8[np.ndarray, "B H W 3"], embeddings: Float[Array, "B h w D"]) -> Eigenvectors:
        segmenter = self._eigensegmenter()
        coarse = to_grid(embeddings, segmenter.grid) if segmenter.takes_embeddings else None
        return segmenter(self._network.put(pixels), coarse)

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
        threshold = None if background in (OTHERS, None) else float(background)
        scores, winner, confidence = jax.device_get(
            _winners(
                image.embeddings[None],
                anchors,
                None if self._fusion in WITHOUT_EIGENVECTORS else self._eigen(image),
                image.pixels[None],
                threshold,
                self._calibration.constants(labels) if self._calibration else None,
                sizes,
                rule=self._fusion,
                settings=self._settings,
                background=background is not None,
                canvas=canvas_of(image.size),
            )
        )
        label_map = winner[0, :height, :width].astype(np.int32)
        if background is None:
            label_map = label_map + 1
        own_scores = scores[0, ..., len(anchors) - len(labels) :]
        return Segmentation(label_map, labels, confidence[0, :height, :width], own_scores)


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


@partial(jax.jit, static_argnames=("rule", "settings", "background", "canvas"))
def _winners(embeddings, anchors, eigen, images, threshold, constants, sizes, *, rule, settings, background, canvas):
    """Cosines with the anchors, the index of the winner, and its cosine; a threshold comes as a label before all."""
    scores = cosine_logits(embeddings, anchors)
    logits = scores
    if threshold is not None:
        logits = jnp.concatenate([jnp.full_like(scores[..., :1], threshold), scores], axis=-1)
    values = logits
    if constants is not None:
        logits = calibrate(logits, constants, background=background)
    if rule != "none":
        logits = fuse(rule, logits, eigen, images, settings, background=background)
    winner, confidence = upsampled_argmax(logits, sizes, canvas, values)
    if threshold is not None:
        _, best = upsampled_argmax(scores, sizes, canvas)
        confidence = jnp.where(winner == 0, best, confidence)
    return scores, winner, confidence


@partial(jax.jit, static_argnames=("count", "canvas"))
def _soft_segments(eigen, count, sizes, canvas):
    side = round(eigen.degrees.shape[1] ** 0.5)
    return upsample(soft_segments(eigen, (side, side), count), sizes, canvas)
