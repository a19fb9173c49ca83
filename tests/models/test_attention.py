"""The kernels of attention: which one a device gets, and that padding for it changes nothing."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.defaults import get_config
from sazs_jax.errors import UserError
from sazs_jax.models.attention import attention, by_heads, choose_kernel
from sazs_jax.models.sazs import build_model
from sazs_jax.models.vit import VIT_CONFIGS, ViT
from tests.random_weights import random_weights

CPU, TPU = SimpleNamespace(platform="cpu"), SimpleNamespace(platform="tpu", core_on_chip=0)
H100, T4 = SimpleNamespace(compute_capability="9.0"), SimpleNamespace(compute_capability="7.5")
MI300 = SimpleNamespace(compute_capability="gfx942")


@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_neither_values_nor_gradients(causal):
    random = np.random.default_rng(0)
    inputs = [jnp.asarray(random.normal(size=(2, 5, 3, 4)), jnp.float32) for _ in range(3)]

    def padded(query, key, value):
        longer = (jnp.pad(x, ((0, 0), (0, 3), (0, 0), (0, 0)), constant_values=9.0) for x in (query, key, value))
        return attention(*longer, length=5, causal=causal)[:, :5]

    def plain(query, key, value):
        return attention(query, key, value, causal=causal)

    results = [jax.value_and_grad(lambda *x, f=f: jnp.sum(jnp.sin(f(*x))), (0, 1, 2))(*inputs) for f in (padded, plain)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_head_by_head_gives_values_and_gradients_of_all_at_once(dtype, tolerance, masked):
    random = np.random.default_rng(0)
    inputs = [jnp.asarray(random.normal(size=(2, 7, 3, 4)), dtype) for _ in range(3)]
    seen = jnp.asarray(random.random((7, 7)) < 0.5) | jnp.eye(7, dtype=bool) if masked else None

    def at_once(query, key, value):
        return jax.nn.dot_product_attention(query, key, value, mask=None if seen is None else seen[None, None])

    def head_by_head(query, key, value):
        return by_heads(query, key, value, seen)

    def result(function):
        def loss(*x):
            return jnp.sum(jnp.sin(function(*x).astype(jnp.float32)))

        return function(*inputs), jax.grad(loss, (0, 1, 2))(*inputs)

    found, expected = result(head_by_head), result(at_once)
    assert found[0].dtype == dtype
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a.astype(jnp.float32), b.astype(jnp.float32), rtol=tolerance, atol=tolerance
        ),
        found,
        expected,
    )


def test_on_a_cpu_the_weights_of_one_head_alone_are_held():
    x = jax.ShapeDtypeStruct((2, 512, 6, 8), jnp.float32)
    weights = 512 * 512 * 4

    def loss(query, key, value):
        return jnp.sum(jnp.sin(attention(query, key, value)))

    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(x, x, x)
    plan: Any = traced.lower().compile().memory_analysis()
    assert plan.temp_size_in_bytes < 5 * weights < 2 * 6 * weights
    assert "stablehlo.while" not in traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("remat", [False, True])
def test_a_vit_that_pads_its_tokens_gives_the_same_taps_and_keys(remat):
    settings = {"dtype": jnp.dtype("float32"), "remat": remat}
    vit = random_weights(lambda: ViT(VIT_CONFIGS["vit_tiny"], rngs=nnx.Rngs(0), **settings))
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 16, 24, 3)), jnp.float32)

    def loss(vit):
        return sum(jnp.sum(jnp.sin(tap.patches + tap.cls[:, None, None])) for tap in vit(images))

    def outputs():
        return nnx.value_and_grad(loss)(vit), vit(images), vit.last_keys(images)

    plain = outputs()
    vit.token_multiple = 8  # as with cuDNN's kernel: 7 tokens become 8
    assert vit.embed(images)[0].shape[1] == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), outputs(), plain)


def test_cudnn_is_given_a_number_of_tokens_that_it_takes(monkeypatch):
    """What JAX hands to the kernel; the kernel itself needs a GPU."""
    calls = []

    def record(query, key, value, **settings):
        calls.append((query.shape[1], key.shape[1], settings))
        return query

    monkeypatch.setattr(jax.nn, "dot_product_attention", record)
    x = jnp.ones((2, 13, 3, 8))
    assert attention(x, x, x, kernel="cudnn").shape == x.shape
    ((queries, keys, settings),) = calls
    assert (queries, keys, settings["implementation"]) == (16, 16, "cudnn")
    for lengths in ("query_seq_lengths", "key_value_seq_lengths"):
        np.testing.assert_array_equal(settings[lengths], [13, 13])


@pytest.mark.parametrize(
    ("device", "dtype", "width", "expected"),
    [
        (H100, jnp.bfloat16, 64, "cudnn"),
        (H100, jnp.float16, 64, "cudnn"),
        (H100, jnp.float32, 64, "xla"),
        (H100, jnp.bfloat16, 12, "xla"),
        (H100, jnp.bfloat16, 256, "xla"),
        (T4, jnp.bfloat16, 64, "xla"),
        (MI300, jnp.bfloat16, 64, "xla"),
        (TPU, jnp.bfloat16, 64, "xla"),
        (CPU, jnp.bfloat16, 64, "xla"),
    ],
)
def test_auto_takes_cudnn_where_it_is_there(device, dtype, width, expected, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda platform=None: [device])
    assert choose_kernel("auto", dtype, width) == expected
    assert choose_kernel("xla", dtype, width) == "xla"


def test_the_default_device_decides(monkeypatch):
    cpu = jax.devices()[0]
    monkeypatch.setattr(jax, "devices", lambda platform=None: [CPU if platform == "cpu" else H100])
    with jax.default_device(cpu):
        assert choose_kernel("auto", jnp.bfloat16, 64) == "xla"
    with jax.default_device("cpu"):
        assert choose_kernel("auto", jnp.bfloat16, 64) == "xla"
    assert choose_kernel("auto", jnp.bfloat16, 64) == "cudnn"


def test_a_vit_of_16_bits_on_a_gpu_takes_it_and_pads(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda platform=None: [H100])
    for dtype, setting, expected in (("bfloat16", "auto", 8), ("float32", "auto", 1), ("bfloat16", "xla", 1)):
        config = get_config()
        config.model.update({"encoder": "vit_tiny", "dtype": dtype, "attention": setting})
        model = nnx.eval_shape(lambda config=config: build_model(config, rngs=nnx.Rngs(0)))
        assert isinstance(model.encoder, ViT)
        assert model.encoder.token_multiple == expected
        assert model.encoder.blocks[-1].attention_kernel == ("cudnn" if expected == 8 else "xla")


def test_an_unknown_setting_is_told():
    config = get_config()
    config.model.update({"encoder": "vit_tiny", "attention": "flash"})
    with pytest.raises(UserError, match="model.attention='flash' is unknown; choose one of auto, xla"):
        nnx.eval_shape(lambda: build_model(config, rngs=nnx.Rngs(0)))
