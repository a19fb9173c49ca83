"""Scores a network on labelled images: episodes {others, class} and the generalised setting, in one pass."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from sazs_jax.calibration import calibrate
from sazs_jax.errors import UserError
from sazs_jax.evaluation.episodes import LabelledImage
from sazs_jax.evaluation.masks import ORACLE, episode_masks, oracle_masks
from sazs_jax.evaluation.metrics import (
    VOID,
    EpisodeScores,
    close_void,
    confusion_matrix,
    generalized_scores,
    outline_counts,
    overlap_counts,
)
from sazs_jax.inference import Batch, Network, make_batches, upsampled_argmax
from sazs_jax.models.sazs import SAZS
from sazs_jax.rowwise import run_by_rows
from sazs_jax.spectral.eigensegmenter import Eigensegmenter
from sazs_jax.spectral.fusion import RULES, fuse

_PARTS = ("network", "eigensegments", "scoring")  # of the time that a batch takes


@dataclass(frozen=True)
class _Truth:
    """What a batch is compared with; rows that are padding are void."""

    labels: UInt8[np.ndarray, "B H W"]
    closed_labels: UInt8[np.ndarray, "B H W"]  # after `close_void`
    classes: Int[np.ndarray, "B E"]  # 0-based, of each image's episodes; the rest are 0 and not read


class _Counts(NamedTuple):
    masks: Bool[np.ndarray, "B H W R E"] | None  # where they are recorded
    overlap: Int[np.ndarray, "B R E 4"]
    outline: Int[np.ndarray, "B R E 4"] | None
    pixels: Int[np.ndarray, "B R K K"] | None


class _Timing:
    """Seconds that each of _PARTS took, in batches that were waited for and whose programs were compiled before."""

    def __init__(self):
        self._seconds, self._images = np.zeros(len(_PARTS)), 0

    def add(self, seconds: Float[np.ndarray, "P"], images: int) -> None:
        self._seconds += seconds
        self._images += images

    def per_image(self) -> dict[str, float]:
        """Of each part; nothing if no batch was timed."""
        return dict(zip(_PARTS, (self._seconds / self._images).tolist(), strict=True)) if self._images else {}


class Episode(NamedTuple):
    """One pair under one rule."""

    image_id: str
    category: int  # 0-based class
    weight: int  # how often the pair counts
    rule: str
    mask: Bool[np.ndarray, "H W"]  # predicted, at the image's own size
    overlap: Int[np.ndarray, "4"]  # see `metrics.overlap_counts`
    outline: Int[np.ndarray, "4"] | None  # see `metrics.outline_counts`


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
        min_pixels: int = 150_000,
        boundary: bool = True,
        generalized: bool = True,
        constants: Float[np.ndarray, "C"] | None = None,
        eigensegmenter: Eigensegmenter | None = None,
    ):
        """Settings that all runs share.

        Args:
          class_names: the C names of the data set.
          classes: 0-based classes whose episodes are scored; the unseen ones in the generalised setting.
          anchors: "others", then one row a name (K = C + 1).
          resize: 0, the image's own size, or the side that it is squashed to for the network.
          batch_size: images a pass.
          min_pairs: fewest pairs of a class that counts in `miou_min_pairs`.
          min_pixels: fewest labelled pixels of a class that counts in the second means of the generalised setting.
          boundary: also compute `boundary_f`.
          generalized: also score all classes at once.
          constants: of the names, see `calibration.calibrate`; the generalised setting is then scored with them too.
          eigensegmenter: with it every fusion rule is scored beside the network's own prediction, and the oracle.

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
        self.min_pixels = min_pixels
        self.boundary = boundary
        self.generalized = generalized
        self.constants = None if constants is None else np.asarray(constants, np.float32)
        self.rules = ("none",) if eigensegmenter is None else (*RULES, ORACLE)
        self._eigensegmenter = eigensegmenter
        self._compiled: set[tuple] = set()
        # The devices of a CPU share threads: two batches at once could wait for each other.
        self._waits = jax.default_backend() == "cpu"

    def run(
        self,
        model: SAZS,
        images: Iterable[LabelledImage],
        *,
        record: Callable[[Episode], None] | None = None,
    ) -> dict:
        """Score `model` on `images`, each read once, in any order.

        Args:
          model: the network.
          images: with their episodes.
          record: called with every episode under every rule.

        Returns:
          {"episodes": how many were scored, repeats included, "fusion": {rule: scores}, "generalized": {rule: scores},
          "seconds_per_image": {"network": from pixels to logits, "eigensegments": from pixels to eigenvectors,
          "scoring": fusion and counts, all on the device, in batches whose programs were compiled before (absent if
          there were none; on a CPU all of them, else the first of each program), "total": reading, compilation and
          all}}. Rules: "none" alone, or with an eigensegmenter every rule of `fusion.RULES`, and for episodes "oracle".
          In "generalized" the rule none is called "raw"; with
          constants there is also "calibrated", the rule none with them, and the other rules have them too.
          "boundary_f" and "generalized" are there if they were asked for. Fractions; see `metrics` for how they are
          summed.

        Raises:
          UserError: the network does not take images squashed to `resize`.
        """
        network = Network(model)
        scores = {rule: EpisodeScores(len(self.class_names), self.min_pairs) for rule in self.rules}
        confusion = np.zeros((len(self._settings()), len(self.anchors), len(self.anchors)), np.int64)
        episodes, num_images, timing = 0, 0, _Timing()
        start = time.perf_counter()
        for batch, counts in self._counted(network, images, timing, masks=record is not None):
            num_images += len(batch.items)
            confusion += counts.pixels.sum(axis=0) if counts.pixels is not None else 0
            for row, item in enumerate(batch.items):
                height, width = item.label.shape
                for column, (category, weight) in enumerate(item.episodes.items()):
                    episodes += weight
                    for number, rule in enumerate(self.rules):
                        overlap = counts.overlap[row, number, column]
                        outline = counts.outline[row, number, column] if counts.outline is not None else None
                        scores[rule].add(category, weight, overlap, outline)
                        if record and counts.masks is not None:
                            mask = counts.masks[row, :height, :width, number, column]
                            record(Episode(item.image_id, category, weight, rule, mask, overlap, outline))

        fusion = {rule: found.result(self.classes, self.class_names) for rule, found in scores.items()}
        if not self.boundary:
            for found in fusion.values():
                del found["boundary_f"]
        result = {"episodes": episodes, "fusion": fusion}
        if self.generalized:
            result["generalized"] = {
                name: generalized_scores(pixels, self.classes, self.class_names, self.min_pixels)
                for name, pixels in zip(self._settings(), confusion, strict=True)
            }
        seconds = {"total": (time.perf_counter() - start) / max(num_images, 1)}
        parts = timing.per_image()
        if not self._eigensegmenter:
            parts.pop("eigensegments", None)
        return {**result, "seconds_per_image": {**parts, **seconds}}

    def _settings(self) -> dict[str, tuple[str, bool]]:
        """What is scored in the generalised setting: its name, the rule, and whether with the constants."""
        calibrated = self.constants is not None
        rules = {rule: (rule, calibrated) for rule in self.rules if rule not in ("none", ORACLE)}
        return {"raw": ("none", False), **({"calibrated": ("none", True)} if calibrated else {}), **rules}

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

    def _counted(
        self, network: Network, images: Iterable[LabelledImage], timing: _Timing, *, masks: bool
    ) -> Iterator[tuple[Batch, _Counts]]:
        """Batches and what they add to the sums, fetched when the next batch is on its way to the device."""
        timed = set()
        behind: list[tuple[Batch, Any]] = []  # at most one, whose counts are still on the device

        def fetched() -> Iterator[tuple[Batch, _Counts]]:
            for batch, counts in behind:
                yield batch, _Counts(*jax.device_get(counts))
            behind.clear()

        for batch, truth in _ahead(self._prepare(images, network.size_multiple)):
            program = (batch.pixels.shape, truth.labels.shape, truth.classes.shape)
            is_warm = program in self._compiled
            waits = self._waits or (is_warm and program not in timed)
            if waits:  # the device has nothing else to do then
                yield from fetched()
            counts, seconds = self._count(network, batch, truth, waits=waits, masks=masks)
            if is_warm and waits:
                timing.add(seconds, len(batch.items))
                timed.add(program)
            self._compiled.add(program)
            yield from fetched()
            behind.append((batch, counts))
        yield from fetched()

    def _count(
        self, network: Network, batch: Batch, truth: _Truth, *, waits: bool, masks: bool
    ) -> tuple[Any, Float[np.ndarray, "P"]]:
        """The fields of `_Counts`, on the device, and the seconds that each of _PARTS took, where it waits for them."""
        times = [time.perf_counter()]

        def done(value):
            if waits:
                jax.block_until_ready(value)
            times.append(time.perf_counter())
            return value

        segmenter = self._eigensegmenter
        grid = segmenter.grid if segmenter and segmenter.takes_embeddings else 0
        logits, coarse = done(network.cosine_on_grid(batch.pixels, self.anchors, grid))
        images = network.put(batch.pixels)
        eigen = done(segmenter(images, coarse) if segmenter else None)
        settings = segmenter.settings if segmenter else None
        sizes, labels, classes = (network.put(x) for x in (batch.sizes, truth.labels, truth.classes))
        closed = network.put(truth.closed_labels) if self.boundary else None
        rows = (logits, eigen, images, sizes, labels)
        found, overlap, outline = run_by_rows(
            _count_episodes, None, (*rows, classes, closed), rules=self.rules, settings=settings
        )
        pixels = None
        if self.generalized:
            ways = tuple(self._settings().values())
            pixels = run_by_rows(_count_pixels, self.constants, rows, ways=ways, settings=settings)
        counts = done((found if masks else None, overlap, outline, pixels))
        return counts, np.diff(times)


def _ahead(prepared: Iterator) -> Iterator:
    """The same items, the next one made in a thread while this one is used."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, prepared, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, prepared, None)
            yield item


def _count_episodes(_, rows, *, rules, settings):
    """Masks (B, H, W, R, E) of every rule, the oracle last where it is asked for, and their counts (B, R, E, 4)."""
    logits, eigen, images, sizes, labels, classes, closed_labels = rows
    canvas = labels.shape[1:]
    masks = [
        episode_masks(rule, logits, eigen, images, settings, classes, sizes, canvas) for rule in rules if rule != ORACLE
    ]
    if ORACLE in rules:
        masks.append(oracle_masks(masks[0], eigen, settings.num_segments, labels, classes, sizes))
    joined = jnp.concatenate(masks, axis=-1)  # (B, H, W, R * E)
    repeated = jnp.tile(classes, (1, len(rules)))

    def by_rule(counts):
        return counts.reshape(len(classes), len(rules), -1, 4)

    overlap = by_rule(overlap_counts(joined, labels, repeated))
    outline = None
    if closed_labels is not None:
        outline = by_rule(outline_counts(joined, closed_labels, repeated, sizes))
    return joined.reshape(*joined.shape[:3], len(rules), -1), overlap, outline


def _count_pixels(constants, rows, *, ways, settings):
    """A confusion matrix (B, R, K, K) an image and way, a rule with or without constants: all labels at once."""
    logits, eigen, images, sizes, labels = rows
    count = jax.vmap(lambda label, prediction: confusion_matrix(label[None], prediction[None], logits.shape[-1]))
    found = []
    for rule, calibrated in ways:
        fused = calibrate(logits, constants) if calibrated else logits
        if rule != "none":
            fused = fuse(rule, fused, eigen, images, settings)
        prediction, _ = upsampled_argmax(fused, sizes, labels.shape[1:])
        found.append(count(labels, prediction))
    return jnp.stack(found, axis=1)
