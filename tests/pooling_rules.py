"""The table of tests.golden.torch_drn's pyramid pooling, of which no weights were published."""

from sazs_jax.pretrained.conversion import Rule, batch_norm, conv_kernel

POOLING_RULES = (
    Rule("branches.{i}.1.weight", "branches.{i}.conv.kernel", conv_kernel),
    *batch_norm("branches.{i}.2", "branches.{i}.bn"),
    Rule("fuse.0.weight", "fuse.conv.kernel", conv_kernel),
    *batch_norm("fuse.1", "fuse.bn"),
)
