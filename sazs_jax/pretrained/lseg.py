"""LSeg's checkpoints (Li et al., 2022): ViT encoder, DPT decoder and the head into CLIP's text space."""

from collections.abc import Mapping

import numpy as np

from sazs_jax.pretrained.conversion import (
    Rule,
    batch_norm,
    conv,
    conv_kernel,
    linear,
    transposed_conv_kernel,
)
from sazs_jax.pretrained.vit import vit_rules

IGNORE = (
    "pretrained.model.norm.*",
    "pretrained.model.head.*",
    "scratch.refinenet4.resConfUnit1.*",  # of the coarsest level, which has nothing to add: never used
    "*.num_batches_tracked",
    "clip_pretrained.*",  # CLIP as a whole; the text comes from `text.tower` or `text.anchors`
    "logit_scale",
)


def lseg_rules(grid: int) -> tuple[Rule, ...]:
    """The table, onto the paths of a whole `SAZS`; `grid` as in `vit_rules`."""
    rules = [*vit_rules(grid, source="pretrained.model.", path="encoder.")]
    for level in range(4):
        reassemble, refine = f"pretrained.act_postprocess{level + 1}", f"scratch.refinenet{level + 1}"
        ours = f"decoder.fusion.{level}"
        rules += [
            *linear(f"{reassemble}.0.project.0", f"reassemble.readout.{level}"),
            *conv(f"{reassemble}.3", f"reassemble.project.{level}"),
            Rule(f"scratch.layer{level + 1}_rn.weight", f"decoder.lateral.{level}.kernel", conv_kernel),
            *conv(f"{refine}.out_conv", f"{ours}.out_conv"),
        ]
        for theirs, unit in (("resConfUnit1", "skip_unit"), ("resConfUnit2", "unit")):
            for i in (1, 2):
                rules += [
                    Rule(f"{refine}.{theirs}.conv{i}.weight", f"{ours}.{unit}.conv{i}.kernel", conv_kernel),
                    *batch_norm(f"{refine}.{theirs}.bn{i}", f"{ours}.{unit}.bn{i}"),
                ]
    for level, ours in ((1, "up4"), (2, "up2")):
        rules += [
            Rule(f"pretrained.act_postprocess{level}.4.weight", f"reassemble.{ours}.kernel", transposed_conv_kernel),
            Rule(f"pretrained.act_postprocess{level}.4.bias", f"reassemble.{ours}.bias"),
        ]
    return (*rules, *conv("pretrained.act_postprocess4.4", "reassemble.down2"), *conv("scratch.head1", "head"))


def without_net_prefix(tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The network's tensors of a Lightning checkpoint, where `net.` goes before them; others are the training's."""
    prefix = "net."
    inner = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return inner or tensors
