from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sazs_jax.models.clip_text import CLIPText, CLIPTextConfig
from sazs_jax.pretrained.clip_text import RULES
from sazs_jax.pretrained.conversion import load_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "clip_text.npz"
CONFIG = CLIPTextConfig(
    vocab_size=64, context_length=16, dim=32, depth=2, num_heads=4, mlp_dim=64, embedding_dim=24, eos_token_id=63
)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def load_tower(golden, **changes):
    tower = CLIPText(CLIPTextConfig(**{**CONFIG.__dict__, **changes}), rngs=nnx.Rngs(0))
    weights = {name.removeprefix("weights/"): x for name, x in golden.items() if name.startswith("weights/")}
    load_weights(tower, weights, RULES, origin="golden")
    return tower


# 2 is what OpenAI's own configurations say: there the end token is the one with the largest id.
@pytest.mark.parametrize("eos_token_id", [63, 2])
def test_every_depth_equals_transformers(golden, eos_token_id):
    output = load_tower(golden, eos_token_id=eos_token_id)(jnp.asarray(golden["ids"]))
    # transformers gives the last hidden state after the final norm or before it, by version; `tokens` covers both.
    for index in range(CONFIG.depth):
        np.testing.assert_allclose(output.hidden[index], golden[f"hidden{index}"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.tokens, golden["tokens"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.embedding, golden["embedding"], rtol=1e-4, atol=1e-5)


def test_what_follows_the_end_token_makes_no_difference(golden):
    tower = load_tower(golden)
    ids = golden["ids"][1:2]  # ends at position 3
    changed = ids.copy()
    changed[:, 4:] = 5
    np.testing.assert_array_equal(tower(jnp.asarray(ids)).embedding, tower(jnp.asarray(changed)).embedding)
