"""Weights by table: each row says which tensor of a file goes to which parameter of a module, and how."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sazs_jax.errors import UserError

_SHOWN = 100  # names of each kind in an error message


class Rule(NamedTuple):
    """One row: the source's key (or several), our dotted path, and what makes one of the other.

    `{i}` and the like stand for a number, `{path}` for anything; they mean the same in key and path.
    """

    source: str | tuple[str, ...]
    path: str
    transform: Callable[..., np.ndarray] = lambda x: x


def linear_kernel(weight: np.ndarray) -> np.ndarray:
    """PyTorch's Linear (out, in) to Flax's (in, out)."""
    return weight.transpose(1, 0)


def conv_kernel(weight: np.ndarray) -> np.ndarray:
    """PyTorch's convolution (out, in, height, width) to Flax's (height, width, in, out); depthwise likewise."""
    return weight.transpose(2, 3, 1, 0)


def fused_kernel(*weights: np.ndarray) -> np.ndarray:
    """PyTorch's Linears of query, key and value to the kernel of one Linear for all three."""
    return np.concatenate([linear_kernel(weight) for weight in weights], axis=1)


def fused_bias(*biases: np.ndarray) -> np.ndarray:
    """Their biases, one after the other."""
    return np.concatenate(biases)


def transposed_conv_kernel(weight: np.ndarray) -> np.ndarray:
    """PyTorch's transposed convolution (in, out, height, width) to Flax's (height, width, in, out), mirrored."""
    return weight.transpose(2, 3, 0, 1)[::-1, ::-1]


def linear(source: str, path: str) -> tuple[Rule, ...]:
    """The two rows of a Linear with bias."""
    return (
        Rule(f"{source}.weight", f"{path}.kernel", linear_kernel),
        Rule(f"{source}.bias", f"{path}.bias"),
    )


def conv(source: str, path: str) -> tuple[Rule, ...]:
    """The two rows of a convolution with bias."""
    return (
        Rule(f"{source}.weight", f"{path}.kernel", conv_kernel),
        Rule(f"{source}.bias", f"{path}.bias"),
    )


def layer_norm(source: str, path: str) -> tuple[Rule, ...]:
    """The two rows of a LayerNorm."""
    return (Rule(f"{source}.weight", f"{path}.scale"), Rule(f"{source}.bias", f"{path}.bias"))


def batch_norm(source: str, path: str) -> tuple[Rule, ...]:
    """The four rows of a BatchNorm."""
    return (
        *layer_norm(source, path),
        Rule(f"{source}.running_mean", f"{path}.mean"),
        Rule(f"{source}.running_var", f"{path}.var"),
    )


def load_weights(
    module: nnx.Module,
    tensors: Mapping[str, np.ndarray],
    rules: Iterable[Rule],
    *,
    ignore: Sequence[str] = (),
    keep: Sequence[str] = (),
    origin: str,
) -> None:
    """Set every parameter and BatchNorm statistic of `module` from `tensors`.

    A module made under `nnx.eval_shape` will do; its variables get their values here.

    Args:
      module: takes the values, in its variables' own types.
      tensors: as the file has them; a `module.` that all keys begin with (DataParallel's) is taken off.
      rules: the table. It must have a row for each variable of `module` that is not kept.
      ignore: shell patterns of keys that the file may hold and we leave out.
      keep: beginnings of paths whose variables keep their values.
      origin: what the tensors come from, for messages.

    Raises:
      UserError: names all tensors that are missing, unexpected or of another shape; of more than a hundred of a kind,
        as of another model altogether, a hundred and how many more.
    """
    tensors = without_parallel_prefix(tensors)
    rules = tuple(rules)
    state = nnx.to_flat_state(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat)))
    missing, misshapen, used, values = [], [], set(), []

    for parts, variable in state:
        path = ".".join(map(str, parts))
        if path.startswith(tuple(keep)):
            continue
        rule, keys = find_rule(rules, path)
        used.update(keys)
        absent = [key for key in keys if key not in tensors]
        if absent:
            missing.extend(absent)
            continue
        try:
            value = rule.transform(*(np.asarray(tensors[key]).astype(variable.dtype) for key in keys))
        except ValueError:  # of another rank, or parts that do not go together
            value = None
        if value is None or value.shape != variable.shape:
            found = " and ".join(str(np.shape(tensors[key])) for key in keys)
            misshapen.append(f"{' + '.join(keys)} ({found}, for {variable.shape} here)")
            continue
        values.append((parts, variable.replace(jnp.asarray(value))))

    unexpected = [key for key in tensors if key not in used and not any(fnmatchcase(key, p) for p in ignore)]
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{_more(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise UserError(f"{origin} does not hold the weights of {type(module).__name__}; tensors {'; '.join(problems)}")
    nnx.update(module, nnx.from_flat_state(values))


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""


def without_parallel_prefix(tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The tensors by their names without the `module.` that DataParallel puts before all of them."""
    prefix = "module."
    if tensors and all(key.startswith(prefix) for key in tensors):
        return {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def find_rule(rules: Sequence[Rule], path: str) -> tuple[Rule, list[str]]:
    """The row for `path`, and its source keys with the numbers filled in.

    Raises:
      KeyError: there is none.
    """
    for rule in rules:
        if match := re.fullmatch(_to_regex(rule.path), path):
            sources = (rule.source,) if isinstance(rule.source, str) else rule.source
            return rule, [source.format(**match.groupdict()) for source in sources]
    raise KeyError(f"the table has no row for {path}")


def _to_regex(path: str) -> str:
    def pieces() -> Iterator[str]:
        for text, field in re.findall(r"([^{]*)(?:\{(\w+)\})?", path):
            yield re.escape(text) + (rf"(?P<{field}>{'.+' if field == 'path' else r'[0-9]+'})" if field else "")

    return "".join(pieces())
