"""The VAE: its bounds against closed forms, its learning, its samples, one device and eight, stopping and going on."""

import dataclasses
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core import network, optim, types
from core.images import datasets, stream
from generative import averaging, likelihoods, vae
from generative.networks import autoencoders
from tests import runs


def learner(image=(4, 4, 1), *, widths=(16,), latent=2, classes=0, learning_rate=1e-2, **changes) -> vae.VAE:
    make = functools.partial(
        autoencoders.Autoencoder,
        encoder=functools.partial(autoencoders.MLPEncoder, widths=widths),
        decoder=functools.partial(autoencoders.MLPDecoder, widths=widths),
        latent=latent,
    )
    settings = {
        "network": network.Network(make=make, sizes={"image": image, "classes": classes}),
        "likelihood": likelihoods.Bernoulli(),
        "optimizer": optim.optimizer(rule=optax.adam, learning_rate=learning_rate),
    }
    return vae.VAE(**(settings | changes))


def bars(count: int, seed: int = 0) -> types.Images:
    """4 x 4 pictures of one bright row, which is their label."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, count).astype(np.int32)
    image = rng.integers(0, 60, (count, 4, 4, 1), dtype=np.uint8)
    image[np.arange(count), label] += 190
    return types.Images(image=image, label=label)


@dataclasses.dataclass(frozen=True)
class Bars:
    """A recipe of `bars`."""

    def load(self, split: datasets.Split) -> datasets.Dataset:
        made = bars({"train": 96, "validation": 32, "test": 32}[split], datasets.SPLITS.index(split))
        return datasets.Dataset(image=made.image, label=made.label, classes=4)


def spec(batch: types.Images) -> types.Images:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)


def begun(model: vae.VAE, batch: types.Images):
    return jax.jit(lambda key: model.init(key, spec(batch)))(jax.random.key(0))


def train(model: vae.VAE, batch: types.Images, steps: int):
    """(the state after `steps` updates on one batch, the loss at each)."""

    def body(state, _):
        state, metrics = model.step(state, batch)
        return state, metrics["loss/total"]

    def whole(key):
        return jax.lax.scan(body, model.init(key, spec(batch)), length=steps)

    return jax.jit(whole)(jax.random.key(0))


# ---- bounds ----


def test_kl_in_closed_form():
    """Pitfall 1."""
    one = lambda mean, variance: vae.kl_to_standard(jnp.array([[mean]]), jnp.log(jnp.array([[variance]])))[0]
    assert one(1.0, 1.0) == pytest.approx(0.5) and one(0.0, 4.0) == pytest.approx(0.8069, abs=1e-4)
    both = vae.kl_to_standard(jnp.array([[1.0, 0.0]]), jnp.log(jnp.array([[1.0, 4.0]])))
    np.testing.assert_allclose(both, [1.3069], atol=1e-4)  # a sum over latents


def linear_gaussian(seed: int = 0) -> tuple[dict, np.ndarray, np.ndarray]:
    """Weights of a linear VAE whose posterior is exact, and the (mean, covariance) of its pixels, 2 x 4 of them.

    W has orthogonal columns, so that the posterior N(M⁻¹Wᵀ(x - b), σ²M⁻¹) with M = WᵀW + σ²I has independent parts.
    """
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(8, 2)))
    weights, offset, scale = directions * [0.5, 0.2], rng.normal(size=8) * 0.1, 0.15
    inner = np.diag(weights.T @ weights) + scale**2
    inverse = weights / inner
    params = {
        "encoder": {
            "mlp": {
                "dense0": {
                    "kernel": np.concatenate([inverse, np.zeros((8, 2))], axis=1),
                    "bias": np.concatenate([-offset @ inverse, np.log(scale**2 / inner)]),
                }
            }
        },
        "decoder": {"mlp": {"dense0": {"kernel": weights.T, "bias": offset}}},
        "shared0": np.log(scale),
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    return params, offset, weights @ weights.T + scale**2 * np.eye(8)


def log_normal(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    away = x - mean
    quadratic = np.einsum("bi,ij,bj->b", away, np.linalg.inv(covariance), away)
    return -0.5 * (quadratic + np.linalg.slogdet(covariance)[1] + len(mean) * math.log(2 * math.pi))


def test_a_linear_gaussian_model_with_its_exact_posterior_reaches_the_likelihood():
    """Pitfall 1: the ELBO is log N(x; b, WWᵀ + σ²I), and every importance weight is."""
    params, mean, covariance = linear_gaussian()
    image = np.random.default_rng(1).integers(60, 200, (6, 2, 4, 1), dtype=np.uint8)
    batch = types.Images(image=image, label=np.zeros(6, np.int32))
    exact = log_normal((image.reshape(6, 8) + 0.5) / 128 - 1, mean, covariance)
    plain = likelihoods.Gaussian(scale="shared", dequantise=False)
    for objective, tolerance in ((vae.IWAE(samples=1), 1e-4), (vae.ELBO(samples=4000), 0.15)):
        model = learner((2, 4, 1), widths=(), likelihood=plain, objective=objective)
        judged = jax.jit(model.judge)({"params": params}, batch, jax.random.key(0))
        np.testing.assert_allclose(-judged["loss"], exact, atol=tolerance)
        assert "elbo" not in judged  # a density at the middle of bins: no bound on the bytes
        loss, _ = jax.jit(model.loss)(params, batch, jax.random.key(0))
        np.testing.assert_allclose(loss, np.mean(judged["loss"]), rtol=1e-6)  # what is trained is the mean over images

    model, key = learner((2, 4, 1), widths=(), likelihood=likelihoods.Gaussian()), jax.random.key(3)
    placed = np.asarray(model.likelihood.prepare(image, jax.random.split(key)[0])).reshape(6, 8)  # pyright: ignore
    exact = log_normal(placed, mean, covariance) - 8 * math.log(128)
    for samples in (1, 7):
        figures = jax.jit(functools.partial(model.log_likelihood, samples=samples))({"params": params}, batch, key)
        np.testing.assert_allclose(-figures["nll_nats"], exact, atol=1e-3)
    np.testing.assert_allclose(figures["bits_per_dim"], -exact / (8 * math.log(2)), rtol=1e-4)


def test_training_reaches_probabilistic_pca():
    """The closed form of Tipping and Bishop (1999): the largest eigenvalues, and the mean of the others as noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 2)) @ (rng.normal(size=(2, 6)) * [[25], [12]]) + rng.normal(size=(256, 6)) * 8 + 128
    batch = types.Images(image=np.clip(x, 0, 255).astype(np.uint8).reshape(256, 2, 3, 1), label=np.zeros(256, np.int32))
    model = learner(
        (2, 3, 1),
        widths=(),
        likelihood=likelihoods.Gaussian(scale="shared", dequantise=False),
        objective=vae.ELBO(samples=4),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.03, 1500)),
    )
    state, _ = train(model, batch, 1500)
    eigenvalues = np.linalg.eigvalsh(np.cov((batch.image.reshape(256, 6) + 0.5) / 128 - 1, rowvar=False, bias=True))
    noise = eigenvalues[:4].mean()
    best = -0.5 * (6 * math.log(2 * math.pi) + np.log(eigenvalues[4:]).sum() + 4 * math.log(noise) + 6)
    judge = dataclasses.replace(model, objective=vae.IWAE(samples=50)).judge
    reached = -np.mean(jax.jit(judge)({"params": state.params}, batch, jax.random.key(1))["loss"])
    assert best - 0.03 < reached < best + 0.01
    np.testing.assert_allclose(np.exp(2 * state.params["shared0"]), noise, rtol=0.05)


def wide_toy() -> tuple[dict, types.Images]:
    """Five pixels with log p = -6.463, and a posterior far too wide: log p - KL = -9.88.

    z ~ N(0, I) and x ~ N(z + b, I) give x - b ~ N(0, 2I) and the posterior N((x - b) / 2, I / 2); x - b = 0.32924 in
    each pixel. The encoder says 3.6659 times its variance: KL = 2.5 (3.6659 - 1 - ln 3.6659) = 3.417.
    """
    away, ratio = 0.32924, 3.66586
    params = {
        "encoder": {
            "mlp": {
                "dense0": {
                    "kernel": jnp.zeros((5, 10)),
                    "bias": jnp.repeat(jnp.array([away / 2, math.log(ratio / 2)]), 5),
                }
            }
        },
        "decoder": {"mlp": {"dense0": {"kernel": jnp.eye(5), "bias": jnp.full(5, 0.5 / 128 - away)}}},
    }
    count = 20_000  # the same image again and again
    return params, types.Images(image=np.full((count, 5, 1, 1), 128, np.uint8), label=np.zeros(count, np.int32))


@pytest.mark.parametrize("samples, expected", [(1, -9.88), (5, -7.15), (50, -6.52)])
def test_iwae_rises_to_the_likelihood(samples: int, expected: float):
    """Pitfalls 2 and 5: a logmeanexp over as many codes as it says, for every image, below log p = -6.463."""
    params, batch = wide_toy()
    model = learner(
        (5, 1, 1), widths=(), latent=5, likelihood=likelihoods.Gaussian(scale=1.0), objective=vae.IWAE(samples=samples)
    )
    to_density = 5 * math.log(128)
    bound = -np.mean(jax.jit(model.judge)({"params": params}, batch, jax.random.key(0))["loss"]) + to_density
    assert bound == pytest.approx(expected, abs=0.06) and bound < -6.463
    estimate = jax.jit(functools.partial(model.log_likelihood, samples=samples))
    nll = estimate({"params": params}, batch, jax.random.key(1))["nll_nats"]
    assert nll.shape == (20_000,) and (samples > 1 or np.unique(nll).size > 15_000)
    assert -np.mean(nll) + to_density == pytest.approx(expected, abs=0.06)


def test_the_number_of_codes_need_not_divide_by_those_at_a_time(monkeypatch: pytest.MonkeyPatch):
    """Pitfall 5."""
    model, batch = learner(), bars(3)
    view = model.view(begun(model, batch))

    def nll(samples: int, *, at_a_time: int) -> np.ndarray:
        monkeypatch.setattr(vae, "PIXELS", at_a_time * batch.image.size)
        estimate = jax.jit(functools.partial(model.log_likelihood, samples=samples))
        return np.asarray(estimate(view, batch, jax.random.key(0))["nll_nats"])

    np.testing.assert_allclose(nll(7, at_a_time=3), nll(7, at_a_time=7), rtol=1e-5)
    assert (np.abs(nll(8, at_a_time=3) - nll(7, at_a_time=3)) > 1e-4).all()


def test_beta_weighs_the_kl_and_nothing_else():
    terms = vae.Terms(
        log_likelihood=jnp.array([[-3.0, -5.0], [-1.0, -7.0]]), log_ratio=jnp.zeros((2, 2)), kl=jnp.array([1.0, 2.0])
    )
    np.testing.assert_allclose(vae.ELBO()(terms), [-3, -8])
    np.testing.assert_allclose(vae.ELBO(beta=4.0)(terms), [-6, -14])
    np.testing.assert_allclose(vae.Reconstruction()(terms), [-2, -6])
    by_hand = [math.log((math.exp(-3) + math.exp(-1)) / 2), math.log((math.exp(-5) + math.exp(-7)) / 2)]
    np.testing.assert_allclose(vae.IWAE()(terms), by_hand, rtol=1e-6)


def test_what_is_reported_names_its_protocol_or_is_refused():
    protocol = learner().likelihood_protocol(samples=64)
    assert protocol["samples"] == 64 and protocol["binarisation"] == "dynamic"
    for changes, message in [
        ({"likelihood": likelihoods.Bernoulli(binarisation="none")}, "learner.likelihood.binarisation=none: grey"),
        ({"likelihood": likelihoods.Gaussian(dequantise=False)}, "learner.likelihood.dequantise=false"),
        ({"objective": vae.Reconstruction()}, "learner.objective: a plain autoencoder"),
    ]:
        model, batch = learner(**changes), bars(3)
        with pytest.raises(ValueError, match=message):
            model.likelihood_protocol()
        view = {"params": jax.eval_shape(model.init, jax.random.key(0), spec(batch)).params}
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(model.log_likelihood, view, batch, jax.random.key(0))
        judged = jax.eval_shape(model.judge, view, batch, jax.random.key(0))
        assert "elbo" not in judged and judged["reconstruction"].shape == (3,)
    with pytest.raises(ValueError, match="samples=0: must be at least 1"):
        learner().likelihood_protocol(samples=0)


# ---- learning ----


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective": vae.IWAE(samples=3), "conditional": True, "averages": {"ema": averaging.HalfLife(images=1000)}},
        {"objective": vae.Reconstruction(), "likelihood": likelihoods.Gaussian(scale=0.1, dequantise=False)},
        {"likelihood": likelihoods.DiscretisedLogistic(scale="pixel")},
    ],
    ids=["elbo", "conditional iwae", "autoencoder", "logistic"],
)
def test_it_learns(changes):
    batch = bars(96)
    model = learner(classes=4, **changes)
    state, losses = train(model, batch, 300)
    losses = np.asarray(losses)
    assert np.isfinite(losses).all() and np.mean(losses[-10:]) < np.mean(losses[:10]) - 2
    view = model.view(state)
    judged = jax.jit(model.judge)(view, bars(64, seed=1), jax.random.key(0))
    assert all(figures.shape == (64,) for figures in judged.values())
    if isinstance(model.likelihood, likelihoods.DiscretisedLogistic):
        assert np.mean(judged["bits_per_dim"]) < 7  # uniform bytes would have 8
    if "elbo" in judged:
        np.testing.assert_allclose(judged["elbo"], -judged["reconstruction"] - judged["kl"], rtol=1e-6)


def test_it_draws_what_it_was_shown():
    """Samples of a conditional model have their label's row bright, and reconstructions their own."""
    model, batch = learner(classes=4, conditional=True), bars(96)
    state, _ = train(model, batch, 300)
    view, label = model.view(state), jnp.arange(64) % 4
    drawn = np.asarray(jax.jit(model.sample)(view, jnp.arange(64, dtype=jnp.uint32), label))
    assert drawn.shape == (64, 4, 4, 1) and drawn.dtype == np.uint8
    assert (drawn.mean(axis=(2, 3)).argmax(axis=1) == label).mean() > 0.9

    code, _ = jax.jit(model.encode)(view, batch, jax.random.key(0))
    again = np.asarray(jax.jit(model.decode)(view, code, batch.label), np.float32)
    error = lambda guess: np.abs(guess - batch.image).mean()
    assert error(again) < 0.5 * error(batch.image.mean())


def test_a_sample_depends_on_its_own_seed_and_label_alone():
    """Pitfall 15."""
    for conditional in (False, True):
        model, batch = learner(classes=4, conditional=conditional), bars(8)
        view = jax.tree.map(lambda leaf: leaf * 4, model.view(begun(model, batch)))
        sample = jax.jit(model.sample)
        draw = lambda *seeds: np.asarray(sample(view, np.array(seeds, np.uint32)))  # noqa: B023 - used at once
        drawn = draw(5, 6, 7, 4_000_000_000)
        assert len({image.tobytes() for image in drawn}) == 4
        np.testing.assert_array_equal(drawn[2:3], draw(7))
        np.testing.assert_array_equal(drawn[::-1], draw(4_000_000_000, 7, 6, 5))
        labelled = np.asarray(sample(view, np.array([5, 5], np.uint32), np.array([0, 3], np.int32)))
        assert (labelled[0] == labelled[1]).all() == (not conditional)


def test_a_plain_autoencoder_draws_nothing():
    model = learner(objective=vae.Reconstruction())
    assert not hasattr(model, "sample") and hasattr(learner(), "sample")


def test_refuses_what_cannot_work():
    for make, message in [
        (lambda: vae.ELBO(beta=-1.0), r"beta=-1\.0: must be at least 0"),
        (lambda: vae.ELBO(samples=0), "samples=0: must be at least 1"),
        (lambda: vae.IWAE(samples=0), "samples=0: must be at least 1"),
        (
            lambda: learner(conditional=True).init(jax.random.key(0), spec(bars(3))),
            "learner.conditional=true: this data",
        ),
        (lambda: learner().sample({}, jnp.arange(2), sampler="heun"), "sampler=heun: a VAE decodes in one step"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


# ---- whole runs ----


def test_going_on_is_the_same_as_never_stopping(tmp_path: pathlib.Path):
    """Pitfall 18, bit for bit: weights, optimiser, averages, key, place in the data."""
    dispatch = 2
    model = learner(classes=4, averages={"ema": averaging.HalfLife(images=100)})

    def run(folder: str, steps: int):
        source = stream.Stream(data=Bars(), batch=16, dispatch=dispatch, seed=0)
        try:
            budget = steps * source.examples_per_step
            return runs.run(tmp_path / folder, learner=model, source=source, budget=budget)
        finally:
            source.close()

    whole, _, parts = run("whole", 8), run("parts", 3), run("parts", 8)
    assert int(parts.state.step) == 8 * dispatch
    runs.assert_same(whole.state, parts.state)


@pytest.mark.long
def test_one_device_equals_eight():
    """Pitfall 17."""
    runs.on_eight_devices(pathlib.Path(__file__).with_name("eight_devices_vae.py"))
