"""Run by test_gan.py on eight simulated devices: the same numbers as on one, penalties included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core import mesh, network, optim, types
from generative import adversarial, averaging, gan
from generative.networks import gans

IMAGE, UPDATES, BATCH, STEPS = (8, 8, 1), 2, 32, 3


def learner() -> gan.GAN:
    player = lambda make: network.Network(make=make, sizes={"image": IMAGE, "classes": 3})
    return gan.GAN(
        network=gan.Players(
            generator=player(functools.partial(gans.DCGANGenerator, width=4, latent=4)),
            discriminator=player(functools.partial(gans.DCGANDiscriminator, width=4)),
        ),
        optimizer=optim.optimizer(rule=optax.sgd, learning_rate=1e-2),
        budget=1000,
        regularizers={
            "r1": adversarial.R1(gamma=1.0),
            "gradient_penalty": adversarial.GradientPenalty(weight=0.1),
        },
        conditional=True,
        averages={"ema": averaging.HalfLife(images=64)},
    )


def train(devices: int) -> tuple[dict, np.ndarray]:
    """The state's weights after `STEPS` steps with their metrics, and samples."""
    model, placement = learner(), mesh.Placement(data=devices)
    over, rng = placement.mesh(), np.random.default_rng(0)
    batches = [
        types.Images(
            image=rng.integers(0, 256, (UPDATES, BATCH, *IMAGE), dtype=np.uint8),
            label=rng.integers(0, 3, (UPDATES, BATCH)).astype(np.int32),
        )
        for _ in range(STEPS)
    ]
    abstract = jax.eval_shape(model.init, jax.random.key(0), batches[0])
    shardings = placement.shardings(abstract, over)
    state = jax.jit(lambda key: model.init(key, batches[0]), out_shardings=shardings)(jax.random.key(0))
    step = jax.jit(model.step, donate_argnums=0, out_shardings=(shardings, None))
    for batch in batches:
        state, metrics = step(state, mesh.globalize(batch, over, axis=1))
        jax.block_until_ready(state)
    seeds = mesh.globalize(np.arange(16, dtype=np.uint32), over)
    drawn = np.asarray(jax.jit(model.sample)(model.view(state), seeds))
    return jax.device_get({"params": state.params, "ema": state.ema_params, "metrics": metrics}), drawn


def linear_penalty(devices: int) -> np.ndarray:
    """R1 of a linear discriminator of weight (1, 2): 5 for each image."""
    over = mesh.Placement(data=devices).mesh()
    images = mesh.globalize(np.random.default_rng(0).normal(size=(16, 1, 1, 2)).astype(np.float32), over)
    penalty = jax.jit(lambda x: adversarial.gradient_penalty(lambda x: x[:, 0, 0] @ jnp.array([1.0, 2.0]), x, abs))
    return np.asarray(penalty(images))


def main() -> None:
    assert jax.device_count() == 8
    one, eight = train(1), train(8)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), one[0], eight[0])
    assert np.abs(one[1].astype(int) - eight[1].astype(int)).max() <= 1  # a rounding to bytes may fall either way
    assert len({image.tobytes() for image in one[1]}) == 16
    for devices in (1, 8):
        np.testing.assert_allclose(linear_penalty(devices), np.full(16, 5.0), rtol=1e-6)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
