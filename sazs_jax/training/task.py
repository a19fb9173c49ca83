"""What the training step and loop ask of the thing that is trained."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Key

Batch = Mapping[str, Array | np.ndarray]


@runtime_checkable
class Task(Protocol):
    """A model, its losses and its pictures."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Name of each loss and its factor in the sum that is minimised."""
        ...

    @property
    def constants(self) -> Any:
        """Arrays that the losses use and no step changes, such as text anchors."""
        ...

    def build(self, key: Key[Array, ""]) -> nnx.Module:
        """The model at step 0."""
        ...

    def prepare(self, constants: Any, batch: Batch, keys: Key[Array, "B"]) -> tuple[Any, Any]:
        """What the losses of this device's part of a batch are computed from, inside the mapped axis.

        Args:
          constants: as above, on this device.
          batch: this device's part.
          keys: one an example; every random draw comes of them, so that none depends on the devices' layout.

        Returns:
          Inputs, arrays with a row an example (microbatches are slices of them), and totals over all devices, which
          the losses are divided by.
        """
        ...

    def losses(self, constants: Any, model: Any, inputs: Any, totals: Any) -> Mapping[str, Array]:
        """The share of each loss that these rows have: summed over microbatches and devices, shares make the loss."""
        ...

    def pictures(self, model: Any, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Name -> uint8 (H, W, 3), for TensorBoard. `batch` is on the host."""
        ...


def psum(tree: Any, axis: str) -> Any:
    """Sums over the mapped devices, as float32 of at least 1: a loss over nothing is 0."""
    return jax.tree.map(lambda x: jax.numpy.maximum(jax.lax.psum(x.astype("float32"), axis), 1.0), tree)
