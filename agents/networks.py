"""Q-networks: a torso that sees frames and a head that values actions.

The boundary: uint8 [B, K, H, W] or [B, K, H, W, 3] in [0, 255], or float32 [B, 1, D], goes in;
float32 [B, A] comes out.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from core import convolution


class QNetwork(nnx.Module):
    """`head(torso(observation))`, with frames stacked into channels and bytes scaled to [0, 1]."""

    def __init__(
        self,
        *,
        torso: Callable[..., Any],
        head: Callable[..., Any],
        observation: tuple[int, ...],
        actions: int,
        rngs: nnx.Rngs,
    ):
        shape = jax.eval_shape(_channels_last, jax.ShapeDtypeStruct((1, *observation), jnp.float32)).shape[1:]
        self.torso = torso(shape=shape, rngs=rngs)
        self.head = head(features=self.torso.features, actions=actions, rngs=rngs)

    def __call__(self, observation: jax.Array) -> jax.Array:
        x = _channels_last(observation)
        x = x.astype(jnp.float32) / 255 if observation.dtype == jnp.uint8 else x
        return self.head(self.torso(x))


class NatureCNN(nnx.Module):
    """Three convolutions (Mnih et al. 2015): [B, H, W, C] -> [B, features]; 84 x 84 gives 7 * 7 * 64."""

    def __init__(self, *, shape: tuple[int, ...], width: int = 32, rngs: nnx.Rngs):
        _require_images("NatureCNN", shape, at_least=36)
        _require_widths("torso.width", width)
        conv = lambda *sizes, **options: _conv(*sizes, padding="VALID", rngs=rngs, **options)
        self.conv1 = conv(shape[-1], width, (8, 8), strides=4)
        self.conv2 = conv(width, 2 * width, (4, 4), strides=2)
        self.conv3 = conv(2 * width, 2 * width, (3, 3))
        self.features = _flat_size(self, shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (self.conv1, self.conv2, self.conv3):
            x = nnx.relu(layer(x))
        return x.reshape(x.shape[0], -1)


class ImpalaResNet(nnx.Module):
    """Three residual stages (1802.01561, fig. 3): [B, H, W, C] -> [B, features]."""

    def __init__(self, *, shape: tuple[int, ...], widths: tuple[int, ...] = (16, 32, 32), rngs: nnx.Rngs):
        _require_images("ImpalaResNet", shape, at_least=8)
        _require_widths("torso.widths", *widths)
        self.stages = len(widths)
        for index, (inward, outward) in enumerate(zip((shape[-1], *widths), widths, strict=False)):
            setattr(self, f"stage{index}", ResidualStage(inward, outward, rngs=rngs))
        self.features = _flat_size(self, shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        for index in range(self.stages):
            x = getattr(self, f"stage{index}")(x)
        return nnx.relu(x).reshape(x.shape[0], -1)


class ResidualStage(nnx.Module):
    """Convolution, 3 x 3 max-pool of stride 2, two residual blocks: [B, H, W, C] -> [B, H/2, W/2, C']."""

    def __init__(self, inward: int, outward: int, *, rngs: nnx.Rngs):
        self.entry = _conv(inward, outward, (3, 3), rngs=rngs)
        self.block0_0 = _conv(outward, outward, (3, 3), rngs=rngs)
        self.block0_1 = _conv(outward, outward, (3, 3), rngs=rngs)
        self.block1_0 = _conv(outward, outward, (3, 3), rngs=rngs)
        self.block1_1 = _conv(outward, outward, (3, 3), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(self.entry(x), (3, 3), strides=(2, 2), padding="SAME")
        x = x + self.block0_1(nnx.relu(self.block0_0(nnx.relu(x))))
        return x + self.block1_1(nnx.relu(self.block1_0(nnx.relu(x))))


class MLP(nnx.Module):
    """Dense layers with ReLU over the flattened input: [B, ...] -> [B, features]. No widths: the input itself."""

    def __init__(self, *, shape: tuple[int, ...], widths: tuple[int, ...] = (120,), rngs: nnx.Rngs):
        _require_widths("torso.widths", *widths)
        sizes = (int(np.prod(shape)), *widths)
        self.layers = len(widths)
        for index, (inward, outward) in enumerate(zip(sizes, widths, strict=False)):
            setattr(self, f"dense{index}", nnx.Linear(inward, outward, rngs=rngs))
        self.features = sizes[-1]

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for index in range(self.layers):
            x = nnx.relu(getattr(self, f"dense{index}")(x))
        return x


class PlainHead(nnx.Module):
    """Q(s, ·) by one hidden layer, or linearly with `hidden: null`: [B, features] -> [B, A]."""

    def __init__(self, *, features: int, actions: int, hidden: int | None = 512, rngs: nnx.Rngs):
        self.value = _stream(features, hidden, actions, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.value(x)


class DuelingHead(nnx.Module):
    """Q = V + A - mean A (1511.06581, eq. 9): [B, features] -> [B, A]."""

    def __init__(self, *, features: int, actions: int, hidden: int | None = 512, rngs: nnx.Rngs):
        self.state = _stream(features, hidden, 1, rngs=rngs)
        self.advantage = _stream(features, hidden, actions, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        advantage = self.advantage(x)
        return self.state(x) + advantage - jnp.mean(advantage, axis=-1, keepdims=True)


class _Hidden(nnx.Module):
    def __init__(self, inward: int, hidden: int, outward: int, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(inward, hidden, rngs=rngs)
        self.out = _values(hidden, outward, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(nnx.relu(self.hidden(x)))


def _stream(inward: int, hidden: int | None, outward: int, *, rngs: nnx.Rngs) -> nnx.Module:
    if hidden is None:
        return _values(inward, outward, rngs=rngs)
    _require_widths("head.hidden", hidden)
    return _Hidden(inward, hidden, outward, rngs=rngs)


def _values(inward: int, outward: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Float32 whatever the rest computes in: TD errors are small differences of large values."""
    return nnx.Linear(inward, outward, dtype=jnp.float32, rngs=rngs)


def _conv(*sizes: Any, rngs: nnx.Rngs, **options: Any) -> nnx.Conv:
    return nnx.Conv(*sizes, conv_general_dilated=convolution.conv_general_dilated, rngs=rngs, **options)


def _channels_last(x: jax.Array) -> jax.Array:
    """[B, K, H, W] -> [B, H, W, K]; [B, K, H, W, C] -> [B, H, W, K*C]; [B, K, D] -> [B, K*D]."""
    if x.ndim < 4:
        return x.reshape(x.shape[0], -1)
    x = jnp.moveaxis(x, 1, 3)
    return x.reshape(*x.shape[:3], -1)


def _flat_size(module: Any, shape: tuple[int, ...]) -> int:
    return nnx.eval_shape(lambda m, x: m(x), module, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[-1]


def _require_images(name: str, shape: tuple[int, ...], *, at_least: int) -> None:
    if len(shape) != 3 or min(shape[:2]) < at_least:
        raise ValueError(
            f"{name}: observations of shape {shape} are no images of {at_least} x {at_least} pixels or more; "
            "use network=mlp for vectors, or a larger source.environments.size"
        )


def _require_widths(name: str, *widths: int) -> None:
    for width in widths:
        if width < 1:
            raise ValueError(f"{name}={width}: a layer has at least 1 unit")
