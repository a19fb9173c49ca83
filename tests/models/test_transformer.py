import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

from sazs_jax.models.transformer import TransformerBlock

DIM, HEADS, MLP, EPS = 12, 3, 20, 1e-3


def make_block(activation="gelu", causal=False, dtype=jnp.float32):
    block = TransformerBlock(
        DIM, HEADS, MLP, activation=activation, layer_norm_eps=EPS, causal=causal, dtype=dtype, rngs=nnx.Rngs(0)
    )
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape).astype(np.float32), nnx.state(block))
    nnx.update(block, state)
    return block


def numpy_block(p, x, activation, causal):
    def norm(x, p):
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPS)
        return scaled * p["scale"] + p["bias"]

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    functions = {
        "gelu": lambda x: x * 0.5 * (1 + erf(x / np.sqrt(2))),
        "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    }
    length, width = x.shape[0], DIM // HEADS
    qkv = dense(norm(x, p["norm1"]), p["qkv"])
    heads = []
    for h in range(HEADS):
        q, k, v = (qkv[:, part * DIM + h * width : part * DIM + (h + 1) * width] for part in range(3))
        scores = q @ k.T / np.sqrt(width)
        if causal:
            scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v)
    x = x + dense(np.concatenate(heads, -1), p["proj"])
    return x + dense(functions[activation](dense(norm(x, p["norm2"]), p["fc1"])), p["fc2"])


@pytest.mark.parametrize(("activation", "causal"), [("gelu", False), ("quick_gelu", True)])
def test_block_is_the_published_arithmetic(activation, causal):
    block = make_block(activation, causal)
    x = np.random.default_rng(1).normal(size=(2, 5, DIM)).astype(np.float32)
    parameters = jax.tree.map(lambda p: np.asarray(p, np.float64), nnx.to_pure_dict(nnx.state(block)))
    expected = np.stack([numpy_block(parameters, row.astype(np.float64), activation, causal) for row in x])
    np.testing.assert_allclose(block(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_computes_in_bfloat16_with_float32_parameters_and_norms():
    block, reference = make_block(dtype=jnp.bfloat16), make_block()
    assert {p.dtype for p in jax.tree.leaves(nnx.state(block))} == {jnp.dtype(jnp.float32)}
    # Large common offset: statistics taken in bfloat16 would lose the signal altogether.
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, DIM)) + 40, jnp.bfloat16)
    assert block.norm1(x).dtype == jnp.float32
    result = block(x)
    assert result.dtype == jnp.bfloat16
    expected = reference(x.astype(jnp.float32))
    error = jnp.linalg.norm(result - expected) / jnp.linalg.norm(expected)
    assert error < 0.01
