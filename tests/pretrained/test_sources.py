"""From files in every layout to the parts of a network, and what is said of files that will not do."""

import json
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file

from sazs_jax.errors import UserError
from sazs_jax.models import sazs
from sazs_jax.models.drn import DRN_CONFIGS, DRNConfig
from sazs_jax.models.sazs import SAZS
from sazs_jax.models.vit import VIT_CONFIGS, ViTConfig, resize_positions
from sazs_jax.pretrained.convert import convert_encoder
from sazs_jax.pretrained.sources import load_pretrained
from sazs_jax.pretrained.weights_file import write_weights
from tests.random_weights import random_weights
from tests.seeded_weights import seeded_weights

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def small_encoders(monkeypatch):
    """ViT-S/16 and the DRNs at the golden files' sizes."""
    monkeypatch.setitem(VIT_CONFIGS, "vit_s16", ViTConfig(dim=32, depth=4, num_heads=2, taps=(0, 1, 2, 3), grid=3))
    monkeypatch.setitem(sazs._REASSEMBLE_CHANNELS, "vit_s16", (8, 12, 16, 20))
    for name, bottleneck in (("drn_d_22", False), ("drn_d_105", True)):
        config = DRNConfig(bottleneck, (1, 1, 1, 2, 1, 2, 1, 1, 1), (4, 4, 6, 4, 4, 6, 6, 8, 8))
        monkeypatch.setitem(DRN_CONFIGS, name, config)


def make_model(encoder: str, **settings) -> SAZS:
    settings = {"embedding_dim": 12, "decoder_width": 16, **settings}
    return random_weights(lambda: SAZS(encoder, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0), **settings))


def weights_of(module: nnx.Module) -> dict[str, np.ndarray]:
    return {".".join(map(str, path)): np.asarray(value[...]) for path, value in nnx.to_flat_state(nnx.state(module))}


def lseg_tensors() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "lseg.npz") as golden:
        return seeded_weights(json.loads(str(golden["shapes"])))


def timm_tensors() -> dict[str, np.ndarray]:
    prefix = "pretrained.model."
    tensors = {k.removeprefix(prefix): v for k, v in lseg_tensors().items() if k.startswith(prefix)}
    return tensors | {"head.weight": np.ones((10, 32), np.float32), "head.bias": np.ones(10, np.float32)}


def drn_tensors(kind: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "drn.npz") as golden:
        tensors = seeded_weights(json.loads(str(golden[f"{kind}/shapes"])))
    return tensors | {"fc.weight": np.ones((10, 8, 1, 1), np.float32), "fc.bias": np.ones(10, np.float32)}


def augreg_tensors() -> dict[str, np.ndarray]:
    """The weights of `timm_tensors` as the AugReg study stores them: kernels (in, out), a head an axis."""
    timm = timm_tensors()
    tensors = {
        "cls": timm["cls_token"],
        "embedding/kernel": timm["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": timm["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": timm["pos_embed"],
        "Transformer/encoder_norm/scale": timm["norm.weight"],
        "head/kernel": timm["head.weight"].T,
    }
    for i in range(4):
        block, source = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        kernels = timm[f"{source}.attn.qkv.weight"].T.reshape(32, 3, 2, 16)
        biases = timm[f"{source}.attn.qkv.bias"].reshape(3, 2, 16)
        for j, name in enumerate(("query", "key", "value")):
            tensors[f"{attention}/{name}/kernel"], tensors[f"{attention}/{name}/bias"] = kernels[:, j], biases[j]
        tensors[f"{attention}/out/kernel"] = timm[f"{source}.attn.proj.weight"].T.reshape(2, 16, 32)
        tensors[f"{attention}/out/bias"] = timm[f"{source}.attn.proj.bias"]
        for theirs, ours in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            tensors[f"{block}/{theirs}/scale"] = timm[f"{source}.{ours}.weight"]
            tensors[f"{block}/{theirs}/bias"] = timm[f"{source}.{ours}.bias"]
        for theirs, ours in (("Dense_0", "mlp.fc1"), ("Dense_1", "mlp.fc2")):
            tensors[f"{block}/MlpBlock_3/{theirs}/kernel"] = timm[f"{source}.{ours}.weight"].T
            tensors[f"{block}/MlpBlock_3/{theirs}/bias"] = timm[f"{source}.{ours}.bias"]
    return tensors


def save(tensors, path: Path) -> str:
    if path.suffix == ".npz":
        np.savez(path, **tensors)
    else:
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)
    return str(path)


def assert_same(module: nnx.Module, other: nnx.Module) -> None:
    expected = weights_of(other)
    for name, value in weights_of(module).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_an_encoder_is_set_and_the_rest_stays(tmp_path):
    model, before = make_model("vit_s16"), make_model("vit_s16")
    tensors = timm_tensors()
    load_pretrained(model, save(tensors, tmp_path / "vit.safetensors"))
    kernel = weights_of(model)["encoder.blocks.2.fc1.kernel"]
    np.testing.assert_array_equal(kernel, tensors["blocks.2.mlp.fc1.weight"].T)
    for part in ("decoder", "reassemble", "head"):
        assert_same(getattr(model, part), getattr(before, part))


def test_augreg_files_hold_the_same_weights_as_timms(tmp_path):
    model, other = make_model("vit_s16"), make_model("vit_s16")
    load_pretrained(model, save(timm_tensors(), tmp_path / "timm.npz"))
    load_pretrained(other, save(augreg_tensors(), tmp_path / "augreg.npz"))
    assert_same(model, other)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_files(dtype, tmp_path):
    tensors = {name: x.astype(dtype) for name, x in timm_tensors().items()}
    model = make_model("vit_s16")
    load_pretrained(model, save(tensors, tmp_path / "vit.safetensors"))
    bias = weights_of(model)["encoder.blocks.0.fc1.bias"]
    assert bias.dtype == jnp.float32
    np.testing.assert_array_equal(bias, tensors["blocks.0.mlp.fc1.bias"].astype(np.float32))


def test_prefix_of_data_parallel(tmp_path):
    model, other = make_model("drn_d_22"), make_model("drn_d_22")
    tensors = drn_tensors("basic")
    load_pretrained(model, save(tensors, tmp_path / "a.npz"))
    load_pretrained(other, save({f"module.{name}": x for name, x in tensors.items()}, tmp_path / "b.npz"))
    assert_same(model, other)


def test_position_embeddings_of_another_grid_are_resized(tmp_path):
    tensors = timm_tensors()
    tensors["pos_embed"] = np.random.default_rng(0).normal(size=(1, 26, 32)).astype(np.float32)
    model = make_model("vit_s16")
    load_pretrained(model, save(tensors, tmp_path / "vit.npz"))
    np.testing.assert_allclose(
        weights_of(model)["encoder.pos_embed"], resize_positions(jnp.asarray(tensors["pos_embed"]), (3, 3)), atol=1e-6
    )
    tensors["pos_embed"] = tensors["pos_embed"][:, :24]
    with pytest.raises(UserError, match=r"1 of another shape: pos_embed \(\(1, 24, 32\), for \(1, 10, 32\) here\)"):
        load_pretrained(model, save(tensors, tmp_path / "vit.npz"))


@pytest.mark.parametrize("prefix", ["net.", "module.net.", ""])
def test_lseg_sets_encoder_decoder_and_head(prefix, tmp_path):
    model = make_model("vit_s16", boundary=True)
    tensors = {prefix + name: x for name, x in lseg_tensors().items()}
    if prefix == "net.":
        tensors |= {"criterion.weight": np.ones(2), "net.clip_pretrained.logit_scale": np.ones(())}
    load_pretrained(model, save(tensors, tmp_path / "lseg.npz"))
    found, before = weights_of(model), weights_of(make_model("vit_s16", boundary=True))
    np.testing.assert_array_equal(found["head.bias"], tensors[f"{prefix}scratch.head1.bias"])
    np.testing.assert_array_equal(
        found["decoder.fusion.3.unit.bn2.var"], tensors[f"{prefix}scratch.refinenet4.resConfUnit2.bn2.running_var"]
    )
    np.testing.assert_array_equal(found["boundary_head.conv.kernel"], before["boundary_head.conv.kernel"])


SOURCES = {
    "timm": (timm_tensors, "vit_s16"),
    "augreg": (augreg_tensors, "vit_s16"),
    "drn": (lambda: drn_tensors("bottleneck"), "drn_d_105"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_converted_encoder_is_the_same_bit_for_bit(source, tmp_path):
    make_tensors, encoder = SOURCES[source]
    path = save(make_tensors(), tmp_path / "theirs.npz")
    assert convert_encoder(source, path, tmp_path / "ours.safetensors") == encoder
    assert all(name.startswith("encoder.") for name in load_file(tmp_path / "ours.safetensors"))
    model, other = make_model(encoder), make_model(encoder)
    load_pretrained(model, path)
    load_pretrained(other, str(tmp_path / "ours.safetensors"))
    assert_same(model, other)


def test_a_file_of_ours_goes_into_a_network_with_a_boundary_head_and_into_one_without(tmp_path):
    with_head, without = make_model("vit_s16", boundary=True), make_model("vit_s16")
    load_pretrained(with_head, save(timm_tensors(), tmp_path / "vit.npz"))
    write_weights(tmp_path / "whole.safetensors", with_head, {})
    load_pretrained(without, str(tmp_path / "whole.safetensors"))
    assert_same(without, with_head)
    write_weights(tmp_path / "less.safetensors", without, {})
    again = make_model("vit_s16", boundary=True)
    load_pretrained(again, str(tmp_path / "less.safetensors"))
    assert_same(without, again)


def test_the_package_converts_too(tmp_path):
    assert convert_encoder("efficientnet_lite0", "package", tmp_path / "lite.safetensors") == "efficientnet_lite0"
    model, other = make_model("efficientnet_lite0"), make_model("efficientnet_lite0")
    load_pretrained(model, "package")
    load_pretrained(other, str(tmp_path / "lite.safetensors"))
    assert_same(model, other)


def test_a_file_of_another_model_is_told(tmp_path):
    model = make_model("vit_s16")
    with pytest.raises(UserError, match=r"holds weights of DRN, the model's encoder is a ViT; set model.encoder=drn_d"):
        load_pretrained(model, save(drn_tensors("basic"), tmp_path / "drn.npz"))
    with pytest.raises(UserError, match="holds weights of EfficientNetLite0, .* set model.encoder=efficientnet_lite0"):
        load_pretrained(model, "package")
    other = {"bert.weight": np.ones(2, np.float32)}
    with pytest.raises(UserError, match=r"bert.weight, ...: none of the known layouts \(timm, augreg, drn, lseg"):
        load_pretrained(model, save(other, tmp_path / "bert.npz"))
    with pytest.raises(UserError, match="holds nothing"):
        load_pretrained(model, save({}, tmp_path / "empty.npz"))
    with pytest.raises(UserError, match="is of the layout drn, not timm; convert it as drn"):
        convert_encoder("timm", str(tmp_path / "drn.npz"), tmp_path / "out.safetensors")
    with pytest.raises(UserError, match="end its name so"):
        convert_encoder("drn", str(tmp_path / "drn.npz"), tmp_path / "out")
    wide = {name: np.repeat(x, 2, axis=-1) for name, x in timm_tensors().items()}
    with pytest.raises(UserError, match="a ViT of width 64; known are 32, 768, 1024"):
        convert_encoder("timm", save(wide, tmp_path / "wide.npz"), tmp_path / "out.safetensors")
    with pytest.raises(UserError, match=r"tensors 30 missing: layer3.0.*; 22 of another shape: layer3.0"):
        load_pretrained(make_model("drn_d_105"), str(tmp_path / "drn.npz"))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.4, 0.99])
def test_a_truncated_file_is_told(suffix, keep, tmp_path):
    path = tmp_path / f"vit{suffix}"
    content = Path(save(timm_tensors(), path)).read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match=f"damaged, cut short or no {suffix[1:]} file") as caught:
        load_pretrained(make_model("vit_s16"), str(path))
    assert "\n" not in str(caught.value)


def test_a_vit_without_a_class_token_and_lseg_on_a_resnet_are_told(tmp_path):
    tensors = timm_tensors()
    without = {name: x for name, x in tensors.items() if name != "cls_token"}
    without["pos_embed"] = without["pos_embed"][:, 1:]
    path = save(without, tmp_path / "gap.npz")
    expected = "lacks cls_token, a row: it is of no ViT with a class token"
    with pytest.raises(UserError, match=expected):
        convert_encoder("timm", path, tmp_path / "out.safetensors")
    with pytest.raises(UserError, match=expected):
        load_pretrained(make_model("drn_d_22"), path)
    with pytest.raises(UserError, match="1 missing: cls_token"):
        load_pretrained(make_model("vit_s16"), path)
    path = save(tensors | {"cls_token": np.float32(1)}, tmp_path / "scalar.npz")
    with pytest.raises(UserError, match=expected):
        convert_encoder("timm", path, tmp_path / "out.safetensors")
    resnet = {"net.scratch.head1.weight": np.ones((12, 16, 1, 1)), "net.pretrained.layer1.0.weight": np.ones((4, 4))}
    with pytest.raises(UserError, match="lacks pretrained.model.cls_token, a row"):
        load_pretrained(make_model("drn_d_22"), save(resnet, tmp_path / "rn101.npz"))


@pytest.mark.parametrize("tokens", [0, 1, 3])
def test_positions_of_no_grid_are_told(tokens, tmp_path):
    path = save(timm_tensors() | {"pos_embed": np.zeros((1, tokens, 32), np.float32)}, tmp_path / "vit.npz")
    with pytest.raises(UserError, match=rf"1 of another shape: pos_embed \(\(1, {tokens}, 32\), for"):
        load_pretrained(make_model("vit_s16"), path)


def test_what_is_there_already_is_not_written_over(tmp_path):
    path = Path(save(timm_tensors(), tmp_path / "vit.safetensors"))
    before = path.read_bytes()
    with pytest.raises(UserError, match="vit.safetensors is there already and stays as it is; choose another OUT"):
        convert_encoder("timm", str(path), path)
    assert path.read_bytes() == before


def test_an_absent_file_and_a_hub_out_of_reach_are_one_line_each(monkeypatch, tmp_path):
    model = make_model("vit_s16")
    with pytest.raises(UserError, match="none.pth: cannot be read"):
        load_pretrained(model, str(tmp_path / "none.pth"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    hub_id = "timm/vit_small_patch16_384.augreg_in21k_ft_in1k"
    with pytest.raises(UserError) as caught:
        load_pretrained(model, hub_id)
    assert str(caught.value).startswith(f"{hub_id}: no such directory, and the hub cannot be reached; ")
    assert "place model.safetensors or pytorch_model.bin in a directory" in str(caught.value)
