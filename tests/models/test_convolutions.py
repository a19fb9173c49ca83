"""Convolutions in the form that is fast, against those of JAX and Flax as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sazs_jax.models.convolutions import BlockConvTranspose, dilated, phases

SETTINGS = {"feature_group_count": 1, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_same_values_and_gradients(function, reference, *inputs):
    (value, gradients), (expected, wanted) = (
        jax.value_and_grad(lambda *x, f=f: jnp.sum(jnp.sin(f(*x))), argnums=range(len(inputs)))(*inputs)
        for f in (function, reference)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(function(*inputs), reference(*inputs), rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), gradients, wanted)


@pytest.mark.parametrize("side", [2, 4])
@pytest.mark.parametrize("use_bias", [True, False])
def test_block_transpose_is_flax_transposed_convolution(side, use_bias):
    settings = {"use_bias": use_bias, "bias_init": nnx.initializers.normal(), "rngs": nnx.Rngs(0)}
    blocks = BlockConvTranspose(3, 5, side, **settings)
    graph = nnx.graphdef(nnx.ConvTranspose(3, 5, (side, side), strides=side, padding="VALID", **settings))
    weights = nnx.state(blocks)

    def reference(x, weights):
        return nnx.merge(graph, weights)(x)

    def function(x, weights):
        return nnx.merge(nnx.graphdef(blocks), weights)(x)

    assert_same_values_and_gradients(function, reference, noise(2, 3, 4, 3), weights)


# 8 is a multiple of each dilation; 7 and 9 are of none.
@pytest.mark.parametrize("dilation", [2, 4])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (3, 10)])
def test_dilated_convolution_and_its_gradients_are_those_of_jax(dilation, size):
    pads = [(dilation, dilation)] * 2

    def reference(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, rhs_dilation=(dilation, dilation), **SETTINGS)

    def function(x, kernel):
        return dilated(x, kernel, (1, 1), pads, rhs_dilation=(dilation, dilation), **SETTINGS)

    assert_same_values_and_gradients(function, reference, noise(2, *size, 3), noise(3, 3, 3, 4, seed=1))


@pytest.mark.parametrize(
    ("strides", "dilation", "pad"), [((2, 2), (2, 2), 2), ((1, 1), (2, 1), 2), ((1, 1), (2, 2), 1), ((2, 2), (1, 1), 1)]
)
def test_other_convolutions_are_left_to_jax(strides, dilation, pad):
    x, kernel, pads = noise(1, 9, 8, 3), noise(3, 3, 3, 4, seed=1), [(pad, pad)] * 2
    expected = jax.lax.conv_general_dilated(x, kernel, strides, pads, rhs_dilation=dilation, **SETTINGS)
    np.testing.assert_array_equal(dilated(x, kernel, strides, pads, rhs_dilation=dilation, **SETTINGS), expected)


def test_phases_are_every_second_row_and_column():
    x = noise(1, 4, 5, 2)
    found = phases(x, 2)
    assert found.shape == (4, 2, 3, 2)
    np.testing.assert_array_equal(found[0], x[0, ::2, ::2])
    np.testing.assert_array_equal(found[3, :, :2], x[0, 1::2, 1::2])
    assert not np.any(found[3, :, 2])
