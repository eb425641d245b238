"""A convolution whose gradients are quick on a CPU: pass it to `nnx.Conv(conv_general_dilated=...)`.

XLA:CPU has fast kernels for one layout only, input NHWC by kernel HWIO. The gradients that JAX derives have
others, and XLA brings those into order at the top of a program but not inside `scan`, `while` and `cond`, where
they run ten times slower (`xla/service/cpu/conv_canonicalization.cc`, github.com/jax-ml/jax/issues/12868).

So the tangent is written here in layouts whose *transposes*, which is all that reverse mode runs, are NHWC by
HWIO. The transposition itself, with its padding, stays JAX's own. And nothing is multiplied with the zeros between
the numbers of a dilated input: with strides the input's gradient is that of a convolution of tiles, and a transposed
convolution is one product.

The numbers are those of `lax` to rounding; forward mode, `vmap` and derivatives of any order work. The gradient of a
directional derivative (`jax.jvp`) is as quick in a loop as outside; the gradient of a gradient is `lax`'s own.
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
    refused = isinstance(padding, str) and _dilated(arguments, "lhs")  # by `lax`, which says why
    if out_sharding is not None or grouped or refused or not _canonical(lhs, rhs, dimension_numbers) or not on_cpu():
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


def on_cpu() -> bool:
    """Whether programs are made for a CPU; asked while tracing."""
    return jax.default_backend() == "cpu"


_bilinear = functools.partial(jax.custom_jvp, nondiff_argnums=(0,))


@_bilinear
def _convolve(convolution: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves x [B, H, W, I] with kernel [h, w, I, O] to [B, H', W', O]."""
    given = convolution.keywords
    if _transposed(given) and _single(given, x, kernel):
        return _painted(given, x, kernel)
    return convolution(x, kernel, dimension_numbers=_CANONICAL)


@_bilinear
def _by_input(convolution: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same, in a form whose transpose in x is quick."""
    given = convolution.keywords
    if not _dilated(given, "lhs") and not _dilated(given, "rhs"):
        strides, padding = given["window_strides"], _padding(given, x, kernel)
        product = not np.any(padding) and not np.any(np.remainder(x.shape[1:3], strides)) and _single(given, x, kernel)
        if product or max(strides) > 1:
            x, kernel = _tiles(x, kernel, strides, padding)
            convolution = functools.partial(convolution, window_strides=(1, 1), padding="VALID")
        if product:
            return _product(x, kernel, given["precision"])
    # Its transpose convolves the cotangent [B, H', W', O] with the flipped kernel [h, w, O, I].
    return convolution(x, kernel.swapaxes(2, 3), dimension_numbers=("NHWC", "HWOI", "NHWC"))


@_bilinear
def _by_kernel(convolution: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same, in a form whose transpose in the kernel is quick."""
    given = convolution.keywords
    if not _transposed(given) and not (_whole(given) and x.shape[3] > kernel.shape[3]):
        # It convolves x as [I, H, W, B] with the cotangent as a kernel [H', W', B, O], giving [I, h, w, O].
        numbers = ("CHWN", "IHWO", "HWNC")
        y = convolution(x.transpose(3, 1, 2, 0), kernel.transpose(2, 0, 1, 3), dimension_numbers=numbers)
        return y.transpose(2, 0, 1, 3)
    # It convolves the cotangent as [O, H', W', B] with x as a kernel [H, W, B, I], giving [O, h, w, I]: quicker, too,
    # where there are more inward channels than outward.
    steps = given["lhs_dilation"] or (1, 1)
    edges = [
        (before + step * (size - 1) - span + 1, after + step * (size - 1) - span + 1)
        for (before, after), step, size, span in zip(
            _padding(given, x, kernel), steps, x.shape[1:3], kernel.shape[:2], strict=True
        )
    ]
    convolution = functools.partial(convolution, padding=edges, lhs_dilation=None, rhs_dilation=steps)
    x, kernel = x.transpose(1, 2, 0, 3)[::-1, ::-1], kernel.transpose(3, 0, 1, 2)[:, ::-1, ::-1]
    return convolution(kernel, x, dimension_numbers=("NHWC", "HWOI", "NHWC")).transpose(3, 1, 2, 0)


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


def _whole(given: dict[str, Any]) -> bool:
    return max(given["window_strides"]) == 1 and not _dilated(given, "rhs")


def _transposed(given: dict[str, Any]) -> bool:
    return _whole(given) and _dilated(given, "lhs")


def _dilated(given: dict[str, Any], side: str) -> bool:
    return any(step != 1 for step in given[f"{side}_dilation"] or ())


def _single(given: dict[str, Any], x: jax.Array, kernel: jax.Array) -> bool:
    return x.dtype == kernel.dtype == jnp.float32 == (given["preferred_element_type"] or jnp.float32)


def _padding(given: dict[str, Any], x: jax.Array, kernel: jax.Array) -> Sequence[tuple[int, int]]:
    padding = given["padding"]
    if isinstance(padding, str):
        return lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], given["window_strides"], padding)
    return padding


def _painted(given: dict[str, Any], x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A transposed convolution as one product, of every pixel with the whole kernel, and a sum of shifted pieces."""
    steps, spans = given["lhs_dilation"], kernel.shape[:2]
    padding = [
        (span - 1 - before, span - 1 - after)
        for span, (before, after) in zip(spans, _padding(given, x, kernel), strict=True)
    ]
    sizes = [
        step * (size - 1) + span - before - after
        for step, size, span, (before, after) in zip(steps, x.shape[1:3], spans, padding, strict=True)
    ]
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    strided = lambda y: _product(*_tiles(y, flipped, steps, padding), given["precision"])
    (y,) = jax.linear_transpose(strided, jax.ShapeDtypeStruct((len(x), *sizes, kernel.shape[3]), x.dtype))(x)
    return y


def _tiles(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> tuple[jax.Array, jax.Array]:
    """Both cut into tiles as large as the strides, which become channels: a convolution without stride or padding.

    Zeros fill what the strides do not divide. Without this the transpose meets a zero between any two numbers.
    """
    (batch, *sizes, inward), (*spans, _, outward) = x.shape, kernel.shape
    whole = [-(-span // stride) for span, stride in zip(spans, strides, strict=True)]
    places = [
        (before + size + after - span) // stride + tiles
        for size, span, stride, tiles, (before, after) in zip(sizes, spans, strides, whole, padding, strict=True)
    ]
    edges = [
        (before, tiles * stride - size - before, 0)
        for size, stride, tiles, (before, _) in zip(sizes, strides, places, padding, strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    missing = [(0, tiles * stride - span) for span, stride, tiles in zip(spans, strides, whole, strict=True)]
    kernel = jnp.pad(kernel, (*missing, (0, 0), (0, 0)))
    x = x.reshape(batch, places[0], strides[0], places[1], strides[1], inward).swapaxes(2, 3)
    kernel = kernel.reshape(whole[0], strides[0], whole[1], strides[1], inward, outward).swapaxes(1, 2)
    return x.reshape(batch, *places, -1), kernel.reshape(*whole, -1, outward)


def _product(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    """The convolution of tiles as one product.

    Its transpose is one product of cotangent and kernel and a sum of shifted pieces, one for each tile of the kernel.
    """
    (batch, rows, columns, _), (down, across, _, outward) = x.shape, kernel.shape
    high, wide = rows - down + 1, columns - across + 1
    x = jnp.stack([x[:, i : i + high, j : j + wide] for i in range(down) for j in range(across)], axis=3)
    y = jnp.matmul(x.reshape(batch * high * wide, -1), kernel.reshape(-1, outward), precision=precision)
    return y.reshape(batch, high, wide, outward)
