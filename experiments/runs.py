"""Trained runs, opened for an experiment: scored by the evaluator, and their episodes as pictures."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from ml_collections import ConfigDict

import data
from configs import overrides
from data.datasets import SegmentationData, Split
from data.loading import labelled_images
from sazs_jax.errors import UserError
from sazs_jax.evaluation.episodes import LabelledImage, count_pairs
from sazs_jax.evaluation.evaluator import Episode, Evaluator
from sazs_jax.evaluation.masks import ORACLE
from sazs_jax.evaluation.metrics import VOID, ratio
from sazs_jax.models.sazs import SAZS
from sazs_jax.spectral.eigensegmenter import Eigensegmenter
from sazs_jax.training.checkpoints import StoredAnchors, restore_model


class Picture(NamedTuple):
    """One episode {others, class}, to be shown."""

    image_id: str
    category: int  # 0-based class
    image: UInt8[np.ndarray, "H W 3"]
    truth: UInt8[np.ndarray, "H W"]  # 1 the class, 255 void
    masks: dict[str, Bool[np.ndarray, "H W"]]  # by rule
    iou: dict[str, float | None]


@dataclass(frozen=True)
class Run:
    """The best checkpoint of a run with its data set, under the command line's settings."""

    workdir: str
    config: ConfigDict
    model: SAZS
    anchors: StoredAnchors
    dataset: SegmentationData

    @property
    def name(self) -> str:
        """The work directory's own name."""
        return Path(self.workdir).absolute().name

    @property
    def has_shape(self) -> bool:
        """Whether it was trained with the shape constraint."""
        return self.config.loss.shape_weight > 0 or self.config.loss.bce_weight > 0

    @property
    def withheld(self) -> tuple[int, ...]:
        """0-based classes that training saw nothing of."""
        return self.dataset.withheld(self.config.data.fold, self.config.data.exclude)

    @property
    def rule(self) -> str | None:
        """The label-free rule that the run predicts with; None where it fuses nothing."""
        fuses = self.config.eval.fusion != "none" and self.config.spectral.features
        return self.config.eval.fusion if fuses else None

    def test_images(self) -> Iterable[LabelledImage]:
        """Those of the fold's test pairs, with their episodes."""
        pairs = self.dataset.test_pairs(self.config.data.fold)
        counts = count_pairs(pairs, self.config.eval.protocol, draw=self.dataset.hsnet_draws)
        return labelled_images(self.dataset.val, sorted(counts), counts)

    def score(
        self,
        images: Iterable[LabelledImage],
        classes: Sequence[int],
        *,
        boundary: bool = False,
        record: Callable[[Episode], None] | None = None,
    ) -> dict:
        """`Evaluator.run` on these images under every rule; `classes` are those of the scores."""
        settings = self.config.eval
        evaluator = Evaluator(
            self.dataset.class_names,
            classes,
            self.anchors.embeddings,
            resize=settings.resize,
            batch_size=settings.batch_size,
            min_pairs=settings.min_pairs,
            boundary=boundary,
            generalized=False,
            eigensegmenter=Eigensegmenter(self.config.spectral) if self.config.spectral.features else None,
        )
        return evaluator.run(self.model, images, record=record)

    def pictures(self, split: Split, pairs: Sequence[tuple[int, int]]) -> list[Picture]:
        """These (image index, 0-based class) pairs of a split under every rule, in their order."""
        if not pairs:
            return []
        counts = count_pairs(pairs, "all_pairs")
        images = {i: item for i, item in zip(counts, labelled_images(split, list(counts), counts), strict=True)}
        found: dict[tuple[str, int], list[Episode]] = {}

        def record(episode: Episode) -> None:
            found.setdefault((episode.image_id, episode.category), []).append(episode)

        self.score(images.values(), self.withheld, record=record)
        shown = []
        for i, category in pairs:
            item, episodes = images[i], found[images[i].image_id, category]
            truth = np.where(item.label == VOID, VOID, item.label == category + 1).astype(np.uint8)
            masks = {episode.rule: episode.mask for episode in episodes}
            iou = {episode.rule: episode_iou(episode) for episode in episodes}
            shown.append(Picture(item.image_id, category, item.image, truth, masks, iou))
        return shown


def open_run(workdir: str, splits: Sequence[str] = ("val",)) -> Run:
    """The best checkpoint of a run, the command line's settings applied, and its data.

    Raises:
      UserError: there is no checkpoint, the data set cannot be had, or the run is of other classes than it has.
    """
    config, model, anchors, _ = restore_model(workdir)
    overrides.apply(config)
    dataset = data.load(config.data, splits=splits)
    if anchors.names != ("others", *dataset.class_names):
        raise UserError(f"{workdir} was trained for other classes than those of {config.data.dataset}")
    return Run(workdir, config, model, anchors, dataset)


def distinct_tails(workdirs: Sequence[str]) -> dict[str, str]:
    """By work directory a name, the end of its path, as long as it takes for no two to be alike.

    Raises:
      UserError: one is given twice.
    """
    parts = [Path(workdir).resolve().parts for workdir in workdirs]
    if len(set(parts)) < len(parts):
        raise UserError(f"a run is given twice: {', '.join(workdirs)}; give each --workdir once")
    for length in range(1, max(map(len, parts)) + 1):
        tails = ["-".join(part.strip("/") for part in path[-length:]) for path in parts]
        if len(set(tails)) == len(tails):
            break
    return dict(zip(workdirs, tails, strict=True))


def episode_iou(episode: Episode) -> float | None:
    """IoU of one mask with the truth; None where neither has a pixel."""
    return ratio(*episode.overlap[:2])


def rule_title(rule: str) -> str:
    """A rule's name, with a mark on the one that looks at the ground truth."""
    return f"{ORACLE} (upper bound)" if rule == ORACLE else rule
