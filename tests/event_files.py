"""What a run wrote for TensorBoard, read without TensorBoard."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto import event_pb2


def event_files(workdir: Path) -> list[Path]:
    """Of each start of the run one, oldest first."""
    return sorted(workdir.glob("events.*"), key=lambda file: file.stat().st_ctime)


def logged(file: Path) -> Iterator[tuple[int, Any]]:
    """(step, value with its tag) of an event file; one that a kill cut short is read as far as it goes."""
    data, position = file.read_bytes(), 0
    while position + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        record = data[position + 12 : position + 12 + length]
        if len(record) < length:
            return
        event = event_pb2.Event.FromString(record)  # pyright: ignore[reportAttributeAccessIssue]
        for value in event.summary.value:
            yield event.step, value
        position += 16 + length
