"""Convolutions in the form that is fast, against those of JAX and Flax as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sazs_jax.models.convolutions import BlockConvTranspose, Conv, convolve, phases

SETTINGS = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


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


def assert_convolves_as_jax(size, sides, strides, padding, *, dilation=(1, 1), groups=1):
    settings = {"rhs_dilation": dilation, "feature_group_count": groups, **SETTINGS}
    inputs = noise(2, *size, 6), noise(*sides, 6 // groups, 6, seed=1)

    def reference(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **settings)

    def function(x, kernel):
        return convolve(x, kernel, strides, padding, **settings)

    assert_same_values_and_gradients(function, reference, *inputs)


# 8 is a multiple of each dilation; 7 and 9 are of none.
@pytest.mark.parametrize("dilation", [2, 4])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (3, 10)])
def test_dilated_convolution_and_its_gradients_are_those_of_jax(dilation, size):
    assert_convolves_as_jax(size, (3, 3), (1, 1), [(dilation, dilation)] * 2, dilation=(dilation, dilation))


@pytest.mark.parametrize("padding", ["SAME", "VALID", [(0, 0), (0, 0)]])
@pytest.mark.parametrize(
    ("sides", "strides"), [((1, 1), (1, 1)), ((1, 1), (2, 2)), ((1, 1), (3, 1)), ((2, 2), (2, 2)), ((3, 2), (3, 2))]
)
@pytest.mark.parametrize("size", [(6, 6), (7, 9)])
def test_convolution_without_overlap_and_its_gradients_are_those_of_jax(size, sides, strides, padding):
    assert_convolves_as_jax(size, sides, strides, padding)


@pytest.mark.parametrize("padding", ["SAME", "VALID", [(2, 1), (0, 1)]])
@pytest.mark.parametrize(("sides", "strides"), [((3, 3), (1, 1)), ((5, 5), (2, 2)), ((3, 5), (2, 1)), ((1, 1), (1, 1))])
@pytest.mark.parametrize("size", [(6, 6), (7, 9)])
def test_depthwise_convolution_and_its_gradients_are_those_of_jax(size, sides, strides, padding):
    assert_convolves_as_jax(size, sides, strides, padding, groups=6)


@pytest.mark.parametrize(
    ("strides", "dilation", "pad", "groups"),
    [
        ((2, 2), (2, 2), 2, 1),
        ((1, 1), (2, 1), 2, 1),
        ((1, 1), (2, 2), 1, 1),
        ((2, 2), (1, 1), 1, 1),
        ((1, 1), (2, 2), 2, 6),
        ((1, 1), (1, 1), 1, 2),
    ],
)
def test_other_convolutions_are_left_to_jax(strides, dilation, pad, groups):
    assert_convolves_as_jax((9, 8), (3, 3), strides, [(pad, pad)] * 2, dilation=dilation, groups=groups)


@pytest.mark.parametrize(
    ("size", "sides", "padding", "groups"),
    [((1, 1), (5, 5), [(1, 2), (0, 1)], 6), ((6, 6), (3, 3), [(-1, 0), (0, -2)], 6), ((1, 3), (2, 2), "VALID", 1)],
)
def test_what_no_faster_form_takes_is_left_to_jax(size, sides, padding, groups):
    assert_convolves_as_jax(size, sides, (2, 2), padding, groups=groups)


@pytest.mark.parametrize("options", [{"input_dilation": 2}, {"preferred_element_type": jnp.float32}])
@pytest.mark.parametrize(
    "layer", [{"kernel_size": (1, 1), "padding": 0}, {"kernel_size": (3, 3), "kernel_dilation": 2, "padding": 2}]
)
def test_options_of_a_layer_are_heeded(layer, options):
    settings = {"rngs": nnx.Rngs(0), "dtype": jnp.bfloat16, "use_bias": False, **layer, **options}
    x, found = noise(1, 8, 8, 4), Conv(4, 4, **settings)
    expected = nnx.merge(nnx.graphdef(nnx.Conv(4, 4, **settings)), nnx.state(found))(x)
    assert found(x).dtype == expected.dtype
    np.testing.assert_allclose(found(x).astype(jnp.float32), expected.astype(jnp.float32), rtol=1e-2, atol=1e-2)


def test_a_cpu_program_has_no_convolution_where_a_product_does():
    def program(sides, strides, groups=1):
        settings = {"rhs_dilation": (1, 1), "feature_group_count": groups, **SETTINGS}
        function = jax.jit(lambda x, kernel: convolve(x, kernel, strides, "SAME", **settings))
        return (
            function.trace(noise(1, 8, 8, 6), noise(*sides, 6 // groups, 6))
            .lower(lowering_platforms=("cpu",))
            .as_text()
        )

    assert "stablehlo.convolution" not in program((1, 1), (2, 2)) + program((4, 4), (4, 4)) + program((3, 3), (1, 1), 6)
    assert "stablehlo.convolution" in program((3, 3), (1, 1))


def test_phases_are_every_second_row_and_column():
    x = noise(1, 4, 5, 2)
    found = phases(x, 2)
    assert found.shape == (4, 2, 3, 2)
    np.testing.assert_array_equal(found[0], x[0, ::2, ::2])
    np.testing.assert_array_equal(found[3, :, :2], x[0, 1::2, 1::2])
    assert not np.any(found[3, :, 2])
