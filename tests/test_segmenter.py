"""Words in, masks out, against the stand-in network repeated in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import defaults
from sazs_jax.errors import UserError
from sazs_jax.models.sazs import cosine_logits
from sazs_jax.segmenter import Segmenter
from sazs_jax.spectral.eigensegmenter import Eigensegmenter
from sazs_jax.spectral.features import to_grid
from sazs_jax.spectral.fusion import FusionSettings, fuse
from sazs_jax.text import AnchorTable
from tests.tiny_network import TinyNetwork, numpy_bilinear

RNG = np.random.default_rng(0)
WORDS = {word: RNG.normal(size=6).astype(np.float32) for word in ("others", "cat", "sofa", "tv", "zebra")}
STORED = {word: WORDS[word] for word in ("others", "cat", "tv")}


class Text:
    """Opens a table and counts how often it is opened and what it is asked."""

    def __init__(self):
        self.opened = 0
        self.asked = []

    def __call__(self):
        self.opened += 1
        table = AnchorTable(list(WORDS), np.stack(list(WORDS.values())), path="words.npz")
        embed = table.embed
        table.embed = lambda names: (self.asked.extend(names), embed(names))[1]
        return table


def no_text():
    raise UserError("there is none")


@pytest.fixture(scope="module")
def model():
    return TinyNetwork(seed=2)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in [(32, 48), (20, 41), (48, 32), (32, 48)]]


def numpy_scores(model, image, words):
    height, width = image.shape[:2]
    h, w = (max(1, int(side / 16 + 0.5)) * 16 for side in (height, width))
    pixels = np.array(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))
    return numpy_bilinear(model.numpy_cosine(pixels, np.stack([WORDS[word] for word in words])), height, width)


@pytest.mark.parametrize("background", ["others", 0.2, None])
def test_label_map_scores_and_legend(model, images, background):
    labels = ["sofa", "cat"]
    result = Segmenter(model, STORED, Text()).segment(images[1], labels, background)
    scores = numpy_scores(model, images[1], labels)
    best = scores.max(axis=-1)
    expected = scores.argmax(axis=-1) + 1
    if background == "others":
        others = numpy_scores(model, images[1], ["others"])[..., 0]
        expected[others >= best] = 0
        best = np.maximum(best, others)
    elif background is not None:
        expected[best <= background] = 0
        assert (expected == 0).any()
    np.testing.assert_array_equal(result.label_map, expected)
    assert result.label_map.dtype == np.int32
    np.testing.assert_allclose(result.scores, scores, atol=1e-5)
    np.testing.assert_allclose(result.confidence, best, atol=1e-5)
    assert np.abs(result.scores).max() <= 1
    assert result.legend == {1: "sofa", 2: "cat"}
    summary = result.summary()["labels"]["cat"]
    assert summary["pixels"] == (expected == 2).sum()
    assert summary["fraction"] == pytest.approx((expected == 2).mean())
    assert summary["mean_score"] == pytest.approx(scores[..., 1][expected == 2].mean(), abs=1e-5)


def test_a_list_of_sizes_keeps_its_order_and_equals_one_by_one(model, images, tmp_path):
    segmenter = Segmenter(model, STORED, Text(), batch_size=2)
    path = tmp_path / "image.png"
    Image.fromarray(images[1]).save(path)
    together = segmenter.segment([images[0], path, Image.fromarray(images[2]), str(path), images[3]], ["cat", "sofa"])
    for result, i in zip(together, (0, 1, 2, 1, 3), strict=True):
        np.testing.assert_array_equal(result.label_map, segmenter.segment(images[i], ["cat", "sofa"]).label_map)


def test_an_image_is_embedded_once_for_many_questions(model, images):
    segmenter = Segmenter(model, STORED, Text())
    (embedding,) = segmenter.embed([images[0]])
    for words in (["cat"], ["sofa", "zebra"]):
        np.testing.assert_array_equal(
            segmenter.segment(embedding, words).label_map, segmenter.segment(images[0], words).label_map
        )


def test_words_are_embedded_once_and_only_when_needed(model, images):
    text = Text()
    segmenter = Segmenter(model, STORED, text)
    segmenter.segment(images[0], ["cat", "tvmonitor"])  # stored, the second under its common name
    assert text.opened == 0
    for _ in range(2):
        segmenter.segment(images[0], ["cat", "sofa", "zebra"])
    assert text.opened == 1
    assert text.asked == ["sofa", "zebra"]


def test_unknown_words_are_named(model, images):
    with pytest.raises(UserError, match=r"'sofa', 'zebra'.*there is none"):
        Segmenter(model, STORED, no_text).segment(images[0], ["cat", "sofa", "zebra"])
    with pytest.raises(UserError, match=r"'unicorn'"):
        Segmenter(model, STORED, Text()).segment(images[0], ["cat", "unicorn"])


@pytest.mark.parametrize(
    ("labels", "background", "message"),
    [
        ([], None, "no labels"),
        (["cat", " "], None, "no empty one"),
        (["cat", "tv", "cat"], "others", "twice: cat"),
        ("cat", "others", "list of words"),
        (["cat"], "sky", "threshold"),
        (["cat"], 1.5, "between -1 and 1"),
        (["others", "cat"], "others", "background=None"),
    ],
)
def test_bad_questions_are_said(model, images, labels, background, message):
    with pytest.raises(UserError, match=message):
        Segmenter(model, STORED, no_text).segment(images[0], labels, background)


def test_bad_images_are_said(model, images, tmp_path):
    segmenter = Segmenter(model, STORED, no_text)
    with pytest.raises(UserError, match=r"no such file"):
        segmenter.segment(tmp_path / "absent.jpg", ["cat"])
    whole = tmp_path / "whole.jpg"
    Image.fromarray(images[0]).save(whole)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(whole.read_bytes()[:400])
    with pytest.raises(UserError, match=r"broken\.jpg"):
        segmenter.segment(broken, ["cat"])
    with pytest.raises(UserError, match="float32"):
        segmenter.segment(images[0].astype(np.float32), ["cat"])
    with pytest.raises(UserError, match="a list"):
        segmenter.segment(np.stack([images[0]]), ["cat"])


@pytest.mark.parametrize("background", ["others", 0.2, None])
@pytest.mark.parametrize("rule", ["iou", "agreement+diffusion"])
def test_fusion_is_the_rule_on_the_cosines(model, images, rule, background):
    """At decoder resolution the winner is the argmax of the rule's logits; the confidence stays a cosine."""
    spectral = defaults.get_config().spectral
    spectral.update({"features": "embeddings", "grid": 8, "iou_threshold": 0.2})
    labels = ["sofa", "cat"]
    words = (["others"] if background == "others" else []) + labels
    segmenter = Segmenter(model, STORED, Text(), fusion=rule, spectral=spectral)
    plain = Segmenter(model, STORED, Text(), spectral=spectral)
    (embedding,) = segmenter.embed([images[0]])
    result = segmenter.segment(embedding, labels, background)

    anchors = np.stack([WORDS[word] for word in words]).astype(np.float32)
    logits = cosine_logits(embedding.embeddings[None], jnp.asarray(anchors))
    if background == 0.2:
        logits = jnp.concatenate([jnp.full_like(logits[..., :1], 0.2), logits], axis=-1)
    eigen = Eigensegmenter(spectral)(images[0][None], to_grid(embedding.embeddings[None], 8))
    settings = FusionSettings.of_config(spectral)
    fused = fuse(rule, logits, eigen, jnp.asarray(images[0])[None], settings, background=background is not None)
    upsampled = numpy_bilinear(np.asarray(fused, np.float64)[0], *images[0].shape[:2])
    expected = upsampled.argmax(axis=-1) + (background is None)
    assert (result.label_map != expected).mean() < 0.005  # rounding where two labels tie
    own = plain.segment(plain.embed([images[0]])[0], labels, background)
    assert (result.label_map != own.label_map).any()
    np.testing.assert_allclose(result.scores, own.scores, atol=1e-6)
    assert np.abs(result.confidence).max() <= 1
    np.testing.assert_array_equal(
        segmenter.segment(plain.embed([images[0]])[0], labels, background).label_map, result.label_map
    )


def test_eigensegments_of_an_image(model, images):
    spectral = defaults.get_config().spectral
    spectral.update({"features": "embeddings", "grid": 8, "num_segments": 3})
    found = Segmenter(model, STORED, Text(), spectral=spectral).eigensegments(images[1])
    assert found.masks.shape == found.soft.shape == (20, 41, 3)
    np.testing.assert_array_equal(found.masks, found.soft > 0)
    assert (np.diff(found.values) >= 0).all()
    assert found.masks.any(axis=(0, 1)).all()


def test_bad_fusion_settings(model):
    with pytest.raises(UserError, match="rule 'oracle' is unknown"):
        Segmenter(model, STORED, Text(), fusion="oracle")
    with pytest.raises(ValueError, match="needs the settings"):
        Segmenter(model, STORED, Text(), fusion="iou")
