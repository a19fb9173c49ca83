"""What the kernels of a compiled program read, write and compute, by the text of XLA's optimised program."""

import collections
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_BYTES = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "u32": 4, "s32": 4, "f32": 4, "u64": 8, "s64": 8, "f64": 8}
_SLICES = {"dynamic-slice", "gather", "slice"}
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


class Kernel(NamedTuple):
    """One launch on the device, or one of `times` in a loop."""

    name: str
    source: str  # file and line of this package that it comes from, and whether it is of the backward pass
    bytes: int  # operands and results, each once
    operations: float  # of products, convolutions and attention; a multiply-add is two
    times: int

    def floor(self, bandwidth: float, peak: float) -> float:
        """Seconds at so many bytes and operations a second, if every byte comes from memory and goes there."""
        return self.times * max(self.bytes / bandwidth, self.operations / peak)


class _Instruction(NamedTuple):
    name: str
    shapes: list[tuple[str, list[int]]]  # type and sides of each part of the result
    opcode: str
    operands: list[str]
    rest: str


def kernels(text: str, package: str, helpers: Sequence[str] = ()) -> list[Kernel]:
    """The kernels of a program, those of loops with how often they run, if XLA knows.

    Args:
      text: of a compiled program (`compiled.as_text()`).
      package: path that the files of source lie under.
      helpers: files of the package whose callers are told instead of them.
    """
    computations, entry = _computations(text)
    frames = _stack_frames(text)
    return list(_walk(computations, entry, 1, lambda rest: _source(rest, frames, package, helpers)))


def by_source(found: Sequence[Kernel], bandwidth: float, peak: float) -> dict[str, list[Kernel]]:
    """Kernels of each line of source, the costliest line first; bandwidth and peak as in `Kernel.floor`."""
    lines = collections.defaultdict(list)
    for kernel in found:
        lines[kernel.source].append(kernel)
    return dict(sorted(lines.items(), key=lambda item: -sum(k.floor(bandwidth, peak) for k in item[1])))


def _computations(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    """Instructions by name, of every computation by name; and the name of the program's own."""
    computations: dict[str, dict[str, _Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = head[2]
            entry = current if head[1] else entry
            computations[current] = {}
        elif current and (match := _INSTRUCTION.match(line)):
            name, shape, opcode, rest = match.groups()
            operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            computations[current][name] = _Instruction(name, _shapes(shape), opcode, operands, rest)
    return computations, entry


def _shapes(text: str) -> list[tuple[str, list[int]]]:
    return [(kind, [int(side) for side in sides.split(",") if side]) for kind, sides in _SHAPE.findall(text)]


def _size(shapes: Sequence[tuple[str, list[int]]]) -> int:
    return sum(_BYTES.get(kind, 0) * math.prod(sides) for kind, sides in shapes)


def _walk(computations, name: str, times: int, source_of) -> Iterator[Kernel]:
    instructions = computations.get(name, {})
    for one in instructions.values():
        inner = dict(re.findall(r"\b(body|to_apply|calls)=%?([\w.\-]+)", one.rest))
        if one.opcode == "while":
            count = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.rest)
            yield from _walk(computations, inner["body"], times * (int(count[1]) if count else 1), source_of)
        elif one.opcode == "call":
            yield from _walk(computations, inner["to_apply"], times, source_of)
        elif one.opcode not in _FREE:
            operands = [instructions[operand].shapes for operand in one.operands if operand in instructions]
            size = _size(one.shapes) + sum(map(_size, operands))
            if one.opcode in _SLICES:
                size = 2 * _size(one.shapes)
            elif one.opcode == "dynamic-update-slice":
                size = 2 * _size(operands[1])
            operations = _operations(one, operands)
            if one.opcode == "fusion":
                parts = computations.get(inner.get("calls", ""), {})
                size -= _left_alone(parts)
                operations = sum(
                    _operations(part, [parts[operand].shapes for operand in part.operands if operand in parts])
                    for part in parts.values()
                )
            yield Kernel(one.name, source_of(one.rest), size, operations, times)


def _left_alone(parts: Mapping[str, _Instruction]) -> int:
    """Bytes of a fusion's operands that it does not touch, for it takes slices of them or writes into them."""
    alone = 0
    for whole in (part for part in parts.values() if part.opcode == "parameter"):
        users = [part for part in parts.values() if whole.name in part.operands]
        if users and all(user.opcode in _SLICES and user.operands[0] == whole.name for user in users):
            alone += max(_size(whole.shapes) - sum(_size(user.shapes) for user in users), 0)
        elif [user.opcode for user in users] == ["dynamic-update-slice"] and users[0].operands[0] == whole.name:
            update = parts.get(users[0].operands[1])
            alone += 2 * (_size(whole.shapes) - _size(update.shapes)) if update else 0  # of operand and result
    return alone


def _operations(one: _Instruction, operands: Sequence[Sequence[tuple[str, list[int]]]]) -> float:
    """Of a product, a convolution or an attention; 0 of anything else."""
    target = re.search(r'custom_call_target="([^"]*)"', one.rest)
    called = target[1] if target else ""
    if len(operands) < 2 or not one.shapes:
        return 0.0
    result, first, second = one.shapes[0][1], operands[0][0][1], operands[1][0][1]
    if one.opcode == "dot" or "matmul" in called or "gemm" in called:
        axes = re.search(r'lhs_contracting_dim(?:ension)?s"?[=:][\[{]([\d,"]*)', one.rest)
        return 2.0 * math.prod(result) * math.prod(first[int(i)] for i in re.findall(r"\d+", axes[1] if axes else ""))
    if one.opcode == "convolution" or "$conv" in called:
        window = re.search(r"window=\{size=([\dx]+)", one.rest)
        taps = math.prod(int(side) for side in window[1].split("x")) if window else 1
        zeros = re.search(r"lhs_dilate=([\dx]+)", one.rest)  # put between the image's cells
        taps /= math.prod(int(step) for step in zeros[1].split("x")) if zeros else 1
        labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.rest)
        assert labels
        kernel = labels[2]
        if "BackwardFilter" in called:  # of the image and the output's gradient; the result is the kernel
            return 2.0 * math.prod(second) * taps * result[kernel.index("i")]
        if "BackwardInput" in called:  # of the output's gradient and the kernel
            return 2.0 * math.prod(first) * taps * second[kernel.index("i")]
        return 2.0 * math.prod(result) * taps * second[kernel.index("i")]
    if "fmha" in called:  # query, key: (B, N, heads, d); the backward pass has five products for two
        batch, length, heads, width = first
        products = 5 if "Backward" in called else 2
        return 2.0 * products * batch * heads * length * second[1] * width
    return 0.0


def _stack_frames(text: str) -> dict[int, list[tuple[str, int]]]:
    """Each frame's chain of (file, line), innermost first."""

    def table(name: str) -> dict[int, str]:
        block = re.search(rf"^{name}\n((?:\d+ .*\n)+)", text, re.MULTILINE)
        rows = (row.split(" ", 1) for row in block[1].splitlines()) if block else ()
        return {int(number): value for number, value in rows}

    def field(row: str, name: str) -> int:
        match = re.search(rf"\b{name}=(\d+)", row)
        return int(match[1]) if match else 0

    files, locations, frames = table("FileNames"), table("FileLocations"), table("StackFrames")
    chains = {}
    for number in frames:
        chain, at = [], number
        while at in frames:
            place = locations[field(frames[at], "file_location_id")]
            chain.append((files[field(place, "file_name_id")].strip('"'), field(place, "line")))
            parent = field(frames[at], "parent_frame_id") - 1  # XLA prints it one too large
            at = parent if parent != at else 0
        chains[number] = chain
    return chains


def _source(rest: str, frames: Mapping[int, Sequence[tuple[str, int]]], package: str, helpers: Sequence[str]) -> str:
    name = re.search(r'op_name="([^"]*)"', rest)
    backward = " (backward)" if name and "transpose(jvp" in name[1] else ""
    frame = re.search(r"stack_frame_id=(\d+)", rest)
    chain = frames.get(int(frame[1]), ()) if frame else ()
    inside = [(file.removeprefix(package).lstrip("/"), line) for file, line in chain if file.startswith(package)]
    places = (f"{file}:{line}" for file, line in inside if file not in helpers)
    return next(places, "elsewhere") + backward
