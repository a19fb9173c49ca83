"""A work directory with a random tiny network, a small VOC devkit, and commands run as a person does."""

import os
import subprocess
import sys
from pathlib import Path

import grain
import numpy as np
from flax import nnx
from PIL import Image

from configs import demo
from data.coco_categories import CATEGORIES
from data.folds import VOC_CLASSES
from sazs_jax.models.sazs import build_model
from sazs_jax.text import AnchorTable
from sazs_jax.training.checkpoints import Checkpoints, StoredAnchors
from sazs_jax.training.optimizer import make_optimizer
from sazs_jax.training.run_config import claim_workdir
from sazs_jax.training.state import create_state
from tests.random_weights import random_weights

REPOSITORY = Path(__file__).parents[1]


def command(script: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run one of the commands at the top of the repository."""
    line = [sys.executable, script, *map(str, arguments)]
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}  # one device, quick to compile
    return subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)


def complaint(result: subprocess.CompletedProcess) -> str:
    """The one line of a command that ended with status 2."""
    assert result.returncode == 2, result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert "Traceback" not in result.stderr
    return line


def make_run(folder: Path, *, fold: int = 1, shape: bool = True) -> Path:
    """Write an anchor table, a devkit of three val images (fold 1: cat twice, cow once) and an untrained checkpoint."""
    rng = np.random.default_rng(0)
    names = ("others", *VOC_CLASSES)
    table = folder / "words.npz"
    rows = rng.normal(size=(len(names) + 1, 64))
    more = [name for name in CATEGORIES.values() if name not in (*names, "zebra")]
    rows = np.concatenate([rows, np.random.default_rng(1).normal(size=(len(more), 64))]).astype(np.float32)
    np.savez(table, names=[*names, "zebra", *more], embeddings=rows)

    root = folder / "devkit"
    for image_id, values in {"one": (8, 0), "two": (8, 10), "three": (12, 15)}.items():
        mask = np.repeat(np.repeat(np.array([values], np.uint8), 40, axis=0), 24, axis=1)
        pixels = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
        for name, picture in (("JPEGImages", f"{image_id}.jpg"), ("SegmentationClassAug", f"{image_id}.png")):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels if name == "JPEGImages" else mask).save(root / name / picture)
    lists = {0: "", 1: "one__08\ntwo__08\ntwo__10\n", 2: "three__12\n", 3: ""}
    for split in ("trn", "val"):
        (root / "splits" / split).mkdir(parents=True)
        for number, text in lists.items():
            (root / "splits" / split / f"fold{number}.txt").write_text(text)

    config = demo.get_config()
    if not shape:
        config.loss.shape_weight = config.loss.bce_weight = 0.0
    config.data.dataset = "pascal_5i"
    config.data.fold = fold
    config.data.root = str(root)
    config.data.cache = str(folder / "cache")
    config.text.anchors = str(table)
    workdir = folder / "run"
    claim_workdir(workdir, config)
    source = AnchorTable.load(table)
    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0)))
    _, state = create_state(model, make_optimizer(config.optimizer, 10, freeze_encoder=False))
    checkpoints = Checkpoints(workdir, StoredAnchors(names, source.embed(names), source.source))
    checkpoints.save(state, iter(grain.MapDataset.range(4).to_iter_dataset()), None, step=3)
    checkpoints.close()
    return workdir
