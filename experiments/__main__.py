"""Run one experiment by name: python -m experiments NAME [--flag=value ...]; --help lists its flags."""

import importlib
import sys

from sazs_jax.errors import UserError, exit_on_user_error, run_command

NAMES = ("affine_mlp", "analysis", "calibration", "edge_targets", "fusion", "gallery", "qualitative")

if __name__ == "__main__":
    with exit_on_user_error():
        if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
            raise UserError(f"which experiment? python -m experiments {'|'.join(NAMES)}")
    run_command(importlib.import_module(f"experiments.{sys.argv.pop(1)}").main)
