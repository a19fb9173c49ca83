"""EfficientNet-Lite0 (Tan and Le, 2019; the Lite variant has ReLU6 and no squeeze-and-excitation)."""

from typing import NamedTuple

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sazs_jax.models.batch_norm import batch_norm
from sazs_jax.models.convolutions import Conv


class Stage(NamedTuple):
    """A run of inverted residual blocks; the first one has the stride."""

    repeats: int
    expansion: int
    kernel: int
    stride: int
    channels: int


STAGES = (
    Stage(1, 1, 3, 1, 16),
    Stage(2, 6, 3, 2, 24),
    Stage(2, 6, 5, 2, 40),
    Stage(3, 6, 3, 2, 80),
    Stage(3, 6, 5, 1, 112),
    Stage(4, 6, 5, 2, 192),
    Stage(1, 6, 3, 1, 320),
)
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280


class InvertedResidual(nnx.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; each with BatchNorm, the first two with ReLU6.

    The input is added where shapes allow. An expansion of 1 has no expansion layer.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        *,
        expansion: int,
        kernel: int,
        stride: int,
        axis_name: str | None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.has_skip = stride == 1 and channels_in == channels
        hidden = expansion * channels_in
        if expansion > 1:
            self.expand = _conv(channels_in, hidden, 1, dtype=dtype, rngs=rngs)
            self.expand_bn = _batch_norm(hidden, axis_name=axis_name, dtype=dtype, rngs=rngs)
        else:
            self.expand = self.expand_bn = None
        self.depthwise = _conv(hidden, hidden, kernel, stride=stride, groups=hidden, dtype=dtype, rngs=rngs)
        self.depthwise_bn = _batch_norm(hidden, axis_name=axis_name, dtype=dtype, rngs=rngs)
        self.project = _conv(hidden, channels, 1, dtype=dtype, rngs=rngs)
        self.project_bn = _batch_norm(channels, axis_name=axis_name, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"], *, train: bool) -> Float[Array, "B h2 w2 C2"]:
        """The block's output; `train` as in `EfficientNetLite0`."""
        frozen = not train
        y = x
        if self.expand is not None and self.expand_bn is not None:
            y = jax.nn.relu6(self.expand_bn(self.expand(y), use_running_average=frozen))
        y = jax.nn.relu6(self.depthwise_bn(self.depthwise(y), use_running_average=frozen))
        y = self.project_bn(self.project(y), use_running_average=frozen)
        return x + y if self.has_skip else y


class EfficientNetLite0(nnx.Module):
    """Image to a four-level pyramid at strides 4, 8, 16 and 32.

    Convolutions pad as TensorFlow's 'SAME' does: at stride 2 the odd row and column go to the bottom and right.

    Args:
      axis_name: the mapped axis over which BatchNorm statistics are averaged while training; None: no such axis.
      dtype: type of the computation; parameters and BatchNorm statistics are float32.
      remat: recompute each block in the backward pass.
    """

    channels = (24, 40, 112, 320)
    size_multiple = 32
    # Inputs are normalised as (pixel - mean) / std, pixels in 0..255.
    pixel_mean = 127.0
    pixel_std = 128.0

    def __init__(self, *, axis_name: str | None, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs):
        self.dtype = dtype
        self.remat = remat
        self.stem = _conv(3, _STEM_CHANNELS, 3, stride=2, dtype=dtype, rngs=rngs)
        self.stem_bn = _batch_norm(_STEM_CHANNELS, axis_name=axis_name, dtype=dtype, rngs=rngs)
        channels_in = _STEM_CHANNELS
        blocks, last_of_stage = [], []
        for stage in STAGES:
            for repeat in range(stage.repeats):
                block = InvertedResidual(
                    channels_in,
                    stage.channels,
                    expansion=stage.expansion,
                    kernel=stage.kernel,
                    stride=stage.stride if repeat == 0 else 1,
                    axis_name=axis_name,
                    dtype=dtype,
                    rngs=rngs,
                )
                blocks.append(block)
                channels_in = stage.channels
            last_of_stage.append(len(blocks) - 1)
        self.blocks = nnx.List(blocks)
        # The last block of each resolution from stride 4 on.
        self.taps = tuple(last_of_stage[i] for i in (1, 2, 4, 6))

    def __call__(self, x: Float[Array, "B H W 3"], *, train: bool) -> list[Float[Array, "B _h _w _C"]]:
        """The pyramid, finest level first; `channels` tells its widths.

        Args:
          x: normalised image; H and W multiples of `size_multiple`.
          train: BatchNorm takes the batch's statistics and updates its running ones.
        """

        def run_block(block: InvertedResidual, x: Array) -> Array:
            return block(x, train=train)

        if self.remat:
            run_block = nnx.remat(run_block)
        x = self.stem_bn(self.stem(x.astype(self.dtype)), use_running_average=not train)
        x = jax.nn.relu6(x)
        pyramid = []
        for index, block in enumerate(self.blocks):
            x = run_block(block, x)
            if index in self.taps:
                pyramid.append(x)
        return pyramid


class EfficientNetLite0Classifier(nnx.Module):
    """The encoder with its ImageNet head: 1x1 convolution to 1280 channels, mean over the map, Linear.

    `encoder` is the encoder that the segmenter uses; the head shows that its weights are what they should be.
    """

    def __init__(self, num_classes: int = 1000, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.encoder = EfficientNetLite0(axis_name=None, dtype=dtype, remat=False, rngs=rngs)
        self.head = _conv(EfficientNetLite0.channels[-1], _HEAD_CHANNELS, 1, dtype=dtype, rngs=rngs)
        self.head_bn = _batch_norm(_HEAD_CHANNELS, axis_name=None, dtype=dtype, rngs=rngs)
        self.fc = nnx.Linear(_HEAD_CHANNELS, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W 3"], *, train: bool) -> Float[Array, "B K"]:
        """Class logits of normalised images."""
        x = self.encoder(x, train=train)[-1]
        x = jax.nn.relu6(self.head_bn(self.head(x), use_running_average=not train))
        return self.fc(x.mean(axis=(1, 2)))


def _conv(
    channels_in: int,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> Conv:
    return Conv(
        channels_in,
        channels,
        (kernel, kernel),
        strides=stride,
        padding="SAME",
        feature_group_count=groups,
        use_bias=False,
        dtype=dtype,
        rngs=rngs,
    )


def _batch_norm(channels: int, *, axis_name: str | None, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return batch_norm(channels, momentum=0.99, epsilon=1e-3, axis_name=axis_name, dtype=dtype, rngs=rngs)
