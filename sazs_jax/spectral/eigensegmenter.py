"""Images to the eigenvectors of their Laplacians: features, affinity and solver in one program (paper 3.4)."""

import math
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from sazs_jax.errors import UserError
from sazs_jax.rowwise import run_by_rows
from sazs_jax.spectral.affinity import affinity, colour_positions
from sazs_jax.spectral.cache import EigenvectorCache
from sazs_jax.spectral.eigen import SOLVERS, Eigenvectors, laplacian_eigenvectors
from sazs_jax.spectral.features import Features
from sazs_jax.spectral.fusion import FusionSettings


class Eigensegmenter:
    """Decomposes images on a grid of `spectral.grid` cells a side; with `spectral.cache`, each one once.

    Args:
      config: the `spectral` group.

    Raises:
      UserError: a setting that cannot work, or weights that cannot be had.
    """

    def __init__(self, config: ConfigDict):
        self.settings = FusionSettings.of_config(config)
        self.grid = config.grid
        if config.solver not in SOLVERS:
            raise UserError(f"spectral.solver={config.solver!r} is unknown; choose one of {', '.join(SOLVERS)}")
        if config.grid < 2 or self.settings.num_vectors >= config.grid**2:
            raise UserError(
                f"spectral.grid={config.grid}: expected at least 2 cells a side and more than "
                f"{self.settings.num_vectors} in all, the eigenvectors asked for"
            )
        if not 0 <= config.color_weight < math.inf or config.neighbors < 1:
            raise UserError(
                f"spectral.color_weight={config.color_weight}, spectral.neighbors={config.neighbors}: "
                "expected a finite number of at least 0, and at least 1"
            )
        self.features = Features(config)
        graphdef, self._state = nnx.split(self.features)
        settings = {
            "color_weight": float(config.color_weight),
            "neighbours": int(config.neighbors),
            "count": self.settings.num_vectors,
            "solver": config.solver,
        }
        self._decompose = partial(run_by_rows, decompose, self._state, graphdef=graphdef, **settings)
        self._cache = None
        if config.cache:
            self._cache = EigenvectorCache(
                config.cache, config.features, config.dtype, config.grid, settings, self._state
            )

    @property
    def takes_embeddings(self) -> bool:
        """Whether the trained network's embeddings are a source of features."""
        return "embeddings" in self.features.names

    def __call__(
        self, images: UInt8[Array | np.ndarray, "B H W 3"], embeddings: Float[Array, "B g g D"] | None
    ) -> Eigenvectors:
        """The eigenvectors that the rules of `fusion` need, on the device.

        Args:
          images: RGB of any size.
          embeddings: of the network, resized to the grid; needed where `takes_embeddings`.
        """
        if jax.default_backend() == "cpu":
            # LAPACK's batches are split over threads that all CPU devices share; two devices at it can wait for ever.
            images, embeddings = jax.device_get((images, embeddings))
        if self._cache is None:
            return self._decompose((images, embeddings))
        inputs = [images] if embeddings is None else [images, embeddings]
        return self._cache.look_up(inputs, lambda: self._decompose((images, embeddings)))


def decompose(
    state: Any, inputs: Any, *, graphdef: Any, color_weight: float, neighbours: int, count: int, solver: str
) -> Eigenvectors:
    """The whole spectral step as one function to compile.

    Args:
      state: of the `Features`.
      inputs: images, and the network's embeddings on the grid or None, as `Eigensegmenter` takes them.
      graphdef: structure of the `Features`.
      color_weight: lambda of Eq. 6.
      neighbours: k of Eq. 5.
      count: eigenvectors.
      solver: one of SOLVERS.
    """
    images, embeddings = inputs
    features = nnx.merge(graphdef, state)
    z = affinity(
        features(images, embeddings),
        colour_positions(images, features.grid),
        color_weight=color_weight,
        neighbours=neighbours,
    )
    return laplacian_eigenvectors(z, count=count, solver=solver)
