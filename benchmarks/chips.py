"""GPUs that programs can be compiled for where none is: what XLA must know of them, and their peaks."""

from typing import Any, NamedTuple

from jax.experimental import topologies

from sazs_jax.errors import UserError


class Chip(NamedTuple):
    """One kind of GPU, by its maker's data sheet and by what its driver says."""

    target: str  # XLA's description, in protocol buffers' text format
    bandwidth: float  # bytes a second to and from its memory
    peak: float  # operations a second in bfloat16, dense


CHIPS = {
    "h100": Chip(
        target="""
            platform_name: "CUDA"
            device_description_str: "NVIDIA H100 80GB HBM3"
            dnn_version_info { major: 9 minor: 10 patch: 2 }
            gpu_device_info {
              cuda_compute_capability { major: 9 }
              core_count: 132
              fpus_per_core: 128
              clock_rate_ghz: 1.98
              threads_per_warp: 32
              threads_per_block_limit: 1024
              threads_per_core_limit: 2048
              block_dim_limit_x: 2147483647
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
              registers_per_block_limit: 65536
              registers_per_core_limit: 65536
              shared_memory_per_block: 49152
              shared_memory_per_block_optin: 232448
              shared_memory_per_core: 233472
              l2_cache_size: 52428800
              device_memory_size: 84978434048
              memory_bandwidth: 3352320000000
            }
        """,
        bandwidth=3.35e12,
        peak=989e12,
    )
}


def compile_only_device(chip: Chip) -> Any:
    """A device of this kind that programs can be compiled for, and nothing be run on.

    Raises:
      UserError: XLA's compiler for GPUs is not installed.
    """
    try:
        found = topologies.get_topology_desc(platform="cuda", target_config=chip.target, topology="1x1x1")
    except NotImplementedError as error:
        raise UserError(
            "XLA's compiler for NVIDIA GPUs is not here; pip install 'jax[cuda12]' and set JAX_PLATFORMS=cpu"
        ) from error
    return found.devices[0]
