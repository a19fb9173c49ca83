"""Which peers in PyTorch a benchmark has, without importing it where they are not wanted or not there."""

import importlib.util
from typing import Any

from ml_collections import ConfigDict

from sazs_jax.models.vit import VIT_CONFIGS

NOT_INSTALLED = "not measured: torch is not installed (parity extra)"
NOT_WANTED = "not measured: --nopeer"
NO_PEER = "not measured: transformers has no such network"
MODES = {"torch_eager": False, "torch_compile": True}  # name -> whether it is compiled


def missing(wanted: bool) -> str | None:
    """Why there is no peer in PyTorch; None if there can be one."""
    if not wanted:
        return NOT_WANTED
    return None if importlib.util.find_spec("torch") else NOT_INSTALLED


def missing_network(config: ConfigDict, wanted: bool) -> str | None:
    """Why a config's network has no peer: transformers' DPT is that of the ViTs of 16 pixels a patch."""
    vit = VIT_CONFIGS.get(config.model.encoder)
    if vit is None or vit.patch_size != 16 or not config.model.decoder_width:
        return NO_PEER
    return missing(wanted)


def peers(config: ConfigDict, *, training: bool, wanted: bool) -> tuple[dict[str, Any], str | None]:
    """The config's network in PyTorch in each of MODES, a `torch_peer.Network`, or nothing and why."""
    if reason := missing_network(config, wanted):
        return {}, reason
    from benchmarks.torch_peer import Network

    return {name: Network(config, compiled=compiled, training=training) for name, compiled in MODES.items()}, None
