"""A small CLIP text tower of fixed random weights, written in transformers' layout.

It stands in where no published weights can be had (the demo). It knows nothing of the world, but a text's embedding
is nearly the sum of its words' vectors, and words' vectors are orthogonal: "red circle" is as near to "red square" as
to "blue circle", and far from "blue square". How: attention is uniform (no queries and keys) and its values pass
through an orthogonal matrix; start and end token are opposite, so that they cancel in the mean; the rest is small.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from sazs_jax.errors import UserError

_DEPTH = 2
_CONTEXT_LENGTH = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_SMALL = 0.02


def write_random_tower(directory: str | Path, words: Sequence[str], *, dim: int = 128, seed: int = 0) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files into `directory`, made if need be.

    Args:
      directory: where `TextTower.load` will find them.
      words: become one token each. Other text is spelt in letters, which have vectors of their own.
      dim: width of tower and embedding; more than there are words.
      seed: the weights are a function of `words`, `dim` and this.

    Raises:
      UserError: a word that is not letters alone, or too many of them.
    """
    words = list(dict.fromkeys(word.lower() for word in words))
    for word in words:
        if not re.fullmatch(r"[a-z]+", word):
            raise UserError(f"{word!r} is not a word of the letters a to z")
    if len(words) + 2 > dim:
        raise UserError(f"{len(words)} words need a tower of at least {len(words) + 2} channels, not {dim}")

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    vocab, merges = build_vocabulary(words)
    _write_tokenizer(directory, vocab, merges)
    special = [vocab[_START], vocab[_END]]
    tensors = _random_tensors(len(vocab), special, [vocab[word + _WORD_END] for word in words], dim, seed)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "vocab_size": len(vocab),
        "max_position_embeddings": _CONTEXT_LENGTH,
        "hidden_size": dim,
        "intermediate_size": 2 * dim,
        "num_hidden_layers": _DEPTH,
        "num_attention_heads": 4,
        "projection_dim": dim,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "bos_token_id": vocab[_START],
        "eos_token_id": vocab[_END],
        "pad_token_id": vocab[_END],
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def build_vocabulary(words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-pair vocabulary and merges by which every one of `words` (letters a to z) is a single token.

    As in CLIP, the vocabulary starts with the 256 bytes, inside a word and at its end, so that any text has tokens.
    """
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + _WORD_END for letter in alphabet)]
    merges: list[tuple[str, str]] = []
    for word in words:
        # Join the first two pieces that the merges so far leave, until one is left. A new merge comes after all
        # earlier ones, so it cannot undo what they do to earlier words.
        while True:
            vocab = {token: index for index, token in enumerate(tokens)}
            pieces = [token.value for token in BPE(vocab, merges, end_of_word_suffix=_WORD_END).tokenize(word)]
            if len(pieces) == 1:
                break
            merges.append((pieces[0], pieces[1]))
            tokens.append(pieces[0] + pieces[1])
    vocab = {token: index for index, token in enumerate([*tokens, _START, _END])}
    return vocab, merges


def _write_tokenizer(directory: Path, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
    (directory / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": _START,
        "eos_token": _END,
        "unk_token": _END,
        "pad_token": _END,
        "model_max_length": _CONTEXT_LENGTH,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _random_tensors(
    vocab_size: int, special: Sequence[int], words: Sequence[int], dim: int, seed: int
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = _SMALL) -> np.ndarray:
        return rng.normal(scale=scale, size=shape).astype(np.float32)

    def orthogonal() -> np.ndarray:
        return np.linalg.qr(rng.normal(size=(dim, dim)))[0].astype(np.float32)

    # Rows orthogonal to each other and to the vector of ones, which LayerNorm takes off.
    basis = np.linalg.qr(np.concatenate([np.ones((dim, 1)), rng.normal(size=(dim, dim - 1))], axis=1))[0].T
    embedding = normal(vocab_size, dim, scale=1.0)
    embedding[words] = basis[1 : 1 + len(words)] * dim**0.5
    start, end = special
    embedding[end] = basis[1 + len(words)] * dim**0.5 * _SMALL
    embedding[start] = -embedding[end]

    prefix = "text_model."
    tensors = {
        f"{prefix}embeddings.token_embedding.weight": embedding,
        f"{prefix}embeddings.position_embedding.weight": normal(_CONTEXT_LENGTH, dim, scale=_SMALL / 100),
        f"{prefix}final_layer_norm.weight": np.ones(dim, np.float32),
        f"{prefix}final_layer_norm.bias": np.zeros(dim, np.float32),
        "text_projection.weight": orthogonal(),
    }
    for index in range(_DEPTH):
        layer = f"{prefix}encoder.layers.{index}"
        # The first block adds up the words; the later ones, whose tokens hold more than one word, matter little.
        gain = 1.0 if index == 0 else _SMALL
        kernels = {
            "self_attn.q_proj": normal(dim, dim) * _SMALL,
            "self_attn.k_proj": normal(dim, dim) * _SMALL,
            "self_attn.v_proj": orthogonal(),
            "self_attn.out_proj": orthogonal() * np.float32(gain),
            "mlp.fc1": normal(2 * dim, dim),
            "mlp.fc2": normal(dim, 2 * dim) * _SMALL,
        }
        for name, kernel in kernels.items():
            tensors[f"{layer}.{name}.weight"] = kernel
            tensors[f"{layer}.{name}.bias"] = np.zeros(len(kernel), np.float32)
        for name in ("layer_norm1", "layer_norm2"):
            tensors[f"{layer}.{name}.weight"] = np.ones(dim, np.float32)
            tensors[f"{layer}.{name}.bias"] = np.zeros(dim, np.float32)
    return tensors
