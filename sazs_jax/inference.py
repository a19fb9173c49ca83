"""Images of any size through the network in fixed-size batches, and its logits back at each image's own size."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from sazs_jax.errors import UserError
from sazs_jax.models.sazs import SAZS, cosine_logits
from sazs_jax.rowwise import run_by_rows
from sazs_jax.spectral.features import to_grid

LARGEST_SIDE = 1024  # of the network's input at an image's own size; larger images are shrunk to it
CANVAS_STEP = 64  # canvases are multiples of this, and larger own sizes too, so that few programs compile
# Upsampled logits alive at a time (floats, over the whole batch), but at least a row. A CPU is fastest row by row.
BLOCK_ELEMENTS, CPU_BLOCK_ELEMENTS = 1 << 26, 1

Item = TypeVar("Item")


@dataclass(frozen=True)
class Batch(Generic[Item]):
    """Images of one network size. Rows from len(items) on are padding: black images of 1x1 pixel."""

    items: tuple[Item, ...]
    pixels: UInt8[np.ndarray, "B h w 3"]  # resized to the network's size
    sizes: Int[np.ndarray, "B 2"]  # the images' own (height, width)

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width, multiples of CANVAS_STEP, that hold every image of the batch at its own size."""
        height, width = (-(-int(side) // CANVAS_STEP) * CANVAS_STEP for side in self.sizes.max(axis=0))
        return height, width


def network_size(size: tuple[int, int], multiple: int, resize: int) -> tuple[int, int]:
    """Height and width at which the network sees an image of `size`.

    Args:
      size: the image's own (height, width).
      multiple: the network takes sides that are multiples of this.
      resize: N > 0 squashes to NxN. 0 keeps the own size, images whose long side passes LARGEST_SIDE shrunk to it, but
        rounds each side to the nearest step: `multiple`, doubled while that is at most CANVAS_STEP and a fourth of the
        side. So images of many sizes fall into few; a side of four multiples or more moves by an eighth at most, each
        for itself.

    Raises:
      UserError: N is no multiple.
    """
    if resize % multiple:
        raise UserError(f"eval.resize={resize} must be a multiple of {multiple} for this encoder")
    if resize:
        return resize, resize
    height, width = size
    shrink = min(1.0, LARGEST_SIDE / max(height, width))
    return _rounded(height * shrink, multiple), _rounded(width * shrink, multiple)


def _rounded(side: float, multiple: int) -> int:
    step = multiple
    while 2 * step <= min(CANVAS_STEP, side / 4):
        step *= 2
    return max(1, int(side / step + 0.5)) * step


def resize_image(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Bilinear, antialiased where it shrinks."""
    if image.shape[:2] == size:
        return image
    height, width = size
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def make_batches(
    items: Iterable[Item],
    image_of: Callable[[Item], np.ndarray],
    *,
    multiple: int,
    resize: int,
    batch_size: int,
) -> Iterator[Batch[Item]]:
    """Group items by the network size of their images; every batch has `batch_size` rows, the last ones padded.

    Args:
      items: what the batches are made of, in any order and of any number.
      image_of: gives an item's image, uint8 (H, W, 3).
      multiple: see `network_size`.
      resize: see `network_size`.
      batch_size: rows of every batch.

    Raises:
      UserError: see `network_size`.
    """

    def batch(waiting: list[Item], size: tuple[int, int]) -> Batch[Item]:
        pixels = np.zeros((batch_size, *size, 3), np.uint8)
        sizes = np.ones((batch_size, 2), np.int32)
        for row, item in enumerate(waiting):
            image = image_of(item)
            pixels[row] = resize_image(image, size)
            sizes[row] = image.shape[:2]
        return Batch(tuple(waiting), pixels, sizes)

    groups: dict[tuple[int, int], list[Item]] = {}
    for item in items:
        height, width = image_of(item).shape[:2]
        size = network_size((height, width), multiple, resize)
        groups.setdefault(size, []).append(item)
        if len(groups[size]) == batch_size:
            yield batch(groups.pop(size), size)
    for size, waiting in groups.items():
        yield batch(waiting, size)


class Network:
    """A network ready for inference, its weights on every local device.

    A batch whose size is a multiple of the number of devices is spread over them. Programs are kept by the structure of
    the module, so a second `Network` of the same kind, with other weights, compiles nothing.
    """

    def __init__(self, model: SAZS):
        mesh = Mesh(np.array(jax.local_devices()), ("batch",))
        self._whole = NamedSharding(mesh, PartitionSpec())
        self._by_row = NamedSharding(mesh, PartitionSpec("batch"))
        self._num_devices = mesh.size
        self.size_multiple = model.size_multiple
        self._graphdef, state = nnx.split(model)
        self._state = jax.device_put(state, self._whole)

    def put(self, rows: np.ndarray) -> jax.Array:
        """An array with a leading batch dimension, on the devices."""
        return jax.device_put(rows, self._by_row if len(rows) % self._num_devices == 0 else self._whole)

    def embed(self, pixels: UInt8[np.ndarray, "B H W 3"]) -> Float[Array, "B h w D"]:
        """Embeddings at decoder resolution, not normalised, in the type that the network computes in.

        H and W are multiples of `size_multiple`.
        """
        return run_by_rows(_embed, self._state, self.put(pixels), graphdef=self._graphdef)

    def cosine(
        self, pixels: UInt8[np.ndarray, "B H W 3"], anchors: Float[np.ndarray, "K D"]
    ) -> Float[Array, "B h w K"]:
        """Cosine in [-1, 1] of every pixel's embedding with every anchor (Eq. 1), at decoder resolution."""
        return self.cosine_on_grid(pixels, anchors, 0)[0]

    def cosine_on_grid(
        self, pixels: UInt8[np.ndarray, "B H W 3"], anchors: Float[np.ndarray, "K D"], grid: int
    ) -> tuple[Float[Array, "B h w K"], Float[Array, "B g g D"] | None]:
        """`cosine`, and the embeddings resized to grid x grid (None for a grid of 0); their own map is not kept."""
        whole = self._state, jax.device_put(anchors, self._whole)
        return run_by_rows(_cosine, whole, self.put(pixels), graphdef=self._graphdef, grid=grid)


def _embed(state, images, *, graphdef):
    return nnx.merge(graphdef, state)(images, train=False).embeddings


def _cosine(whole, images, *, graphdef, grid):
    state, anchors = whole
    embeddings = _embed(state, images, graphdef=graphdef)
    return cosine_logits(embeddings, anchors), to_grid(embeddings, grid) if grid else None


class _Places(NamedTuple):
    """Between which samples of an axis new ones lie, and how far from the first."""

    low: Int[Array, "*n"]
    high: Int[Array, "*n"]
    weight: Float[Array, "*n"]


def _places(old: int, size: Int[Array, ""], length: int) -> _Places:
    """Of `length` samples, where `old` ones are stretched to `size`; those past `size` repeat the edge."""
    position = jnp.clip((jnp.arange(length) + 0.5) * (old / size) - 0.5, 0, old - 1)
    low = jnp.floor(position).astype(jnp.int32)
    return _Places(low, jnp.minimum(low + 1, old - 1), position - low)


def _sample(x: jax.Array, axis: int, places: _Places) -> jax.Array:
    weight = jnp.expand_dims(places.weight, [i for i in range(x.ndim) if i != axis])
    return jnp.take(x, places.low, axis=axis) * (1 - weight) + jnp.take(x, places.high, axis=axis) * weight


def upsample(
    logits: Float[Array, "B h w K"], sizes: Int[Array, "B 2"], canvas: tuple[int, int]
) -> Float[Array, "B H W K"]:
    """Bilinear, half-pixel centres, no antialiasing (PyTorch's align_corners=False), each image to its own size.

    Args:
      logits: at decoder resolution.
      sizes: own height and width of every image.
      canvas: (H, W), at least as large as every size. What lies outside an image repeats its edge.
    """

    def one(x: jax.Array, size: jax.Array) -> jax.Array:
        for axis in range(2):
            x = _sample(x, axis, _places(x.shape[axis], size[axis], canvas[axis]))
        return x

    return jax.vmap(one)(logits, sizes)


def upsampled_argmax(
    logits: Float[Array, "B h w K"],
    sizes: Int[Array, "B 2"],
    canvas: tuple[int, int],
    values: Float[Array, "B h w K"] | None = None,
) -> tuple[Int[Array, "B H W"], Float[Array, "B H W"]]:
    """Index and value of the largest of `upsample`'s K logits at every pixel; of equal ones the first.

    Goes by blocks of rows, at least one, of at most BLOCK_ELEMENTS upsampled logits, whatever K; on a CPU row by row.

    Args:
      logits: at decoder resolution.
      sizes: own height and width of every image.
      canvas: see `upsample`.
      values: what the second result is taken from, upsampled likewise; by default the logits.
    """
    by_rows = partial(_argmax_by_rows, canvas=canvas)
    return jax.lax.platform_dependent(
        logits,
        sizes,
        values,
        cpu=partial(by_rows, limit=CPU_BLOCK_ELEMENTS),
        default=partial(by_rows, limit=BLOCK_ELEMENTS),
    )


def _argmax_by_rows(
    logits: Float[Array, "B h w K"],
    sizes: Int[Array, "B 2"],
    values: Float[Array, "B h w K"] | None,
    *,
    canvas: tuple[int, int],
    limit: int,
) -> tuple[Int[Array, "B H W"], Float[Array, "B H W"]]:
    batch, h, w, classes = logits.shape
    height, width = canvas
    rows = min(max(1, limit // (batch * width * classes)), height)
    blocks = -(-height // rows)
    across = jax.vmap(lambda size: _places(w, size, width))(sizes[:, 1])
    down = jax.vmap(lambda size: _places(h, size, blocks * rows))(sizes[:, 0])
    down = jax.tree.map(lambda x: x.reshape(batch, blocks, rows).swapaxes(0, 1), down)

    def block(down: _Places):
        def stretched(x: jax.Array) -> jax.Array:  # (B, rows, W, K)
            x = jax.vmap(lambda x, places: _sample(x, 0, places))(x, down)
            return jax.vmap(lambda x, places: _sample(x, 1, places))(x, across)

        index, largest = _first_largest(stretched(logits))
        if values is None:
            return index, largest
        return index, jnp.take_along_axis(stretched(values), index[..., None], axis=-1)[..., 0]

    index, value = jax.lax.map(block, down)  # each (blocks, B, rows, W)
    return tuple(x.swapaxes(0, 1).reshape(batch, blocks * rows, width)[:, :height] for x in (index, value))


def _first_largest(x: Float[Array, "*n K"]) -> tuple[Int[Array, "*n"], Float[Array, "*n"]]:
    """Index and value of the largest along the last axis."""

    def in_two_passes(x: jax.Array):  # a CPU's argmax is five times slower
        largest, last = x.max(axis=-1), x.shape[-1] - 1
        return jnp.where(x < largest[..., None], last, jnp.arange(last + 1, dtype=jnp.int32)).min(axis=-1), largest

    def by_argmax(x: jax.Array):
        index = jnp.argmax(x, axis=-1).astype(jnp.int32)
        return index, jnp.take_along_axis(x, index[..., None], axis=-1)[..., 0]

    return jax.lax.platform_dependent(x, cpu=in_two_passes, default=by_argmax)
