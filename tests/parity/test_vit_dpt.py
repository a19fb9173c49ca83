"""ViT-L/16 and the DPT decoder against transformers in PyTorch, with random weights under timm's and LSeg's names."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from configs import pascal
from sazs_jax.models.sazs import build_model
from sazs_jax.pretrained.sources import load_pretrained
from tests.random_weights import random_weights
from tests.relative_error import relative_error

torch = pytest.importorskip("torch", reason="live parity needs PyTorch: make parity")
pytestmark = pytest.mark.parity

TAPS = (5, 11, 17, 23)
SIZES = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": 384,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
    "attn_implementation": "eager",
}
# transformers' names (of both of its spellings) to timm's.
VIT_NAMES = (
    (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.cls_token", "cls_token"),
    (r"(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"attention\.attention\.(query|key|value)", r"attn.\1"),
    (r"attention\.([qkv])_proj", r"attn.\1"),
    (r"attention\.output\.dense|attention\.o_proj", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(blocks\.\d+)\.output\.dense", r"\1.mlp.fc2"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^layernorm", "norm"),
)
NECK_NAMES = (
    (r"reassemble_stage\.layers\.(\d)\.projection", lambda m: f"pretrained.act_postprocess{int(m[1]) + 1}.3"),
    (r"reassemble_stage\.layers\.(\d)\.resize", lambda m: f"pretrained.act_postprocess{int(m[1]) + 1}.4"),
    (
        r"reassemble_stage\.readout_projects\.(\d)\.0",
        lambda m: f"pretrained.act_postprocess{int(m[1]) + 1}.0.project.0",
    ),
    (r"^convs\.(\d)", lambda m: f"scratch.layer{int(m[1]) + 1}_rn"),
    (r"fusion_stage\.layers\.(\d)", lambda m: f"scratch.refinenet{4 - int(m[1])}"),
    (r"projection", "out_conv"),
    (r"residual_layer(\d)", r"resConfUnit\1"),
    (r"convolution(\d)", r"conv\1"),
    (r"batch_norm(\d)", r"bn\1"),
)


def renamed(state, names, prefix=""):
    result = {}
    for key, tensor in state.items():
        for pattern, replacement in names:
            key = re.sub(pattern, replacement, key)
        result[prefix + key] = tensor.numpy()
    return result


def fused(tensors):
    """Query, key and value joined, as timm has them."""
    result = {key: value for key, value in tensors.items() if not re.search(r"attn\.(query|key|value|q|k|v)\.", key)}
    for key in tensors:
        if match := re.search(r"(.*attn\.)(query|q)(\..*)", key):
            before, first, after = match.groups()
            others = {"query": ("key", "value"), "q": ("k", "v")}[first]
            parts = [tensors[before + name + after] for name in (first, *others)]
            result[f"{before}qkv{after}"] = np.concatenate(parts)
    return result


def randomize(module):
    from tests.golden.make_clip_text import randomize as add_noise

    torch.manual_seed(0)
    add_noise(module, scale=0.02)
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(0.3 * torch.rand_like(buffer))
    return module.eval()


def make_model():
    config = pascal.get_config(1)
    config.model.dtype = "float32"
    return random_weights(lambda: build_model(config, rngs=nnx.Rngs(0)))


def tokens_of(encoder, x):
    first, _ = encoder.embed(x)
    taps = encoder(x)
    joined = [jnp.concatenate([t.cls[:, None], t.patches.reshape(len(x), -1, 1024)], axis=1) for t in taps]
    return [first, encoder.blocks[0](first), *joined], taps


def check(names, outputs, expected):
    errors = [relative_error(value, reference.numpy()) for value, reference in zip(outputs, expected, strict=True)]
    print(*(f"{name}: {error:.1e}" for name, error in zip(names, errors, strict=True)), sep=", ")
    assert max(errors) < 1e-4


TOKENS = ["embedding", "first block", *(f"tap {tap}" for tap in TAPS)]


def test_vit_l16(tmp_path):
    from transformers import ViTConfig, ViTModel

    module = randomize(ViTModel(ViTConfig(**SIZES), add_pooling_layer=False))
    save_file(fused(renamed(module.state_dict(), VIT_NAMES)), tmp_path / "model.safetensors")
    x = torch.from_numpy(np.random.RandomState(0).normal(size=(1, 3, 384, 384)).astype(np.float32))
    outputs = []
    for block in getattr(module, "layers", None) or module.encoder.layer:
        block.register_forward_hook(lambda *arguments: outputs.append(first_of(arguments[2])))
    with torch.no_grad():
        outputs.append(module.embeddings(x))
        module(x)
    model = make_model()
    load_pretrained(model, str(tmp_path))
    found = nnx.jit(lambda encoder, x: tokens_of(encoder, x)[0])(
        model.encoder, jnp.asarray(x.permute(0, 2, 3, 1).numpy())
    )
    check(TOKENS, found, [outputs[0], outputs[1], *(outputs[1 + tap] for tap in TAPS)])


def first_of(output):
    return output[0] if isinstance(output, tuple) else output


def test_dpt_on_vit_l16(tmp_path):
    from transformers import DPTConfig, DPTForDepthEstimation

    config = DPTConfig(
        **SIZES,
        is_hybrid=False,
        backbone_out_indices=list(TAPS),
        readout_type="project",
        neck_hidden_sizes=[256, 512, 1024, 1024],
        fusion_hidden_size=256,
        use_batch_norm_in_fusion_residual=True,
        use_bias_in_fusion_residual=False,
    )
    module = randomize(DPTForDepthEstimation(config))
    head = {"scratch.head1.weight": np.zeros((512, 256, 1, 1)), "scratch.head1.bias": np.zeros(512)}  # has no peer
    tensors = fused(renamed(module.dpt.state_dict(), VIT_NAMES, "pretrained.model."))
    tensors |= renamed(module.neck.state_dict(), NECK_NAMES) | {k: v.astype(np.float32) for k, v in head.items()}
    save_file(tensors, tmp_path / "dpt.safetensors")
    x = torch.from_numpy(np.random.RandomState(0).normal(size=(1, 3, 256, 256)).astype(np.float32))
    with torch.no_grad():
        hidden = module.dpt(x, output_hidden_states=True).hidden_states
        pyramid = module.neck.reassemble_stage([hidden[1 + tap] for tap in TAPS], None, None)
        decoded = module.neck([hidden[1 + tap] for tap in TAPS])[-1]
    expected = [hidden[0], hidden[1], *(hidden[1 + tap] for tap in TAPS)]
    expected += [value.permute(0, 2, 3, 1) for value in (*pyramid, decoded)]
    model = make_model()
    load_pretrained(model, str(tmp_path / "dpt.safetensors"))

    def run(model, x):
        tokens, taps = tokens_of(model.encoder, x)
        pyramid = model.reassemble(taps)
        return [*tokens, *pyramid, model.decoder(pyramid, train=False)]

    outputs = nnx.jit(run)(model, jnp.asarray(x.permute(0, 2, 3, 1).numpy()))
    check([*TOKENS, *(f"level {i}" for i in range(4)), "decoder"], outputs, expected)
