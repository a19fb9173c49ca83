"""True edges drawn over photographs, of VOC's own masks (void on every outline) and of SBD's (none).

python -m experiments edge_targets --data_root VOC2012 --out edges.png

Prints the share of edge pixels of either kind, with the void bands closed and left open, and writes a sheet.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

import data
from configs import defaults
from data.codecs import decode_image, decode_label
from sazs_jax import visualization
from sazs_jax.atomic import write_atomically
from sazs_jax.edges import edge_targets
from sazs_jax.errors import UserError
from sazs_jax.label_map import VOID

_DATA_ROOT = flags.DEFINE_string("data_root", None, "VOC devkit folder", required=True)
_OUT = flags.DEFINE_string("out", None, "PNG file to write", required=True)
_SCALE = flags.DEFINE_float("scale", 1.0, "Size of the images, over their own; void bands widen with it", 0.1, 8.0)
_VOID_BAND = flags.DEFINE_integer("void_band", None, "loss.void_band; its default where not given", lower_bound=0)
_COLUMNS = 6  # pictures a kind on the sheet


def main(arguments: Sequence[str]) -> None:
    """Print the shares and write the sheet."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    config = defaults.get_config()
    config.data.root = _DATA_ROOT.value
    if not _DATA_ROOT.value:
        raise UserError("--data_root takes a VOC devkit folder")
    loss = config.loss
    void_band = loss.void_band if _VOID_BAND.value is None else _VOID_BAND.value
    shares: dict[str, list[tuple[float, float, float]]] = {"VOC": [], "SBD": []}
    rows: dict[str, list] = {"VOC": [], "SBD": []}
    for image, label in labelled(config, _SCALE.value):
        kind = "VOC" if (label == VOID).any() else "SBD"  # only VOC's own masks hold void
        edges, known = targets(label, void_band, loss.edge_width)
        open_edges, _ = targets(label, 0, loss.edge_width)
        shares[kind].append((float(edges.mean()), float(open_edges.mean()), float(known.mean())))
        if len(rows[kind]) < _COLUMNS:
            drawn = np.where(known[..., None], image, image // 2 + 64)
            drawn[edges] = (255, 0, 0)
            rows[kind].append((f"{kind}, red: edge, pale: unknown", drawn.astype(np.uint8)))
    if not any(shares.values()):
        raise UserError(f"{_DATA_ROOT.value} has no training lists; give a devkit that has them")
    for kind, found in shares.items():
        edge, left_open, known = np.mean(found, axis=0) if found else (np.nan,) * 3
        print(
            f"{kind}: {len(found)} masks; edge pixels {edge:.4f} of all, {left_open:.4f} with void bands left open; "
            f"known {known:.4f}"
        )
    sheet = visualization.sheet([row for row in rows.values() if row])
    write_atomically(Path(_OUT.value), visualization.png(sheet))
    print(f"written to {_OUT.value}")


def targets(label: np.ndarray, void_band: int, edge_width: int) -> tuple[np.ndarray, np.ndarray]:
    """`edge_targets` of one map. Its border is repeated up to few sizes, for few compilations; that adds no edge."""
    height, width = label.shape
    padded = np.pad(label, ((0, -height % 64), (0, -width % 64)), mode="edge")
    found = _targets(jnp.asarray(padded)[None], void_band=void_band, width=edge_width)
    edges, known = (np.asarray(x[0])[:height, :width] for x in found)
    return edges, known


_targets = jax.jit(edge_targets, static_argnames=("void_band", "width"))


def labelled(config, scale: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and masks of the training lists, every second one, resized by a factor as training resizes them."""
    train = data.load(config.data, splits=("train",)).train
    for i in range(0, len(train.image_ids), 2):
        record = train.source[i]
        image, label = (Image.fromarray(decode(record[key])) for key, decode in _DECODERS.items())
        size = max(round(label.width * scale), 1), max(round(label.height * scale), 1)
        yield (
            np.asarray(image.resize(size, Image.Resampling.BILINEAR)),
            np.asarray(label.resize(size, Image.Resampling.NEAREST)),
        )


_DECODERS = {"image": decode_image, "label": decode_label}
