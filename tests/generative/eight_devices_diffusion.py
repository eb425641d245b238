"""Run by test_diffusion.py on eight simulated devices: the same numbers as on one, from every draw to the weights."""

import functools

import jax
import numpy as np
import optax

from core import mesh, network, optim, types
from generative import averaging, diffusion, noise, preconditioning, samplers
from generative.networks import dit

IMAGE, BATCH, STEPS = (8, 8, 1), 32, 4


def learner() -> diffusion.Diffusion:
    make = functools.partial(dit.DiT, width=16, depth=1, heads=2, dropout=0.1)
    return diffusion.Diffusion(
        network=network.Network(make=make, sizes={"image": IMAGE, "classes": 3}),
        optimizer=optim.optimizer(rule=optax.sgd, learning_rate=1e-2),
        noise=noise.LogNormal(),
        prediction=preconditioning.EDM(data=0.5),
        sampler=samplers.Sampler(rule=samplers.Ancestral(), steps=3, guidance=1.5),
        averages={"ema": averaging.HalfLife(images=64), "power": averaging.Power()},
        dequantize=True,
    )


def train(devices: int) -> tuple[dict, np.ndarray, dict]:
    """The weights after `STEPS` updates, samples, and what is said of held-out images."""
    model, placement = learner(), mesh.Placement(data=devices)
    over, rng = placement.mesh(), np.random.default_rng(0)
    batches = [
        types.Images(
            image=rng.integers(0, 256, (BATCH, *IMAGE), dtype=np.uint8),
            label=rng.integers(0, 3, BATCH).astype(np.int32),
        )
        for _ in range(STEPS)
    ]
    shardings = placement.shardings(jax.eval_shape(model.init, jax.random.key(0), batches[0]), over)
    state = jax.jit(lambda key: model.init(key, batches[0]), out_shardings=shardings)(jax.random.key(0))
    step = jax.jit(model.step, donate_argnums=0, out_shardings=(shardings, None))
    for batch in batches:
        state, _ = step(state, mesh.globalize(batch, over))
        jax.block_until_ready(state)
    view = model.view(state)
    drawn = jax.jit(model.sample)(view, mesh.globalize(np.arange(16, dtype=np.uint32), over))
    judged = jax.jit(model.judge)(view, mesh.globalize(batches[0], over), jax.random.key(1))
    return jax.device_get({"params": state.params, "ema": state.ema_params}), np.asarray(drawn), jax.device_get(judged)


def main() -> None:
    assert jax.device_count() == 8
    one, eight = train(1), train(8)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), one[0], eight[0])
    assert np.abs(one[1].astype(int) - eight[1].astype(int)).max() <= 1  # a rounding to bytes may fall either way
    assert len({image.tobytes() for image in one[1]}) == 16
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3), one[2], eight[2])


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
