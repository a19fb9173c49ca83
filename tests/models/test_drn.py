"""DRN-D and pyramid pooling against PyTorch at small size, and the published counts of parameters."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sazs_jax.models.drn import DRN, DRN_CONFIGS, DRNConfig, PyramidPooling, mean_over_cells
from sazs_jax.pretrained.conversion import load_weights
from sazs_jax.pretrained.drn import IGNORE, drn_rules
from tests.pooling_rules import POOLING_RULES
from tests.random_weights import random_weights
from tests.relative_error import relative_error
from tests.seeded_weights import seeded_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "drn.npz"
REPEATS = (1, 1, 1, 2, 1, 2, 1, 1, 1)
WIDTHS = (4, 4, 6, 4, 4, 6, 6, 8, 8)


def make_drn(config, **settings):
    return DRN(config, axis_name=None, dtype=jnp.float32, rngs=nnx.Rngs(0), **settings)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_every_level_and_the_pooling_equal_pytorch(kind):
    with np.load(GOLDEN) as golden:
        drn = nnx.eval_shape(lambda: make_drn(DRNConfig(kind == "bottleneck", REPEATS, WIDTHS)))
        weights = seeded_weights(json.loads(str(golden[f"{kind}/shapes"])))
        load_weights(drn, weights, drn_rules(), ignore=IGNORE, origin="golden")
        pooling = nnx.eval_shape(
            lambda: PyramidPooling(WIDTHS[-1], 8, axis_name=None, dtype=jnp.float32, rngs=nnx.Rngs(0))
        )
        weights = seeded_weights(json.loads(str(golden["pooling/shapes"])))
        load_weights(pooling, weights, POOLING_RULES, ignore=IGNORE, origin="golden")

        x = jnp.asarray(golden["x"])
        levels = drn.every_level(x, train=False)
        outputs = [*levels, pooling(drn(x, train=False), train=False)]
        errors = [relative_error(output, golden[f"{kind}/{i}"]) for i, output in enumerate(outputs)]
    assert max(errors) < 1e-5, errors
    assert drn.channels == tuple(levels[i].shape[-1] for i in (3, 4, 8))


# Yu et al., 2017, give 16.4 and 54.8 million for the classifiers, of which the last layer has 513 * 1000.
@pytest.mark.parametrize(("name", "millions"), [("drn_d_22", 16.4), ("drn_d_105", 54.8)])
def test_the_published_number_of_parameters(name, millions):
    drn = nnx.eval_shape(lambda: make_drn(DRN_CONFIGS[name]))
    number = sum(np.prod(value.shape) for _, value in nnx.to_flat_state(nnx.state(drn, nnx.Param)))
    assert (number + 513_000) / 1e6 == pytest.approx(millions, abs=0.05)


def test_recomputing_blocks_changes_nothing():
    config = dataclasses.replace(DRN_CONFIGS["drn_d_22"], repeats=REPEATS, widths=WIDTHS)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    plain, remat = (random_weights(lambda remat=remat: make_drn(config, remat=remat)) for remat in (False, True))
    np.testing.assert_allclose(plain(x, train=True)[-1], remat(x, train=True)[-1], rtol=1e-5, atol=1e-5)
    for (path, a), (_, b) in zip(
        nnx.to_flat_state(nnx.state(plain, nnx.BatchStat)),
        nnx.to_flat_state(nnx.state(remat, nnx.BatchStat)),
        strict=True,
    ):
        np.testing.assert_allclose(a[...], b[...], rtol=1e-5, atol=1e-6, err_msg=str(path))


def test_statistics_over_a_mapped_axis_are_those_of_the_whole_batch():
    def make_pooling(axis_name):
        return random_weights(lambda: PyramidPooling(4, 5, axis_name=axis_name, dtype=jnp.float32, rngs=nnx.Rngs(0)))

    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 4)), jnp.float32)
    whole = make_pooling(None)
    expected = whole([x], train=True)
    graph, state = nnx.split(make_pooling("devices"))

    def step(state, x):
        pooling = nnx.merge(graph, state, copy=True)
        return pooling([x], train=True), nnx.state(pooling, nnx.BatchStat)

    halves, statistics = jax.vmap(step, in_axes=(None, 0), axis_name="devices")(state, x.reshape(2, 2, 6, 6, 4))
    np.testing.assert_allclose(halves.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    for (path, mapped), (_, single) in zip(
        nnx.to_flat_state(statistics), nnx.to_flat_state(nnx.state(whole, nnx.BatchStat)), strict=True
    ):
        np.testing.assert_allclose(mapped[0], single[...], rtol=1e-5, atol=1e-6, err_msg=str(path))


def test_cells_that_a_border_cuts_share_the_row():
    x = jnp.arange(5.0)[None, :, None, None] * jnp.ones((1, 5, 4, 1))
    means = mean_over_cells(x, 2)
    np.testing.assert_allclose(means[0, :, 0, 0], [1.0, 3.0])  # rows 0 to 2, rows 2 to 4
    assert mean_over_cells(x, 6).shape == (1, 6, 6, 1)  # more cells than rows
