"""LSeg's network at ViT-L/16 against a plain PyTorch module, from a Lightning checkpoint of random weights."""

import argparse

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import pascal
from sazs_jax.models.sazs import build_model
from sazs_jax.pretrained.sources import load_pretrained
from tests.random_weights import random_weights
from tests.relative_error import relative_error

torch = pytest.importorskip("torch", reason="live parity needs PyTorch: make parity")
pytestmark = pytest.mark.parity

TAPS = (5, 11, 17, 23)


def test_every_depth_of_lseg_vit_l16(tmp_path):
    from tests.golden.make_drn import set_seeded_weights
    from tests.golden.torch_lseg import TorchLSeg

    module = TorchLSeg(1024, 24, 16, TAPS, (256, 512, 1024, 1024), width=256, embedding_dim=512).eval()
    set_seeded_weights(module)
    checkpoint = {
        "epoch": 3,
        "pytorch-lightning_version": "1.4.9",
        "state_dict": {f"net.{name}": tensor for name, tensor in module.state_dict().items()}
        | {"net.clip_pretrained.logit_scale": torch.ones(()), "net.clip_pretrained.visual.proj": torch.ones(2, 2)},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}],
        "hyper_parameters": argparse.Namespace(backbone="clip_vitl16_384", base_lr=np.float64(0.004)),
    }
    torch.save(checkpoint, tmp_path / "lseg.ckpt")
    x = torch.from_numpy(np.random.RandomState(0).normal(size=(1, 3, 256, 320)).astype(np.float32))
    with torch.no_grad():
        tokens, pyramid, embeddings = module(x)
    names = ["embedding", "first block", *(f"tap {tap}" for tap in TAPS), *(f"level {i}" for i in range(4)), "output"]
    expected = [tokens[0], tokens[1], *(tokens[1 + tap] for tap in TAPS)]
    expected += [value.permute(0, 2, 3, 1) for value in (*pyramid, embeddings)]

    config = pascal.get_config(1)
    config.model.dtype = "float32"
    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0)))
    load_pretrained(model, str(tmp_path / "lseg.ckpt"))

    def run(model, x):
        first, _ = model.encoder.embed(x)
        taps = model.encoder(x)
        tokens = [first, model.encoder.blocks[0](first)]
        tokens += [jnp.concatenate([t.cls[:, None], t.patches.reshape(1, -1, 1024)], axis=1) for t in taps]
        pyramid = model.reassemble(taps)
        return [*tokens, *pyramid, model.head(model.decoder(pyramid, train=False))]

    outputs = nnx.jit(run)(model, jnp.asarray(x.permute(0, 2, 3, 1).numpy()))
    errors = [relative_error(value, reference.numpy()) for value, reference in zip(outputs, expected, strict=True)]
    print(*(f"{name}: {error:.1e}" for name, error in zip(names, errors, strict=True)), sep=", ")
    assert max(errors) < 1e-4
