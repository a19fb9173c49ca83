"""The mapped training step of train.py on random images, as an object to time."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from sazs_jax.edges import TILE
from sazs_jax.errors import UserError
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.training.optimizer import make_optimizer
from sazs_jax.training.segmentation import Segmentation
from sazs_jax.training.state import create_state
from sazs_jax.training.step import make_train_step, replicate, shard_batch
from sazs_jax.training.task import Batch

NUM_ANCHORS = 16  # others and the seen classes of a fold of PASCAL-5i


def random_anchors(count: int, dim: int) -> np.ndarray:
    """Text anchors, float32 (count, dim), the same ones each time."""
    return np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)


def random_batch(config: ConfigDict, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Noise of `data.batch_size` images of `data.crop` pixels a side, labelled with any of the NUM_ANCHORS anchors."""
    shape = (config.data.batch_size, config.data.crop, config.data.crop)
    random = np.random.default_rng(seed)
    return {
        "image": random.integers(0, 256, (*shape, 3), dtype=np.uint8),
        "label": random.integers(0, NUM_ANCHORS, shape, dtype=np.uint8),
    }


class Training:
    """A network with random weights, its optimizer and its step.

    Raises:
      UserError: a batch that the devices cannot share equally, or settings that cannot work.
    """

    def __init__(self, config: ConfigDict, num_anchors: int = NUM_ANCHORS):
        devices = jax.local_device_count()
        if config.data.batch_size % (devices * config.train.accumulate):
            raise UserError(f"a batch of {config.data.batch_size}: expected a multiple of {devices} device(s)")
        mlp = AffineMLP(TILE, rngs=nnx.Rngs(0)) if config.loss.shape_weight else None
        task = Segmentation(config, random_anchors(num_anchors, config.model.embedding_dim), mlp)
        model = task.build(jax.random.key(config.train.seed, impl="rbg"))
        optimizer = make_optimizer(config.optimizer, config.train.num_steps, freeze_encoder=config.model.freeze_encoder)
        graphdef, state = create_state(model, optimizer)
        self._step = make_train_step(graphdef, optimizer, task, config.train)
        self._state = replicate(state)

    def step(self, batch: Batch) -> dict[str, Any]:
        """Go one step on; its metrics, on the device."""
        self._state, metrics = self._step(self._state, shard_batch(batch))
        return metrics
