import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sazs_jax.errors import UserError
from sazs_jax.models.clip_text import CLIPTextConfig
from sazs_jax.pretrained.clip_text import load_clip_text, read_config
from sazs_jax.pretrained.random_clip_text import write_random_tower

WORDS = ["red", "circle"]


@pytest.fixture
def directory(tmp_path):
    write_random_tower(tmp_path, WORDS, dim=16)
    return tmp_path


def edit_config(directory: Path, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_config(tmp_path, config):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return path


def test_an_empty_configuration_is_vit_b32(tmp_path):
    assert read_config(write_config(tmp_path, {"model_type": "clip_text_model"})) == CLIPTextConfig()


def test_configuration_of_clip_as_a_whole_as_openai_has_it(tmp_path):
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "eos_token_id": 2}
    config = {"model_type": "clip", "projection_dim": 768, "text_config": text, "vision_config": {"hidden_size": 1024}}
    assert read_config(write_config(tmp_path, config)) == CLIPTextConfig(
        dim=768, mlp_dim=3072, num_heads=12, eos_token_id=2, embedding_dim=768
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "model_type is 'bert'; expected 'clip' or 'clip_text_model'"),
        ({"model_type": "clip_text_model", "hidden_act": "swish"}, "hidden_act is 'swish'; known are gelu, quick_gelu"),
        ([], "expected transformers' configuration"),
        ({"model_type": "clip", "text_config": [1]}, "expected transformers' configuration"),
        ({"model_type": "clip_text_model", "hidden_size": None}, "hidden_size is None; expected one such as 512"),
        ({"model_type": "clip_text_model", "num_hidden_layers": 0}, "num_hidden_layers is 0; expected one such as 12"),
        ({"model_type": "clip_text_model", "vocab_size": "many"}, "vocab_size is 'many'; expected one such as 49408"),
        (
            {"model_type": "clip_text_model", "num_attention_heads": 3},
            "hidden_size 512 is no multiple of num_att",
        ),
    ],
)
def test_a_configuration_of_something_else_is_told(config, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_config(write_config(tmp_path, config))


def test_a_full_clip_checkpoint_gives_the_same_tower(directory):
    module, tokenizer = load_clip_text(str(directory))
    ids = jnp.asarray(tokenizer(["red circle"])["input_ids"])
    expected = module(ids).embedding

    tensors = load_file(directory / "model.safetensors") | {
        "vision_model.post_layernorm.weight": np.ones(4, np.float32),
        "visual_projection.weight": np.ones((16, 4), np.float32),
        "logit_scale": np.array(4.6, np.float32),
        "text_model.embeddings.position_ids": np.arange(77)[None],
    }
    save_file(tensors, directory / "model.safetensors")
    edit_config(directory, model_type="clip", text_config=json.loads((directory / "config.json").read_text()))
    module, _ = load_clip_text(str(directory))
    np.testing.assert_array_equal(module(ids).embedding, expected)


def test_weights_and_configuration_that_do_not_agree_are_told(directory):
    edit_config(directory, num_hidden_layers=1)
    with pytest.raises(
        UserError, match=r"model.safetensors does not hold the weights of CLIPText; tensors 16 unexpected"
    ):
        load_clip_text(str(directory))


def test_a_truncated_safetensors_file_is_told(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="damaged, cut short or no safetensors file"):
        load_clip_text(str(directory))


@pytest.mark.parametrize("changes", [{"vocab_size": 40}, {"eos_token_id": 5}])
def test_a_tokenizer_of_another_model_is_told(changes, directory):
    edit_config(directory, **changes)
    if "vocab_size" in changes:
        tensors = load_file(directory / "model.safetensors")
        name = "text_model.embeddings.token_embedding.weight"
        tensors[name] = np.ascontiguousarray(tensors[name][:40])
        save_file(tensors, directory / "model.safetensors")
    with pytest.raises(UserError, match="take both from one model"):
        load_clip_text(str(directory))


def test_a_broken_vocabulary_is_told(directory):
    (directory / "vocab.json").write_text("{")
    with pytest.raises(UserError, match="the tokenizer's files cannot be read"):
        load_clip_text(str(directory))
