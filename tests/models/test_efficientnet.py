from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sazs_jax.models import efficientnet
from sazs_jax.models.efficientnet import EfficientNetLite0, EfficientNetLite0Classifier, InvertedResidual
from sazs_jax.pretrained.efficientnet_lite0 import load_imagenet_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "efficientnet.npz"


def relative_error(value, expected):
    return np.linalg.norm(np.asarray(value, np.float64) - expected) / np.linalg.norm(expected)


@pytest.fixture(scope="module")
def classifier():
    module = nnx.eval_shape(lambda: EfficientNetLite0Classifier(dtype=jnp.float32, rngs=nnx.Rngs(0)))
    load_imagenet_weights(module)
    return module


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 64, 96, 3)), jnp.float32)


def test_pyramid_and_logits_equal_pytorch_with_the_imagenet_weights(classifier, x):
    pyramid, logits = nnx.jit(lambda m, x: (m.encoder(x, train=False), m(x, train=False)))(classifier, x)
    with np.load(GOLDEN) as golden:
        for level, stage, stride in zip(pyramid, (2, 3, 5, 7), (4, 8, 16, 32), strict=True):
            assert level.shape[1:3] == (64 // stride, 96 // stride)
            assert relative_error(level, golden[f"stage{stage}"]) < 1e-5
        assert relative_error(logits, golden["logits"]) < 1e-5
    assert tuple(level.shape[-1] for level in pyramid) == EfficientNetLite0.channels


def test_gradient_reaches_every_parameter_and_training_moves_every_statistic(monkeypatch):
    # One block a stage but for one residual block: what is tested is in there, and it compiles in half the time.
    stages = [stage._replace(repeats=2 if i == 1 else 1) for i, stage in enumerate(efficientnet.STAGES)]
    monkeypatch.setattr(efficientnet, "STAGES", stages)
    encoder = nnx.eval_shape(lambda: EfficientNetLite0(axis_name=None, dtype=jnp.float32, remat=True, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(1)
    state = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape), jnp.float32), nnx.state(encoder))
    nnx.update(encoder, state)
    graph, parameters, rest = nnx.split(encoder, nnx.Param, ...)
    x = jnp.asarray(rng.normal(size=(2, 64, 64, 3)), jnp.float32)

    def loss(parameters, rest):
        encoder = nnx.merge(graph, parameters, rest, copy=True)
        value = sum(jnp.mean(level**2 + level) for level in encoder(x, train=True))
        return value, nnx.state(encoder, nnx.BatchStat)

    step = jax.jit(jax.grad(loss, has_aux=True), compiler_options={"xla_backend_optimization_level": 0})
    gradients, statistics = step(parameters, rest)
    unreached = [path for path, gradient in nnx.to_flat_state(gradients) if not np.abs(gradient[...]).max() > 0]
    assert not unreached
    moved = jax.tree.map(lambda new, old: bool((new != old).all()), statistics, nnx.state(encoder, nnx.BatchStat))
    assert all(jax.tree.leaves(moved))


def make_unit(axis_name=None, dtype=jnp.float32):
    return InvertedResidual(4, 6, expansion=2, kernel=3, stride=1, axis_name=axis_name, dtype=dtype, rngs=nnx.Rngs(0))


def test_running_statistics_enter_in_float32_when_the_computation_is_in_bfloat16():
    norm = make_unit(dtype=jnp.bfloat16).project_bn
    norm.mean[...] = jnp.full(6, 1000.5, jnp.float32)  # 1000 in bfloat16
    result = norm(jnp.full((1, 1, 1, 6), 1000, jnp.bfloat16), use_running_average=True)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(result, np.float32), -0.5, rtol=0.01)


def test_running_statistics_move_by_one_hundredth_and_only_in_training():
    unit = make_unit()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 4)) + 1, jnp.float32)
    before = jax.tree.map(np.asarray, nnx.state(unit, nnx.BatchStat))
    unit(x, train=False)
    after = nnx.state(unit, nnx.BatchStat)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), before, after)))

    assert unit.expand is not None
    assert unit.expand_bn is not None
    unit(x, train=True)
    expanded = np.asarray(x).reshape(-1, 4) @ np.asarray(unit.expand.kernel[0, 0])
    np.testing.assert_allclose(unit.expand_bn.mean[...], 0.01 * expanded.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(unit.expand_bn.var[...], 0.99 + 0.01 * expanded.var(0), rtol=1e-5)


def test_statistics_over_a_mapped_axis_are_those_of_the_whole_batch():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 4)), jnp.float32)
    whole = make_unit()
    expected = whole(x, train=True)

    graph, state = nnx.split(make_unit("devices"))

    def step(state, x):
        unit = nnx.merge(graph, state, copy=True)
        return unit(x, train=True), nnx.state(unit, nnx.BatchStat)

    halves, statistics = jax.vmap(step, in_axes=(None, 0), axis_name="devices")(state, x.reshape(2, 2, 6, 6, 4))
    np.testing.assert_allclose(halves.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    for (path, mapped), (_, single) in zip(
        nnx.to_flat_state(statistics), nnx.to_flat_state(nnx.state(whole, nnx.BatchStat)), strict=True
    ):
        np.testing.assert_allclose(mapped[0], single[...], rtol=1e-5, atol=1e-6, err_msg=str(path))
