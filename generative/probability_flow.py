"""The likelihood of a denoiser, by its ODE (2011.13456, section 4.3), in the coordinate λ = ln(σ/α).

With α² + σ² = 1 the ODE is dx/dλ = α (α x - D(x; α, σ)): nothing in it grows beyond bounds at either end, whatever
curve the model was trained along. Its solution from an image at the least noise to the greatest, where x is a standard
normal, gives log p(image) = log N(x) + ∫ div dλ.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from generative import noise, samplers

BITS = 7.0  # bits a dimension of the density of [-1, 1] cut into 256 levels: log2(128)

Method = Literal["heun", "rk4"]
Trace = Literal["hutchinson", "exact"]


def log_density(
    denoise: samplers.Denoise,
    x: jax.Array,
    keys: jax.Array,
    *,
    limits: noise.Limits,
    steps: int,
    method: Method,
    trace: Trace,
    probes: int,
) -> jax.Array:
    """The log density in nats, [B], of x float32 [B, H, W, C]; keys [B] draw the probes of Hutchinson's trace.

    `steps` steps evenly in λ between the limits; the image counts as having the least noise (an error of its square).
    """
    axes, size = tuple(range(1, x.ndim)), math.prod(x.shape[1:])
    divergence = _exact if trace == "exact" else _hutchinson(keys, x.shape[1:], probes)

    def field(ratio: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """(dx/dλ, its divergence [B])."""
        alpha, sigma = jax.lax.rsqrt(1 + jnp.exp(2 * ratio)), jax.lax.rsqrt(1 + jnp.exp(-2 * ratio))
        clean, total = divergence(lambda x: denoise(x, noise.Level(alpha, sigma)), state[0])
        return alpha * (alpha * state[0] - clean), alpha * (alpha * size - total)

    begin, end = math.log(limits[0]), math.log(limits[1])
    width = (end - begin) / steps
    step = _STEPS[method]
    times = begin + width * jnp.arange(steps, dtype=jnp.float32)
    scale = 1 / math.sqrt(1 + limits[0] ** 2)
    state = (scale * x, jnp.full(x.shape[0], size * math.log(scale)))
    last, volume = jax.lax.scan(lambda state, time: (step(field, time, state, width), None), state, times)[0]
    normal = -0.5 * jnp.sum(last**2, axis=axes) - 0.5 * size * math.log(2 * math.pi)
    return normal + volume


def dequantized(image: jax.Array, keys: jax.Array) -> jax.Array:
    """Uint8 [B, H, W, C] -> float32 in [-1, 1), uniform within each of its 256 levels; keys [B]."""
    noise_of = jax.vmap(lambda key: jax.random.uniform(key, image.shape[1:]))
    return (image.astype(jnp.float32) + noise_of(keys)) / 128 - 1


def middles(image: jax.Array) -> jax.Array:
    """The mean of `dequantized`."""
    return (image.astype(jnp.float32) + 0.5) / 128 - 1


def quantized(x: jax.Array) -> jax.Array:
    """The inverse of `dequantized`, clipped: uint8."""
    return jnp.clip(jnp.floor((x + 1) * 128), 0, 255).astype(jnp.uint8)


def bits_per_dimension(log_density: jax.Array, size: int) -> jax.Array:
    """Of images of `size` values, from the density in nats of what `dequantized` gives."""
    return BITS - log_density / (size * math.log(2))


def _heun(field: Callable, time: jax.Array, state: tuple, width: float) -> tuple:
    first = field(time, state)
    second = field(time + width, _add(state, (first, width)))
    return _add(state, (first, width / 2), (second, width / 2))


def _rk4(field: Callable, time: jax.Array, state: tuple, width: float) -> tuple:
    def evaluate(carry: tuple, given: tuple) -> tuple[tuple, None]:
        """One of the four slopes: a loop, so that the network is compiled once."""
        slope, total = carry
        offset, weight = given
        slope = field(time + offset, _add(state, (slope, offset)))
        return (slope, _add(total, (slope, weight))), None

    zero = jax.tree.map(jnp.zeros_like, state)
    offsets, weights = jnp.array([0, 0.5, 0.5, 1]) * width, jnp.array([1, 2, 2, 1]) * (width / 6)
    return jax.lax.scan(evaluate, (zero, state), (offsets, weights))[0][1]


_STEPS = {"heun": _heun, "rk4": _rk4}
EVALUATIONS = {"heun": 2, "rk4": 4}


def _add(state: tuple, *terms: tuple) -> tuple:
    for slope, width in terms:
        state = jax.tree.map(lambda s, d, width=width: s + width * d, state, slope)
    return state


def _exact(function: Callable, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(f(x), the trace [B] of each image's Jacobian), by as many forward derivatives as an image has values."""
    size = math.prod(x.shape[1:])

    def add(total: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        basis = jnp.broadcast_to((jnp.arange(size) == index).astype(x.dtype).reshape(1, *x.shape[1:]), x.shape)
        moved = jax.jvp(function, (x,), (basis,))[1]
        return total + jnp.sum(basis * moved, axis=tuple(range(1, x.ndim))), None

    return function(x), jax.lax.scan(add, jnp.zeros(x.shape[0]), jnp.arange(size))[0]


def _hutchinson(keys: jax.Array, shape: tuple[int, ...], probes: int) -> Callable:
    """The same, estimated by `probes` random signs an image, which stay through the whole solution."""
    draw = jax.vmap(lambda key: jax.random.rademacher(key, (probes, *shape), jnp.float32), out_axes=1)
    signs = draw(keys)

    def divergence(function: Callable, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        clean, moved = jax.vmap(lambda sign: jax.jvp(function, (x,), (sign,)), out_axes=(None, 0))(signs)
        return clean, jnp.mean(jnp.sum(signs * moved, axis=tuple(range(2, x.ndim + 1))), axis=0)

    return divergence
