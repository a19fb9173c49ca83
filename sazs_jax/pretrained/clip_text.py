"""CLIP's text tower in transformers' layout: configuration, weights (or our own file of them) and tokenizer."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax import nnx

from sazs_jax.errors import UserError
from sazs_jax.models.clip_text import LEGACY_EOS, CLIPText, CLIPTextConfig
from sazs_jax.models.transformer import ACTIVATIONS
from sazs_jax.pretrained.conversion import (
    Rule,
    fused_bias,
    fused_kernel,
    layer_norm,
    linear,
    linear_kernel,
    load_weights,
)
from sazs_jax.pretrained.hub import local_directory
from sazs_jax.pretrained.tensor_file import WEIGHT_FILES, first_there, read_tensors

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
_FILES = (("config.json",), WEIGHT_FILES, TOKENIZER_FILES[:2])
CONFIG_KEYS = {  # of config.json -> of CLIPTextConfig
    "vocab_size": "vocab_size",
    "max_position_embeddings": "context_length",
    "hidden_size": "dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "intermediate_size": "mlp_dim",
    "projection_dim": "embedding_dim",
    "hidden_act": "activation",
    "layer_norm_eps": "layer_norm_eps",
    "eos_token_id": "eos_token_id",
}

_LAYER = "text_model.encoder.layers.{i}"
_QKV = tuple(f"{_LAYER}.self_attn.{name}_proj" for name in "qkv")
RULES = (
    Rule("text_model.embeddings.token_embedding.weight", "token_embedding.embedding"),
    Rule("text_model.embeddings.position_embedding.weight", "position_embedding.embedding"),
    *layer_norm(f"{_LAYER}.layer_norm1", "blocks.{i}.norm1"),
    Rule(tuple(f"{name}.weight" for name in _QKV), "blocks.{i}.qkv.kernel", fused_kernel),
    Rule(tuple(f"{name}.bias" for name in _QKV), "blocks.{i}.qkv.bias", fused_bias),
    *linear(f"{_LAYER}.self_attn.out_proj", "blocks.{i}.proj"),
    *layer_norm(f"{_LAYER}.layer_norm2", "blocks.{i}.norm2"),
    *linear(f"{_LAYER}.mlp.fc1", "blocks.{i}.fc1"),
    *linear(f"{_LAYER}.mlp.fc2", "blocks.{i}.fc2"),
    *layer_norm("text_model.final_layer_norm", "final_norm"),
    Rule("text_projection.weight", "projection.kernel", linear_kernel),
)
# A full CLIP checkpoint holds the image tower too.
_IGNORE = ("vision_model.*", "visual_projection.*", "logit_scale", "*.position_ids")


def load_clip_text(source: str) -> tuple[CLIPText, "CLIPTokenizer"]:
    """The text tower in float32 and its tokenizer, from a hub id or a local directory.

    Raises:
      UserError: the files cannot be had, are damaged, or do not go together.
    """
    directory = clip_directory(source)
    config = read_config(directory / "config.json")
    module = nnx.eval_shape(lambda: CLIPText(config, rngs=nnx.Rngs(0)))
    path = first_there(directory, WEIGHT_FILES)
    tensors = read_tensors(path)
    is_ours = "token_embedding.embedding" in tensors
    rules = (Rule("{path}", "{path}"),) if is_ours else RULES
    load_weights(module, tensors, rules, ignore=_IGNORE, origin=str(path))
    return module, _load_tokenizer(directory, config)


def clip_directory(source: str) -> Path:
    """The directory of a tower's files: `source` itself, or the hub's, downloaded unless it is here already.

    Raises:
      UserError: the files cannot be had.
    """
    return local_directory(source, _FILES, extra=TOKENIZER_FILES[2:])


def read_config(path: Path) -> CLIPTextConfig:
    """The tower's shape from transformers' `config.json`, of CLIP as a whole or of its text half.

    Raises:
      UserError: the file is broken, or describes another kind of model.
    """
    try:
        whole: dict[str, Any] = json.loads(path.read_text("utf-8"))
        text: dict[str, Any] = whole.get("text_config") or whole
        text.get("hidden_size")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: expected transformers' configuration in JSON ({error})") from error
    if whole.get("model_type") not in ("clip", "clip_text_model"):
        raise UserError(f"{path}: model_type is {whole.get('model_type')!r}; expected 'clip' or 'clip_text_model'")
    settings = {}
    for key, field in CONFIG_KEYS.items():
        default = getattr(CLIPTextConfig(), field)
        value = text.get(key, default)
        if key == "projection_dim":
            value = whole.get(key) or value
        if type(value) is not type(default) or (type(value) is not str and value <= 0):
            raise UserError(f"{path}: {key} is {value!r}; expected one such as {default!r}")
        settings[field] = value
    config = CLIPTextConfig(**settings)
    if config.dim % config.num_heads:
        raise UserError(f"{path}: hidden_size {config.dim} is no multiple of num_attention_heads {config.num_heads}")
    if config.activation not in ACTIVATIONS:
        raise UserError(f"{path}: hidden_act is {config.activation!r}; known are {', '.join(ACTIVATIONS)}")
    return config


def _load_tokenizer(directory: Path, config: CLIPTextConfig) -> "CLIPTokenizer":
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would say that it found no PyTorch
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(directory)
    # The tokenizers library raises bare exceptions.
    except Exception as error:
        raise UserError(f"{directory}: the tokenizer's files cannot be read ({error})") from error
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"{directory}: the tokenizer has {len(tokenizer)} tokens and the weights {config.vocab_size}; "
            "take both from one model"
        )
    end = tokenizer("a")["input_ids"][-1]
    if end != tokenizer.eos_token_id or config.eos_token_id not in (end, LEGACY_EOS):
        raise UserError(
            f"{directory}: the tokenizer ends a text with token {end}, config.json says {config.eos_token_id}; "
            "take both from one model"
        )
    return tokenizer
