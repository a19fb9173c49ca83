import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from sazs_jax.errors import UserError
from sazs_jax.pretrained.conversion import Rule, conv_kernel, linear, linear_kernel, load_weights

RULES = (
    *linear("layers.{i}.dense", "blocks.{i}"),
    Rule(("head.left", "head.right"), "head.kernel", lambda a, b: np.concatenate([a, b]).transpose(1, 0)),
)


class Network(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List(nnx.Linear(3, 3, rngs=rngs) for _ in range(2))
        self.head = nnx.Linear(3, 4, use_bias=False, rngs=rngs)


def make_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tensors = {f"layers.{i}.dense.weight": rng.normal(size=(3, 3)).astype(np.float32) for i in range(2)}
    tensors |= {f"layers.{i}.dense.bias": rng.normal(size=3).astype(np.float32) for i in range(2)}
    return tensors | {name: rng.normal(size=(2, 3)).astype(np.float32) for name in ("head.left", "head.right")}


def load(tensors, module=None, **options):
    module = module or Network(nnx.Rngs(0))
    load_weights(module, tensors, RULES, origin="weights.bin", **options)
    return module


def test_each_parameter_comes_from_its_own_row():
    tensors = make_tensors()
    network = load(tensors)
    for i in range(2):
        np.testing.assert_array_equal(network.blocks[i].kernel[...], tensors[f"layers.{i}.dense.weight"].T)
        np.testing.assert_array_equal(np.asarray(network.blocks[i].bias), tensors[f"layers.{i}.dense.bias"])
    np.testing.assert_array_equal(network.head.kernel[:, :2], tensors["head.left"].T)
    np.testing.assert_array_equal(network.head.kernel[:, 2:], tensors["head.right"].T)


def test_an_abstract_module_gets_its_values():
    network = load(make_tensors(), nnx.eval_shape(lambda: Network(nnx.Rngs(0))))
    assert np.isfinite(network.blocks[1](jnp.ones((2, 3)))).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(dtype):
    tensors = {name: tensor.astype(dtype) for name, tensor in make_tensors().items()}
    network = load(tensors)
    assert network.head.kernel.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(network.blocks[0].bias), tensors["layers.0.dense.bias"].astype(np.float32))


def test_prefix_of_data_parallel_is_taken_off():
    load({f"module.{name}": tensor for name, tensor in make_tensors().items()})


def test_all_that_does_not_fit_is_told_at_once_and_nothing_is_changed():
    tensors = make_tensors()
    del tensors["layers.1.dense.bias"], tensors["head.left"]
    tensors["layers.0.dense.weight"] = np.zeros((3, 5), np.float32)
    tensors["layers.0.dense.bias"] = np.zeros((), np.float32)
    tensors["layers.2.dense.bias"] = np.zeros(3, np.float32)
    tensors["optimizer.step"] = np.zeros(())
    network = Network(nnx.Rngs(0))
    before = np.asarray(network.blocks[1].kernel)
    with pytest.raises(UserError) as caught:
        load(tensors, network, ignore=("optimizer.*",))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("weights.bin does not hold the weights of Network")
    assert "2 missing: layers.1.dense.bias, head.left" in message
    assert "1 unexpected: layers.2.dense.bias" in message
    assert "2 of another shape" in message
    assert "layers.0.dense.weight ((3, 5), for (3, 3) here)" in message
    assert "layers.0.dense.bias ((), for (3,) here)" in message
    np.testing.assert_array_equal(network.blocks[1].kernel[...], before)


def test_parts_that_do_not_go_together_are_of_another_shape():
    tensors = make_tensors() | {"head.right": np.zeros((2, 2, 2), np.float32)}
    with pytest.raises(UserError, match=r"1 of another shape: head.left \+ head.right"):
        load(tensors)


def test_a_hundred_of_a_kind_are_all_named_and_of_more_it_is_said_how_many():
    other = {f"encoder.{i}.weight": np.zeros(1) for i in range(100)}
    with pytest.raises(UserError, match=r"6 missing: .* 100 unexpected: ") as caught:
        load(other)
    assert all(name in str(caught.value) for name in other)
    assert str(caught.value).endswith("encoder.99.weight")
    with pytest.raises(UserError, match=r"102 unexpected: .*encoder.99.weight and 2 more$"):
        load(other | {f"encoder.{i}.weight": np.zeros(1) for i in (100, 101)})


def test_kernels_change_layout():
    assert linear_kernel(np.zeros((2, 3))).shape == (3, 2)
    assert conv_kernel(np.zeros((8, 4, 3, 5))).shape == (3, 5, 4, 8)
