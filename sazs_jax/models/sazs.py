"""The composed network: dense encoder, decoder, and the head into CLIP's text space (paper 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Shaped, UInt8
from ml_collections import ConfigDict

from sazs_jax.errors import UserError
from sazs_jax.models.dpt import DPTDecoder, Reassemble
from sazs_jax.models.efficientnet import EfficientNetLite0
from sazs_jax.models.vit import VIT_CONFIGS, ViT

# Channels of the reassembled pyramid (DPT's for L/16 and B/16).
_REASSEMBLE_CHANNELS = {
    "vit_tiny": (32, 48, 64, 96),
    "vit_s16": (48, 96, 192, 384),
    "vit_b16": (96, 192, 384, 768),
    "vit_l16": (256, 512, 1024, 1024),
}
ENCODERS = (*VIT_CONFIGS, "efficientnet_lite0")

# The name of the axis that the training step maps over devices; BatchNorm statistics are averaged over it.
DEVICE_AXIS = "devices"


class SAZS(nnx.Module):
    """Image to pixel embeddings F_V of paper 3.2.

    Compute runs in `dtype`; parameters and the embeddings that come out are float32.
    """

    def __init__(
        self,
        encoder: str,
        *,
        embedding_dim: int,
        decoder_width: int,
        dtype: jnp.dtype,
        remat: bool = False,
        freeze_encoder: bool = False,
        batchnorm_axis: str | None = None,
        rngs: nnx.Rngs,
    ):
        if encoder not in ENCODERS:
            raise UserError(f"model.encoder={encoder!r} is unknown; choose one of {', '.join(ENCODERS)}")
        self.dtype = dtype
        self.freeze_encoder = freeze_encoder
        if encoder in VIT_CONFIGS:
            vit = VIT_CONFIGS[encoder]
            self.encoder = ViT(vit, dtype=dtype, remat=remat, rngs=rngs)
            self.reassemble = Reassemble(vit.dim, _REASSEMBLE_CHANNELS[encoder], dtype=dtype, rngs=rngs)
            channels = self.reassemble.channels
        else:
            self.encoder = EfficientNetLite0(axis_name=batchnorm_axis, dtype=dtype, remat=remat, rngs=rngs)
            self.reassemble = None
            channels = self.encoder.channels
        self.decoder = DPTDecoder(
            channels,
            decoder_width,
            final_upsample=encoder in VIT_CONFIGS and encoder != "vit_tiny",
            axis_name=batchnorm_axis,
            dtype=dtype,
            rngs=rngs,
        )
        self.head = nnx.Conv(decoder_width, embedding_dim, (1, 1), dtype=dtype, rngs=rngs)

    @property
    def size_multiple(self) -> int:
        """The image's sides must be multiples of this."""
        return self.encoder.size_multiple

    def __call__(self, images: UInt8[Array, "B H W 3"], *, train: bool = False) -> Float[Array, "B h w D"]:
        """Embed every pixel.

        Args:
          images: RGB; H and W multiples of `size_multiple`.
          train: BatchNorm takes the batch's statistics and updates its running ones.

        Returns:
          Embeddings at decoder resolution, not normalised: stride 2 for a ViT-DPT, 4 for EfficientNet-Lite0.
        """
        x = (images.astype(jnp.float32) - self.encoder.pixel_mean) / self.encoder.pixel_std
        features: Any = self.encoder(x.astype(self.dtype), train=train and not self.freeze_encoder)
        if self.freeze_encoder:
            features = jax.lax.stop_gradient(features)
        if self.reassemble is not None:
            features = self.reassemble(features)
        x = self.decoder(features, train=train)
        return self.head(x).astype(jnp.float32)


def build_model(config: ConfigDict, *, rngs: nnx.Rngs, batchnorm_axis: str | None = None) -> SAZS:
    """The network that `config` (the `model` group) describes, with random weights."""
    if config.dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"model.dtype={config.dtype!r} is unknown; choose float32, bfloat16 or float16")
    return SAZS(
        config.encoder,
        embedding_dim=config.embedding_dim,
        decoder_width=config.decoder_width,
        dtype=jnp.dtype(config.dtype),
        remat=config.remat,
        freeze_encoder=config.freeze_encoder,
        batchnorm_axis=batchnorm_axis,
        rngs=rngs,
    )


def cosine_logits(
    embeddings: Shaped[Array, "B h w D"], anchors: Shaped[Array, "K D"], scale: float = 1.0
) -> Float[Array, "B h w K"]:
    """`scale` times the cosine of every pixel embedding with every anchor, in float32 (the exponents of Eq. 1)."""
    embeddings = embeddings.astype(jnp.float32)
    anchors = anchors.astype(jnp.float32)
    anchors = anchors / jnp.maximum(jnp.linalg.norm(anchors, axis=-1, keepdims=True), 1e-6)
    norms = jnp.maximum(jnp.linalg.norm(embeddings, axis=-1, keepdims=True), 1e-6)
    return scale * jnp.einsum("bhwd,kd->bhwk", embeddings, anchors) / norms
