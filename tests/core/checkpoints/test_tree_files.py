"""What a source remembers comes back as it was."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from core.checkpoints import tree_files


class _Pair(NamedTuple):
    left: int
    right: np.ndarray


@dataclasses.dataclass
class _Batch:
    reward: np.ndarray


def _through(tmp_path, tree):
    tree_files.save(tmp_path / "tree.npz", tree)
    return tree_files.load(tmp_path / "tree.npz")


def test_plain_values_come_back_with_their_types(tmp_path):
    tree = {"a": None, "b": [1, 2.5, "é\n", True], "c": (3, {"d": 2**127 + 1}), "e": {}, "f": float("inf"), "dict": []}
    back = _through(tmp_path, tree)
    assert back == tree
    assert type(back["b"][3]) is bool
    assert type(back["c"]) is tuple
    assert _through(tmp_path, None) is None


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bool", "int64", "float16", "bfloat16"])
def test_arrays_come_back_bit_for_bit(tmp_path, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(jnp.dtype(dtype))
    back = _through(tmp_path, {"batch": {"observation": array, "strided": array[:, ::2], "empty": array[:0]}})["batch"]
    assert back["observation"].dtype == array.dtype
    np.testing.assert_array_equal(back["observation"], array)
    np.testing.assert_array_equal(back["strided"], array[:, ::2])
    assert back["empty"].shape == (0, 3, 4)


def test_dataclasses_become_dicts_and_named_tuples_tuples(tmp_path):
    back = _through(tmp_path, {"held": _Batch(np.ones(2)), "pair": _Pair(1, np.zeros(3)), "jax": jnp.ones(2)})
    np.testing.assert_array_equal(back["held"]["reward"], [1, 1])
    assert type(back["pair"]) is tuple
    np.testing.assert_array_equal(back["jax"], [1, 1])


@pytest.mark.parametrize("bad", [object(), {1: 2}, np.array([object()]), b"bytes"])
def test_anything_else_is_refused_by_its_path(tmp_path, bad):
    with pytest.raises(TypeError, match="source state/games/1: cannot store"):
        _through(tmp_path, {"games": [0, bad]})
