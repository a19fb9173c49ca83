"""CLIP's text tower in OpenAI's own layout: the `.pt` of its release (TorchScript) or a state dict of it."""

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import nnx

from sazs_jax.errors import UserError
from sazs_jax.models.clip_text import CLIPText, CLIPTextConfig
from sazs_jax.pretrained.conversion import Rule, layer_norm, linear, linear_kernel, load_weights

_BLOCK = "transformer.resblocks.{i}"
RULES = (
    Rule("token_embedding.weight", "token_embedding.embedding"),
    Rule("positional_embedding", "position_embedding.embedding"),
    *layer_norm(f"{_BLOCK}.ln_1", "blocks.{i}.norm1"),
    Rule(f"{_BLOCK}.attn.in_proj_weight", "blocks.{i}.qkv.kernel", linear_kernel),
    Rule(f"{_BLOCK}.attn.in_proj_bias", "blocks.{i}.qkv.bias"),
    *linear(f"{_BLOCK}.attn.out_proj", "blocks.{i}.proj"),
    *layer_norm(f"{_BLOCK}.ln_2", "blocks.{i}.norm2"),
    *linear(f"{_BLOCK}.mlp.c_fc", "blocks.{i}.fc1"),
    *linear(f"{_BLOCK}.mlp.c_proj", "blocks.{i}.fc2"),
    *layer_norm("ln_final", "final_norm"),
    Rule("text_projection", "projection.kernel"),
)
_IGNORE = ("visual.*", "logit_scale", "input_resolution", "context_length", "vocab_size")

_HEAD_DIM = 64  # in every CLIP that was released
_NUM_MERGES = 49152 - 256 - 2  # of those in the vocabulary file, which holds more


def is_openai(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether these are the tensors of OpenAI's layout."""
    return "transformer.resblocks.0.attn.in_proj_weight" in tensors and "positional_embedding" in tensors


def load_openai_clip(tensors: Mapping[str, np.ndarray], origin: str) -> CLIPText:
    """The text tower in float32; its shape is read off the tensors.

    Raises:
      UserError: tensors are missing, unexpected or of another shape.
    """
    try:
        vocab_size, dim = tensors["token_embedding.weight"].shape
        config = CLIPTextConfig(
            vocab_size=vocab_size,
            context_length=len(tensors["positional_embedding"]),
            dim=dim,
            depth=sum(key.endswith(".attn.in_proj_weight") and key.startswith("transformer.") for key in tensors),
            num_heads=max(dim // _HEAD_DIM, 1),
            mlp_dim=len(tensors["transformer.resblocks.0.mlp.c_fc.weight"]),
            embedding_dim=tensors["text_projection"].shape[1],
            eos_token_id=vocab_size - 1,  # the largest id
        )
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{origin} does not hold CLIP's text tower in OpenAI's layout ({error})") from error
    module = nnx.eval_shape(lambda: CLIPText(config, rngs=nnx.Rngs(0)))
    load_weights(module, tensors, RULES, ignore=_IGNORE, origin=origin)
    return module


def write_openai_tokenizer(vocabulary: Path, directory: Path) -> None:
    """Write `vocab.json` and `merges.txt`, by which transformers makes CLIP's tokenizer, into `directory`.

    Args:
      vocabulary: `bpe_simple_vocab_16e6.txt.gz` of CLIP's release.
      directory: there already.

    Raises:
      UserError: it is not that file.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    try:
        lines = gzip.decompress(vocabulary.read_bytes()).decode("utf-8").split("\n")
        merges = [tuple(line.split()) for line in lines[1 : 1 + _NUM_MERGES]]
        if len(merges) < _NUM_MERGES or any(len(merge) != 2 for merge in merges):
            raise ValueError(f"expected {_NUM_MERGES} merges of two pieces")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{vocabulary}: expected CLIP's bpe_simple_vocab_16e6.txt.gz ({error})") from error
    # Bytes with a printable sign of their own come first, as CLIP numbers them.
    alphabet = sorted(ByteLevel.alphabet(), key=lambda letter: (ord(letter) >= 256, ord(letter)))
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge) for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    (directory / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
    text = "\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges)])
    (directory / "merges.txt").write_text(text + "\n", "utf-8")
