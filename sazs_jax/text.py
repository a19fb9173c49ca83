"""Words to anchors: the points of CLIP's text space that pixels are compared with (paper 3.1)."""

import functools
import hashlib
import os
import zipfile
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float32
from ml_collections import ConfigDict

from sazs_jax.errors import UserError
from sazs_jax.models.clip_text import CLIPText
from sazs_jax.pretrained.clip_text import load_clip_text

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

# VOC's odd names and the everyday ones; either finds what is stored under the other.
_VOC_ALIASES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "tvmonitor": "tv",
}
ALIASES = _VOC_ALIASES | {common: voc for voc, common in _VOC_ALIASES.items()}

_PROMPTS_AT_ONCE = 64


def find_name(name: str, known: Container[str]) -> str | None:
    """The member of `known` that means `name`: `name` itself, else its VOC alias; None where there is neither."""
    return next((spelling for spelling in (name, ALIASES.get(name, name)) if spelling in known), None)


class AnchorTable:
    """Text embeddings made elsewhere, looked up by name."""

    def __init__(
        self,
        names: Sequence[str],
        embeddings: Float32[np.ndarray, "K D"],
        *,
        templates: Sequence[str] | None = None,
        path: str = "anchor table",
    ):
        self.names = tuple(names)
        self.embeddings = embeddings
        self._templates = None if templates is None else list(templates)
        self._path = path
        self._rows = {name: row for row, name in enumerate(self.names)}

    @classmethod
    def load(cls, path: str | os.PathLike) -> "AnchorTable":
        """Read a `.npz` of `names` (K,) and `embeddings` (K, D) of any float type.

        An optional entry `templates` tells the prompts that the embeddings were made with.

        Raises:
          UserError: the file cannot be read, or its arrays are not of this form.
        """
        try:
            arrays = _read_arrays(path)
            names = [str(name) for name in arrays["names"]]
            embeddings = arrays["embeddings"]
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such anchor table (an .npz of `names` and `embeddings`)") from error
        except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: expected an .npz of `names` (strings) and `embeddings` ({error})") from error

        if embeddings.shape[:1] != (len(names),) or embeddings.ndim != 2 or not names:
            raise UserError(
                f"{path}: expected embeddings (K, D) for K names; got {embeddings.shape} for {len(names)} names"
            )
        if not np.issubdtype(embeddings.dtype, np.floating):
            raise UserError(f"{path}: embeddings are of type {embeddings.dtype}; expected floating point")
        if repeated := {name for name in names if names.count(name) > 1}:
            raise UserError(f"{path}: names must differ; repeated are {', '.join(sorted(repeated))}")
        embeddings = embeddings.astype(np.float32)
        useless = ~np.isfinite(embeddings).all(axis=1) | ~embeddings.any(axis=1)
        if useless.any():
            raise UserError(
                f"{path}: embeddings must be finite and not zero; not so for "
                f"{', '.join(names[row] for row in np.flatnonzero(useless))}"
            )
        templates = [str(t) for t in np.atleast_1d(arrays["templates"])] if "templates" in arrays else None
        return cls(names, embeddings, templates=templates, path=str(path))

    @property
    def dim(self) -> int:
        """The width D of the embeddings."""
        return self.embeddings.shape[1]

    @property
    def source(self) -> dict[str, Any]:
        """What a checkpoint keeps of where its anchors come from (JSON types); for `check_compatible`."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        digest.update(np.ascontiguousarray(self.embeddings, "<f4").tobytes())
        return {"kind": "table", "templates": self._templates, "dim": self.dim, "sha256": digest.hexdigest()}

    def embed(self, names: Sequence[str]) -> Float32[np.ndarray, "K D"]:
        """The rows for `names`, as stored (not normalised). VOC's odd names find the everyday ones and the reverse.

        Raises:
          UserError: lists all names that the table lacks.
        """
        found = [find_name(name, self._rows) for name in names]
        missing = [name for name, spelling in zip(names, found, strict=True) if spelling is None]
        if missing:
            raise UserError(
                f"{self._path} lacks {', '.join(map(repr, missing))}; "
                "take names that it has, another table, or a CLIP text tower"
            )
        return self.embeddings[[self._rows[spelling] for spelling in found if spelling is not None]]


class TextTower:
    """CLIP's text tower over prompt templates. Embeddings of names are kept."""

    def __init__(self, module: CLIPText, tokenizer: "CLIPTokenizer", templates: Sequence[str], *, name: str = ""):
        if not templates or any("{}" not in template for template in templates):
            raise UserError(f"text.templates is {list(templates)}; expected prompts that hold {{}} for the name")
        self.dim = module.config.embedding_dim
        self._templates = list(templates)
        self._tokenizer = tokenizer
        self._context_length = module.config.context_length
        self._name = name
        graph, self._state = nnx.split(module)
        self._encode: Callable[[nnx.State, jax.Array], jax.Array] = jax.jit(
            lambda state, ids: nnx.merge(graph, state)(ids).embedding
        )
        self._known: dict[str, np.ndarray] = {}

    @classmethod
    def load(cls, source: str, templates: Sequence[str]) -> "TextTower":
        """Load tower and tokenizer in transformers' layout.

        Args:
          source: hub id (such as "openai/clip-vit-base-patch32") or local directory.
          templates: prompts with {} in the place of the name.

        Raises:
          UserError: the files cannot be had, are damaged, or do not go together.
        """
        module, tokenizer = load_clip_text(source)
        return cls(module, tokenizer, templates, name=source)

    @property
    def source(self) -> dict[str, Any]:
        """What a checkpoint keeps of where its anchors come from (JSON types); for `check_compatible`."""
        return {
            "kind": "tower",
            "templates": self._templates,
            "dim": self.dim,
            "tower": self._name,
            "sha256": self._digest,
        }

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self._state):
            digest.update(np.ascontiguousarray(leaf, "<f4").tobytes())
        return digest.hexdigest()

    def embed(self, names: Sequence[str]) -> Float32[np.ndarray, "K D"]:
        """For each name the mean over the templates of its prompts' unit embeddings.

        A prompt says VOC's odd names in everyday words ("dining table" for diningtable).

        Raises:
          UserError: a name is longer than the tower's context.
        """
        new = [name for name in dict.fromkeys(names) if name not in self._known]
        if new:
            words = [_VOC_ALIASES.get(name, name) for name in new]
            prompts = [template.replace("{}", word) for word in words for template in self._templates]
            embeddings = self._embed_prompts(prompts).reshape(len(new), len(self._templates), self.dim)
            self._known.update(zip(new, embeddings.mean(axis=1), strict=True))
        return np.stack([self._known[name] for name in names]) if names else np.zeros((0, self.dim), np.float32)

    def _embed_prompts(self, prompts: list[str]) -> Float32[np.ndarray, "P D"]:
        """Unit embeddings; prompts run in batches of few shapes, for few compilations."""
        ids = self._tokenizer(prompts, verbose=False)["input_ids"]  # it would warn of long ones
        for prompt, row in zip(prompts, ids, strict=True):
            if len(row) > self._context_length:
                raise UserError(
                    f"the prompt {prompt!r} has {len(row)} tokens, the text tower takes {self._context_length}"
                )
        length = min(_round_up(max(map(len, ids)), 8), self._context_length)
        end = self._tokenizer.eos_token_id
        table = np.full((_round_up(len(ids), _PROMPTS_AT_ONCE), length), end, np.int32)
        for row, sequence in enumerate(ids):
            table[row, : len(sequence)] = sequence

        chunks = []
        with jax.default_matmul_precision("highest"):
            for start in range(0, len(ids), _PROMPTS_AT_ONCE):
                chunks.append(self._encode(self._state, jnp.asarray(table[start : start + _PROMPTS_AT_ONCE])))
        embeddings = np.concatenate([np.asarray(chunk, np.float32) for chunk in chunks])[: len(ids)]
        return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def text_source(config: ConfigDict) -> AnchorTable | TextTower:
    """What `config` (the `text` group) names: the table of `anchors` where it is set, else the tower.

    Raises:
      UserError: it cannot be loaded.
    """
    settings = config.to_dict()
    if settings["anchors"]:
        return AnchorTable.load(settings["anchors"])
    return TextTower.load(settings["tower"], settings["templates"])


def open_text(source: str | os.PathLike, templates: Sequence[str]) -> AnchorTable | TextTower:
    """An anchor table where `source` ends in .npz, else a CLIP text tower (local directory or hub id) over `templates`.

    Raises:
      UserError: it cannot be loaded.
    """
    if Path(source).suffix == ".npz":
        return AnchorTable.load(source)
    return TextTower.load(os.fspath(source), templates)


def check_compatible(stored: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to mix anchors that a network was trained with (`stored`) with anchors from `new` (both a `source`).

    They go together when they are the same table or tower; else when the prompt templates of both are known and agree
    and they are not two different towers (of a table it is not known which tower made it).

    Raises:
      UserError: they do not go together.
    """
    if stored["dim"] != new["dim"]:
        raise UserError(
            f"the network was trained with text embeddings of {stored['dim']} dimensions; these have {new['dim']}"
        )
    is_same_table = stored["kind"] == new["kind"] == "table" and stored["sha256"] == new["sha256"]
    is_same_prompt = stored["templates"] is not None and stored["templates"] == new["templates"]
    if stored["kind"] == new["kind"] == "tower" and stored["sha256"] != new["sha256"]:
        raise UserError(
            f"the network was trained with the text tower {stored['tower']} and {new['tower']} has other weights; "
            "use the same tower"
        )
    if not is_same_table and not is_same_prompt:
        raise UserError(
            f"the network was trained with {_describe(stored)} and this is {_describe(new)}; "
            "use the same table, or sources with the same prompt templates (a table tells its own in `templates`)"
        )


def _describe(source: dict[str, Any]) -> str:
    templates = source["templates"]
    prompts = "unknown prompt templates" if templates is None else f"prompt templates {templates}"
    return f"a {'table' if source['kind'] == 'table' else 'text tower'} of {prompts}"


def _read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
