"""Programs over a batch in which no row needs another: each device works on its own rows, without any exchange.

Left to itself, the compiler gathers the batch for operations that it cannot split, such as a Cholesky factorisation.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def run_by_rows(function: Callable, whole: Any, rows: Any, **static: Any) -> Any:
    """`function(whole, rows, **static)`, compiled; over the devices that the rows lie on.

    Args:
      function: gives a pytree of arrays with a leading batch dimension; kept as a program by its identity.
      whole: arrays that each device has all of.
      rows: arrays with a leading batch dimension (None may stand for one), all on the same devices.
      static: hashable settings.
    """
    mesh = next((found for leaf in jax.tree.leaves(rows) if (found := _mesh_of_rows(leaf)) is not None), None)
    return _program(function, mesh, tuple(sorted(static.items())))(whole, rows)


def _mesh_of_rows(leaf: Any) -> Mesh | None:
    sharding = getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):
        return None
    return sharding.mesh if sharding.mesh.size > 1 and sharding.spec and sharding.spec[0] else None


@cache
def _program(function: Callable, mesh: Mesh | None, static: tuple) -> Callable:
    function = partial(function, **dict(static))
    if mesh is None:
        return jax.jit(function)
    by_row = PartitionSpec(mesh.axis_names[0])
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=(PartitionSpec(), by_row), out_specs=by_row, check_vma=False)
    )
