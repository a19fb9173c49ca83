"""Training losses: Eq. 1 (pixel-wise vision-language alignment), Eq. 2 (shape) and the boundary's cross-entropy.

Each is a sum over some of the pixels or tiles: divided by a count over all devices, the sums make the loss.
A label map here is remapped: 0 is `others`, 1..S are the seen classes in the order of the anchors, 254 and 255 are
void (`label_map`), which takes part in nothing. Unseen classes were remapped before, so no loss can see them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt8

from sazs_jax.label_map import is_void

LABEL_SPACES = ("all", "sampled", "episode")


def align_loss_sum(
    logits: Float[Array, "B h w K"],
    labels: UInt8[Array, "B H W"],
    allowed: Bool[Array, "B K"],
) -> Float[Array, ""]:
    """Eq. 1, summed over the valid pixels: softmax cross-entropy of the cosine logits.

    Args:
      logits: scaled cosines with the K = 1 + S anchors; resized bilinearly to the label map.
      labels: remapped label map.
      allowed: the anchors that image b's softmax runs over; every label of the image must be among them.

    Returns:
      The sum over pixels that are not void. Divide by `count_valid` (over all devices) for the mean.
    """
    batch, height, width = labels.shape
    logits = jax.image.resize(logits, (batch, height, width, logits.shape[-1]), "bilinear", antialias=False)
    logits = jnp.where(allowed[:, None, None, :], logits, -jnp.inf)
    valid = ~is_void(labels)
    target = jnp.where(valid, labels, 0).astype(jnp.int32)
    log_normaliser = jax.nn.logsumexp(logits, axis=-1)  # (B, H, W)
    picked = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(valid, log_normaliser - picked, 0.0))


def count_valid(labels: UInt8[Array, "..."]) -> Float[Array, ""]:
    """The number of pixels that are not void."""
    return jnp.sum(~is_void(labels), dtype=jnp.float32)


def shape_loss_sum(theta: Float[Array, "N 3 3"], counted: Bool[Array, "N"]) -> Float[Array, ""]:
    """Eq. 2, summed over tiles: the Frobenius norm of theta less the identity.

    Args:
      theta: the affine transform between the true and the predicted edges of each tile.
      counted: tiles that hold a true edge; T of Eq. 2 is their number.
    """
    squares = jnp.sum((theta - jnp.eye(3)) ** 2, axis=(1, 2))
    return jnp.sum(jnp.where(counted, jnp.sqrt(squares + 1e-12), 0.0))  # the root's slope at 0 is not finite


def boundary_loss_sums(
    logits: Float[Array, "B h w"], edges: Bool[Array, "B H W"], known: Bool[Array, "B H W"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Binary cross-entropy of boundary logits, summed over the pixels on an edge and over the known ones on none.

    The mean of the two means is the balanced L_bce of Eq. 3.

    Args:
      logits: resized bilinearly to the edges.
      edges: of `edges.edge_targets`.
      known: pixels that count.
    """
    logits = jax.image.resize(logits, edges.shape, "bilinear", antialias=False)
    on = jnp.sum(jnp.where(edges, jax.nn.softplus(-logits), 0.0))
    off = jnp.sum(jnp.where(known & ~edges, jax.nn.softplus(logits), 0.0))
    return on, off


def apply_label_space(
    label_space: str,
    labels: UInt8[Array, "B H W"],
    num_anchors: int,
    num_absent: int,
    keys: Key[Array, "B"] | Shaped[Array, "B 2"],
) -> tuple[UInt8[Array, "B H W"], Bool[Array, "B K"]]:
    """Which anchors each image is trained against, and the label map to train on.

    * `all`: others and every seen class (Eq. 1).
    * `sampled`: others, the classes in the image and `num_absent` random seen classes that are not in it.
    * `episode`: others and one random class of the image, every other class becoming others (the published scripts'
      two-way form); an image with no class keeps others and one random class.

    Args:
      labels: remapped label map.
      num_anchors: K = 1 + S.
      keys: one random key an image, so that a draw does not depend on how the batch is laid out over devices.
    """
    if label_space == "all":
        return labels, jnp.ones((labels.shape[0], num_anchors), bool)
    present = jax.vmap(lambda image: _present(image, num_anchors))(labels)
    noise = jax.vmap(lambda key: jax.random.uniform(key, (num_anchors,)))(keys)  # (B, K) in [0, 1)
    others = jnp.arange(num_anchors) == 0
    if label_space == "sampled":
        rank = jnp.argsort(jnp.argsort(jnp.where(present | others, 2.0, noise), axis=-1), axis=-1)
        return labels, present | others | (rank < num_absent)
    if label_space == "episode":
        chosen = jnp.argmax(jnp.where(others, -1.0, noise + present), axis=-1)  # (B,) a present class if there is one
        allowed = others | (jnp.arange(num_anchors) == chosen[:, None])
        other_class = ~is_void(labels) & (labels != chosen[:, None, None])
        return jnp.where(other_class, 0, labels).astype(jnp.uint8), allowed
    raise ValueError(f"unknown label space {label_space!r}")


def _present(label: UInt8[Array, "H W"], num_anchors: int) -> Bool[Array, "K"]:
    counts: Int[Array, 256] = jnp.bincount(label.ravel(), length=256)
    return counts[:num_anchors] > 0
