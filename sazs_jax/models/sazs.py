"""The composed network: dense encoder, decoder, and the head into CLIP's text space (paper 3.2)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, Shaped, UInt8
from ml_collections import ConfigDict

from sazs_jax.errors import UserError
from sazs_jax.models.boundary import BoundaryHead
from sazs_jax.models.convolutions import Conv
from sazs_jax.models.dpt import DPTDecoder, Reassemble
from sazs_jax.models.drn import DRN, DRN_CONFIGS, PyramidPooling
from sazs_jax.models.efficientnet import EfficientNetLite0
from sazs_jax.models.vit import VIT_CONFIGS, ViT, ViTTap

# Channels of the reassembled pyramid (DPT's for L/16 and B/16).
_REASSEMBLE_CHANNELS = {
    "vit_tiny": (32, 48, 64, 96),
    "vit_s16": (48, 96, 192, 384),
    "vit_b16": (96, 192, 384, 768),
    "vit_l16": (256, 512, 1024, 1024),
}
COMPUTE_TYPES = ("float32", "bfloat16", "float16")
ENCODERS = (*VIT_CONFIGS, *DRN_CONFIGS, "efficientnet_lite0")

# The name of the axis that the training step maps over devices; BatchNorm statistics are averaged over it.
DEVICE_AXIS = "devices"


class PixelOutput(NamedTuple):
    """What the network says of an image."""

    embeddings: Float[Array, "B h w D"]  # F_V of paper 3.2, not normalised; stride 2 of ViT-DPT, 8 of DRN, 4 of Lite;
    # without a decoder that of the encoder's last map: 16, 8, 32. In the type that the network computes in
    boundary_logits: Float[Array, "B h2 w2"] | None  # paper 3.3, at stride 4, float32; None without a head


class SAZS(nnx.Module):
    """Image to pixel embeddings and, with a boundary head, to the edges of objects.

    A `decoder_width` of 0 leaves the decoder out: the head projects the encoder's last map, as in SPNet.
    Compute runs in `dtype`, and embeddings come out in it; parameters and boundary logits are float32.
    """

    def __init__(
        self,
        encoder: str,
        *,
        embedding_dim: int,
        decoder_width: int,
        dropout: float = 0.0,
        dtype: jnp.dtype,
        remat: bool = False,
        attention: str = "auto",
        freeze_encoder: bool = False,
        boundary: bool = False,
        batchnorm_axis: str | None = None,
        rngs: nnx.Rngs,
    ):
        if encoder not in ENCODERS:
            raise UserError(f"model.encoder={encoder!r} is unknown; choose one of {', '.join(ENCODERS)}")
        if decoder_width < 0:
            raise UserError(f"model.decoder_width={decoder_width}: expected channels, or 0 for no decoder")
        if not 0 <= dropout < 1:
            raise UserError(f"model.dropout={dropout}: expected at least 0 and less than 1")
        self.dtype = dtype
        self.dropout = dropout
        self.freeze_encoder = freeze_encoder
        if encoder in VIT_CONFIGS:
            vit = VIT_CONFIGS[encoder]
            self.encoder = ViT(vit, dtype=dtype, remat=remat, attention=attention, rngs=rngs)
            channels, middle = (vit.dim,), (vit.dim, vit.patch_size)
        else:
            settings = {"axis_name": batchnorm_axis, "dtype": dtype, "remat": remat, "rngs": rngs}
            is_drn = encoder in DRN_CONFIGS
            self.encoder = DRN(DRN_CONFIGS[encoder], **settings) if is_drn else EfficientNetLite0(**settings)
            channels = self.encoder.channels
            middle = (channels[1], 8)
        if encoder in VIT_CONFIGS and decoder_width:
            self.reassemble = Reassemble(channels[-1], _REASSEMBLE_CHANNELS[encoder], dtype=dtype, rngs=rngs)
            channels = self.reassemble.channels
        else:
            self.reassemble = None
        if not decoder_width:
            self.decoder = None
        elif encoder in DRN_CONFIGS:
            self.decoder = PyramidPooling(channels[-1], decoder_width, axis_name=batchnorm_axis, dtype=dtype, rngs=rngs)
        else:
            self.decoder = DPTDecoder(
                channels,
                decoder_width,
                final_upsample=encoder in VIT_CONFIGS and encoder != "vit_tiny",
                axis_name=batchnorm_axis,
                dtype=dtype,
                rngs=rngs,
            )
        self.head = Conv(decoder_width or channels[-1], embedding_dim, (1, 1), dtype=dtype, rngs=rngs)
        self.boundary_head = BoundaryHead(*middle, dtype=dtype, rngs=rngs) if boundary else None

    @property
    def size_multiple(self) -> int:
        """The image's sides must be multiples of this."""
        return self.encoder.size_multiple

    def __call__(
        self, images: UInt8[Array, "B H W 3"], *, train: bool = False, dropout_keys: Key[Array, "B"] | None = None
    ) -> PixelOutput:
        """Embed every pixel, and find the edges.

        Args:
          images: RGB; H and W multiples of `size_multiple`.
          train: BatchNorm takes the batch's statistics and updates its running ones, and dropout is on.
          dropout_keys: one an image; needed in training where dropout is not 0.
        """
        x = (images.astype(jnp.float32) - self.encoder.pixel_mean) / self.encoder.pixel_std
        features: Any = self.encoder(x.astype(self.dtype), train=train and not self.freeze_encoder)
        if self.freeze_encoder:
            features = jax.lax.stop_gradient(features)
        boundary_logits = None
        if self.boundary_head is not None:  # half depth of a ViT, stride 8 of a CNN
            boundary_logits = self.boundary_head(_map_of(features[1]))
        if self.reassemble is not None:
            features = self.reassemble(features)
        x = _map_of(features[-1]) if self.decoder is None else self.decoder(features, train=train)
        if train and self.dropout:
            if dropout_keys is None:
                raise ValueError("dropout is on and there are no keys for it")
            x = jax.vmap(lambda key, row: _drop(key, row, self.dropout))(dropout_keys, x)
        return PixelOutput(self.head(x), boundary_logits)


def build_model(config: ConfigDict, *, rngs: nnx.Rngs, batchnorm_axis: str | None = None) -> SAZS:
    """The network that a config describes, with random weights.

    It has a boundary head where one of the losses that train it, `loss.shape_weight` and `loss.bce_weight`, is on.
    """
    settings = config.model
    if settings.dtype not in COMPUTE_TYPES:
        raise UserError(f"model.dtype={settings.dtype!r} is unknown; choose one of {', '.join(COMPUTE_TYPES)}")
    return SAZS(
        settings.encoder,
        embedding_dim=settings.embedding_dim,
        decoder_width=settings.decoder_width,
        dropout=settings.dropout,
        dtype=jnp.dtype(settings.dtype),
        remat=settings.remat,
        attention=settings.attention,
        freeze_encoder=settings.freeze_encoder,
        boundary=bool(config.loss.shape_weight or config.loss.bce_weight),
        batchnorm_axis=batchnorm_axis,
        rngs=rngs,
    )


def _map_of(level: Any) -> Float[Array, "B h w C"]:
    return level.patches if isinstance(level, ViTTap) else level


def _drop(key: Key[Array, ""], x: Float[Array, "h w C"], rate: float) -> Float[Array, "h w C"]:
    """Zero a share `rate` of the values and scale up the rest, so that their mean stays."""
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def cosine_logits(
    embeddings: Shaped[Array, "B h w D"], anchors: Shaped[Array, "K D"], scale: float = 1.0
) -> Float[Array, "B h w K"]:
    """`scale` times the cosine of every pixel embedding with every anchor (the exponents of Eq. 1), in float32.

    The products are formed of the embeddings' type, their sums in float32, so 16-bit embeddings are never widened.
    """
    anchors = anchors.astype(jnp.float32)
    anchors = anchors / jnp.maximum(jnp.linalg.norm(anchors, axis=-1, keepdims=True), 1e-6)
    products = jnp.einsum(
        "bhwd,kd->bhwk", embeddings, anchors.astype(embeddings.dtype), preferred_element_type=jnp.float32
    )
    squares = jnp.sum(jnp.square(embeddings.astype(jnp.float32)), axis=-1, keepdims=True)
    return scale * products * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))
