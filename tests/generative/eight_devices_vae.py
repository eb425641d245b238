"""Run by test_vae.py on eight simulated devices: the same numbers as on one, from every random draw to the weights."""

import dataclasses
import functools

import jax
import numpy as np
import optax

from core import mesh, network, optim, types
from core.images import datasets
from generative import averaging, drawing, evaluation, features, likelihoods, vae
from generative.networks import autoencoders

IMAGE, BATCH, STEPS = (8, 8, 1), 32, 4


def learner() -> vae.VAE:
    make = functools.partial(
        autoencoders.Autoencoder,
        encoder=functools.partial(autoencoders.ResNetEncoder, widths=(8,)),
        decoder=functools.partial(autoencoders.ResNetDecoder, widths=(8,)),
        latent=4,
    )
    return vae.VAE(
        network=network.Network(make=make, sizes={"image": IMAGE, "classes": 3}),
        likelihood=likelihoods.Bernoulli(binarisation="dynamic"),
        objective=vae.IWAE(samples=2),
        optimizer=optim.optimizer(rule=optax.sgd, learning_rate=1e-2),
        conditional=True,
        averages={"ema": averaging.HalfLife(images=64)},
    )


def train(devices: int) -> tuple[dict, np.ndarray, dict]:
    """The weights after `STEPS` updates, samples, and what is said of held-out images."""
    model, over = learner(), mesh.Placement(data=devices).mesh()
    rng = np.random.default_rng(0)
    batches = [
        types.Images(
            image=rng.integers(0, 256, (BATCH, *IMAGE), dtype=np.uint8),
            label=rng.integers(0, 3, BATCH).astype(np.int32),
        )
        for _ in range(STEPS)
    ]
    abstract = jax.eval_shape(model.init, jax.random.key(0), batches[0])
    shardings = mesh.Placement(data=devices).shardings(abstract, over)
    state = jax.jit(lambda key: model.init(key, batches[0]), out_shardings=shardings)(jax.random.key(0))
    step = jax.jit(model.step, donate_argnums=0, out_shardings=(shardings, None))
    for batch in batches:
        state, _ = step(state, mesh.globalize(batch, over))
        jax.block_until_ready(state)
    view = model.view(state)
    seeds = mesh.globalize(np.arange(16, dtype=np.uint32), over)
    drawn = np.asarray(jax.jit(model.sample)(view, seeds))
    judged = jax.jit(model.judge)(view, mesh.globalize(batches[0], over), jax.random.key(1))
    return jax.device_get({"params": state.params, "ema": state.ema_params}), drawn, jax.device_get(judged)


def check_spread() -> None:
    """Images are drawn, judged and looked at by all eight devices, 7 and 21 images too; as by one."""
    model, seeds = dataclasses.replace(learner(), conditional=False), np.arange(7)
    view = {"params": jax.jit(model._network.init)(jax.random.key(0))}
    alone = jax.jit(model.sample)(view, seeds.astype(np.uint32))
    assert np.abs(drawing.draw(model, view, seeds).astype(int) - np.asarray(alone).astype(int)).max() <= 1
    everywhere, rows = mesh.replicate(view), mesh.spread(np.arange(16, dtype=np.uint32))
    assert len(drawing._sample(model, everywhere, rows, None, sampler=None).sharding.device_set) == 8
    held = evaluation.HeldOut(data=datasets.Digits(), images=21, batch=8)
    assert held.report(model, view).scalars["eval/loss"] > 0
    published, images = features.Published(), np.zeros((21, 28, 28, 1), np.uint8)
    assert len(published(images[:16]).sharding.device_set) == 8
    assert features.extract(published, images).shape[0] == 21


def main() -> None:
    assert jax.device_count() == 8
    check_spread()
    one, eight = train(1), train(8)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, one[0], eight[0])
    assert np.abs(one[1].astype(int) - eight[1].astype(int)).max() <= 1  # a rounding to bytes may fall either way
    assert len({image.tobytes() for image in one[1]}) == 16
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3), one[2], eight[2])


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
