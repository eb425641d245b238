"""Bytes and numbers: a picture is uint8 [..., H, W, C] outside the models and float32 inside them."""

import jax
import jax.numpy as jnp


def signed(image: jax.Array) -> jax.Array:
    """Uint8 0..255 -> float32 in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1


def to_bytes(signed: jax.Array) -> jax.Array:
    """Float [-1, 1] -> uint8, rounded to the nearest and clipped: what a person, and every metric, sees."""
    return jnp.clip(jnp.round((signed + 1) * 127.5), 0, 255).astype(jnp.uint8)
