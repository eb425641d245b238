"""A convolution whose gradients are quick on a CPU: pass it to `nnx.Conv(conv_general_dilated=...)`.

XLA:CPU has fast kernels for one layout only, input NHWC by kernel HWIO. The gradients that JAX derives have
others, and XLA brings those into order at the top of a program but not inside `scan`, `while` and `cond`, where
they run ten times slower (`xla/service/cpu/conv_canonicalization.cc`, github.com/jax-ml/jax/issues/12868).

So the tangent is written here in layouts whose *transposes*, which is all that reverse mode runs, are NHWC by
HWIO. The transposition itself, with its padding, stays JAX's own. The numbers are those of `lax` (to rounding where
a gradient is one product and shifted sums); forward mode, `vmap` and derivatives of any order work. The gradient
of a directional derivative (`jax.jvp`) is as quick in a loop as outside; the gradient of a gradient is `lax`'s own.
"""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_CANONICAL = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> jax.Array:
    """`lax.conv_general_dilated`, argument for argument, with CPU-friendly gradients where that is possible.

    That is for two spatial dimensions, NHWC by HWIO, without groups, when JAX's default backend is the CPU (asked
    while tracing); everything else goes to `lax` unchanged.
    """
    arguments = {
        "window_strides": window_strides,
        "padding": padding,
        "lhs_dilation": lhs_dilation,
        "rhs_dilation": rhs_dilation,
        "precision": precision,
        "preferred_element_type": preferred_element_type,
    }
    grouped = feature_group_count != 1 or batch_group_count != 1
    if out_sharding is not None or grouped or not _canonical(lhs, rhs, dimension_numbers) or not _on_cpu():
        return lax.conv_general_dilated(
            lhs,
            rhs,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            batch_group_count=batch_group_count,
            out_sharding=out_sharding,
            **arguments,
        )
    return _convolve(functools.partial(lax.conv_general_dilated, **arguments), lhs, rhs)


def _canonical(lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any) -> bool:
    if lhs.ndim != 4 or rhs.ndim != 4:
        return False
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    return numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, _CANONICAL)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


_bilinear = functools.partial(jax.custom_jvp, nondiff_argnums=(0,))


@_bilinear
def _convolve(convolution: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves x [B, H, W, I] with kernel [h, w, I, O] to [B, H', W', O]."""
    return convolution(x, kernel, dimension_numbers=_CANONICAL)


@_bilinear
def _by_input(convolution: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same, in a form whose transpose in x is quick."""
    if _tiled(convolution, x, kernel):
        return _product(x, kernel, convolution.keywords["window_strides"], convolution.keywords["precision"])
    # Its transpose convolves the cotangent [B, H', W', O] with the flipped kernel [h, w, O, I].
    return convolution(x, kernel.swapaxes(2, 3), dimension_numbers=("NHWC", "HWOI", "NHWC"))


@_bilinear
def _by_kernel(convolution: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same, in a form whose transpose in the kernel is quick."""
    # It convolves x as [I, H, W, B] with the cotangent as a kernel [H', W', B, O], giving [I, h, w, O].
    y = convolution(x.transpose(3, 1, 2, 0), kernel.transpose(2, 0, 1, 3), dimension_numbers=("CHWN", "IHWO", "HWNC"))
    return y.transpose(2, 0, 1, 3)


def _jvp(convolution: Any, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """Of all three: a tangent that is itself differentiated is computed by `_convolve` and has quick gradients, too."""
    (x, kernel), (dx, dkernel) = primals, tangents
    parts = []
    if not isinstance(dx, jax.custom_derivatives.SymbolicZero):
        parts.append(_by_input(convolution, dx, kernel))
    if not isinstance(dkernel, jax.custom_derivatives.SymbolicZero):
        parts.append(_by_kernel(convolution, x, dkernel))
    return _convolve(convolution, x, kernel), functools.reduce(operator.add, parts)


for _function in (_convolve, _by_input, _by_kernel):
    _function.defjvp(_jvp, symbolic_zeros=True)


def _tiled(convolution: Any, x: jax.Array, kernel: jax.Array) -> bool:
    """Whether `_product` can stand for it: float32, no padding, no dilation, and strides that divide every size."""
    given = convolution.keywords
    strides, padding, sizes = given["window_strides"], given["padding"], (x.shape[1:3], kernel.shape[:2])
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(*sizes, strides, padding)
    dilations = (*(given["lhs_dilation"] or ()), *(given["rhs_dilation"] or ()))
    bare = not np.any(padding) and all(step == 1 for step in dilations)
    single = x.dtype == kernel.dtype == jnp.float32 == (given["preferred_element_type"] or jnp.float32)
    return single and bare and not np.any(np.remainder(sizes, strides))


def _product(x: jax.Array, kernel: jax.Array, strides: Sequence[int], precision: Any) -> jax.Array:
    """The convolution as one product, both sides cut into tiles as large as the strides.

    Its transpose is one product of cotangent and kernel and a sum of shifted pieces, one for each tile of the kernel.
    """
    (batch, height, width, inward), (*sizes, _, outward) = x.shape, kernel.shape
    down, across = sizes[0] // strides[0], sizes[1] // strides[1]
    rows, columns = height // strides[0], width // strides[1]
    high, wide = rows - down + 1, columns - across + 1
    x = x.reshape(batch, rows, strides[0], columns, strides[1], inward).swapaxes(2, 3)
    x = jnp.stack([x[:, i : i + high, j : j + wide] for i in range(down) for j in range(across)], axis=3)
    kernel = kernel.reshape(down, strides[0], across, strides[1], inward, outward).swapaxes(1, 2)
    y = jnp.matmul(x.reshape(batch * high * wide, -1), kernel.reshape(-1, outward), precision=precision)
    return y.reshape(batch, high, wide, outward)
