"""The same networks in PyTorch, as fast as their users would make them: the one file that imports torch.

ViT and DPT are transformers' `DPTForSemanticSegmentation` with our 1x1 head instead of its own, so that both sides
have the same products to form: scaled-dot-product attention, channels_last, a fused optimizer, TF32 and, on a GPU,
bfloat16 autocast where the config computes in it. The cosine with the anchors is formed at decoder resolution and
upsampled, as ours is. DINO is transformers' `ViTModel`.
"""

import re
from collections.abc import Mapping

import numpy as np
import torch
from flax import nnx
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict
from torch.nn import functional
from transformers import DPTConfig, DPTForSemanticSegmentation, ViTConfig, ViTModel

from benchmarks.training import NUM_ANCHORS, random_anchors
from sazs_jax.models.sazs import build_model
from sazs_jax.models.vit import VIT_CONFIGS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _set_up() -> None:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def peak_bytes() -> int | None:
    """Most bytes allocated on the GPU so far; None without one."""
    return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else None


class Network:
    """ViT and DPT of a config with random weights, to train or to predict with.

    Args:
      config: the whole config, of a ViT with a decoder.
      compiled: by `torch.compile`; else eager.
      training: with optimizer, and BatchNorm on the batch's statistics.
    """

    def __init__(self, config: ConfigDict, *, compiled: bool, training: bool):
        _set_up()
        self._scale = config.loss.logit_scale
        self._autocast = DEVICE.type == "cuda" and config.model.dtype == "bfloat16"
        self._model = _dpt(config).to(DEVICE, memory_format=torch.channels_last).train(training)
        anchors = torch.from_numpy(random_anchors(NUM_ANCHORS, config.model.embedding_dim)).to(DEVICE)
        self.anchors = functional.normalize(anchors, dim=1)
        self._loss = torch.compile(self._loss_of) if compiled else self._loss_of
        self._label_maps = torch.compile(self._label_maps_of) if compiled else self._label_maps_of
        if training:
            settings = config.optimizer
            encoder = set(self._model.dpt.parameters())
            groups = [
                {"params": list(encoder)},
                {
                    "params": [p for p in self._model.parameters() if p not in encoder],
                    "lr": settings.learning_rate * settings.decoder_multiplier,
                },
            ]
            decay = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "fused": True}
            if settings.name == "sgd":
                self._optimizer = torch.optim.SGD(groups, momentum=settings.momentum, **decay)
            else:
                self._optimizer = torch.optim.AdamW(groups, **decay)

    def train(self, batch: Mapping[str, np.ndarray], steps: int) -> None:
        """Go `steps` steps on, and wait for the last."""
        for _ in range(steps):
            images = torch.from_numpy(batch["image"]).to(DEVICE, non_blocking=True)
            labels = torch.from_numpy(batch["label"]).to(DEVICE, non_blocking=True).long()
            self._optimizer.zero_grad(set_to_none=True)
            self._loss(images, labels).backward()
            self._optimizer.step()
        synchronize()

    def predict(self, pixels: UInt8[np.ndarray, "B S S 3"], anchors: Float[np.ndarray, "K D"]) -> None:
        """Label maps of images on the host, and wait for them."""
        with torch.inference_mode():
            rows = functional.normalize(torch.from_numpy(anchors).to(DEVICE), dim=1)
            self._label_maps(torch.from_numpy(pixels).to(DEVICE, non_blocking=True), rows)
        synchronize()

    def _cosine(self, images: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        x = (images.permute(0, 3, 1, 2).float() - 127.5) / 127.5  # the view of NHWC pixels is channels_last
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self._autocast):
            embeddings = self._model(pixel_values=x).logits
        embeddings = embeddings.float()
        return functional.conv2d(embeddings, anchors[:, :, None, None]) / embeddings.norm(dim=1, keepdim=True)

    def _loss_of(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self._scale * self._cosine(images, self.anchors)
        logits = functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        return functional.cross_entropy(logits, labels, ignore_index=255)

    def _label_maps_of(self, images: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        logits = self._cosine(images, anchors)
        logits = functional.interpolate(logits, size=images.shape[1:3], mode="bilinear", align_corners=False)
        return logits.argmax(dim=1)


class _PixelHead(torch.nn.Module):
    """1x1 convolution of the decoder's finest map."""

    def __init__(self, width: int, embedding_dim: int):
        super().__init__()
        self.projection = torch.nn.Conv2d(width, embedding_dim, kernel_size=1)

    def forward(self, hidden_states: list[torch.Tensor]) -> torch.Tensor:
        return self.projection(hidden_states[-1])


def _dpt(config: ConfigDict) -> DPTForSemanticSegmentation:
    ours = nnx.eval_shape(lambda: build_model(config, rngs=nnx.Rngs(0)))
    vit = ours.encoder.config
    model = DPTForSemanticSegmentation(
        DPTConfig(
            **_vit_sizes(config.model.encoder),
            image_size=config.data.crop,  # its position embeddings need no resize
            is_hybrid=False,
            backbone_out_indices=list(vit.taps),
            readout_type="project",
            neck_hidden_sizes=list(ours.reassemble.channels),
            fusion_hidden_size=config.model.decoder_width,
            use_batch_norm_in_fusion_residual=True,
            use_bias_in_fusion_residual=False,
            use_auxiliary_head=False,
            attn_implementation="sdpa",
        )
    )
    model.head = _PixelHead(config.model.decoder_width, config.model.embedding_dim)
    return model


def _vit_sizes(encoder: str) -> dict[str, int | float]:
    vit = VIT_CONFIGS[encoder]
    return {
        "hidden_size": vit.dim,
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.num_heads,
        "intermediate_size": vit.mlp_ratio * vit.dim,
        "patch_size": vit.patch_size,
        "layer_norm_eps": vit.layer_norm_eps,
    }


class Dino:
    """DINO's ViT of an encoder's size with random weights: keys of the last block.

    Args:
      encoder: a ViT of `sazs_jax.models.vit`.
      grid: patches a side.
    """

    def __init__(self, encoder: str, grid: int):
        _set_up()
        sizes = _vit_sizes(encoder)
        self._side = int(grid * sizes["patch_size"])
        config = ViTConfig(**sizes, image_size=self._side, attn_implementation="sdpa")
        self._model = ViTModel(config, add_pooling_layer=False).to(DEVICE).eval()
        names = [name for name, _ in self._model.named_modules() if re.search(r"attention\.(k_proj|key)$", name)]
        self._model.get_submodule(names[-1]).register_forward_hook(lambda _, inputs, output: self._keep(output))

    def _keep(self, keys: torch.Tensor) -> None:
        self._keys = keys

    def keys(self, pixels: UInt8[np.ndarray, "B H W 3"]) -> Float[np.ndarray, "B N D"]:
        """Keys of the patches, row by row, on the host."""
        with torch.inference_mode():
            x = torch.from_numpy(pixels).to(DEVICE).permute(0, 3, 1, 2).float()
            x = functional.interpolate(x, size=self._side, mode="bilinear", antialias=True)
            self._model(pixel_values=x / 255 - 0.5)
            return self._keys[:, 1:].float().cpu().numpy()
