"""Eq. 1 and 2 and the boundary loss against NumPy, and the three label spaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sazs_jax.losses import align_loss_sum, apply_label_space, boundary_loss_sums, count_valid, shape_loss_sum
from sazs_jax.models.sazs import cosine_logits


def test_align_loss_is_equation_1():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(2, 6, 5, 8)).astype(np.float32)
    anchors = rng.normal(size=(4, 8)).astype(np.float32)
    labels = rng.integers(0, 4, (2, 6, 5)).astype(np.uint8)
    labels[0, :2], labels[0, 2] = 255, 254

    unit = embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)
    cosines = np.einsum("bijd,kd->bijk", unit, anchors / np.linalg.norm(anchors, axis=-1, keepdims=True))
    expected = 0.0
    for index in np.argwhere(labels < 254):
        b, i, j = index
        powers = np.exp(3.0 * cosines[b, i, j].astype(np.float64))
        expected -= np.log(powers[labels[b, i, j]] / powers.sum())

    logits = cosine_logits(jnp.asarray(embeddings), jnp.asarray(anchors), 3.0)
    loss = align_loss_sum(logits, jnp.asarray(labels), jnp.ones((2, 4), bool))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert count_valid(jnp.asarray(labels)) == np.sum(labels < 254)


def test_an_image_without_valid_pixels_has_no_loss_and_no_gradient():
    labels = jnp.full((1, 4, 4), 255, jnp.uint8)
    loss, gradient = jax.value_and_grad(align_loss_sum)(jnp.ones((1, 2, 2, 3)), labels, jnp.ones((1, 3), bool))
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


def test_anchors_outside_the_label_space_get_no_gradient():
    labels = jnp.zeros((1, 4, 4), jnp.uint8)
    allowed = jnp.array([[True, False, True]])
    gradient = jax.grad(align_loss_sum)(jnp.zeros((1, 4, 4, 3)), labels, allowed)
    np.testing.assert_array_equal(gradient[..., 1], 0)
    np.testing.assert_allclose(gradient[..., 2], 0.5, rtol=1e-6)


@pytest.fixture
def labels():
    labels = np.zeros((3, 4, 4), np.uint8)
    labels[0, :2], labels[0, 2, 0], labels[0, 2, 1] = 3, 255, 254
    labels[1, 0], labels[1, 1] = 1, 5
    labels[2] = 255  # no class at all
    return jnp.asarray(labels)


def keys(number: int, size: int = 3):
    return jax.random.split(jax.random.key(number), size)


def test_all_is_every_seen_class(labels):
    same, allowed = apply_label_space("all", labels, 6, 2, keys(0))
    np.testing.assert_array_equal(same, labels)
    assert allowed.all()


def test_sampled_holds_the_present_classes_and_the_number_of_absent_ones(labels):
    drawn = set()
    for seed in range(40):
        same, allowed = apply_label_space("sampled", labels, 6, 2, keys(seed))
        np.testing.assert_array_equal(same, labels)
        assert allowed[:, 0].all()
        assert allowed[0, 3]
        assert allowed[1, 1]
        assert allowed[1, 5]
        np.testing.assert_array_equal(allowed.sum(axis=1), [1 + 1 + 2, 1 + 2 + 2, 1 + 2])
        drawn |= set(np.flatnonzero(allowed[0]).tolist())
    assert drawn == {0, 1, 2, 3, 4, 5}  # every absent class has its turn


def test_episode_turns_all_but_one_class_of_the_image_into_others(labels):
    chosen_in_second = set()
    for seed in range(20):
        episode, allowed = apply_label_space("episode", labels, 6, 2, keys(seed))
        np.testing.assert_array_equal(allowed.sum(axis=1), 2)
        void = np.asarray(labels) >= 254
        np.testing.assert_array_equal(np.asarray(episode) >= 254, void)
        np.testing.assert_array_equal(episode[void], labels[void])
        assert allowed[0, 3]
        chosen = int(np.flatnonzero(allowed[1])[1])
        chosen_in_second.add(chosen)
        np.testing.assert_array_equal(episode[1], np.where(labels[1] == chosen, chosen, 0))
    assert chosen_in_second == {1, 5}


def test_a_draw_depends_on_the_example_alone(labels):
    _, allowed = apply_label_space("sampled", labels, 6, 2, keys(7))
    _, second = apply_label_space("sampled", labels[1:], 6, 2, keys(7)[1:])
    np.testing.assert_array_equal(allowed[1:], second)


def test_shape_loss_is_equation_2():
    rng = np.random.default_rng(0)
    theta = (np.eye(3) + rng.normal(size=(7, 3, 3))).astype(np.float32)
    counted = np.array([1, 0, 1, 1, 0, 1, 1], bool)
    expected = sum(np.linalg.norm(t - np.eye(3)) for t in theta[counted])
    np.testing.assert_allclose(shape_loss_sum(jnp.asarray(theta), jnp.asarray(counted)), expected, rtol=1e-5)


def test_shape_loss_of_the_identity_and_of_nothing_has_a_finite_gradient():
    theta = jnp.tile(jnp.eye(3), (4, 1, 1))
    for counted in (jnp.ones(4, bool), jnp.zeros(4, bool)):
        loss, gradient = jax.value_and_grad(shape_loss_sum)(theta, counted)
        assert abs(float(loss)) < 1e-5
        assert np.isfinite(gradient).all()


def test_boundary_loss_is_binary_cross_entropy_over_known_pixels():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (2, 6, 8)).astype(np.float32)
    known = rng.random((2, 6, 8)) < 0.8
    edges = known & (rng.random((2, 6, 8)) < 0.3)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    on, off = boundary_loss_sums(jnp.asarray(logits), jnp.asarray(edges), jnp.asarray(known))
    np.testing.assert_allclose(on, -np.log(p[edges]).sum(), rtol=1e-5)
    np.testing.assert_allclose(off, -np.log(1 - p[known & ~edges]).sum(), rtol=1e-5)
