"""Paired differences whose value and interval are known by hand."""

import numpy as np
import pytest

from experiments.bootstrap import MEASURES, differences, mean_over_runs, summary
from sazs_jax.evaluation.evaluator import Episode
from sazs_jax.evaluation.metrics import EpisodeScores

AREA = 200  # pixels of every image


def episode(image: int, category: int, rule: str, both: int, either: int, outline=(0, 0, 0, 0), weight=1) -> Episode:
    overlap = np.array([both, either, AREA - either, AREA - both])
    return Episode(f"image{image:03}", category, weight, rule, np.zeros((0, 0), bool), overlap, np.array(outline))


def found(episodes, measure: str, rule: str = "iou", min_pairs: int = 1) -> dict:
    return summary(differences(episodes, min_pairs)[rule][:, MEASURES.index(measure)])


def random_episodes(rng: np.random.Generator) -> list[Episode]:
    episodes = []
    for image in range(12):
        for category in (3, 7, 8)[: 1 + image % 3]:
            weight = int(rng.integers(1, 4))
            for rule in ("none", "iou"):
                both = int(rng.integers(0, 60))
                hits = rng.integers(0, 9, 2)
                outline = (hits[0], 9, hits[1], 9) if image else (0, 0, 0, 0)
                episodes.append(episode(image, category, rule, both, 60 + int(rng.integers(9)), outline, weight))
    return episodes


def test_values_are_those_of_evaluation_and_the_others_are_differences():
    episodes = random_episodes(np.random.default_rng(0))
    values = {}
    for rule in ("none", "iou"):
        scores = EpisodeScores(20, min_pairs=5)
        for e in episodes:
            if e.rule == rule:
                scores.add(e.category, e.weight, e.overlap, e.outline)
        values[rule] = scores.result((3, 7, 8), [str(c) for c in range(20)])
    for measure in MEASURES:
        none = values["none"][measure]
        assert found(episodes, measure, "none", 5)["value"] == pytest.approx(none)
        assert found(episodes, measure, "iou", 5)["value"] == pytest.approx(values["iou"][measure] - none)


def test_by_hand():
    # Class 0: (10 + 30) / (100 + 100) = .2 against (20 + 60) / 200 = .4. Class 1: 50 / 100 against 40 / 100.
    pairs = {(0, 0): (10, 20), (1, 0): (30, 60), (1, 1): (50, 40)}
    episodes = [
        episode(image, category, rule, both, 100)
        for (image, category), counts in pairs.items()
        for rule, both in zip(("none", "iou"), counts, strict=True)
    ]
    assert found(episodes, "miou_min_pairs", "none")["value"] == pytest.approx((0.2 + 0.5) / 2)
    assert found(episodes, "miou_min_pairs")["value"] == pytest.approx((0.2 - 0.1) / 2)
    assert found(episodes, "miou_min_pairs", min_pairs=2)["value"] == pytest.approx(0.2)
    # Foreground 90 / 300 against 120 / 300; background 300 / 510 against 300 / 480.
    assert found(episodes, "fbiou")["value"] == pytest.approx((30 / 300 + 300 / 480 - 300 / 510) / 2)
    assert found(episodes, "boundary_f") == {"value": None, "low": None, "high": None}  # no outline anywhere
    assert found(episodes, "miou_min_pairs", min_pairs=3) == {"value": None, "low": None, "high": None}


def test_a_gain_that_is_the_same_on_each_image_has_no_spread():
    rng = np.random.default_rng(0)
    episodes = []
    for image in range(40):
        both = int(rng.integers(0, 80))  # images differ much; the rule gains 10 of 100 pixels on each
        episodes += [episode(image, 0, "none", both, 100), episode(image, 0, "iou", both + 10, 100)]
    gain, none = found(episodes, "miou_min_pairs"), found(episodes, "miou_min_pairs", "none")
    assert [gain[key] for key in ("low", "value", "high")] == pytest.approx([0.1] * 3)
    assert none["high"] - none["low"] > 0.1


@pytest.mark.parametrize("classes", [1, 2])
def test_the_interval_is_that_of_a_mean_over_images(classes):
    """A gain of 1 on every second image of 100: its mean's standard error is .05, however many pairs an image has."""
    episodes = [
        episode(image, category, rule, 100 * (rule == "iou") * (image % 2), 100)
        for image in range(100)
        for category in range(classes)
        for rule in ("none", "iou")
    ]
    gain = found(episodes, "miou_min_pairs")
    assert gain["value"] == pytest.approx(0.5)
    assert gain["low"] == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)
    assert gain["high"] == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)


def test_the_mean_over_runs_is_that_of_their_samples():
    runs = []
    for number, images in enumerate((100, 101)):  # other images, drawn apart
        episodes = [
            episode(image, 0, rule, 100 * (rule == "iou") * ((image + number) % 2), 100)
            for image in range(images)
            for rule in ("none", "iou")
        ]
        runs.append(differences(episodes, 1))
    gain: dict = summary(mean_over_runs(runs)["iou"][:, 0])
    assert gain["value"] == pytest.approx((0.5 + 51 / 101) / 2)
    assert gain["high"] - gain["low"] == pytest.approx(2 * 1.96 * 0.05 / 2**0.5, abs=0.02)
