"""The demo: draw a data set, train, score seen and unseen words, write masks. Run it as `make demo`.

Each command below is what you would type yourself, with your own data and words.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from PIL import Image

from configs import demo
from data import shapes
from data.datasets import load
from data.loading import labelled_images
from sazs_jax.pretrained.random_clip_text import write_random_tower

RUN = Path("runs/demo")
UNTRAINED = RUN / "untrained"
PICTURES = RUN / "masks"
NUM_PICTURES = 8


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # subprocess.run then ends its command
    shutil.rmtree(RUN, ignore_errors=True)
    config = demo.get_config()
    words = sorted({word for name in shapes.CLASS_NAMES for word in name.split()} | {"others"})
    write_random_tower(config.text.tower, words, seed=0, dim=config.model.embedding_dim)

    run("train.py", "--config", "configs/affine_mlp.py:demo", "--workdir", config.loss.affine_mlp)
    common = ["train.py", "--config", "configs/demo.py"]
    run(*common, "--workdir", str(UNTRAINED), "--config.train.num_steps=0")
    run("evaluate.py", "--workdir", str(UNTRAINED))
    run(*common, "--workdir", str(RUN))
    run("evaluate.py", "--workdir", str(RUN))

    dataset = load(config.data, splits=("val",))
    unseen = [dataset.class_names[c] for c in dataset.unseen(config.data.fold)]
    shown = list(dict.fromkeys(image for image, _ in dataset.test_pairs(config.data.fold)))[:NUM_PICTURES]
    paths = []
    for example in labelled_images(dataset.val, shown):
        path = RUN / "images" / f"{example.image_id}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(example.image).resize((256, 256)).save(path)
        paths.append(str(path))
    words = ",".join(unseen)
    run("predict.py", "--workdir", str(RUN), "--labels", words, "--out", str(PICTURES), "--eigensegments", *paths)

    before, after = (unseen_miou(folder) for folder in (UNTRAINED, RUN))
    print(f"\nunseen classes ({', '.join(unseen)}): mIoU {before:.3f} untrained, {after:.3f} trained")
    print(f"pictures: {PICTURES.absolute()}/*.overlay.png and *.eigensegments.png")
    print(f"curves:   {sys.executable} -m tensorboard.main --logdir {RUN} (after pip install tensorboard)")


def run(*command: str) -> None:
    print("\n$ python", " ".join(f'"{part}"' if " " in part else part for part in command), flush=True)
    environment = {
        # On a CPU, a device a core: the mapped step then uses them better than one device does.
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={2 if (os.cpu_count() or 1) > 1 else 1}",
        "JAX_COMPILATION_CACHE_DIR": str(RUN / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    status = subprocess.run([sys.executable, *command], env=environment | os.environ).returncode
    if status:  # 2: it has told why in its one line
        sys.exit(2 if status == 2 else f"error: {command[0]} ended with status {status}; what it printed is above")


def unseen_miou(workdir: Path) -> float:
    return json.loads((workdir / "eval" / "metrics.json").read_text())["fusion"]["none"]["miou"]


if __name__ == "__main__":
    main()
