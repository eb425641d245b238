"""An update in parts, of every learner that descends on one loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core import network, types
from generative import classifier, diffusion, likelihoods, noise, preconditioning, samplers, vae
from generative.networks import autoencoders, classifiers, dit

SIZES = {"image": (4, 4, 1), "classes": 3}
RNG = np.random.default_rng(0)
BATCH = types.Images(
    image=jnp.asarray(RNG.integers(0, 256, (6, 4, 4, 1)), jnp.uint8),
    label=jnp.asarray(RNG.integers(0, 3, 6), jnp.int32),
)
SPEC = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), BATCH)


def net(make, **options) -> network.Network:
    return network.Network(make=functools.partial(make, **options), sizes=SIZES)


def learner(family: str, parts: int):
    given = {"optimizer": optax.sgd(1.0), "accumulate": parts}
    if family == "classifier":
        return classifier.Classifier(network=net(classifiers.MLP, widths=(5,)), **given)
    if family == "vae":
        halves = {
            "encoder": functools.partial(autoencoders.MLPEncoder, widths=(5,)),
            "decoder": functools.partial(autoencoders.MLPDecoder, widths=(5,)),
        }
        made = net(autoencoders.Autoencoder, latent=2, **halves)
        return vae.VAE(network=made, likelihood=likelihoods.Bernoulli(), **given)
    return diffusion.Diffusion(
        network=net(dit.DiT, patch=2, width=8, depth=1, heads=2),
        prediction=preconditioning.EDM(data=0.5),
        noise=noise.LogNormal(),
        sampler=samplers.Sampler(rule=samplers.Heun(), steps=2),
        averages={},
        **given,
    )


@pytest.mark.parametrize("family", ["vae", "diffusion", "classifier"])
def test_an_update_in_parts_is_the_mean_of_theirs_each_with_a_key_of_its_own(family: str):
    model = learner(family, 3)
    # Nothing starts as zero, behind which no gradient passes.
    off_zero = lambda leaf: leaf + 0.1 if leaf.dtype == jnp.float32 else leaf
    state = jax.jit(lambda key: jax.tree.map(off_zero, model.init(key, SPEC)))(jax.random.key(0))
    keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
    gradient = jax.jit(jax.grad(lambda params, part, key: model.loss(params, part, key)[0]))
    parts = [
        gradient(state.params, jax.tree.map(lambda leaf: leaf[part::3], BATCH), key)  # noqa: B023
        for part, key in enumerate(keys)
    ]
    wanted = jax.tree.map(lambda leaf, *moves: leaf - sum(moves) / 3, *jax.device_get([state.params, *parts]))
    found, metrics = jax.jit(model.step)(state, BATCH)
    assert np.isfinite(metrics["loss/total"]) and int(found.step) == 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found.params, wanted)
    whole, _ = jax.jit(learner(family, 1).step)(state, BATCH)
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), *jax.device_get([found.params, whole.params]))
    assert (max(jax.tree.leaves(apart)) > 1e-3) == (family != "classifier")  # which draws nothing


@pytest.mark.parametrize("family", ["vae", "diffusion", "classifier"])
def test_a_batch_that_cannot_be_cut_is_refused(family: str):
    with pytest.raises(ValueError, match="accumulate=4: does not divide the batch of 6 images; take 2 or 3"):
        learner(family, 4).init(jax.random.key(0), SPEC)
