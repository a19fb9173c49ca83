"""DRN-D at its published size, with pyramid pooling, against plain PyTorch modules, from a `.pth` of random weights."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import pascal
from sazs_jax.models.drn import PyramidPooling
from sazs_jax.models.sazs import build_model
from sazs_jax.pretrained.conversion import load_weights
from sazs_jax.pretrained.sources import load_pretrained
from tests.pooling_rules import POOLING_RULES
from tests.random_weights import random_weights
from tests.relative_error import relative_error

torch = pytest.importorskip("torch", reason="live parity needs PyTorch: make parity")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("variant", ["drn", "drn22"])
def test_every_level_and_the_pooling(variant, tmp_path):
    from tests.golden.make_drn import set_seeded_weights
    from tests.golden.torch_drn import REPEATS, TorchDRN, TorchPyramidPooling

    config = pascal.get_config(1, variant)
    config.model.dtype = "float32"
    name = config.model.encoder
    module, pooling = TorchDRN(name == "drn_d_105", REPEATS[name]).eval(), TorchPyramidPooling(512, 512).eval()
    set_seeded_weights(module)
    set_seeded_weights(pooling)
    torch.save(module.state_dict(), tmp_path / f"{name}.pth")
    x = torch.from_numpy(np.random.RandomState(0).normal(size=(1, 3, 224, 256)).astype(np.float32))
    with torch.no_grad():
        expected = module(x)
        expected.append(pooling(expected[-1]))
    expected = [value.permute(0, 2, 3, 1).numpy() for value in expected]

    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0)))
    load_pretrained(model, str(tmp_path / f"{name}.pth"))
    weights = {name: tensor.numpy() for name, tensor in pooling.state_dict().items()}
    assert isinstance(model.decoder, PyramidPooling)
    load_weights(model.decoder, weights, POOLING_RULES, ignore=("*.num_batches_tracked",), origin="pooling")

    def run(model, x):
        levels = model.encoder.every_level(x, train=False)
        return [*levels, model.decoder(levels, train=False)]

    outputs = nnx.jit(run)(model, jnp.asarray(x.permute(0, 2, 3, 1).numpy()))
    errors = [relative_error(value, reference) for value, reference in zip(outputs, expected, strict=True)]
    print(f"{name}, levels 0 to 8, pyramid pooling:", *(f"{error:.1e}" for error in errors))
    assert max(errors) < 1e-4
