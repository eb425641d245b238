"""What the two players of a GAN minimise, side by side, and the penalties that keep a discriminator smooth.

Logits are [B], one for each image; losses are [B] and the learner takes the mean. Larger logits mean "real".
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from generative import annealing

Critic = Callable[[jax.Array], jax.Array]  # images [B, H, W, C] -> logits [B]


class Loss(Protocol):
    """Both players' losses [B], of the logits of real and of generated images in pairs."""

    @staticmethod
    def discriminator(real: jax.Array, fake: jax.Array) -> jax.Array: ...

    @staticmethod
    def generator(real: jax.Array, fake: jax.Array) -> jax.Array: ...


class NonSaturating:
    """-log σ(D(x)) - log(1 - σ(D(G(z)))) against -log σ(D(G(z))) (1406.2661, section 3)."""

    @staticmethod
    def discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
        return jax.nn.softplus(-real) + jax.nn.softplus(fake)

    @staticmethod
    def generator(real: jax.Array, fake: jax.Array) -> jax.Array:
        return jax.nn.softplus(-fake)


class Wasserstein:
    """D(G(z)) - D(x) against -D(G(z)) (1701.07875); D must be made Lipschitz, by `GradientPenalty`."""

    @staticmethod
    def discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
        return fake - real

    @staticmethod
    def generator(real: jax.Array, fake: jax.Array) -> jax.Array:
        return -fake


class Hinge:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) against -D(G(z)) (1705.02894)."""

    @staticmethod
    def discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
        return jax.nn.relu(1 - real) + jax.nn.relu(1 + fake)

    @staticmethod
    def generator(real: jax.Array, fake: jax.Array) -> jax.Array:
        return -fake


class Relativistic:
    """-log σ(D(x) - D(G(z))) against -log σ(D(G(z)) - D(x)), in pairs (1807.00734; with R1 and R2, 2501.05441)."""

    @staticmethod
    def discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
        return jax.nn.softplus(fake - real)

    @staticmethod
    def generator(real: jax.Array, fake: jax.Array) -> jax.Array:
        return jax.nn.softplus(real - fake)


class Regularizer(Protocol):
    def __call__(
        self, critic: Critic, real: jax.Array, fake: jax.Array, key: jax.Array, progress: jax.Array
    ) -> jax.Array:
        """[B], what the discriminator's loss gains; images are [B, H, W, C], `progress` [] is 0..1."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class R1:
    """γ/2 · |∇D(x)|² at real images (1801.04406, eq. 9)."""

    gamma: annealing.Course

    def __post_init__(self):
        annealing.check("gamma", self.gamma, least=0)

    def __call__(
        self, critic: Critic, real: jax.Array, fake: jax.Array, key: jax.Array, progress: jax.Array
    ) -> jax.Array:
        half = annealing.at(self.gamma, progress) / 2
        return gradient_penalty(critic, real, lambda square: half * square)


@dataclasses.dataclass(frozen=True, kw_only=True)
class R2:
    """γ/2 · |∇D(G(z))|² at generated images (1801.04406, eq. 10)."""

    gamma: annealing.Course

    def __post_init__(self):
        annealing.check("gamma", self.gamma, least=0)

    def __call__(
        self, critic: Critic, real: jax.Array, fake: jax.Array, key: jax.Array, progress: jax.Array
    ) -> jax.Array:
        half = annealing.at(self.gamma, progress) / 2
        return gradient_penalty(critic, fake, lambda square: half * square)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientPenalty:
    """λ · (|∇D(x̂)| - 1)² at points x̂ between real and generated images, one drawn for each pair (1704.00028)."""

    weight: annealing.Course = 10.0

    def __post_init__(self):
        annealing.check("weight", self.weight, least=0)

    def __call__(
        self, critic: Critic, real: jax.Array, fake: jax.Array, key: jax.Array, progress: jax.Array
    ) -> jax.Array:
        weight = annealing.at(self.weight, progress)
        share = jax.random.uniform(key, (real.shape[0],) + (1,) * (real.ndim - 1))
        between = share * real + (1 - share) * fake
        return gradient_penalty(critic, between, lambda square: weight * (jnp.sqrt(square + 1e-12) - 1) ** 2)


def gradient_penalty(critic: Critic, images: jax.Array, curve: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`curve(|∇D(x)|²)` of each image [B]: value and first derivatives in D's parameters, no derivatives beyond.

    ∇D is the gradient of the *sum* of the logits, so row i holds image i's own. With v = ∇D held fixed, the derivative
    of |∇D|² in the parameters is twice that of v·∇D, the derivative of D in the direction v: a forward-mode one,
    which costs one more pass forward. Differentiating a gradient instead runs the gradients of transposed
    convolutions, 6 times slower on a CPU and no faster elsewhere.
    """
    gradient = jax.lax.stop_gradient(jax.grad(lambda x: jnp.sum(critic(x)))(images))
    square = jnp.sum(gradient**2, axis=tuple(range(1, images.ndim)))
    value, slope = jax.vmap(jax.value_and_grad(curve))(square)
    # The direction holds every factor, the mean's over the batch too: what flows back into `along` is then exactly 1,
    # the whole pass back is the one that gave `gradient`, and XLA runs it once.
    batch = images.shape[0]
    direction = gradient * (2 * slope / batch).reshape(batch, *[1] * (images.ndim - 1))
    along = batch * jax.jvp(critic, (images,), (direction,))[1]
    return value + along - jax.lax.stop_gradient(along)
