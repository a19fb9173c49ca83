"""Images of any size through the network in fixed-size batches, and its logits back at each image's own size."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from sazs_jax.errors import UserError
from sazs_jax.models.sazs import SAZS, cosine_logits
from sazs_jax.spectral.features import to_grid

LARGEST_SIDE = 1024  # of the network's input at an image's own size; larger images are shrunk to it
CANVAS_STEP = (
    64  # canvases are multiples of this, and own sizes are rounded to it at most, so that few programs compile
)
# Upsampled logits alive at a time (floats, over the whole batch). A CPU is faster on what its caches hold; an
# accelerator reads the best so far anew for each chunk.
CHUNK_ELEMENTS, CPU_CHUNK_ELEMENTS = 1 << 26, 1 << 22

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
        side. So images of many sizes fall into few, and a side of four multiples or more moves by an eighth at most.

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
        return _embed(self._graphdef, self._state, self.put(pixels))

    def cosine(
        self, pixels: UInt8[np.ndarray, "B H W 3"], anchors: Float[np.ndarray, "K D"]
    ) -> Float[Array, "B h w K"]:
        """Cosine in [-1, 1] of every pixel's embedding with every anchor (Eq. 1), at decoder resolution."""
        return self.cosine_on_grid(pixels, anchors, 0)[0]

    def cosine_on_grid(
        self, pixels: UInt8[np.ndarray, "B H W 3"], anchors: Float[np.ndarray, "K D"], grid: int
    ) -> tuple[Float[Array, "B h w K"], Float[Array, "B g g D"] | None]:
        """`cosine`, and the embeddings resized to grid x grid (None for a grid of 0); their own map is not kept."""
        return _cosine(self._graphdef, self._state, self.put(pixels), jax.device_put(anchors, self._whole), grid)


@partial(jax.jit, static_argnums=0)
def _embed(graphdef, state, images):
    return nnx.merge(graphdef, state)(images, train=False).embeddings


@partial(jax.jit, static_argnums=(0, 4))
def _cosine(graphdef, state, images, anchors, grid):
    embeddings = nnx.merge(graphdef, state)(images, train=False).embeddings
    return cosine_logits(embeddings, anchors), to_grid(embeddings, grid) if grid else None


def _resample(x: jax.Array, axis: int, size: jax.Array, length: int) -> jax.Array:
    """Stretch `axis` to `size` samples, held in `length` of them; what lies past `size` repeats the edge."""
    last = x.shape[axis] - 1
    position = (jnp.arange(length) + 0.5) * (x.shape[axis] / size) - 0.5
    position = jnp.clip(position, 0, last)
    low = jnp.floor(position).astype(jnp.int32)
    weight = jnp.expand_dims(position - low, [i for i in range(x.ndim) if i != axis])
    high = jnp.minimum(low + 1, last)
    return jnp.take(x, low, axis=axis) * (1 - weight) + jnp.take(x, high, axis=axis) * weight


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
        x = _resample(x, 0, size[0], canvas[0])  # (H, w, K)
        return _resample(x, 1, size[1], canvas[1])  # (H, W, K)

    return jax.vmap(one)(logits, sizes)


def upsampled_argmax(
    logits: Float[Array, "B h w K"],
    sizes: Int[Array, "B 2"],
    canvas: tuple[int, int],
    values: Float[Array, "B h w K"] | None = None,
) -> tuple[Int[Array, "B H W"], Float[Array, "B H W"]]:
    """Index and value of the largest of `upsample`'s K logits at every pixel; of equal ones the first.

    Never holds more than CHUNK_ELEMENTS upsampled logits, whatever K.

    Args:
      logits: at decoder resolution.
      sizes: own height and width of every image.
      canvas: see `upsample`.
      values: what the second result is taken from, upsampled likewise; by default the logits.
    """
    by_chunks = partial(_argmax_by_chunks, canvas=canvas)
    return jax.lax.platform_dependent(
        logits,
        sizes,
        values,
        cpu=partial(by_chunks, limit=CPU_CHUNK_ELEMENTS),
        default=partial(by_chunks, limit=CHUNK_ELEMENTS),
    )


def _argmax_by_chunks(
    logits: Float[Array, "B h w K"],
    sizes: Int[Array, "B 2"],
    values: Float[Array, "B h w K"] | None,
    *,
    canvas: tuple[int, int],
    limit: int,
) -> tuple[Int[Array, "B H W"], Float[Array, "B H W"]]:
    batch, h, w, classes = logits.shape
    chunk = max(1, min(classes, limit // (batch * canvas[0] * canvas[1])))
    chunks = -(-classes // chunk)
    padding = ((0, 0), (0, 0), (0, 0), (0, chunks * chunk - classes))

    def stacked(x):
        x = jnp.pad(x, padding, constant_values=jnp.finfo(x.dtype).min / 2)  # -inf would make NaN
        return jnp.moveaxis(x.reshape(batch, h, w, chunks, chunk), 3, 0)  # (chunks, B, h, w, chunk)

    def step(best, inputs):
        index, largest, value = best
        number, part, value_part = inputs
        part = upsample(part, sizes, canvas)
        winner = jnp.argmax(part, axis=-1)[..., None]
        top = jnp.take_along_axis(part, winner, axis=-1)[..., 0]
        found = top
        if values is not None:
            found = jnp.take_along_axis(upsample(value_part, sizes, canvas), winner, axis=-1)[..., 0]
        better = top > largest
        index = jnp.where(better, (number * chunk + winner[..., 0]).astype(jnp.int32), index)
        return (index, jnp.where(better, top, largest), jnp.where(better, found, value)), None

    none = jnp.full((batch, *canvas), -jnp.inf, logits.dtype)
    start = (jnp.zeros((batch, *canvas), jnp.int32), none, none)
    parts = (jnp.arange(chunks), stacked(logits), None if values is None else stacked(values))
    (index, _, value), _ = jax.lax.scan(step, start, parts)
    return index, value
