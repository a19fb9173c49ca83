from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError

from sazs_jax.errors import UserError
from sazs_jax.pretrained.hub import local_directory

FILES = (("config.json",), ("model.safetensors", "pytorch_model.bin"))


def test_a_local_directory_is_taken_as_it_is(tmp_path):
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).touch()
    assert local_directory(str(tmp_path), FILES) == tmp_path


def test_what_a_local_directory_lacks_is_named(tmp_path):
    with pytest.raises(UserError, match=r"lacks config.json, model.safetensors or pytorch_model.bin$"):
        local_directory(str(tmp_path), FILES)


@pytest.mark.parametrize("source", ["openai/clip-vit-base-patch32", "no/such/directory", "./none"])
def test_a_hub_out_of_reach_is_one_line_that_says_what_to_place_where(source, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        local_directory(source, FILES)
    message = str(caught.value)
    assert message.startswith(f"{source}: no such directory, and the hub ")
    assert message.endswith(
        "place config.json, model.safetensors or pytorch_model.bin in a directory and name that instead"
    )
    assert "\n" not in message


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that holds the named files; those fetched are listed."""

    class Hub:
        def __init__(self):
            self.holds, self.fetched = set(), []

        def download(self, repo_id: str, name: str) -> str:
            if name not in self.holds:
                raise EntryNotFoundError(name)
            self.fetched.append(name)
            return str(tmp_path / name)

        def cached(self, repo_id: str, name: str) -> str | None:
            return str(tmp_path / name) if name in self.fetched else None

    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", hub.cached)
    return hub


def test_one_of_each_alternative_is_fetched_once_and_extras_where_there(hub, tmp_path):
    hub.holds = {"config.json", "pytorch_model.bin", "merges.txt"}
    for _ in range(2):
        directory = local_directory("some/model", FILES, extra=("merges.txt", "vocab.txt"))
        assert directory == Path(tmp_path)
        assert hub.fetched == ["config.json", "pytorch_model.bin", "merges.txt"]


def test_a_model_on_the_hub_without_the_files_is_told(hub):
    hub.holds = {"config.json"}
    with pytest.raises(UserError, match=r"the hub's copy lacks one of config.json, model.safetensors or"):
        local_directory("some/model", FILES)
