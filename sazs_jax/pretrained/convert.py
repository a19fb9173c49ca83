"""Published weights to files of ours: an encoder, DINO, a text tower, or a work directory that predicts.

What is there already is never written over.
"""

import json
import os
import shutil
import tempfile
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
from sazs_jax.pretrained.clip_text import CONFIG_KEYS, TOKENIZER_FILES, clip_directory, load_clip_text
from sazs_jax.pretrained.dino import load_dino
from sazs_jax.pretrained.sources import SOURCES, find_source, load_from, open_weights
from sazs_jax.pretrained.tensor_file import names_file, read_tensors
from sazs_jax.pretrained.weights_file import write_weights
from sazs_jax.text import text_source
from sazs_jax.training.checkpoints import StoredAnchors, write_model

_OPENAI_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_NUM_CLASSES = {"pascal_5i": 20, "coco_20i": 80}


def convert_encoder(source: str, path: str, out: str | os.PathLike) -> str:
    """Write an encoder of the layout `source` (a key of `SOURCES`) as a file for `model.pretrained`.

    Args:
      source: the layout that the file is said to have.
      path: a file, a directory or a hub id.
      out: a name that ends in .safetensors.

    Returns:
      The `model.encoder` that it is for.

    Raises:
      UserError: the weights cannot be had, are of another layout, or do not fit; or `out` is there already.
    """
    _check_file(out)
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


def convert_dino(path: str, out: str | os.PathLike) -> None:
    """Write a DINO ViT as a file for `spectral.dino`; its position embeddings stay as they are.

    Args:
      path: a file, a directory or a hub id.
      out: a name that ends in .safetensors.

    Raises:
      UserError: the weights cannot be had or are of another model; or `out` is there already.
    """
    _check_file(out)
    write_weights(out, load_dino(path), {"source": "dino"})


def convert_lseg(path: str, out: str | os.PathLike, config: ConfigDict, labels: Sequence[str]) -> None:
    """Write LSeg's network as a work directory that evaluate.py and predict.py take.

    Args:
      path: the checkpoint.
      out: the work directory.
      config: a whole config; its `model` group describes LSeg's network, its `text` group gives the anchors.
      labels: the words whose anchors are stored, "others" apart: all classes of the config's data set, in its order.

    Raises:
      UserError: the checkpoint cannot be had, does not fit, or the labels have no anchors or are not the data set's;
        or `out` is there already.
    """
    _check_free(out)
    names = ("others", *labels)
    _check_labels(names, config)
    config.model.pretrained = path
    config.loss.shape_weight = config.loss.bce_weight = 0.0  # LSeg has no boundary head
    text = text_source(config.text)
    if text.dim != config.model.embedding_dim:
        raise UserError(
            f"the anchors have {text.dim} dimensions and model.embedding_dim is {config.model.embedding_dim}; "
            "give the text tower or the anchor table that LSeg was trained with (ViT-B/32, 512)"
        )
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
      UserError: the weights or the vocabulary cannot be had, or do not fit; or `out` is there already.
    """
    out = Path(out)
    _check_free(out)
    if names_file(path):
        file = Path(path).expanduser()
        tensors = read_tensors(file)
        if not is_openai(tensors):
            raise UserError(f"{path}: no tower in OpenAI's layout; of transformers' layout, name the directory")
        module = load_openai_clip(tensors, path)
        beside = file.parent
        if not _has_tokenizer(beside) and not (beside / _OPENAI_VOCABULARY).is_file():
            raise UserError(f"{path}: the tokenizer is lacking; place CLIP's {_OPENAI_VOCABULARY} beside it")
    else:
        module, _ = load_clip_text(path)
        beside = clip_directory(path)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            whole = Path(temporary) / out.name
            _write_tower(module, beside, whole)
            os.rename(whole, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another place") from error


def _write_tower(module: CLIPText, beside: Path, directory: Path) -> None:
    """Write the tower with the tokenizer of the folder `beside`, and see that they go together."""
    config = {"model_type": "clip_text_model"}
    config |= {key: getattr(module.config, field) for key, field in CONFIG_KEYS.items()}
    write_atomically(directory / "config.json", json.dumps(config, indent=2) + "\n")
    if _has_tokenizer(beside):
        for name in TOKENIZER_FILES:
            if (beside / name).is_file():
                shutil.copyfile(beside / name, directory / name)
    else:
        write_openai_tokenizer(beside / _OPENAI_VOCABULARY, directory)
    write_weights(directory / "model.safetensors", module, {"source": "clip"})
    try:
        load_clip_text(str(directory))
    except UserError as error:  # the tokenizer's: say where it comes from
        raise UserError(str(error).replace(str(directory), str(beside))) from error


def _has_tokenizer(directory: Path) -> bool:
    return any((directory / name).is_file() for name in TOKENIZER_FILES[:2])


def _check_file(out: str | os.PathLike) -> None:
    if Path(out).suffix != ".safetensors":
        raise UserError(f"{out}: what is written is a .safetensors file; end its name so")
    _check_free(out)


def _check_free(out: str | os.PathLike) -> None:
    if os.path.lexists(out):
        raise UserError(f"{out} is there already and stays as it is; choose another OUT, or move it away")


def _check_labels(names: Sequence[str], config: ConfigDict) -> None:
    """Refuse what evaluate.py could do nothing with."""
    if config.get("task") != "segmentation":
        raise UserError(f"the config is of task={config.get('task')!r}; give one of task='segmentation'")
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UserError(f"--labels must differ from one another and from others; repeated: {', '.join(repeated)}")
    dataset = config.data.dataset
    if len(names) - 1 != _NUM_CLASSES.get(dataset, len(names) - 1):
        raise UserError(
            f"--labels names {', '.join(names[1:])}; {dataset} has {_NUM_CLASSES[dataset]} classes, give all of them "
            "in its order (predict.py takes any words later)"
        )
