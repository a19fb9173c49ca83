"""DRN-D in the layout of its authors' `.pth` files (drn_d_105, drn_d_22)."""

from sazs_jax.pretrained.conversion import Rule, batch_norm, conv_kernel

IGNORE = ("fc.*", "*.num_batches_tracked")


def drn_rules(*, path: str = "") -> tuple[Rule, ...]:
    """The table; `path` goes before every path of ours."""
    plain, ours = "layer{i}", f"{path}levels.{{i}}.0"
    residual, block = "layer{i}.{j}", f"{path}levels.{{i}}.{{j}}"
    rules = [
        Rule(f"{plain}.0.weight", f"{ours}.conv.kernel", conv_kernel),
        *batch_norm(f"{plain}.1", f"{ours}.bn"),
        Rule(f"{residual}.downsample.0.weight", f"{block}.shortcut.conv.kernel", conv_kernel),
        *batch_norm(f"{residual}.downsample.1", f"{block}.shortcut.bn"),
    ]
    for unit in range(3):
        rules += [
            Rule(f"{residual}.conv{unit + 1}.weight", f"{block}.units.{unit}.conv.kernel", conv_kernel),
            *batch_norm(f"{residual}.bn{unit + 1}", f"{block}.units.{unit}.bn"),
        ]
    return tuple(rules)
