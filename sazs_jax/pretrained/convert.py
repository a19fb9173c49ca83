"""Published weights to files of ours: an encoder, a text tower, or a work directory that predicts."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from sazs_jax.atomic import write_atomically
from sazs_jax.errors import UserError
from sazs_jax.models.clip_text import CLIPText
from sazs_jax.models.sazs import SAZS, build_model
from sazs_jax.pretrained.clip_openai import is_openai, load_openai_clip, write_openai_tokenizer
from sazs_jax.pretrained.clip_text import TOKENIZER_FILES, clip_directory, load_clip_text
from sazs_jax.pretrained.sources import SOURCES, find_source, has_weights_suffix, load_from, open_weights
from sazs_jax.pretrained.tensor_file import read_tensors
from sazs_jax.pretrained.weights_file import write_weights
from sazs_jax.text import text_source
from sazs_jax.training.checkpoints import StoredAnchors, write_model

_OPENAI_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"


def convert_encoder(source: str, path: str, out: str | os.PathLike) -> str:
    """Write an encoder of the layout `source` (a key of `SOURCES`) as a file for `model.pretrained`.

    Args:
      source: the layout that the file is said to have.
      path: a file, a directory or a hub id.
      out: a name that ends in .safetensors.

    Returns:
      The `model.encoder` that it is for.

    Raises:
      UserError: the weights cannot be had, are of another layout, or do not fit.
    """
    if Path(out).suffix != ".safetensors":
        raise UserError(f"{out}: the converted encoder is a .safetensors file; end its name so")
    tensors, origin = open_weights(path)
    table = find_source(tensors, origin)
    if table is not SOURCES[source]:
        name = next(name for name, other in SOURCES.items() if other is table)
        raise UserError(f"{origin} is of the layout {name}, not {source}; convert it as {name}")
    encoder = table.name(tensors, origin)
    model = nnx.eval_shape(
        lambda: SAZS(encoder, embedding_dim=1, decoder_width=1, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))
    )
    load_from(model, tensors, table, origin)
    write_weights(out, model.encoder, {"source": source, "encoder": encoder}, prefix="encoder.")
    return encoder


def convert_lseg(path: str, out: str | os.PathLike, config: ConfigDict, labels: Sequence[str]) -> None:
    """Write LSeg's network as a work directory that evaluate.py and predict.py take.

    Args:
      path: the checkpoint.
      out: the work directory.
      config: a whole config; its `model` group describes LSeg's network, its `text` group gives the anchors.
      labels: the words whose anchors are stored, "others" apart: all classes of the config's data set, in its order.

    Raises:
      UserError: the checkpoint cannot be had, does not fit, or the labels have no anchors.
    """
    config.model.pretrained = path
    config.loss.shape_weight = config.loss.bce_weight = 0.0  # LSeg has no boundary head
    text = text_source(config.text)
    names = ("others", *labels)
    anchors = StoredAnchors(names, text.embed(names), text.source)
    tensors, origin = open_weights(path)
    if find_source(tensors, origin) is not SOURCES["lseg"]:
        raise UserError(f"{origin} is no checkpoint of LSeg: it lacks {SOURCES['lseg'].key}")
    model = nnx.eval_shape(lambda: build_model(config, rngs=nnx.Rngs(0)))
    load_from(model, tensors, SOURCES["lseg"], origin)
    write_model(out, config, model, anchors)


def convert_clip(path: str, out: str | os.PathLike) -> None:
    """Write CLIP's text tower as a directory for `text.tower`: weights of ours, config.json, the tokenizer.

    Args:
      path: a directory or hub id in transformers' layout, or a file in OpenAI's with CLIP's vocabulary
        (`bpe_simple_vocab_16e6.txt.gz`, or transformers' tokenizer files) beside it.
      out: the directory.

    Raises:
      UserError: the weights or the vocabulary cannot be had, or do not fit.
    """
    out = Path(out)
    if has_weights_suffix(path):
        file = Path(path).expanduser()
        tensors = read_tensors(file)
        if not is_openai(tensors):
            raise UserError(f"{path}: no tower in OpenAI's layout; of transformers' layout, name the directory")
        module = load_openai_clip(tensors, path)
        beside = file.parent
        if not any((beside / name).is_file() for name in (_OPENAI_VOCABULARY, *TOKENIZER_FILES)):
            raise UserError(f"{path}: the tokenizer is lacking; place CLIP's {_OPENAI_VOCABULARY} beside it")
    else:
        module, _ = load_clip_text(path)
        beside = clip_directory(path)
    write_atomically(out / "config.json", json.dumps(_transformers_config(module), indent=2) + "\n")
    if any((beside / name).is_file() for name in TOKENIZER_FILES):
        for name in TOKENIZER_FILES:
            if (beside / name).is_file():
                shutil.copyfile(beside / name, out / name)
    else:
        write_openai_tokenizer(beside / _OPENAI_VOCABULARY, out)
    write_weights(out / "model.safetensors", module, {"source": "clip"})
    load_clip_text(str(out))  # weights and tokenizer go together


def _transformers_config(module: CLIPText) -> dict:
    config = module.config
    return {
        "model_type": "clip_text_model",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_dim,
        "projection_dim": config.embedding_dim,
        "hidden_act": config.activation,
        "layer_norm_eps": config.layer_norm_eps,
        "eos_token_id": config.eos_token_id,
    }
