"""The losses as the task forms them: what counts, and what is divided by what, against NumPy (Eq. 2 and 3)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from sazs_jax.errors import UserError
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.models.sazs import DEVICE_AXIS, SAZS, PixelOutput
from sazs_jax.training.segmentation import Segmentation

SIDE = 64  # two by two tiles of 32 samples: a sample is a pixel
ANCHORS = np.eye(2, 4, dtype=np.float32)


class Network(SAZS):
    """Says what it was told."""

    def __init__(self, boundary_logits):
        self.boundary_logits = boundary_logits

    def __call__(self, images, **_):
        return PixelOutput(jnp.ones((len(images), 8, 8, 4)), self.boundary_logits)


class Mean(AffineMLP):
    """Its |theta - I| is the mean of the predicted tile."""

    def __init__(self):
        pass

    def __call__(self, true, predicted):
        shift = jnp.zeros((3, 3)).at[0, 2].set(1.0)
        return jnp.eye(3) + jnp.mean(predicted, axis=(1, 2))[:, None, None] * shift


def labels() -> np.ndarray:
    """One image with an upright edge at its left and nothing known below, one without an edge."""
    labels = np.zeros((2, SIDE, SIDE), np.uint8)
    labels[0, :, :10] = 1
    labels[0, 40:] = 254
    return labels


EDGES, KNOWN = np.zeros((2, 2, SIDE, SIDE), bool)
EDGES[0, :39, 9:11] = True  # Sobel's operator at row 39 sees row 40
KNOWN[0, :39] = KNOWN[1] = True


def logits() -> np.ndarray:
    """More sure of an edge at the left of image 0 than elsewhere, and unlike anything known below."""
    logits = np.random.default_rng(0).normal(-2, 1, (2, SIDE, SIDE)).astype(np.float32)
    logits[0, :, :16] += 3
    logits[~KNOWN] = 5
    return logits


@pytest.fixture(scope="module")
def losses():
    """The task's losses of boundary logits (2, SIDE, SIDE)."""
    config = demo.get_config()
    config.model.embedding_dim = 4
    task = Segmentation(config, ANCHORS, Mean())
    images, keys = jnp.zeros((2, SIDE, SIDE, 3), jnp.uint8), jax.random.split(jax.random.key(0), 2)

    def of_device(logits):
        inputs, totals = task.prepare(task.constants, {"image": images, "label": labels()}, keys)
        return task.losses(task.constants, Network(logits), inputs, totals)

    mapped = jax.vmap(of_device, axis_name=DEVICE_AXIS)
    return lambda logits: jax.tree.map(lambda x: x[0], mapped(logits[None]))


def test_the_shape_loss_is_the_mean_over_tiles_that_hold_an_edge(losses):
    p = 1 / (1 + np.exp(-logits()[0].astype(np.float64)))
    first, second = p[:32, :32], p[32:, :32].copy()  # the two of eight tiles that hold an edge
    far = np.r_[:5, 15:32]  # columns more than four pixels from the edge
    second[7:] = second[:7, far].mean()  # what is not known takes the ground's value
    expected = (first.mean() + second.mean()) / 2
    np.testing.assert_allclose(losses(jnp.asarray(logits()))["shape"], expected, rtol=1e-3)


def test_the_boundary_loss_weighs_edges_as_much_as_all_the_rest(losses):
    x = logits().astype(np.float64)
    on, off = np.log1p(np.exp(-x[EDGES])), np.log1p(np.exp(x[KNOWN & ~EDGES]))
    np.testing.assert_allclose(losses(jnp.asarray(logits()))["bce"], (on.mean() + off.mean()) / 2, rtol=1e-5)


@pytest.mark.parametrize("name", ["shape", "bce"])
def test_what_is_predicted_where_nothing_is_known_moves_no_loss(losses, name):
    gradient = np.asarray(jax.grad(lambda x: losses(x)[name])(jnp.asarray(logits())))
    np.testing.assert_array_equal(gradient[~KNOWN], 0)
    assert (gradient[EDGES] != 0).all()


@pytest.mark.parametrize("key", ["loss.shape_weight", "loss.bce_weight", "loss.logit_scale"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_weight_that_cannot_work_is_the_users_error(key, value):
    config = demo.get_config()
    config.model.embedding_dim = 4
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=f"{key}={value}"):
        Segmentation(config, ANCHORS, Mean())


@pytest.mark.parametrize("key", ["data.crop", "eval.resize"])
def test_a_side_that_the_network_cannot_take_is_refused_before_training(key):
    config = demo.get_config()
    config.model.embedding_dim = 4
    config.update_from_flattened_dict({key: 60})
    with pytest.raises(UserError, match=f"{key}=60 must be a multiple of 8"):
        Segmentation(config, ANCHORS, Mean()).build(jax.random.key(0))
