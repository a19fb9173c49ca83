"""Files of weights are known by what they hold, whatever they are called."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sazs_jax.errors import UserError
from sazs_jax.pretrained.tensor_file import find_weights, names_file, read_tensors

GOLDEN = Path(__file__).parents[1] / "golden"
TENSORS = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}


def write(path: Path, kind: str) -> Path:
    if kind == "safetensors":
        save_file(TENSORS, path)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, weight=TENSORS["weight"])
    else:
        path.write_bytes((GOLDEN / kind).read_bytes())
    return path


@pytest.mark.parametrize("kind", ["safetensors", "npz", "tensors.pth", "tensors_legacy.pth"])
@pytest.mark.parametrize("name", ["weights", "model.pth.tar", "model.bin", "model.npz", "model.safetensors"])
def test_a_file_is_read_whatever_it_is_called(kind, name, tmp_path):
    path = write(tmp_path / name, kind)
    assert find_weights(str(path)) == path
    tensors = read_tensors(path)
    if kind in ("safetensors", "npz"):
        np.testing.assert_array_equal(tensors["weight"], TENSORS["weight"])
    else:
        assert len(tensors) == 9


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04 broken", b"<html>not found</html>"])
def test_a_file_of_something_else_is_told(content, tmp_path):
    path = tmp_path / "model.pth.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model.pth.tar: no file of weights; expected safetensors, .npz or"):
        read_tensors(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "weights")
    with pytest.raises(UserError, match="no file of weights"):
        read_tensors(path)


class Evil:
    """On loading, an ordinary unpickler would create the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_an_npz_of_objects_that_run_code_is_refused(tmp_path):
    trace = tmp_path / "trace"
    np.savez(tmp_path / "evil.npz", weight=np.array([Evil(trace)], object))
    with pytest.raises(UserError, match="damaged, cut short or no npz file"):
        read_tensors(tmp_path / "evil.npz")
    assert not trace.exists()


def test_a_directory_is_no_file_though_it_be_called_one(tmp_path):
    folder = tmp_path / "model.safetensors"
    folder.mkdir()
    assert not names_file(str(folder))
    with pytest.raises(UserError, match="this directory lacks model.safetensors or pytorch_model.bin"):
        find_weights(str(folder))
    write(folder / "model.safetensors", "safetensors")
    assert find_weights(str(folder)) == folder / "model.safetensors"


@pytest.mark.parametrize("source", ["a" * 300, "~nobody-of-that-name/x", "a\0b"])
def test_a_source_that_can_be_no_path_is_one_line(source, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no such directory, and the hub"):
        find_weights(source)
    with pytest.raises(UserError, match="x.pth: cannot be read|no pth file"):
        read_tensors(find_weights(f"{source}x.pth"))
