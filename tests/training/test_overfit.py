"""ViT-S/16 and DRN-D-22 of `pascal_fold1.py` learn eight real photographs by heart, with its optimizer settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from configs import pascal_fold1
from sazs_jax.models.sazs import DEVICE_AXIS, build_model, cosine_logits
from sazs_jax.training.optimizer import make_optimizer
from sazs_jax.training.segmentation import Segmentation
from sazs_jax.training.state import create_state, merge_model
from sazs_jax.training.step import make_train_step, shard_batch
from tests.random_weights import random_weights

# Steps, and pixels a side: DRN's embeddings are 8 pixels apart, the ViT's 2.
SETTINGS = {"vit_s16": (600, 64), "drn22": (200, 128)}
CLASSES = (12, 13, 17)  # dog, horse, sheep: seen in fold 1


def eight_photographs(folder, side):
    """Squashed to `side`: images uint8 (8, S, S, 3) and labels uint8 (8, S, S) of 0, 1..3 and void."""
    images, labels = [], []
    for path in sorted((folder / "SegmentationClassAug").glob("*.png")):
        with Image.open(path) as mask, Image.open(folder / "JPEGImages" / f"{path.stem}.jpg") as image:
            values = np.array(mask.resize((side, side), Image.Resampling.NEAREST))
            wanted = CLASSES[len(images) % len(CLASSES)]
            if set(np.unique(values)) <= {0, wanted, 255} and (values == wanted).mean() > 0.15:
                images.append(np.array(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)))
                labels.append(np.where(values == wanted, CLASSES.index(wanted) + 1, values).astype(np.uint8))
        if len(images) == 8:
            return np.stack(images), np.stack(labels)
    raise AssertionError("fewer than eight such photographs")


@pytest.mark.slow
@pytest.mark.parametrize("variant", SETTINGS)
def test_eight_photographs_are_learnt_by_heart(variant, sazs_data):
    num_steps, side = SETTINGS[variant]
    images, labels = eight_photographs(sazs_data / "voc_animals", side)
    with np.load(sazs_data / "clip_anchors" / "vit_b32_a_name.npz") as table:
        rows = {str(name): row for name, row in zip(table["names"], table["embeddings"], strict=True)}
    anchors = np.stack([rows[name] for name in ("others", "dog", "horse", "sheep")]).astype(np.float32)

    config = pascal_fold1.get_config(variant)
    config.model.dtype = "float32"
    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0), batchnorm_axis=DEVICE_AXIS))
    optimizer = make_optimizer(config.optimizer, num_steps, freeze_encoder=False)
    graphdef, state = create_state(model, optimizer)
    step = make_train_step(graphdef, optimizer, Segmentation(config, anchors), config.train, devices=jax.devices()[:1])
    for index in range(num_steps):
        state, metrics = step(state, shard_batch({"image": images, "label": labels}, 1))
        if index % 20 == 0:
            print(index, float(metrics["loss/align"]), flush=True)

    logits = cosine_logits(merge_model(graphdef, state)(jnp.asarray(images)).embeddings, jnp.asarray(anchors))
    prediction = np.argmax(jax.image.resize(logits, (*labels.shape, len(anchors)), "bilinear"), axis=-1)
    valid = labels != 255
    ious = [
        np.sum((prediction == c) & (labels == c)) / np.sum(((prediction == c) | (labels == c)) & valid)
        for c in (1, 2, 3)
    ]
    print("IoU", ious)
    assert min(ious) > 0.9
