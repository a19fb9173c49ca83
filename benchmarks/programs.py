"""The programs of training and prediction as functions of shapes: to compile or count, not to run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from benchmarks.random_dino import with_weights
from benchmarks.training import NUM_ANCHORS, random_anchors
from sazs_jax.errors import UserError
from sazs_jax.inference import upsampled_argmax
from sazs_jax.models.sazs import DEVICE_AXIS, SAZS, build_model, cosine_logits
from sazs_jax.spectral.eigensegmenter import decompose
from sazs_jax.spectral.features import Features
from sazs_jax.spectral.fusion import FusionSettings
from sazs_jax.training.optimizer import make_optimizer
from sazs_jax.training.segmentation import Segmentation
from sazs_jax.training.state import create_state
from sazs_jax.training.step import one_step

PROGRAMS = ("train", "predict", "decompose")
_Program = tuple[Callable, tuple[Any, ...]]  # a function, and the shapes that it takes


def traced(name: str, config: ConfigDict, device: Any, *, words: int = 20) -> Any:
    """A program as JAX traces it.

    Args:
      name: `train`, the step of train.py; `predict`, pixels to label maps; `decompose`, pixels to eigenvectors.
      config: the whole config; batches are of `data.batch_size` images of `data.crop` pixels a side.
      device: that it is for.
      words: labels of `predict`.

    Raises:
      UserError: images of a side that the network does not take.
    """
    mesh = Mesh(np.array([device]), (DEVICE_AXIS,))

    def placed(tree):
        sharding = NamedSharding(mesh, PartitionSpec())
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    if name == "train":
        function, shapes = _training(config, device)
    elif name == "predict":
        function, shapes = _prediction(config, device, words)
    else:
        function, shapes = _decomposition(config, device)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False)
    donated = (0,) if name == "train" else ()
    return jax.jit(mapped, donate_argnums=donated).trace(*placed(shapes))


def compiled(name: str, config: ConfigDict, device: Any, *, words: int = 20) -> Any:
    """A program compiled for a device; arguments as in `traced`."""
    options: dict[str, Any] = {"xla_gpu_enable_triton_gemm": False} if device.platform == "gpu" else {}
    return traced(name, config, device, words=words).lower().compile(compiler_options=options)


def _training(config: ConfigDict, device: Any) -> _Program:
    """The step of train.py: state, constants and batch to the next state and metrics."""
    task = Segmentation(config, random_anchors(NUM_ANCHORS, config.model.embedding_dim))
    optimizer = make_optimizer(config.optimizer, config.train.num_steps, freeze_encoder=config.model.freeze_encoder)
    graphs = []

    def initial_state():
        graph, state = create_state(_network(config, batchnorm_axis=DEVICE_AXIS), optimizer)
        graphs.append(graph)
        return state

    with jax.default_device(device):  # what it can do chooses kernels
        state = jax.eval_shape(initial_state)
    images = _images(config)
    batch = {"image": images, "label": jax.ShapeDtypeStruct(images.shape[:3], jnp.uint8)}
    return one_step(graphs[0], optimizer, task, config.train), (state, task.constants, batch)


def _prediction(config: ConfigDict, device: Any, words: int) -> _Program:
    """Pixels to label maps."""
    with jax.default_device(device):
        graph, state = nnx.split(nnx.eval_shape(lambda: _network(config)))

    def predict(state, images, anchors):
        logits = cosine_logits(nnx.merge(graph, state)(images).embeddings, anchors)
        sizes = jnp.full((len(images), 2), config.data.crop)
        return upsampled_argmax(logits, sizes, images.shape[1:3])[0]

    anchors = jax.ShapeDtypeStruct((words, config.model.embedding_dim), jnp.float32)
    return predict, (state, _images(config), anchors)


def _decomposition(config: ConfigDict, device: Any) -> _Program:
    """Pixels to eigenvectors."""
    with with_weights(config.spectral) as spectral, jax.default_device(device):
        graph, state = nnx.split(nnx.eval_shape(lambda: Features(spectral)))

    def eigenvectors(state, images, embeddings):
        return decompose(
            state,
            (images, embeddings),
            graphdef=graph,
            color_weight=spectral.color_weight,
            neighbours=spectral.neighbors,
            count=FusionSettings.of_config(spectral).num_vectors,
            solver=spectral.solver,
        )

    embeddings = (config.data.batch_size, spectral.grid, spectral.grid, config.model.embedding_dim)
    return eigenvectors, (state, _images(config), jax.ShapeDtypeStruct(embeddings, jnp.float32))


def _network(config: ConfigDict, *, batchnorm_axis: str | None = None) -> SAZS:
    model = build_model(config, rngs=nnx.Rngs(0), batchnorm_axis=batchnorm_axis)
    if config.data.crop % model.size_multiple:
        raise UserError(f"data.crop={config.data.crop} must be a multiple of {model.size_multiple} for this encoder")
    return model


def _images(config: ConfigDict) -> jax.ShapeDtypeStruct:
    side = config.data.crop
    return jax.ShapeDtypeStruct((config.data.batch_size, side, side, 3), jnp.uint8)
