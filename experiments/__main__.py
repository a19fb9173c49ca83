"""Run one experiment by name: python -m experiments NAME [--flag=value ...]; --help lists its flags."""

import importlib
import sys
from functools import partial

from sazs_jax.cache import keep_programs
from sazs_jax.errors import UserError, exit_on_user_error, run_command

NAMES = ("affine_mlp", "analysis", "calibration", "cost", "edge_targets", "fusion", "gallery", "qualitative")
TABLES = tuple(f"table{number}" for number in range(1, 10))  # of the paper

if __name__ == "__main__":
    with exit_on_user_error():
        if len(sys.argv) < 2 or sys.argv[1] not in (*NAMES, *TABLES):
            raise UserError(f"which experiment? python -m experiments {'|'.join((*NAMES, *TABLES))}")
    keep_programs()
    name = sys.argv.pop(1)
    if name in TABLES:
        run_command(partial(importlib.import_module("experiments.tables.command").main, name))
    else:
        run_command(importlib.import_module(f"experiments.{name}").main)
