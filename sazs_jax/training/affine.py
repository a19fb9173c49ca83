"""The task that trains the affine MLP of paper 3.3, in advance and on edge masks alone."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from sazs_jax import visualization
from sazs_jax.affine_pairs import AffinePairs, affine_pairs, check_affine_settings, move_tiles
from sazs_jax.edges import TILE, check_edge_settings, edge_targets
from sazs_jax.errors import UserError
from sazs_jax.losses import shape_loss_sum
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.models.sazs import DEVICE_AXIS
from sazs_jax.training.task import Batch, psum

_PICTURES = 6
_ENTRIES = ("xx", "xy", "x", "yx", "yy", "y")  # of theta's first two rows


class AffineRegression:
    """The `Task` of an affine MLP. Batches are {"label": uint8 (B, S, S)}, remapped as for segmentation."""

    def __init__(self, config: ConfigDict):
        """`config` is the whole config: the groups `affine` and `loss` are used.

        Raises:
          UserError: settings of theirs that cannot work.
        """
        check_edge_settings(config.loss)
        check_affine_settings(config.affine)
        self.config = config
        self.weights = {"theta": 1.0}
        self.constants = {}
        self._pairs = jax.jit(self.pairs)

    def check_shows_motion(self, batches: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Raise a UserError where no tile of any of some batches is one that motion can be told from."""
        for batch in batches:
            labels = jnp.asarray(batch["label"])
            if np.any(self._pairs(labels, jax.random.split(jax.random.key(0), len(labels))).usable):
                return
        raise UserError(
            "no tile of the first training images has enough edge, in more than one direction, to tell motion from: "
            "nothing can be learnt; give other images, a larger data.crop or fewer loss.patches"
        )

    def build(self, key: Key[Array, ""]) -> AffineMLP:
        """The MLP with random weights."""
        return nnx.jit(lambda key: AffineMLP(TILE, rngs=nnx.Rngs(key)))(key)

    def prepare(self, constants: Any, batch: Batch, keys: Key[Array, "B"]) -> tuple[Any, Any]:
        """See `Task`: random pairs of tiles."""
        pairs = self.pairs(jnp.asarray(batch["label"]), keys)
        count = jnp.sum(pairs.usable)
        # A row an example, so that microbatches can be cut.
        return jax.tree.map(lambda x: x.reshape(len(keys), -1, *x.shape[1:]), pairs), psum(count, DEVICE_AXIS)

    def losses(self, constants: Any, model: AffineMLP, inputs: AffinePairs, totals: Any) -> dict[str, Array]:
        """See `Task`: the mean Frobenius norm of the error of theta, over usable tiles."""
        pairs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
        error = model(pairs.true, pairs.predicted) - pairs.theta
        return {"theta": shape_loss_sum(error + jnp.eye(3), pairs.usable) / totals}

    def pairs(self, labels: Array, keys: Key[Array, "B"]) -> AffinePairs:
        """Random pairs of the label maps' tiles."""
        loss = self.config.loss
        edges, _ = edge_targets(labels, void_band=loss.void_band, width=loss.edge_width)
        return affine_pairs(edges.astype(jnp.float32), keys, tuple(loss.patches), self.config.affine)

    def evaluate(self, model: AffineMLP, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float | None]:
        """Errors on tiles of `batches`, under the random transforms and disturbances of training.

        Returns:
          `reduction`, 1 - error / error_identity; `error`, the mean Frobenius norm of the error of theta;
          `error_identity`, that of the identity; and of each entry of theta's upper rows the mean absolute error of
          either, `error_xy` and `error_identity_xy` for the second of the first row. `reduction` alone, None, where no
          tile shows motion.
        """
        found = [self._errors(model, batch, jax.random.key(i)) for i, batch in enumerate(batches)]
        estimate, identity = (np.concatenate(errors) for errors in zip(*found, strict=True))  # (N, 2, 3)
        if not len(estimate):
            return {"reduction": None}
        scores = {}
        for name, errors in (("error", estimate), ("error_identity", identity)):
            scores[name] = float(np.linalg.norm(errors, axis=(1, 2)).mean())
            by_entry = zip(_ENTRIES, np.abs(errors).mean(axis=0).ravel(), strict=True)
            scores |= {f"{name}_{entry}": float(value) for entry, value in by_entry}
        return {"reduction": 1 - scores["error"] / scores["error_identity"], **scores}

    def pictures(self, model: AffineMLP, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows of the true tile, the moved and disturbed one, and the true one moved by the estimate."""
        pairs, theta = self._estimate(model, batch, jax.random.key(0))
        shown = np.flatnonzero(pairs.usable)[:_PICTURES]
        first = jnp.zeros((len(theta), 1), jnp.int32)
        back = move_tiles(pairs.true[:, None], first, theta[:, None], (1, 1))[:, 0]
        columns = (("true", pairs.true), ("predicted", pairs.predicted), ("true, moved by the estimate", back))
        rows = [
            [(title, visualization.grey(np.asarray(tiles[i]).repeat(4, 0).repeat(4, 1))) for title, tiles in columns]
            for i in shown
        ]
        return {"train/tiles": visualization.sheet(rows)} if rows else {}

    def _errors(
        self, model: AffineMLP, batch: Mapping[str, np.ndarray], key: Key[Array, ""]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Errors (N, 2, 3) of theta over the usable pairs of a batch: the MLP's and the identity's."""
        pairs, theta = self._estimate(model, batch, key)
        usable = np.asarray(pairs.usable)
        errors = np.asarray(theta - pairs.theta), np.asarray(jnp.eye(3) - pairs.theta)
        return errors[0][usable, :2], errors[1][usable, :2]

    def _estimate(
        self, model: AffineMLP, batch: Mapping[str, np.ndarray], key: Key[Array, ""]
    ) -> tuple[AffinePairs, Float[Array, "N 3 3"]]:
        labels = jnp.asarray(batch["label"])
        pairs = self._pairs(labels, jax.random.split(key, len(labels)))
        return pairs, estimate_theta(model, pairs.true, pairs.predicted)


@nnx.jit
def estimate_theta(
    model: AffineMLP, true: Float[Array, "N R R"], predicted: Float[Array, "N R R"]
) -> Float[Array, "N 3 3"]:
    """Theta of each pair of tiles, compiled."""
    return model(true, predicted)
