"""Rows spread over devices give what they give on one, without any exchange between devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from configs import defaults
from sazs_jax.rowwise import run_by_rows
from sazs_jax.spectral.eigensegmenter import Eigensegmenter


def spread(x):
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))


def factors(scale, rows, *, power):
    x, missing = rows
    assert missing is None
    return jnp.linalg.cholesky(x * scale**power), x.sum(axis=(1, 2))


def test_rows_on_eight_devices_equal_those_on_one():
    x = np.random.default_rng(0).normal(size=(16, 5, 5)).astype(np.float32)
    x = x @ x.swapaxes(1, 2) + np.eye(5, dtype=np.float32)
    one = run_by_rows(factors, 2.0, (jnp.asarray(x), None), power=2)
    many = run_by_rows(factors, 2.0, (spread(x), None), power=2)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert len(many[0].sharding.device_set) == 8


def test_eigensegments_on_eight_devices():
    config = defaults.get_config().spectral
    config.update({"features": "embeddings", "grid": 6, "color_weight": 1.0})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 24, 24, 3), dtype=np.uint8)
    embeddings = rng.normal(size=(16, 6, 6, 8)).astype(np.float32)
    for solver in ("eigh", "subspace"):
        config.solver = solver
        segmenter = Eigensegmenter(config)
        alone = segmenter(jnp.asarray(images), jnp.asarray(embeddings))
        many = segmenter(spread(images), spread(embeddings))
        np.testing.assert_allclose(many.values, alone.values, atol=1e-5)
