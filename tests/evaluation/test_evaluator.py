"""One pass on the device against a slow evaluation in NumPy, episode by episode."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import defaults
from sazs_jax.evaluation import report
from sazs_jax.evaluation.episodes import LabelledImage
from sazs_jax.evaluation.evaluator import Evaluator
from sazs_jax.evaluation.metrics import close_void
from sazs_jax.inference import network_size
from sazs_jax.spectral.eigensegmenter import Eigensegmenter
from sazs_jax.spectral.fusion import RULES
from tests.evaluation.test_metrics import boundary_counts_by_distance, disk
from tests.tiny_network import TinyNetwork, numpy_bilinear

NAMES = ["red", "green", "blue", "grey", "absent"]
CLASSES = [0, 2, 4]


def make_images():
    """Noisy colours with a few shapes, of several sizes, with void; the last one is without episodes."""
    rng = np.random.default_rng(0)
    colours = np.array([[90, 90, 90], [220, 40, 40], [40, 200, 60], [50, 60, 220], [200, 200, 200]])
    episodes = [{0: 1, 2: 3}, {2: 1}, {0: 2}, {2: 1, 0: 1}, {}]
    images = []
    for i, (height, width) in enumerate([(40, 52), (52, 40), (33, 47), (40, 50), (60, 20)]):
        label = np.zeros((height, width), np.uint8)
        for c in (0, 1, 2, 3):
            label[disk(height, width, rng.integers(height), rng.integers(width), rng.integers(6, 14))] = c + 1
        for c in episodes[i]:
            label[disk(height, width, 8 + 6 * c, 9 + 5 * c, 7)] = c + 1
        image = colours[label] + rng.normal(0, 60, (height, width, 3))
        label[disk(height, width, 20, 12, 6)] = 255
        images.append(LabelledImage(str(i), np.clip(image, 0, 255).astype(np.uint8), label, episodes[i]))
    return images


def slow_evaluation(model, anchors, images, resize):
    inter, union = np.zeros(len(NAMES), int), np.zeros(len(NAMES), int)
    back, weights, f_sum = np.zeros(2, int), np.zeros(len(NAMES)), np.zeros(len(NAMES))
    confusion = np.zeros((len(anchors), len(anchors)), int)
    for item in images:
        height, width = item.label.shape
        h, w = network_size((height, width), model.size_multiple, resize)
        pixels = np.array(Image.fromarray(item.image).resize((w, h), Image.Resampling.BILINEAR))
        logits = numpy_bilinear(model.numpy_cosine(pixels, anchors), height, width)
        valid = item.label != 255
        np.add.at(confusion, (item.label[valid], logits.argmax(axis=-1)[valid]), 1)
        for c, weight in item.episodes.items():
            ours, truth = logits[..., c + 1] > logits[..., 0], item.label == c + 1
            inter[c] += weight * (ours & truth & valid).sum()
            union[c] += weight * ((ours | truth) & valid).sum()
            back += weight * np.array([(~ours & ~truth & valid).sum(), ((~ours | ~truth) & valid).sum()])
            hits, all_ours, true_hits, all_true = boundary_counts_by_distance(ours, close_void(item.label), c + 1)
            precision, recall = hits / all_ours, true_hits / all_true
            f_sum[c] += weight * 2 * precision * recall / (precision + recall)
            weights[c] += weight
    iou = {c: inter[c] / union[c] for c in (0, 2)}
    diagonal = np.diag(confusion)
    all_iou = (diagonal / (confusion.sum(0) + confusion.sum(1) - diagonal))[1:]
    seen, unseen = all_iou[[1, 3]].mean(), all_iou[[0, 2]].mean()
    return {
        "miou": np.mean(list(iou.values())),
        "miou_min_pairs": iou[2],
        "fbiou": (inter.sum() / union.sum() + back[0] / back[1]) / 2,
        "boundary_f": np.mean([f_sum[c] / weights[c] for c in (0, 2)]),
        "per_class": {"red": iou[0], "blue": iou[2], "absent": None},
        "generalized": {"seen": seen, "unseen": unseen, "harmonic": 2 * seen * unseen / (seen + unseen)},
    }


@pytest.mark.parametrize("resize", [0, 48])
def test_equals_slow_numpy_evaluation(resize):
    images = make_images()
    images = [*images[:3], LabelledImage("0 again", images[0].image, images[0].label, {2: 1}), *images[3:]]
    model = TinyNetwork(seed=3)
    anchors = np.random.default_rng(5).normal(size=(6, 6)).astype(np.float32)
    evaluator = Evaluator(NAMES, CLASSES, anchors, resize=resize, batch_size=2, min_pairs=4)
    result = evaluator.run(model, iter(images))

    expected = slow_evaluation(model, anchors, images, resize)
    none = result["fusion"]["none"]
    for measure in ("miou", "miou_min_pairs", "fbiou", "boundary_f"):
        assert none[measure] == pytest.approx(expected[measure], abs=1e-9), measure
    assert none["per_class"] == pytest.approx(expected["per_class"], abs=1e-9)
    assert none["pairs"] == {"red": 3, "blue": 4, "absent": 0}
    assert result["episodes"] == 10
    raw = result["generalized"]["raw"]
    assert {key: raw[key] for key in ("seen", "unseen", "harmonic")} == pytest.approx(expected["generalized"], abs=1e-9)
    assert raw["per_class"]["absent"] is None
    assert result["seconds_per_image"]["total"] > 0


@pytest.mark.parametrize("records", [False, True])
def test_not_waiting_for_the_device_changes_no_number(records):
    """As on an accelerator, where a batch is on its way before the counts of the last one are fetched."""
    anchors = np.random.default_rng(5).normal(size=(6, 6)).astype(np.float32)
    images, results, episodes = make_images() * 3, [], []
    for waits in (True, False):
        evaluator = Evaluator(NAMES, CLASSES, anchors, resize=48, batch_size=2)
        evaluator._waits = waits
        seen = []
        results.append(evaluator.run(TinyNetwork(seed=3), images, record=seen.append if records else None))
        episodes.append(seen)
    seconds = [result.pop("seconds_per_image") for result in results]
    assert results[0] == results[1]
    assert set(seconds[0]) == set(seconds[1]) == {"network", "scoring", "total"}
    assert len(episodes[0]) == (18 if records else 0)
    for one, other in zip(*episodes, strict=True):
        assert (one.image_id, one.category) == (other.image_id, other.category)
        np.testing.assert_array_equal(one.mask, other.mask)


def test_network_that_knows_the_truth_scores_one():
    """Anchors at the embeddings of pure colours, images of those colours: every episode is solved."""
    model = TinyNetwork(seed=1)
    label = np.zeros((48, 48), np.uint8)
    label[:, 16:32], label[:, 32:] = 1, 3
    colours = np.array([[20, 20, 20], [250, 10, 10], [0, 0, 0], [10, 10, 250], [9, 9, 9], [8, 8, 8]], np.uint8)
    tiles = np.repeat(np.repeat(colours[:, None, None], 16, axis=1), 16, axis=2)
    anchors = np.asarray(model(jnp.asarray(tiles)).embeddings)[:, 0, 0]
    item = LabelledImage("x", colours[label], label, {0: 1, 2: 1})
    result = Evaluator(NAMES, CLASSES, anchors, batch_size=2, generalized=False).run(model, [item])
    assert "generalized" not in result
    none = result["fusion"]["none"]
    assert none["miou"] > 0.9
    assert none["boundary_f"] == 1.0
    assert none["miou_min_pairs"] is None  # one pair a class is fewer than ten


def test_metrics_alone_for_choosing_checkpoints():
    anchors = np.random.default_rng(5).normal(size=(6, 6)).astype(np.float32)
    evaluator = Evaluator(NAMES, CLASSES, anchors, batch_size=2, boundary=False, generalized=False)
    result = evaluator.run(TinyNetwork(), make_images()[:2])
    assert set(result["fusion"]["none"]) == {"miou", "miou_min_pairs", "fbiou", "per_class", "pairs"}
    assert "generalized" not in result


def test_broken_image_stream_is_not_swallowed():
    def images():
        yield make_images()[0]
        raise OSError("disk gone")

    anchors = np.ones((6, 6), np.float32)
    with pytest.raises(OSError, match="disk gone"):
        Evaluator(NAMES, CLASSES, anchors, batch_size=2).run(TinyNetwork(), images())


def test_report_writes_fractions_and_prints_percent(tmp_path):
    anchors = np.random.default_rng(5).normal(size=(6, 6)).astype(np.float32)
    scores = Evaluator(NAMES, CLASSES, anchors, batch_size=2, min_pixels=9).run(TinyNetwork(), make_images())
    metrics = {"step": 7, "fold": 1, "protocol": "hsnet1000", "resize": 48, "min_pixels": 9, **scores}
    path = tmp_path / "eval" / "metrics.json"
    report.write_metrics(path, metrics)
    read = json.loads(path.read_text())
    assert read == metrics
    assert read["fusion"]["none"]["per_class"]["absent"] is None
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]
    table = report.table(metrics)
    assert f"{100 * metrics['fusion']['none']['miou']:.1f}" in table
    assert "48x48" in table
    assert "those of 9 pixels or more" in table
    assert "hsnet1000" in table
    scarce = {**metrics["generalized"]["raw"], "min_pixels": dict.fromkeys(("seen", "unseen", "harmonic"))}
    assert "pixels or more" not in report.table({**metrics, "generalized": {"raw": scarce}})
    oracle = {**metrics, "fusion": {**metrics["fusion"], "oracle": metrics["fusion"]["none"]}}
    assert "oracle (upper bound)" in report.table(oracle)


def test_every_rule_in_one_pass():
    """The network's own scores stay what they are; the oracle is never worse on an episode; eigensegments vary."""
    anchors = np.random.default_rng(5).normal(size=(6, 6)).astype(np.float32)
    config = defaults.get_config().spectral
    config.update({"features": "embeddings", "grid": 10, "solver": "subspace", "color_weight": 1.0})
    alone = Evaluator(NAMES, CLASSES, anchors, batch_size=2, min_pairs=1).run(TinyNetwork(), make_images())
    episodes = []
    evaluator = Evaluator(NAMES, CLASSES, anchors, batch_size=2, min_pairs=1, eigensegmenter=Eigensegmenter(config))
    together = evaluator.run(TinyNetwork(), make_images(), record=episodes.append)

    assert together["fusion"]["none"] == alone["fusion"]["none"]
    assert together["generalized"]["raw"] == alone["generalized"]["raw"]
    assert list(together["fusion"]) == [*RULES, "oracle"]
    by_rule = {rule: [e for e in episodes if e.rule == rule] for rule in together["fusion"]}
    assert {len(found) for found in by_rule.values()} == {6}
    for own, best in zip(by_rule["none"], by_rule["oracle"], strict=True):
        assert best.overlap[0] / best.overlap[1] >= own.overlap[0] / own.overlap[1]
    labels = {item.image_id: item.label for item in make_images()}
    for found in by_rule.values():
        assert any((a.mask != b.mask).any() for a, b in zip(found, by_rule["none"], strict=True)) == (
            found[0].rule != "none"
        )
        for episode in found:  # what is counted is the mask that is handed out
            label = labels[episode.image_id]
            assert episode.mask.shape == label.shape
            wanted = label == episode.category + 1
            assert episode.overlap[0] == (episode.mask & wanted & (label != 255)).sum()
            assert episode.overlap[1] == ((episode.mask | wanted) & (label != 255)).sum()
