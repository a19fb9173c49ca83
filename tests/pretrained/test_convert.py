"""`python -m sazs_jax.pretrained` and `sazs_jax.export_weights` as a person runs them."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import load_file, save_file

from configs import affine_mlp, pascal
from data.folds import VOC_CLASSES
from sazs_jax.errors import UserError
from sazs_jax.export_weights import export_weights
from sazs_jax.models.sazs import build_model
from sazs_jax.pretrained.convert import convert_lseg
from sazs_jax.pretrained.dino import load_dino
from sazs_jax.pretrained.sources import load_pretrained
from sazs_jax.segmenter import Segmenter
from sazs_jax.training.checkpoints import restore_model
from tests.random_weights import random_weights
from tests.seeded_weights import seeded_weights
from tests.tiny_run import command, complaint, make_run

GOLDEN = Path(__file__).parents[1] / "golden" / "lseg.npz"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


def flat(model) -> dict[str, np.ndarray]:
    return {".".join(map(str, path)): np.asarray(value[...]) for path, value in nnx.to_flat_state(nnx.state(model))}


def test_a_checkpoint_to_safetensors_and_back_is_the_same_bit_for_bit(run, tmp_path):
    config, model, _, _ = restore_model(run)
    export_weights(run, tmp_path / "run.safetensors")
    tensors = load_file(tmp_path / "run.safetensors")
    other = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0)), seed=1)
    load_pretrained(other, str(tmp_path / "run.safetensors"))
    expected, found = flat(model), flat(other)
    assert expected.keys() == found.keys() == tensors.keys()
    for name, value in expected.items():
        assert value.tobytes() == found[name].tobytes() == tensors[name].tobytes(), name


def lseg_file(folder: Path) -> Path:
    """LSeg's layout on ViT-S/16 with a narrow decoder, as Lightning names it."""
    with np.load(GOLDEN) as golden:
        tensors = seeded_weights(json.loads(str(golden["vit_s16/shapes"])))
    save_file({f"net.{name}": tensor for name, tensor in tensors.items()}, folder / "lseg.safetensors")
    return folder / "lseg.safetensors"


def test_lseg_goes_straight_into_evaluate_and_predict(run, tmp_path):
    out = tmp_path / "lseg"
    table = run.parent / "words.npz"
    arguments = (
        "--config=configs/pascal_fold1.py:vit_s16",
        "--config.model.decoder_width=16",
        "--config.model.embedding_dim=64",
        "--config.model.dtype=float32",
        f"--config.text.anchors={table}",
        f"--config.data.root={run.parent / 'devkit'}",
        f"--config.data.cache={run.parent / 'cache'}",
    )
    file = lseg_file(tmp_path)
    convert = ("-m", "sazs_jax.pretrained", "lseg", file, out)
    assert "lseg needs --config and --labels" in complaint(command(*convert))
    odd_one = ",".join(("unicorn", *VOC_CLASSES[1:]))
    assert "lacks 'unicorn'" in complaint(command(*convert, *arguments, f"--labels={odd_one}"))
    assert not out.exists()
    convert = (*convert, *arguments, f"--labels={','.join(VOC_CLASSES)}")
    result = command(*convert)
    assert result.returncode == 0, result.stderr
    assert "is there already and stays as it is" in complaint(command(*convert))

    no_download = ("--config.spectral.features=lite", "--config.spectral.solver=subspace", "--config.spectral.grid=8")
    result = command("evaluate.py", "--workdir", out, "--config.eval.resize=64", *no_download)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((out / "eval" / "metrics.json").read_text())
    assert metrics["fusion"]["none"]["pairs"] == {"bus": 0, "car": 0, "cat": 2, "chair": 0, "cow": 1}

    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(photo)
    result = command("predict.py", "--workdir", out, "--labels", "cat,zebra", "--out", tmp_path / "masks", photo)
    assert result.returncode == 0, result.stderr
    mask = np.array(Image.open(tmp_path / "masks" / "photo.mask.png"))

    config, _, _, _ = restore_model(out)
    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0)))
    load_pretrained(model, str(file))
    with np.load(table) as words:
        anchors = dict(zip(words["names"].tolist(), words["embeddings"], strict=True))
    direct = Segmenter(model, anchors, lambda: pytest.fail("no other words are asked for"))
    expected = direct.segment(photo, ["cat", "zebra"]).label_map
    assert (mask == expected).mean() > 0.99  # another number of devices rounds otherwise


def test_lseg_with_which_nothing_could_be_done_is_refused_and_nothing_written(run, tmp_path):
    out, file = tmp_path / "lseg", str(lseg_file(tmp_path))

    def convert(labels, config=None, **changes):
        config = config or pascal.get_config(1, "vit_s16")
        config.text.anchors = str(run.parent / "words.npz")
        config.update_from_flattened_dict({"model.decoder_width": 16, "model.embedding_dim": 64, **changes})
        convert_lseg(file, out, config, labels)

    with pytest.raises(UserError, match="anchors have 64 dimensions and model.embedding_dim is 512"):
        convert(VOC_CLASSES, **{"model.embedding_dim": 512})
    with pytest.raises(UserError, match="the config is of task='affine_mlp'"):
        convert(VOC_CLASSES, affine_mlp.get_config())
    with pytest.raises(UserError, match="must differ from one another and from others; repeated: cat$"):
        convert([*VOC_CLASSES[:-1], "cat"])
    with pytest.raises(UserError, match="repeated: others$"):
        convert(["others", *VOC_CLASSES[1:]])
    with pytest.raises(UserError, match="--labels names cat, sofa; pascal_5i has 20 classes, give all of them"):
        convert(["cat", "sofa"])
    assert not out.exists()


def test_dino_is_converted_by_the_command(tmp_path):
    with np.load(GOLDEN.with_name("dino.npz")) as golden:
        tensors = seeded_weights(json.loads(str(golden["shapes"])))
    save_file(tensors, tmp_path / "model.safetensors")
    out = tmp_path / "dino.safetensors"
    result = command("-m", "sazs_jax.pretrained", "dino", tmp_path, out)
    assert result.returncode == 0, result.stderr
    assert f"--config.spectral.dino={out}" in result.stdout
    assert load_file(out)["pos_embed"].shape == tensors["embeddings.position_embeddings"].shape
    for grid in (4, 6):
        expected = flat(load_dino(str(tmp_path), grid))
        for name, value in flat(load_dino(str(out), grid)).items():
            assert value.tobytes() == expected[name].tobytes(), name


def test_an_encoder_is_converted_by_the_command(tmp_path):
    out = tmp_path / "lite.safetensors"
    result = command("-m", "sazs_jax.pretrained", "efficientnet_lite0", "package", out)
    assert result.returncode == 0, result.stderr
    assert f"--config.model.encoder=efficientnet_lite0 --config.model.pretrained={out}" in result.stdout
    assert all(name.startswith("encoder.") for name in load_file(out))
    assert "SOURCE one of timm, augreg, drn" in complaint(command("-m", "sazs_jax.pretrained", "resnet", "a", "b"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(out.read_bytes()[:5000])
    line = complaint(command("-m", "sazs_jax.pretrained", "timm", broken, tmp_path / "none.safetensors"))
    assert "damaged, cut short" in line
    assert not (tmp_path / "none.safetensors").exists()


def test_bfloat16_weights_of_ours_are_read(run, tmp_path):
    config, model, _, _ = restore_model(run)
    export_weights(run, tmp_path / "run.safetensors", dtype="bfloat16")
    other = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0)), seed=1)
    load_pretrained(other, str(tmp_path / "run.safetensors"))
    rounded = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16).astype(jnp.float32), nnx.state(model))
    for found, expected in zip(jax.tree.leaves(nnx.state(other)), jax.tree.leaves(rounded), strict=True):
        np.testing.assert_array_equal(found, expected)
