"""Run one benchmark by name: python -m benchmarks NAME [--small] [--out FILE] [--flag=value ...]; --help lists all."""

import importlib
import os
import sys

from sazs_jax.errors import UserError, exit_on_user_error, run_command

NAMES = (
    "eigensolvers",
    "inference",
    "loading",
    "memory",
    "plan",
    "precision",
    "sizes",
    "spectral",
    "startup",
    "train_step",
)

if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a peer in PyTorch shares the GPU
    with exit_on_user_error():
        if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
            raise UserError(f"which benchmark? python -m benchmarks {'|'.join(NAMES)}")
    run_command(importlib.import_module(f"benchmarks.{sys.argv.pop(1)}").main)
