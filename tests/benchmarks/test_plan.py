"""What is read off a compiled program, against counts by hand."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks.kernels import Kernel, by_source, kernels
from tests.tiny_run import command, complaint

# In the text of XLA's programs for GPUs; the figures are made up.
PROGRAM = """HloModule jit_step, is_scheduled=true

FileNames
1 "/flax/linear.py"
2 "/sazs_jax/models/vit.py"
3 "/sazs_jax/models/convolutions.py"

FunctionNames
1 "call"

FileLocations
1 {file_name_id=1 function_name_id=1 line=9 end_line=9 column=1 end_column=2}
2 {file_name_id=2 function_name_id=1 line=87 end_line=87 column=1 end_column=2}
3 {file_name_id=3 function_name_id=1 line=5 end_line=5 column=1 end_column=2}

StackFrames
1 {file_location_id=2 parent_frame_id=1}
2 {file_location_id=1 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}

%body (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %scaled = f32[8]{0} fusion(%p), kind=kLoop, calls=%none, metadata={op_name="jit(step)/mul" stack_frame_id=1}
}

%cut_body (whole: f32[99,8], at: s32[]) -> f32[8] {
  %whole = f32[99,8]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %row = f32[1,8]{1,0} dynamic-slice(%whole, %at, %at), dynamic_slice_sizes={1,8}
  ROOT %flat = f32[8]{0} bitcast(%row)
}

ENTRY %main (x: bf16[2,10,10,4], k: bf16[6,3,3,4]) -> bf16[2,10,10,6] {
  %x = bf16[2,10,10,4]{3,2,1,0} parameter(0)
  %k = bf16[6,3,3,4]{3,2,1,0} parameter(1)
  %v = f32[8]{0} parameter(2)
  %big = f32[99,8]{1,0} parameter(4)
  %i = s32[] parameter(5)
  %q = bf16[2,16,4,8]{3,2,1,0} parameter(3)
  %conv = (bf16[2,10,10,6]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", metadata={op_name="a" stack_frame_id=2}
  %y = bf16[2,10,10,6]{3,2,1,0} get-tuple-element(%conv), index=0
  %filter = (bf16[6,3,3,4]{3,2,1,0}, u8[0]{0}) custom-call(%x, %y), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter", \
metadata={op_name="transpose(jvp())/conv" stack_frame_id=2}
  %input = (bf16[2,10,10,4]{3,2,1,0}, u8[0]{0}) custom-call(%y, %k), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput", metadata={op_name="b" stack_frame_id=3}
  %mixed = (bf16[2,16,4,8]{3,2,1,0}, u8[0]{0}) custom-call(%q, %q, %q), custom_call_target="__cudnn$fmhaSoftmax"
  %mixed_back = (bf16[2,16,4,8]{3,2,1,0}, u8[0]{0}) custom-call(%q, %q, %q), \
custom_call_target="__cudnn$fmhaSoftmaxBackward"
  %cut = f32[8]{0} fusion(%big, %i), kind=kLoop, calls=%cut_body
  ROOT %loop = f32[8]{0} while(%v), condition=%none, body=%body, backend_config={"known_trip_count":{"n":"5"}}
}
""".replace("\\\n", "")


def test_kernels_of_a_gpu_program():
    found = {kernel.name: kernel for kernel in kernels(PROGRAM, "/sazs_jax")}
    image, kernel, output = 2 * 10 * 10 * 4, 6 * 3 * 3 * 4, 2 * 10 * 10 * 6
    convolution = 2 * output * 3 * 3 * 4  # the same products in each of the three directions
    assert found["conv"] == Kernel("conv", "models/vit.py:87", 2 * (image + kernel + output), convolution, 1)
    assert found["filter"].source == "models/vit.py:87 (backward)"
    assert found["input"].source == "models/convolutions.py:5"
    told = {kernel.name: kernel.source for kernel in kernels(PROGRAM, "/sazs_jax", ["models/convolutions.py"])}
    assert told["input"] == "models/vit.py:87"
    assert found["filter"].operations == found["input"].operations == convolution
    assert found["mixed"].operations == 2 * 2 * 2 * 4 * 16 * 16 * 8
    assert found["mixed_back"].operations == 2.5 * found["mixed"].operations
    assert found["scaled"] == Kernel("scaled", "models/vit.py:87", 2 * 8 * 4, 0, 5)
    assert found["cut"].bytes == 4 * (8 + 1 + 8)  # of the large operand one row alone is read
    assert set(found) == {"conv", "filter", "input", "mixed", "mixed_back", "scaled", "cut"}


def test_the_floor_is_the_larger_of_traffic_and_operations():
    kernel = Kernel("product", "a.py:1", bytes=100, operations=3000, times=2)
    assert kernel.floor(bandwidth=10, peak=1000) == 20
    assert kernel.floor(bandwidth=100, peak=1000) == 6
    lines = by_source([Kernel("cheap", "b.py:2", 30, 0, 1), kernel], bandwidth=10, peak=1000)
    assert list(lines) == ["a.py:1", "b.py:2"]


def test_operations_and_bytes_of_what_jax_compiles_here():
    program = jax.jit(lambda a, b: jnp.tanh(a @ b)).lower(jnp.ones((64, 128)), jnp.ones((128, 32))).compile()
    found = kernels(program.as_text() or "", "/nowhere")
    assert sum(kernel.operations for kernel in found) == 2 * 64 * 128 * 32
    assert sum(kernel.bytes for kernel in found) >= 4 * (64 * 128 + 128 * 32 + 64 * 32)


def test_a_loop_over_rows_reads_each_row_once():
    program = jax.jit(lambda x: jax.lax.scan(lambda total, row: (total + row, row * 2), jnp.zeros(256), x))
    found = kernels(program.lower(jnp.ones((1000, 256))).compile().as_text() or "", "/nowhere")
    once = 1000 * 256 * 4
    assert 2 * once <= sum(kernel.times * kernel.bytes for kernel in found) < 8 * once


def test_the_command_on_this_machine(tmp_path):
    tiny = ("--config", "configs/demo.py", "--config.data.crop=32", "--batch", "2", "--words", "3", "--lines", "2")
    tasks = ("--task", "train", "--task", "predict", "--task", "decompose")
    result = command("-m", "benchmarks", "plan", *tiny, *tasks, "--out", tmp_path / "plan.json")
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "plan.json").read_text())["rows"]
    assert [(row["task"], row["source"] == "whole program") for row in rows] == [
        (task, whole) for task in ("train", "predict", "decompose") for whole in (True, False, False)
    ]
    for row in rows:
        if row["source"] == "whole program":
            assert row["peak_gib"] > row["arguments_gib"] > 0
            assert row["teraflops"] > 0
        assert row["traffic_gb"] > 0


def test_an_absent_compiler_is_told(monkeypatch):
    from benchmarks import chips

    def unknown(**_):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(chips.topologies, "get_topology_desc", unknown)
    with pytest.raises(chips.UserError, match="pip install 'jax"):
        chips.compile_only_device(chips.CHIPS["h100"])
    assert "--chip" in complaint(command("-m", "benchmarks", "plan", "--chip", "abacus"))
