"""Scores a network on labelled images: episodes {others, class} and the generalised setting, in one pass."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from sazs_jax.errors import UserError
from sazs_jax.evaluation.episodes import LabelledImage
from sazs_jax.evaluation.metrics import (
    VOID,
    EpisodeScores,
    close_void,
    confusion_matrix,
    generalized_scores,
    outline_counts,
    overlap_counts,
)
from sazs_jax.inference import Batch, Network, make_batches, upsample, upsampled_argmax
from sazs_jax.models.sazs import SAZS


@dataclass(frozen=True)
class _Truth:
    """What a batch is compared with; rows that are padding are void."""

    labels: UInt8[np.ndarray, "B H W"]
    closed_labels: UInt8[np.ndarray, "B H W"]  # after `close_void`
    classes: Int[np.ndarray, "B E"]  # 0-based, of each image's episodes; the rest are 0 and not read


class Evaluator:
    """Constructed once; `run` scores one network after another.

    Masks are compared at each image's own size. All episodes of an image come from one pass of the network.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        classes: Sequence[int],
        anchors: Float[np.ndarray, "K D"],
        *,
        resize: int = 0,
        batch_size: int = 8,
        min_pairs: int = 10,
        boundary: bool = True,
        generalized: bool = True,
    ):
        """Settings that all runs share.

        Args:
          class_names: the C names of the data set.
          classes: 0-based classes whose episodes are scored; the unseen ones in the generalised setting.
          anchors: "others", then one row a name (K = C + 1).
          resize: 0, the image's own size, or the side that it is squashed to for the network.
          batch_size: images a pass.
          min_pairs: fewest pairs of a class that counts in `miou_min_pairs`.
          boundary: also compute `boundary_f`.
          generalized: also score all classes at once.

        Raises:
          UserError: a batch without images, a negative side.
        """
        if batch_size < 1 or resize < 0:
            raise UserError(
                f"eval.batch_size={batch_size} and eval.resize={resize}: expected at least 1, and 0 or a side in pixels"
            )
        if len(anchors) != len(class_names) + 1:
            raise ValueError(f"{len(anchors)} anchors for 'others' and {len(class_names)} class names")
        self.class_names = tuple(class_names)
        self.classes = tuple(classes)
        self.anchors = np.asarray(anchors, np.float32)
        self.resize = resize
        self.batch_size = batch_size
        self.min_pairs = min_pairs
        self.boundary = boundary
        self.generalized = generalized
        self._compiled: set[tuple] = set()

    def run(self, model: SAZS, images: Iterable[LabelledImage]) -> dict:
        """Score `model` on `images`, each read once, in any order.

        Returns:
          {"episodes": how many were scored, repeats included, "fusion": {"none": scores}, "generalized": {"raw":
          scores}, "seconds_per_image": {"inference": from pixels to counts on the device, in batches whose program was
          compiled before (absent if there were none), "total": reading, compilation and all}}. "boundary_f" and
          "generalized" are there if they were asked for. Fractions; see `metrics` for how they are summed.
        """
        network = Network(model)
        scores = EpisodeScores(len(self.class_names), self.min_pairs)
        confusion = np.zeros((len(self.anchors), len(self.anchors)), np.int64)
        episodes, num_images, warm_seconds, warm_images = 0, 0, 0.0, 0
        start = time.perf_counter()
        for batch, truth in _ahead(self._prepare(images, network.size_multiple)):
            batch_start = time.perf_counter()
            overlap, outline, pixels = jax.device_get(self._count(network, batch, truth))
            program = (batch.pixels.shape, truth.labels.shape, truth.classes.shape)
            if program in self._compiled:
                warm_seconds += time.perf_counter() - batch_start
                warm_images += len(batch.items)
            self._compiled.add(program)
            num_images += len(batch.items)
            confusion += pixels if pixels is not None else 0
            for row, item in enumerate(batch.items):
                for column, (category, weight) in enumerate(item.episodes.items()):
                    episodes += weight
                    outline_count = outline[row, column] if outline is not None else None
                    scores.add(category, weight, overlap[row, column], outline_count)

        none = scores.result(self.classes, self.class_names)
        if not self.boundary:
            del none["boundary_f"]
        result = {"episodes": episodes, "fusion": {"none": none}}
        if self.generalized:
            result["generalized"] = {"raw": generalized_scores(confusion, self.classes, self.class_names)}
        seconds = {"total": (time.perf_counter() - start) / max(num_images, 1)}
        if warm_images:
            seconds = {"inference": warm_seconds / warm_images, **seconds}
        return {**result, "seconds_per_image": seconds}

    def _prepare(self, images: Iterable[LabelledImage], multiple: int) -> Iterator[tuple[Batch, _Truth]]:
        batches = make_batches(
            images, lambda item: item.image, multiple=multiple, resize=self.resize, batch_size=self.batch_size
        )
        for batch in batches:
            most = max(1, *(len(item.episodes) for item in batch.items), 1)
            columns = 1 << (most - 1).bit_length()  # a power of two, so that few programs compile
            labels = np.full((self.batch_size, *batch.canvas), VOID, np.uint8)
            closed = labels.copy()
            classes = np.zeros((self.batch_size, columns), np.int32)
            for row, item in enumerate(batch.items):
                height, width = item.label.shape
                labels[row, :height, :width] = item.label
                closed[row, :height, :width] = close_void(item.label) if self.boundary else VOID
                classes[row, : len(item.episodes)] = list(item.episodes)
            yield batch, _Truth(labels, closed, classes)

    def _count(self, network: Network, batch: Batch, truth: _Truth):
        """`overlap_counts`, `outline_counts` or None, `confusion_matrix` or None of one batch."""
        logits = network.cosine(batch.pixels, self.anchors)
        sizes, labels, classes = (network.put(x) for x in (batch.sizes, truth.labels, truth.classes))
        closed = network.put(truth.closed_labels) if self.boundary else None
        overlap, outline = _count_episodes(logits, classes, sizes, labels, closed)
        return overlap, outline, _count_pixels(logits, sizes, labels) if self.generalized else None


def _ahead(prepared: Iterator) -> Iterator:
    """The same items, the next one made in a thread while this one is used."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, prepared, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, prepared, None)
            yield item


def episode_masks(
    logits: Float[Array, "B h w K"], classes: Int[Array, "B E"], sizes: Int[Array, "B 2"], canvas: tuple[int, int]
) -> Bool[Array, "B H W E"]:
    """Two-way prediction {others, class} at each image's own size, True where the class wins.

    Args:
      logits: of "others" and every class, at decoder resolution.
      classes: 0-based classes of each image's episodes.
      sizes: own height and width of every image.
      canvas: (H, W), which holds them all.
    """
    columns = jnp.concatenate([jnp.zeros_like(classes[:, :1]), classes + 1], axis=1)  # (B, 1 + E)
    chosen = jnp.take_along_axis(logits, columns[:, None, None, :], axis=-1)  # (B, h, w, 1 + E)
    upsampled = upsample(chosen, sizes, canvas)
    return upsampled[..., 1:] > upsampled[..., :1]


@jax.jit
def _count_episodes(logits, classes, sizes, labels, closed_labels):
    masks = episode_masks(logits, classes, sizes, labels.shape[1:])
    outline = None if closed_labels is None else outline_counts(masks, closed_labels, classes, sizes)
    return overlap_counts(masks, labels, classes), outline


@jax.jit
def _count_pixels(logits, sizes, labels):
    prediction, _ = upsampled_argmax(logits, sizes, labels.shape[1:])
    return confusion_matrix(labels, prediction, logits.shape[-1])
