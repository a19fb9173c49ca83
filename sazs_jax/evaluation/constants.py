"""The generalised setting under many calibration constants at once, to choose one (see `sazs_jax.calibration`)."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from sazs_jax.calibration import calibrate
from sazs_jax.evaluation.episodes import LabelledImage
from sazs_jax.evaluation.metrics import VOID, confusion_matrix
from sazs_jax.inference import Network, make_batches
from sazs_jax.models.sazs import SAZS


def confusion_by_constant(
    model: SAZS,
    images: Iterable[LabelledImage],
    anchors: Float[np.ndarray, "K D"],
    untrained: Sequence[int],
    constants: Float[np.ndarray, "G"],
    *,
    lookup: UInt8[np.ndarray, "256"],
    resize: int,
    batch_size: int,
) -> Float[np.ndarray, "G K K"]:
    """Pixels by true (row) and predicted (column) label, all labels at once, for each constant.

    Counted at decoder resolution, each cell for its share of the image's own pixels: a hundred constants cost little
    more than one.

    Args:
      model: the network.
      images: with their label maps.
      anchors: "others", then a row a word.
      untrained: 0-based words that get the constant.
      constants: in units of the cosine.
      lookup: from values of the label maps to rows of `anchors`, 255 for what is not counted.
      resize: 0, the images' own size, or the side that they are squashed to for the network.
      batch_size: images a pass.

    Raises:
      UserError: the network does not take images of that side.
    """
    network = Network(model)
    is_untrained = np.isin(np.arange(len(anchors) - 1), untrained).astype(np.float32)
    steps = jnp.asarray(constants[:, None] * is_untrained, jnp.float32)  # (G, W)
    sums = np.zeros((len(constants), len(anchors), len(anchors)))
    for batch in make_batches(
        images, lambda item: item.image, multiple=network.size_multiple, resize=resize, batch_size=batch_size
    ):
        cosines = network.cosine(batch.pixels, anchors)
        grid = (cosines.shape[1], cosines.shape[2])
        labels = np.full((batch_size, *grid), VOID, np.uint8)
        weights = np.zeros(batch_size)
        for row, item in enumerate(batch.items):
            labels[row] = lookup[_nearest(item.label, grid)]
            weights[row] = item.label.size / (grid[0] * grid[1])
        counts = np.asarray(_count(cosines, jnp.asarray(labels), steps))
        sums += np.einsum("gbkl,b->gkl", counts, weights)
    return sums


@jax.jit
def _count(
    cosines: Float[Array, "B h w K"], labels: UInt8[Array, "B h w"], steps: Float[Array, "G W"]
) -> Int[Array, "G B K K"]:
    count = jax.vmap(lambda label, found: confusion_matrix(label[None], found[None], cosines.shape[-1]))
    return jax.lax.map(lambda constants: count(labels, jnp.argmax(calibrate(cosines, constants), axis=-1)), steps)


def _nearest(label: UInt8[np.ndarray, "H W"], grid: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """The label in the middle of each cell."""
    rows, columns = ((np.arange(n) + 0.5) * size / n for n, size in zip(grid, label.shape, strict=True))
    return label[np.ix_(rows.astype(int), columns.astype(int))]
