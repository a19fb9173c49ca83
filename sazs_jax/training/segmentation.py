"""The main task: pixel embeddings that match text anchors (Eq. 1), and boundaries (Eq. 2 and 3)."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from sazs_jax import visualization
from sazs_jax.edges import check_edge_settings, edge_targets, edge_tiles, holds_edge, known_tiles
from sazs_jax.errors import UserError
from sazs_jax.label_map import VOID, is_void
from sazs_jax.losses import (
    LABEL_SPACES,
    align_loss_sum,
    apply_label_space,
    boundary_loss_sums,
    count_valid,
    shape_loss_sum,
)
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.models.sazs import DEVICE_AXIS, SAZS, build_model, cosine_logits
from sazs_jax.pretrained.sources import load_pretrained
from sazs_jax.training.task import Batch, psum

_PICTURES = 4
_DROPOUT = 1  # number of the random stream
_fold_in = jax.vmap(jax.random.fold_in, in_axes=(0, None))


class Segmentation:
    """The `Task` of a SAZS network. Batches are {"image": uint8 (B, S, S, 3), "label": uint8 (B, S, S)}, remapped."""

    def __init__(self, config: ConfigDict, anchors: Float[np.ndarray, "K D"], affine_mlp: AffineMLP | None = None):
        """Settle what is trained.

        Args:
          config: the whole config.
          anchors: `others`, then the seen classes, in the order of the remapped labels.
          affine_mlp: trained; needed where `loss.shape_weight` is not 0.

        Raises:
          UserError: settings that do not go together.
        """
        _check(config, anchors)
        self.config = config
        self.weights = {"align": 1.0}
        self.constants: dict[str, Any] = {"anchors": jnp.asarray(anchors, jnp.float32)}
        if config.loss.shape_weight:
            if affine_mlp is None:
                raise ValueError("loss.shape_weight is not 0 and there is no affine MLP")
            self.weights["shape"] = config.loss.shape_weight
            self._affine_graph, self.constants["affine_mlp"] = nnx.split(affine_mlp)
        if config.loss.bce_weight:
            self.weights["bce"] = config.loss.bce_weight
        self._has_boundary = len(self.weights) > 1

    def build(self, key: Key[Array, ""]) -> SAZS:
        """The network with random weights, or with those of `model.pretrained`.

        Raises:
          UserError: an unknown encoder or type, sides that do not suit it, or weights that do not fit.
        """
        synced = self.config.train.sync_batchnorm
        model = nnx.jit(
            lambda key: build_model(self.config, rngs=nnx.Rngs(key), batchnorm_axis=DEVICE_AXIS if synced else None)
        )(key)
        for name, side in (("data.crop", self.config.data.crop), ("eval.resize", self.config.eval.resize)):
            if side % model.size_multiple:
                raise UserError(f"{name}={side} must be a multiple of {model.size_multiple} for this encoder")
        if self.config.model.pretrained:
            load_pretrained(model, self.config.model.pretrained)
        return model

    def prepare(self, constants: Any, batch: Batch, keys: Key[Array, "B"]) -> tuple[Any, Any]:
        """See `Task`: label maps in the label space of training, true edges and their tiles."""
        loss = self.config.loss
        images, labels = jnp.asarray(batch["image"]), jnp.asarray(batch["label"])
        target, allowed = apply_label_space(loss.label_space, labels, len(constants["anchors"]), loss.num_absent, keys)
        # The label space draws from `keys` themselves.
        inputs = {"image": images, "label": target, "allowed": allowed, "dropout": _fold_in(keys, _DROPOUT)}
        counts = {"align": count_valid(target)}
        if self._has_boundary:
            edges, known = edge_targets(labels, void_band=loss.void_band, width=loss.edge_width)
            inputs |= {"edges": edges, "known": known}
            counts |= {"on": jnp.sum(edges), "off": jnp.sum(known & ~edges)}
        if "shape" in self.weights:
            inputs["tiles"] = edge_tiles(inputs["edges"].astype(jnp.float32), loss.patches)
            inputs["holds_edge"] = holds_edge(inputs["edges"], loss.patches)
            counts["tiles"] = jnp.sum(inputs["holds_edge"])
        return inputs, psum(counts, DEVICE_AXIS)

    def losses(self, constants: Any, model: SAZS, inputs: Any, totals: Any) -> dict[str, Array]:
        """See `Task`: the parts of Eq. 3."""
        output = model(inputs["image"], train=True, dropout_keys=inputs["dropout"])
        logits = cosine_logits(output.embeddings, constants["anchors"], self.config.loss.logit_scale)
        losses = {"align": align_loss_sum(logits, inputs["label"], inputs["allowed"]) / totals["align"]}
        if output.boundary_logits is None:
            return losses
        if "shape" in self.weights:
            known = inputs["known"]
            predicted = _predicted_edges(output.boundary_logits, known.shape)
            tiles = known_tiles(predicted, inputs["edges"], known, self.config.loss.patches)
            theta = nnx.merge(self._affine_graph, constants["affine_mlp"])(_flat(inputs["tiles"]), _flat(tiles))
            losses["shape"] = shape_loss_sum(theta, inputs["holds_edge"].ravel()) / totals["tiles"]
        if "bce" in self.weights:
            on, off = boundary_loss_sums(output.boundary_logits, inputs["edges"], inputs["known"])
            losses["bce"] = (on / totals["on"] + off / totals["off"]) / 2
        return losses

    def pictures(self, model: SAZS, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows of image, truth and prediction; with a boundary head, of image, true and predicted edges."""
        images, labels = batch["image"][:_PICTURES], batch["label"][:_PICTURES]
        logits, boundary_logits = _predict(model, jnp.asarray(images), self.constants["anchors"])
        logits = jax.image.resize(logits, (*labels.shape, logits.shape[-1]), "bilinear")
        predictions = np.asarray(jnp.argmax(logits, axis=-1)).astype(np.uint8)
        void = np.asarray(is_void(jnp.asarray(labels)))
        shown, predictions = np.where(void, VOID, labels), np.where(void, VOID, predictions)
        overlays = [
            [
                ("image", image),
                ("truth", visualization.overlay(image, label)),
                ("prediction", visualization.overlay(image, prediction)),
            ]
            for image, label, prediction in zip(images, shown, predictions, strict=True)
        ]
        pictures = {"train/overlays": visualization.sheet(overlays)}
        if boundary_logits is not None:
            loss = self.config.loss
            edges, known = edge_targets(jnp.asarray(labels), void_band=loss.void_band, width=loss.edge_width)
            predicted = _predicted_edges(boundary_logits, known.shape)
            rows = [
                [
                    ("image", image),
                    ("true edges, grey where unknown", visualization.grey(np.where(k, e, 0.5))),
                    ("predicted edges", visualization.grey(np.where(k, p, 0.5))),
                ]
                for image, k, e, p in zip(images, *map(np.asarray, (known, edges, predicted)), strict=True)
            ]
            pictures["train/boundary"] = visualization.sheet(rows)
        return pictures


def _predicted_edges(logits: Float[Array, "B h w"], shape: tuple[int, ...]) -> Float[Array, "B H W"]:
    """Probability of an edge at every pixel of a label map of this shape."""
    return jax.nn.sigmoid(jax.image.resize(logits, shape, "bilinear", antialias=False))


def _flat(tiles: Float[Array, "B T R R"]) -> Float[Array, "N R R"]:
    return tiles.reshape(-1, *tiles.shape[2:])


@nnx.jit
def _predict(model: SAZS, images: jax.Array, anchors: jax.Array):
    output = model(images)
    return cosine_logits(output.embeddings, anchors), output.boundary_logits


def _check(config: ConfigDict, anchors: np.ndarray) -> None:
    model, loss = config.model, config.loss
    if loss.label_space not in LABEL_SPACES:
        raise UserError(f"loss.label_space={loss.label_space!r} is unknown; choose one of {', '.join(LABEL_SPACES)}")
    if anchors.shape[1] != model.embedding_dim:
        raise UserError(
            f"the text anchors have {anchors.shape[1]} dimensions; "
            f"set model.embedding_dim to that (it is {model.embedding_dim})"
        )
    if not all(0 <= weight < math.inf for weight in (loss.shape_weight, loss.bce_weight)):  # nor NaN
        raise UserError(
            f"loss.shape_weight={loss.shape_weight}, loss.bce_weight={loss.bce_weight}: expected numbers of at least 0"
        )
    if model.freeze_encoder and (loss.shape_weight or loss.bce_weight):
        raise UserError(
            "model.freeze_encoder=True: the boundary head reads the encoder alone, so the shape constraint would teach "
            "the masks nothing; train the encoder, or set loss.shape_weight and loss.bce_weight to 0"
        )
    if not 0 < loss.logit_scale < math.inf:
        raise UserError(f"loss.logit_scale={loss.logit_scale}: expected a number above 0")
    check_edge_settings(loss)
