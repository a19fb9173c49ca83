"""Words outside the training vocabulary against those inside it."""

import jax.numpy as jnp
import numpy as np
import pytest

from sazs_jax.calibration import Calibration, calibrate
from sazs_jax.errors import UserError
from sazs_jax.segmenter import Segmenter
from tests.test_segmenter import STORED, Text
from tests.tiny_network import TinyNetwork

RNG = np.random.default_rng(3)
COSINES = jnp.asarray(RNG.uniform(-1, 1, (2, 5, 6, 4)), jnp.float32)


def test_a_trained_word_keeps_its_cosine_under_either_name():
    calibration = Calibration(0.25, ("aeroplane", "cat"))
    np.testing.assert_array_equal(
        calibration.constants(["airplane", "cat", "zebra", "aeroplane"]), np.array([0, 0, 0.25, 0])
    )


@pytest.mark.parametrize("constants", [[0.3, 0.0, 0.3], [0.3, 0.3, 0.3]])
def test_background_stays_where_it_was_and_words_compete_with_their_constants(constants):
    raw, found = np.asarray(COSINES), np.asarray(calibrate(COSINES, jnp.array(constants)))
    np.testing.assert_array_equal(found.argmax(-1) == 0, raw.argmax(-1) == 0)
    words = 1 + (raw[..., 1:] + constants).argmax(-1)
    np.testing.assert_array_equal(found.argmax(-1), np.where(raw.argmax(-1) == 0, 0, words))
    assert (found.argmax(-1) == raw.argmax(-1)).all() == (len(set(constants)) == 1)


def test_without_background_every_pixel_is_a_words():
    found = calibrate(COSINES, jnp.array([0.0, 0.0, 0.5, 0.0]), background=False)
    np.testing.assert_allclose(found, COSINES + np.array([0, 0, 0.5, 0]), atol=1e-6)


def test_file_of_a_work_directory(tmp_path):
    assert Calibration.load(tmp_path) is None
    Calibration(0.15, ("cat", "dog")).save(tmp_path)
    assert Calibration.load(tmp_path) == Calibration(0.15, ("cat", "dog"))
    damaged = ('{"constant": 0.1', '{"constant": NaN, "trained": []}', '{"constant": -1, "trained": []}')
    for text in damaged:
        (tmp_path / "calibration.json").write_text(text)
        with pytest.raises(UserError, match=r"calibration.json is damaged .* python -m experiments calibration"):
            Calibration.load(tmp_path)


@pytest.mark.parametrize("background", ["others", 0.2, None])
def test_an_untrained_word_wins_pixels_from_trained_ones_alone(background):
    """Of "sofa" (untrained) and "cat": more sofa, no pixel of background lost or gained; confidence stays a cosine."""
    image = np.kron(RNG.integers(0, 256, (3, 4, 3), dtype=np.uint8), np.ones((32, 32, 1), np.uint8))
    plain = Segmenter(TinyNetwork(seed=2), STORED, Text())
    helped = Segmenter(TinyNetwork(seed=2), STORED, Text(), calibration=Calibration(0.2, ("cat", "tv")))
    raw, found = (segmenter.segment(image, ["sofa", "cat"], background) for segmenter in (plain, helped))
    sofa = found.label_map == 1
    assert sofa.sum() > (raw.label_map == 1).sum()
    assert ((raw.label_map == 0) != (found.label_map == 0)).mean() < 0.02  # between cells, where logits are upsampled
    assert np.abs(found.confidence).max() <= 1
    np.testing.assert_allclose(found.scores, raw.scores)
    raw, found = (segmenter.segment(image, ["sofa", "zebra"], background) for segmenter in (plain, helped))
    np.testing.assert_array_equal(found.label_map, raw.label_map)
