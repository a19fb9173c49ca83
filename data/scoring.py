"""What a run is scored on: the unseen classes of its fold, or another data set by class names (paper, Table 2)."""

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from data.datasets import SegmentationData, load
from sazs_jax.errors import UserError
from sazs_jax.evaluation.episodes import count_pairs
from sazs_jax.text import ALIASES

# Classes of one meaning under two names. VOC's sofa is COCO's couch, but CLIP is asked for either as it is written.
SAME_CLASS = ALIASES | {"sofa": "couch", "couch": "sofa"}


@dataclass(frozen=True)
class ScoringSet:
    """The images, classes and pairs of one evaluation. Training was shown nothing of the tested classes."""

    dataset: SegmentationData
    classes: tuple[int, ...]  # 0-based, tested
    pair_lists: list[list[tuple[int, int]]]  # (image index in `val`, class) of each fold, of tested classes alone
    facts: dict[str, Any]  # for the results file: what it was trained on and what is tested

    @property
    def images(self) -> list[int]:
        """Images of all folds' lists, tested or not: the generalised setting looks at all of them."""
        return sorted({image for pairs in self.dataset.val.pair_list.values() for image, _ in pairs})

    def count_pairs(self, protocol: str) -> dict[int, dict[int, int]]:
        """`episodes.count_pairs` of each fold's list, together."""
        counts: dict[int, dict[int, int]] = {}
        for pairs in self.pair_lists:
            for image, classes in count_pairs(pairs, protocol, draw=self.dataset.hsnet_draws).items():
                counts[image] = dict(Counter(counts.get(image, {})) + Counter(classes))
        return counts


def own_fold(config: ConfigDict, root: str | None = None) -> ScoringSet:
    """The unseen classes of a run's own fold.

    Args:
        config: the run's `config.data`.
        root: a folder of the same data set instead of the run's own.

    Raises:
        UserError: nothing is there to score, or anything wrong with the folder.
    """
    dataset = _load(config, config.dataset, root)
    facts = {"fold": config.fold, **({"data_root": root} if root else {})}
    return ScoringSet(dataset, dataset.unseen(config.fold), [dataset.test_pairs(config.fold)], facts)


def other_data_set(config: ConfigDict, name: str, root: str | None = None, *, skip_seen: bool = False) -> ScoringSet:
    """All classes of another data set, none of which training may have seen under this or an equal name.

    Args:
        config: the run's `config.data`.
        name: the data set, as in `data.dataset`.
        root: its folder; without one the official archives are downloaded.
        skip_seen: leave seen classes out rather than refuse.

    Raises:
        UserError: a tested class was seen, nothing is there to score, or anything wrong with the folder.
    """
    trained_on = load(config, splits=())
    seen_names = {trained_on.class_names[c] for c in trained_on.seen(config.fold, config.exclude)}
    dataset = _load(config, name, root)
    names = dataset.class_names
    seen = [c for c in range(len(names)) if is_one_of(names[c], seen_names)]
    tested = tuple(c for c in range(len(names)) if c not in seen)
    if seen and not skip_seen:
        own_spellings = [n for n in trained_on.class_names if n in seen_names and is_one_of(n, names)]
        raise UserError(
            f"{len(seen)} of the {len(names)} classes of {name} were seen in training: "
            f"{', '.join(names[c] for c in seen)}; "
            f'train with --config.data.exclude="{(*config.exclude, *own_spellings)!r}", or score the others alone by '
            "--skip_seen"
        )
    pair_lists = [[pair for pair in pairs if pair[1] in tested] for pairs in dataset.val.pair_list.values()]
    if not any(pair_lists):
        raise UserError(f"nothing of {name} to score: no image is listed with a class that was not seen in training")
    facts = {
        "trained_on": {"dataset": config.dataset, "fold": config.fold, "exclude": list(config.exclude)},
        "dataset": name,
        "tested": [names[c] for c in tested],
        "skipped_as_seen": [names[c] for c in seen],
        **({"data_root": root} if root else {}),
    }
    return ScoringSet(dataset, tested, [pairs for pairs in pair_lists if pairs], facts)


def is_one_of(name: str, known: Container[str]) -> bool:
    """Whether a class is among `known` under its own name or another of the same meaning."""
    return name in known or SAME_CLASS.get(name, name) in known


def _load(config: ConfigDict, name: str, root: str | None) -> SegmentationData:
    if root == "" and name == config.dataset:
        raise UserError("--data_root is empty; give a folder, or leave it out")
    if name == "shapes" and root:
        raise UserError("the images of data.dataset=shapes are drawn; leave the folder out")
    settings = ConfigDict(config.to_dict())
    settings.dataset = name
    if root is not None or name != config.dataset:  # the run's own folder is of its own data set
        settings.root = root or ""
    return load(settings, splits=("val",))
