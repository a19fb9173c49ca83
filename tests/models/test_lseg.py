"""ViT and DPT decoder against PyTorch at small size, through the table of LSeg's checkpoints."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sazs_jax.models.dpt import DPTDecoder, Reassemble
from sazs_jax.models.vit import ViT, ViTConfig
from sazs_jax.pretrained.conversion import load_weights
from sazs_jax.pretrained.lseg import IGNORE, lseg_rules
from tests.relative_error import relative_error
from tests.seeded_weights import seeded_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "lseg.npz"
CONFIG = ViTConfig(dim=32, depth=4, num_heads=2, taps=(0, 1, 2, 3), grid=3)
CHANNELS, WIDTH = (8, 12, 16, 20), 16


class Network(nnx.Module):
    """The parts of `SAZS` that LSeg has, at the golden file's size."""

    def __init__(self):
        settings = {"dtype": jnp.dtype("float32"), "rngs": nnx.Rngs(0)}
        self.encoder = ViT(CONFIG, remat=False, **settings)
        self.reassemble = Reassemble(CONFIG.dim, CHANNELS, **settings)
        self.decoder = DPTDecoder(CHANNELS, WIDTH, final_upsample=True, axis_name=None, **settings)
        self.head = nnx.Conv(WIDTH, 12, (1, 1), **settings)


def test_every_depth_equals_pytorch():
    with np.load(GOLDEN) as arrays:
        golden = dict(arrays)
    network = nnx.eval_shape(Network)
    weights = seeded_weights(json.loads(str(golden["shapes"])))
    load_weights(network, weights, lseg_rules(CONFIG.grid), ignore=IGNORE, origin="golden")

    x = jnp.asarray(golden["x"])
    taps = network.encoder(x)
    tokens = [network.encoder.embed(x)[0]]
    tokens += [jnp.concatenate([tap.cls[:, None], tap.patches.reshape(1, -1, CONFIG.dim)], axis=1) for tap in taps]
    pyramid = network.reassemble(taps)
    embeddings = network.head(network.decoder(pyramid, train=False))
    errors = [relative_error(value, golden[f"tokens{i}"]) for i, value in enumerate(tokens)]
    errors += [relative_error(value, golden[f"level{i}"]) for i, value in enumerate(pyramid)]
    errors += [relative_error(embeddings, golden["embeddings"])]
    assert max(errors) < 1e-5, errors
