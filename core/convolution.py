"""A convolution whose gradients are quick on a CPU: pass it to `nnx.Conv(conv_general_dilated=...)`.

XLA:CPU has fast kernels for one layout only, input NHWC by kernel HWIO. The gradients that JAX derives have
others, and XLA brings those into order at the top of a program but not inside `scan`, `while` and `cond`, where
they run ten times slower (`xla/service/cpu/conv_canonicalization.cc`, github.com/jax-ml/jax/issues/12868).

So the tangent is written here in layouts whose *transposes*, which is all that reverse mode runs, are NHWC by
HWIO. The transposition itself, with its padding, stays JAX's own. The numbers are those of `lax`; forward mode,
`vmap` and derivatives of any order work. Second derivatives are as slow in a loop as `lax`'s own.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
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


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _convolve(convolution: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves x [B, H, W, I] with kernel [h, w, I, O] to [B, H', W', O]."""
    return convolution(x, kernel, dimension_numbers=_CANONICAL)


@_convolve.defjvp
def _convolve_jvp(convolution: Any, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    # Its transpose convolves the cotangent [B, H', W', O] with the flipped kernel [h, w, O, I].
    by_input = convolution(dx, kernel.swapaxes(2, 3), dimension_numbers=("NHWC", "HWOI", "NHWC"))
    # Its transpose convolves x as [I, H, W, B] with the cotangent as a kernel [H', W', B, O], giving [I, h, w, O].
    by_kernel = convolution(
        x.transpose(3, 1, 2, 0), dkernel.transpose(2, 0, 1, 3), dimension_numbers=("CHWN", "IHWO", "HWNC")
    )
    return _convolve(convolution, x, kernel), by_input + by_kernel.transpose(2, 0, 1, 3)
