"""BatchNorm whose running statistics stay float32, whatever the computation runs in."""

from collections.abc import Sequence

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array


def batch_norm(
    channels: int,
    *,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    axis_name: str | None,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> nnx.BatchNorm:
    """BatchNorm over the last axis; the defaults are PyTorch's (its momentum 0.1 is 0.9 here).

    Args:
      channels: size of the last axis.
      momentum: share of the running statistics that stays at each step.
      epsilon: added to the variance.
      axis_name: the mapped axis over which statistics are averaged while training; None: no such axis.
      dtype: type of the result.
      rngs: for the initial values.
    """
    # Promotion is off so that running statistics enter in float32; the result is of type `dtype` all the same.
    return nnx.BatchNorm(
        channels,
        momentum=momentum,
        epsilon=epsilon,
        axis_name=axis_name,
        dtype=dtype,
        promote_dtype=_keep_types,  # type: ignore[arg-type]
        rngs=rngs,
    )


def _keep_types(arrays: Sequence[Array | None], **_) -> Sequence[Array | None]:
    return arrays
