"""The kernels of attention: which one a device gets, and that padding for it changes nothing."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.defaults import get_config
from sazs_jax.errors import UserError
from sazs_jax.models.attention import attention, choose_kernel
from sazs_jax.models.sazs import build_model
from sazs_jax.models.vit import VIT_CONFIGS, ViT
from tests.random_weights import random_weights

CPU, TPU = SimpleNamespace(platform="cpu"), SimpleNamespace(platform="tpu", core_on_chip=0)
H100, V100 = SimpleNamespace(compute_capability="9.0"), SimpleNamespace(compute_capability="7.0")
MI300 = SimpleNamespace(compute_capability="gfx942")


@pytest.fixture
def on_device(monkeypatch):
    return lambda device: monkeypatch.setattr(jax, "devices", lambda: [device])


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


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        (H100, jnp.bfloat16, "cudnn"),
        (H100, jnp.float16, "cudnn"),
        (H100, jnp.float32, "xla"),
        (V100, jnp.bfloat16, "xla"),
        (MI300, jnp.bfloat16, "xla"),
        (TPU, jnp.bfloat16, "xla"),
        (CPU, jnp.bfloat16, "xla"),
    ],
)
def test_auto_takes_cudnn_where_it_is_there(device, dtype, expected, on_device):
    on_device(device)
    assert choose_kernel("auto", dtype) == expected
    assert choose_kernel("xla", dtype) == "xla"


@pytest.mark.parametrize(
    ("settings", "device", "told"),
    [
        ({"attention": "flash"}, H100, "model.attention='flash' is unknown; choose one of auto, xla, cudnn"),
        ({"attention": "cudnn", "dtype": "float32"}, H100, "with model.dtype=float32; choose model.attention=auto"),
        ({"attention": "cudnn"}, CPU, "needs an NVIDIA GPU .* choose model.attention=auto"),
    ],
)
def test_settings_that_cannot_work_are_told(settings, device, told, on_device):
    on_device(device)
    config = get_config()
    config.model.encoder = "vit_tiny"
    config.model.update(settings)
    with pytest.raises(UserError, match=told):
        nnx.eval_shape(lambda: build_model(config, rngs=nnx.Rngs(0)))
