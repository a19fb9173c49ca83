"""EfficientNet-Lite0 against PyTorch with the package's ImageNet weights."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sazs_jax.models.efficientnet import EfficientNetLite0Classifier
from sazs_jax.pretrained.efficientnet_lite0 import load_imagenet_weights

torch = pytest.importorskip("torch", reason="live parity needs PyTorch: make parity")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("size", [(224, 224), (320, 352)])
def test_every_level_and_the_logits(size):
    from tests.golden.torch_efficientnet import with_package_weights

    x = np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        outputs, expected_logits = with_package_weights()(torch.from_numpy(x).permute(0, 3, 1, 2))
    classifier = EfficientNetLite0Classifier(dtype=jnp.float32, rngs=nnx.Rngs(0))
    load_imagenet_weights(classifier)
    pyramid, logits = nnx.jit(lambda m, x: (m.encoder(x, train=False), m(x, train=False)))(classifier, x)

    compared = [(level, outputs[i].permute(0, 2, 3, 1)) for level, i in zip(pyramid, (2, 3, 5, 7), strict=True)]
    for value, expected in [*compared, (logits, expected_logits)]:
        expected = expected.numpy()
        error = np.linalg.norm(value - expected) / np.linalg.norm(expected)
        print(f"{expected.shape}: relative error {error:.1e}")
        assert error < 1e-4
