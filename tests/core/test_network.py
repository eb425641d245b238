"""Modules as functions of plain dicts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from core import network


class Plain(nnx.Module):
    def __init__(self, *, width: int, rngs: nnx.Rngs):
        self.inner = nnx.Linear(3, width, rngs=rngs)
        self.outer = nnx.Linear(width, 2, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.outer(nnx.relu(self.inner(x)))


class Normed(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)


class Listed(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs)])


class Dropping(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.drop = nnx.Dropout(0.5, rngs=rngs)


PLAIN = network.Network(make=Plain, sizes={"width": 4})


def by_hand(params: dict, x: np.ndarray) -> np.ndarray:
    params = jax.tree.map(np.asarray, params)
    inner = np.maximum(x @ params["inner"]["kernel"] + params["inner"]["bias"], 0)
    return inner @ params["outer"]["kernel"]


def test_parameters_are_a_nested_dict_of_arrays_that_the_key_decides():
    params = PLAIN.init(jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    assert shapes == {"inner": {"kernel": (3, 4), "bias": (4,)}, "outer": {"kernel": (4, 2)}}
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    again, other = PLAIN.init(jax.random.key(0)), PLAIN.init(jax.random.key(1))
    np.testing.assert_array_equal(again["inner"]["kernel"], params["inner"]["kernel"])
    assert (other["inner"]["kernel"] != params["inner"]["kernel"]).any()


def test_bound_under_jit_it_is_the_module_over_those_parameters():
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    one, two = (PLAIN.init(jax.random.key(seed)) for seed in (0, 1))
    call = jax.jit(lambda params, x: PLAIN.bind(params)(x))
    for params in (one, two, one):  # no trace of the one before
        np.testing.assert_allclose(call(params, x), by_hand(params, x), rtol=1e-5, atol=1e-6)
    both = jax.jit(lambda one, two, x: PLAIN.bind(one)(x) - PLAIN.bind(two)(x))
    np.testing.assert_allclose(both(one, two, x), by_hand(one, x) - by_hand(two, x), rtol=1e-4, atol=1e-5)


def test_gradients_have_the_structure_of_the_parameters():
    params = PLAIN.init(jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda params: PLAIN.bind(params)(jnp.ones((1, 3))).sum()))(params)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    inner = jax.tree.map(np.asarray, params["inner"])
    hidden = np.maximum(np.ones(3) @ inner["kernel"] + inner["bias"], 0)
    np.testing.assert_allclose(gradient["outer"]["kernel"], np.stack([hidden, hidden], axis=1), rtol=1e-5)


class Precise(Plain):
    def __init__(self, *, rngs: nnx.Rngs):
        super().__init__(width=4, rngs=rngs)
        self.last = nnx.Linear(2, 2, dtype=jnp.float32, rngs=rngs)

    def seen(self, x: jax.Array) -> dict[str, jax.Array]:
        middle = self(x)
        return {"middle": middle, "last": self.last(middle), "count": jnp.arange(3)}


def test_bfloat16_inside_and_float32_outside():
    plain = network.Network(make=Precise)
    half = dataclasses.replace(plain, compute="bfloat16")
    params, x = plain.init(jax.random.key(0)), jnp.array([[1.0, 1 / 3, -2.0]])
    exact, seen = plain.bind(params).seen(x), half.bind(params).seen(x)
    assert {name: value.dtype for name, value in seen.items()} == {
        "middle": "float32",
        "last": "float32",
        "count": "int32",
    }
    rounded = seen["middle"].astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(seen["middle"], rounded)  # the layers' own precision
    assert (seen["last"] != seen["last"].astype(jnp.bfloat16)).any()  # this layer chose its own
    np.testing.assert_allclose(seen["middle"], exact["middle"], rtol=0.03, atol=0.03)
    assert (seen["middle"] != exact["middle"]).any()
    gradient = jax.grad(lambda params: half.bind(params)(x).sum())(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    with pytest.raises(ValueError, match=r"compute=float16: must be float32 or bfloat16"):
        network.Network(make=Plain, compute="float16")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Normed, r"variables \['norm.mean', 'norm.var'\] are no parameters and would be lost; keep them in `aux`"),
        (Dropping, r"variables \['drop.rngs.*'\] are no parameters"),
        (Listed, r"path \('layers', 0, '(bias|kernel)'\) has a key that is no string; name submodules instead"),
    ],
)
def test_what_a_checkpoint_could_not_hold_is_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        network.Network(make=make).init(jax.random.key(0))


def test_a_network_is_a_value():
    make = functools.partial(Plain, width=4)
    assert network.Network(make=make) == network.Network(make=make)
    assert hash(network.Network(make=make, sizes={"width": 4})) == hash(network.Network(make=make, sizes={}))
    assert network.Network(make=make, sizes={"width": 4}) != network.Network(make=make, sizes={"width": 5})
