"""FLOPs, parameters and time of a network, against counts by hand."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks.operations import flops
from tests.tiny_run import command, complaint


def test_flops_of_a_product_and_a_convolution():
    assert flops(jnp.matmul, jnp.ones((64, 128)), jnp.ones((128, 32))) == 2 * 64 * 128 * 32

    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    found = flops(convolution, jnp.ones((1, 32, 24, 8)), jnp.ones((3, 3, 8, 16)))
    assert found == 2 * 30 * 22 * 16 * 3 * 3 * 8


def test_the_command_tells_parameters_flops_and_time(tmp_path):
    arguments = ("-m", "experiments", "cost", "--config", "configs/demo.py", "--out", tmp_path / "cost.json")
    settings = {"data.crop": 64, "eval.resize": 0, "eval.batch_size": 2, "loss.shape_weight": 0, "loss.bce_weight": 0}
    linear = {**settings, "model.decoder_width": 0, "eval.fusion": "agreement"}
    result = command(*arguments, *(f"--config.{key}={value}" for key, value in linear.items()))
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "cost.json").read_text())
    width, tokens, depth, hidden = 96, 8 * 8 + 1, 4, 2 * 96
    block = 4 * width * width + 2 * width * hidden  # weights of the four projections and the two layers
    norms_and_biases = 2 * 2 * width + 4 * width + hidden + width
    encoder = depth * (block + norms_and_biases) + width * (8 * 8 * 3 + 1) + width + width * tokens
    head = width * 64 + 64
    assert found["parameters"] == {"encoder": encoder, "head": head, "total": encoder + head}
    products = depth * (2 * tokens * block + 2 * 2 * tokens * tokens * width)  # and attention
    products += 2 * 64 * (8 * 8 * 3 * width + width * 64)  # patch embedding and head
    assert products < 1e9 * found["gigaflops"] < 1.1 * products  # the rest: norms, softmax, GELU
    assert found["milliseconds_per_image"] > 0
    assert (found["side"], found["batch_size"], found["fusion"]) == (64, 2, "agreement")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("--config.eval.fusion=oracle",), "eval.fusion='oracle' is unknown"),
        (("--config.eval.fusion=iou", "--config.spectral.features="), "give spectral.features=lite"),
        (("--config.eval.resize=63",), "expected a multiple of 8"),
        (("--config.eval.size=63",), "the config has no key"),
    ],
)
def test_bad_input_is_one_line(settings, told, tmp_path):
    arguments = ("-m", "experiments", "cost", "--config", "configs/demo.py", "--out", tmp_path / "cost.json")
    assert told in complaint(command(*arguments, *settings))
