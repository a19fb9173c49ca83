"""OpenAI's CLIP: from its `.pt` and vocabulary to a tower that `text.tower` takes."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sazs_jax.errors import UserError
from sazs_jax.pretrained.clip_openai import load_openai_clip, write_openai_tokenizer
from sazs_jax.pretrained.clip_text import load_clip_text
from sazs_jax.pretrained.convert import convert_clip
from sazs_jax.pretrained.random_clip_text import write_random_tower
from sazs_jax.pretrained.tensor_file import read_tensors
from tests.relative_error import relative_error

GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_embedding_equals_pytorch():
    tower = load_openai_clip(read_tensors(GOLDEN / "clip_openai.pt"), "clip_openai.pt")
    with np.load(GOLDEN / "clip_openai.npz") as golden:
        assert relative_error(tower(jnp.asarray(golden["ids"])).embedding, golden["embedding"]) < 1e-5


def test_clips_own_vocabulary_gives_the_published_ids(sazs_data, tmp_path):
    from transformers import CLIPTokenizer

    write_openai_tokenizer(sazs_data / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz", tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    assert tokenizer("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]


def openai_layout(directory: Path) -> dict[str, np.ndarray]:
    """The tensors of a directory in transformers' layout under OpenAI's names."""
    tensors = load_file(directory / "model.safetensors")
    result = {
        "token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
        "text_projection": np.ascontiguousarray(tensors["text_projection.weight"].T),
        "logit_scale": np.ones((), np.float32),
        "visual.proj": np.ones((2, 2), np.float32),
    }
    for kind in ("weight", "bias"):
        result[f"ln_final.{kind}"] = tensors[f"text_model.final_layer_norm.{kind}"]
        for i in range(2):
            theirs, ours = f"text_model.encoder.layers.{i}", f"transformer.resblocks.{i}"
            parts = [tensors[f"{theirs}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            result[f"{ours}.attn.in_proj_{kind}"] = np.concatenate(parts)
            names = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2"}
            names |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
            for theirs_name, name in names.items():
                result[f"{ours}.{name}.{kind}"] = tensors[f"{theirs}.{theirs_name}.{kind}"]
    return result


def test_both_layouts_convert_to_the_same_tower(tmp_path):
    theirs = tmp_path / "transformers"
    write_random_tower(theirs, ["red", "circle"], dim=256)
    expected, tokenizer = load_clip_text(str(theirs))
    ids = jnp.asarray(tokenizer(["red circle"])["input_ids"])

    convert_clip(str(theirs), tmp_path / "ours")
    tower, again = load_clip_text(str(tmp_path / "ours"))
    assert again("red circle")["input_ids"] == ids[0].tolist()
    np.testing.assert_array_equal(tower(ids).embedding, expected(ids).embedding)

    openai = tmp_path / "openai"
    openai.mkdir()
    save_file(openai_layout(theirs), openai / "clip.safetensors")
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(theirs / name, openai / name)
    convert_clip(str(openai / "clip.safetensors"), tmp_path / "from_openai")
    tower, _ = load_clip_text(str(tmp_path / "from_openai"))
    assert tower.config.num_heads == expected.config.num_heads == 4
    np.testing.assert_array_equal(tower(ids).embedding, expected(ids).embedding)


def test_a_lacking_vocabulary_or_tower_is_told(tmp_path):
    shutil.copyfile(GOLDEN / "clip_openai.pt", tmp_path / "clip.pt")
    with pytest.raises(UserError, match=r"place CLIP's bpe_simple_vocab_16e6.txt.gz beside it"):
        convert_clip(str(tmp_path / "clip.pt"), tmp_path / "out")
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match=r"expected CLIP's bpe_simple_vocab_16e6.txt.gz"):
        convert_clip(str(tmp_path / "clip.pt"), tmp_path / "out")
    save_file({"fc.weight": np.ones(2, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="no tower in OpenAI's layout"):
        convert_clip(str(tmp_path / "other.safetensors"), tmp_path / "out")
    tensors = {k: v for k, v in read_tensors(tmp_path / "clip.pt").items() if k != "text_projection"}
    with pytest.raises(UserError, match="does not hold CLIP's text tower"):
        load_openai_clip(tensors, "clip.pt")
    assert not (tmp_path / "out").exists()


def test_a_tower_is_written_whole_or_not_at_all_and_over_nothing(tmp_path):
    theirs = tmp_path / "theirs"
    write_random_tower(theirs, ["red", "circle"], dim=64)
    before = {path.name: path.read_bytes() for path in theirs.iterdir()}
    for source in (theirs, tmp_path / "none.pt"):
        with pytest.raises(UserError, match="theirs is there already and stays as it is"):
            convert_clip(str(source), theirs)
    assert {path.name: path.read_bytes() for path in theirs.iterdir()} == before

    file = tmp_path / "openai" / "clip.safetensors"
    file.parent.mkdir()
    save_file(openai_layout(theirs), file)
    (file.parent / "vocab.json").write_text("{")
    with pytest.raises(UserError, match=r"openai: the tokenizer's files cannot be read"):
        convert_clip(str(file), tmp_path / "deep" / "out")
    assert not list((tmp_path / "deep").iterdir())
