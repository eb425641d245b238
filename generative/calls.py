"""How many images, or evaluations of a network, one call of the device computes: few enough for two seconds.

The size depends on the program's floating-point operations, not on a clock. So all processes choose the same size, and
a run repeated on the same machine gives the same figures to the last bit.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from core import mesh

# Operations of one call, for about a second: assumes 10 GFLOP/s on a CPU (two slow cores) and 10 TFLOP/s on an
# accelerator. The second number was never measured.
CPU, ACCELERATOR = 1e10, 1e13


def flops(function: Callable, *arguments: Any) -> float:
    """Operations of `function(*arguments)`, of which only shapes are looked at; the body of a loop counts once."""
    leaves, structure = jax.tree.flatten(arguments)
    shapes = (jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    return _flops(function, tuple(shapes), structure)


@functools.lru_cache(maxsize=64)
def _flops(function: Callable, shapes: tuple[jax.ShapeDtypeStruct, ...], structure: Any) -> float:
    cost = jax.jit(function).lower(*jax.tree.unflatten(structure, shapes)).cost_analysis() or {}
    return max(float(cost.get("flops", 0.0)), 1.0)


def fitting(each: float) -> int:
    """How many units of `each` operations fit a call; at least 1."""
    limit = CPU if jax.default_backend() == "cpu" else ACCELERATOR
    return max(1, int(limit / each))


def rows(each: float, batch: int) -> int:
    """Images of a call, at most `batch` or as many as the devices need for one each: a multiple of those."""
    devices = mesh.local().size
    return -(-min(batch, fitting(each)) // devices) * devices


def row(batch: Any) -> Any:
    """The shapes of one row of a batch."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), batch)


def cut(count: int, size: int) -> list[tuple[np.ndarray, int]]:
    """Rows 0 to count - 1 in calls of `size`, the last filled up by repetition, and how many of each call count."""
    starts = range(0, count, size)
    return [(np.resize(np.arange(start, min(start + size, count)), size), min(size, count - start)) for start in starts]
