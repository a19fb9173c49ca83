"""What a trained affine MLP can tell, on edge tiles of the selection images, which it was not trained on.

python -m experiments affine_mlp --workdir runs/affine

Prints the error of theta by parameter against predicting the identity, with the disturbances of training and without
them, and how |theta - I| grows with a shift, a rotation and a change of scale.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from scipy.stats import spearmanr

import data
from data.loading import held_out_batches
from sazs_jax.affine_pairs import disturb, make_theta, move_tiles, shows_motion
from sazs_jax.edges import edge_targets, edge_tiles
from sazs_jax.errors import UserError
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.training.affine import AffineRegression, estimate_theta
from sazs_jax.training.frozen_mlp import restore_affine_mlp
from sazs_jax.training.run_config import load_config

_WORKDIR = flags.DEFINE_string("workdir", None, "A run of configs/affine_mlp.py", required=True)

_EIGHTHS = [(0.25, 0.0), (-0.25, 0.0), (0.0, 0.25), (0.0, -0.25)]  # shifts by an eighth of a tile, in half tiles
AMOUNTS = np.linspace(0.0, 1.0, 9)  # of the largest motion that the MLP was trained with


def main(arguments: Sequence[str]) -> None:
    """Print three tables."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    config = load_config(_WORKDIR.value)
    mlp = restore_affine_mlp(_WORKDIR.value, config)
    batches = held_out_batches(config, data.load(config.data, splits=("train",)))
    if not batches:
        raise UserError(f"fold {config.data.fold} has no selection image to measure on; give fuller training lists")

    print("\nmean error of theta     MLP  identity  ratio | absolute, MLP (identity) by entry")
    quiet = config.copy_and_resolve_references()
    quiet.affine.update(missing=0.0, spurious=0.0, blur=0.0, floor=0.0, weakest=1.0)
    for name, settings in (("disturbed pairs", config), ("undisturbed pairs", quiet)):
        scores: Any = AffineRegression(settings).evaluate(mlp, batches)
        if scores["reduction"] is None:
            raise UserError("no tile of the selection images shows motion; give a data set with more of them")
        entries = ", ".join(
            f"{entry} {scores[f'error_{entry}']:.3f} ({scores[f'error_identity_{entry}']:.3f})"
            for entry in ("xx", "xy", "x", "yx", "yy", "y")
        )
        ratio = scores["error"] / scores["error_identity"]
        print(f"{name:20s} {scores['error']:6.3f}  {scores['error_identity']:8.3f}  {ratio:5.2f} | {entries}")

    tiles = np.concatenate([edge_tiles_of(config, batch) for batch in batches])  # (B, T, R, R)
    still = response(mlp, config, tiles, make_theta(), disturbed=True)
    moved = [response(mlp, config, tiles, make_theta(shift=shift), disturbed=True) for shift in _EIGHTHS]
    print(
        f"\nmean |theta - I| of a tile and its disturbed copy {still:.3f}, moved by an eighth {np.mean(moved):.3f}",
        end="",
    )
    print(f", ratio {still / np.mean(moved):.2f}")

    print("\nmean |theta - I| by motion, undisturbed, 0 to the largest of training; rank correlation with the amount")
    for name, make in motions(config.affine).items():
        found = [response(mlp, config, tiles, make(amount)) for amount in AMOUNTS]
        rank: Any = spearmanr(AMOUNTS, found)
        print(f"{name:9s} {rank.statistic:5.2f}  " + " ".join(f"{value:.3f}" for value in found))


def edge_tiles_of(config: ConfigDict, batch: dict[str, np.ndarray]) -> np.ndarray:
    """The tiles (B, T, R, R) of a batch's true edges."""
    labels = jnp.asarray(batch["label"])
    edges, _ = edge_targets(labels, void_band=config.loss.void_band, width=config.loss.edge_width)
    return np.asarray(edge_tiles(edges.astype(jnp.float32), tuple(config.loss.patches)))


def motions(ranges: ConfigDict) -> dict:
    """Name -> function of an amount in [0, 1] to theta, up to the largest of training."""
    return {
        "shift x": lambda a: make_theta(shift=(a * ranges.shift, 0.0)),
        "shift y": lambda a: make_theta(shift=(0.0, a * ranges.shift)),
        "rotation": lambda a: make_theta(rotation=a * ranges.rotation),
        "scale": lambda a: make_theta(log_scale=(a * ranges.log_scale, a * ranges.log_scale)),
    }


def response(
    mlp: AffineMLP, config: ConfigDict, tiles: np.ndarray, theta: jax.Array, *, disturbed: bool = False
) -> float:
    """Mean Frobenius norm of the MLP's theta less the identity, over usable tiles that were all moved by `theta`."""
    batch, count = tiles.shape[:2]
    true = jnp.asarray(tiles)
    places = jnp.broadcast_to(jnp.arange(count), (batch, count))
    predicted = move_tiles(true, places, jnp.broadcast_to(theta, (batch, count, 3, 3)), tuple(config.loss.patches))
    usable = np.asarray(shows_motion(true)).ravel()
    true, predicted = (x.reshape(-1, *x.shape[2:])[usable] for x in (true, predicted))
    if disturbed:
        keys = jax.random.split(jax.random.key(0), len(predicted))
        others = jnp.roll(predicted, 1, axis=0)
        predicted = jax.vmap(lambda key, a, b: disturb(key, a, b, config.affine))(keys, predicted, others)
    error = np.asarray(estimate_theta(mlp, true, predicted)) - np.eye(3)
    return float(np.linalg.norm(error, axis=(1, 2)).mean())
