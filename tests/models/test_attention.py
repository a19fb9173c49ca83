"""The kernels of attention: which one a device gets, and that padding for it changes nothing."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.defaults import get_config
from sazs_jax.errors import UserError
from sazs_jax.models.attention import attention, choose_kernel, padded_attention
from sazs_jax.models.sazs import build_model

CPU, TPU = SimpleNamespace(platform="cpu"), SimpleNamespace(platform="tpu", core_on_chip=0)
H100, V100 = SimpleNamespace(compute_capability="9.0"), SimpleNamespace(compute_capability="7.0")
MI300 = SimpleNamespace(compute_capability="gfx942")


@pytest.fixture
def on_device(monkeypatch):
    return lambda device: monkeypatch.setattr(jax, "devices", lambda: [device])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [5, 8, 21])  # an odd number, one that needs no padding, more than one multiple
def test_padding_to_a_kernels_multiple_changes_neither_values_nor_gradients(length, causal):
    random = np.random.default_rng(0)
    inputs = [jnp.asarray(random.normal(size=(2, length, 3, 4)), jnp.float32) for _ in range(3)]
    results = [
        jax.value_and_grad(lambda q, k, v, f=f: jnp.sum(jnp.sin(f(q, k, v, causal=causal, kernel="xla"))), (0, 1, 2))(
            *inputs
        )
        for f in (padded_attention, attention)
    ]
    assert padded_attention(*inputs, causal=causal, kernel="xla").shape == inputs[0].shape
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


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
