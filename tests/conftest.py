"""Checks every array shape that a signature of sazs_jax declares while the tests run."""

import os
import sys
from pathlib import Path

# Before JAX starts: eight devices for the tests of the mapped step, programs that compile fast rather than run fast.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")  # the commands keep nothing in the developer's home
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "" if "slow" in sys.argv else "--xla_backend_optimization_level=0",
    ]
)

import pytest
from jaxtyping import install_import_hook
from ml_collections import ConfigDict

from tests.tiny_devkit import Devkit


def pytest_collection_modifyitems(items):
    """The longest tests first, so that the workers end together."""
    items.sort(key=lambda item: item.path.name != "test_loop.py")


install_import_hook(["sazs_jax", "data"], "beartype.beartype")


@pytest.fixture(scope="session")
def sazs_data() -> Path:
    """The folder of lent photographs: $SAZS_DATA, or ../shared/data beside the checkout."""
    path = Path(os.environ.get("SAZS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (path / "voc_animals").is_dir():
        pytest.skip(f"no photographs: set SAZS_DATA to a folder with voc_animals ({path} is absent)")
    return path


@pytest.fixture
def make_devkit(tmp_path):
    """Build a whole devkit folder: four training images and three val images."""

    def make(name: str = "devkit") -> Devkit:
        devkit = Devkit(tmp_path / name)
        devkit.add("a_cat", 8)
        devkit.add("a_dog", 12)
        devkit.add("a_cat_and_dog", 8, 12, size=(40, 48))
        devkit.add("a_bird", 3)
        devkit.write_list("trn", 0, "a_bird__03")
        devkit.write_list("trn", 1, "a_cat__08", "a_cat_and_dog__08")
        devkit.write_list("trn", 2, "a_dog__12", "a_cat_and_dog__12")
        devkit.write_list("trn", 3)
        devkit.add("v_cow", 10)
        devkit.add("v_cat_cow", 10, 8, size=(64, 40))
        devkit.add("v_dog", 12)
        devkit.write_list("val", 0)
        devkit.write_list("val", 1, "v_cat_cow__08", "v_cow__10", "v_cat_cow__10")
        devkit.write_list("val", 2, "v_dog__12")
        devkit.write_list("val", 3)
        return devkit

    return make


@pytest.fixture
def empty_devkit(tmp_path) -> Devkit:
    return Devkit(tmp_path / "devkit")


@pytest.fixture
def data_config(tmp_path):
    """`config.data` for a devkit folder, with a cache of the test's own."""

    def make(root: Path | str, **changes) -> ConfigDict:
        config = ConfigDict(
            {
                "dataset": "pascal_5i",
                "root": str(root),
                "cache": str(tmp_path / "cache"),
                "fold": 1,
                "exclude": (),
                "crop": 32,
                "batch_size": 4,
                "scale": (0.5, 2.0),
                "rotation": 10.0,
                "flip": True,
                "jitter": 0.2,
                "num_workers": 0,
            }
        )
        config.update(changes)
        return config

    return make
