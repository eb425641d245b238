"""The learner: closed forms with exact denoisers, guidance, likelihood, inpainting, and what every learner keeps."""

import dataclasses
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from core import network, optim, types
from core.images import datasets, stream
from generative import averaging, diffusion, noise, pixels, preconditioning, probability_flow, samplers
from generative.networks import blocks
from tests import runs

IMAGE, CLASSES = (4, 4, 2), 3
ADAM = optim.optimizer(rule=optax.adam, learning_rate=3e-3)
COSINE = noise.Chain(timesteps=100, betas=noise.cosine_betas)
PRESETS = {
    "ddpm": {"noise": noise.Chain(timesteps=100), "prediction": preconditioning.epsilon},
    "ddpm cosine": {"noise": COSINE, "prediction": preconditioning.epsilon},
    "cosine x0": {"noise": COSINE, "prediction": preconditioning.x0},
    "v": {"noise": noise.Chain(betas=noise.cosine_betas), "prediction": preconditioning.v},
    "edm": {"noise": noise.LogNormal(), "prediction": preconditioning.EDM(data=0.7)},
    "flow": {"noise": noise.Flow(), "prediction": preconditioning.velocity},
    "logit-normal": {"noise": noise.Flow(time="logit_normal"), "prediction": preconditioning.velocity},
}
RULES = {
    "ancestral": samplers.Ancestral(),
    "ddim": samplers.DDIM(),
    "euler": samplers.Euler(),
    "heun": samplers.Heun(),
    "dpm": samplers.DPMSolver(),
}


class Dense(nnx.Module):
    """The smallest network that knows its conditions; `start` scales what it says at first."""

    def __init__(self, *, image, classes, width=32, start=0.0, rngs):
        values = math.prod(image)
        self.conditions = blocks.Conditions(width, classes=classes, frequencies=4, rngs=rngs)
        self.entry = blocks.dense(values, width, rngs=rngs)
        self.hidden = blocks.dense(width, width, rngs=rngs)
        self.out = blocks.dense(width, values, rngs=rngs)
        self.out.kernel[...] = start * self.out.kernel[...]

    def __call__(self, x, noise, label=None, key=None):
        h = nnx.silu(self.entry(x.reshape(x.shape[0], -1)) + self.conditions(noise, label))
        return self.out(nnx.silu(self.hidden(blocks.drop(h, 0.1, key)))).reshape(x.shape)


class Exact(nnx.Module):
    """What the best network says of pixels N(mean, std²) by itself, whatever it is asked for."""

    def __init__(self, *, image, classes, rngs, prediction, mean=0.25, std=0.5):
        self.prediction, self.mean, self.std = prediction, mean, std
        self.unused = nnx.Param(jnp.zeros(()))

    def __call__(self, x, noise, label=None, key=None):
        ratio = jnp.exp(4 * noise)[:, None, None, None]
        norm = jnp.hypot(1, ratio)
        level = type(LEVEL)(1 / norm, ratio / norm)
        c = self.prediction(level)
        x = x / c.into
        gain = level.alpha * self.std**2 / ((level.alpha * self.std) ** 2 + level.sigma**2)
        clean = self.mean + gain * (x - level.alpha * self.mean)
        return (clean - c.skip * x) / c.out


LEVEL = noise.Level(np.zeros(()), np.zeros(()))


def learner(make=Dense, *, image=IMAGE, classes=CLASSES, **changes) -> diffusion.Diffusion:
    settings = {
        "network": network.Network(make=make, sizes={"image": image, "classes": classes}),
        "optimizer": ADAM,
        "sampler": samplers.Sampler(rule=samplers.DDIM(), steps=8),
        "averages": {"ema": averaging.HalfLife(images=256, ramp=None)},
        **PRESETS["flow"],
    }
    return diffusion.Diffusion(**(settings | changes))


def exact(prediction=preconditioning.velocity, *, image=IMAGE, **changes) -> diffusion.Diffusion:
    make = functools.partial(Exact, prediction=prediction)
    return learner(make, image=image, classes=0, prediction=prediction, **changes)  # pyright: ignore


def batch(count=8, image=IMAGE, seed=0) -> types.Images:
    rng = np.random.default_rng(seed)
    return types.Images(
        image=rng.integers(0, 256, (count, *image), dtype=np.uint8),
        label=rng.integers(0, CLASSES, count).astype(np.int32),
    )


def random_view(model: diffusion.Diffusion) -> dict:
    """Weights that say something of x, of the noise and of the label."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(model.network.init, jax.random.key(0))
    return {"params": jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample(model, sampler, view, seeds, label):
    return model.sample(view, seeds, label, sampler=sampler)


def draw(model, view, seeds, label=None, **sampler):
    label = None if label is None else jnp.asarray(label, jnp.int32)
    sampler = dataclasses.replace(model.sampler, **sampler)
    return np.asarray(_sample(model, sampler, view, jnp.asarray(seeds, jnp.uint32), label))


# ---- closed forms ----


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("rule, steps", [("ancestral", 100), ("ddim", 100), ("euler", 100), ("heun", 32), ("dpm", 64)])
def test_exact_denoisers_draw_their_gaussian(rule, steps, preset):
    model = exact(**PRESETS[preset], image=(16, 16, 1))
    model = dataclasses.replace(model, sampler=samplers.Sampler(rule=RULES[rule], steps=steps))
    view = {"params": model.network.init(jax.random.key(0))}
    images = draw(model, view, range(64))
    drawn = np.asarray(pixels.signed(jnp.asarray(images)))
    expected = np.clip(0.25 + 0.5 * np.random.default_rng(0).normal(size=drawn.shape), -1, 1)
    assert drawn.mean() == pytest.approx(expected.mean(), abs=0.02)
    assert drawn.std() == pytest.approx(expected.std(), abs=0.02)


@pytest.mark.parametrize("mean, std", [(0.5, 0.3), (-1.0, 2.0)])
def test_the_flow_of_a_gaussian(mean, std):
    """Pitfall 11: with t from noise to image: u = m + (t s² - (1-t)) / ((1-t)² + t² s²) (x - t m)."""
    model = Exact(image=None, classes=0, rngs=None, prediction=preconditioning.velocity, mean=mean, std=std)
    t, x = jnp.array([0.1, 0.5, 0.8]), jnp.array([-0.7, 0.2, 1.1]).reshape(3, 1, 1, 1)
    level = noise.Level(t, 1 - t)
    found = -model(x, noise.log_ratio(level) / 4)[:, 0, 0, 0]  # the network's time runs the other way
    x = x[:, 0, 0, 0]
    expected = mean + (t * std**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * std**2) * (x - t * mean)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("method, steps", [("rk4", 32), ("heun", 256)])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("preset", ["flow", "edm", "ddpm"])
def test_the_odes_likelihood_is_the_gaussians(preset, trace, method, steps):
    """Pitfall 11: Hutchinson's trace is exact here: the Jacobian is a multiple of the identity."""
    model = exact(**PRESETS[preset])
    view = {"params": model.network.init(jax.random.key(0))}
    x = 0.25 + 0.5 * jax.random.normal(jax.random.key(1), (3, *IMAGE))
    solve = jax.jit(
        functools.partial(
            probability_flow.log_density,
            model._denoiser(view, None, guidance=1.0),
            limits=model._likelihood_limits,
            steps=steps,
            method=method,
            trace=trace,
            probes=1,
        )
    )
    found = solve(x, jax.random.split(jax.random.key(2), 3))
    least = model._likelihood_limits[0]  # the image counts as having so much noise: 0.01 in DDPM's chain
    variance = 0.25 + least**2
    expected = jnp.sum(-0.5 * (x - 0.25) ** 2 / variance - 0.5 * jnp.log(2 * jnp.pi * variance), axis=(1, 2, 3))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_hutchinsons_trace_is_unbiased():
    matrix = jax.random.normal(jax.random.key(0), (6, 6))
    function = lambda x: (x.reshape(x.shape[0], -1) @ matrix.T).reshape(x.shape)
    x, keys = jnp.ones((4000, 2, 3, 1)), jax.random.split(jax.random.key(1), 4000)
    value, traces = probability_flow._hutchinson(keys, x.shape[1:], 2)(function, x)
    np.testing.assert_allclose(value, function(x), rtol=1e-5)
    assert abs(jnp.mean(traces) - jnp.trace(matrix)) < 4 * jnp.std(traces) / 4000**0.5
    np.testing.assert_allclose(probability_flow._exact(function, x[:2])[1], jnp.trace(matrix), rtol=1e-5)


def test_bits_a_dimension():
    """Pitfall 11: the offset of data in [-1, 1] is +7, and a uniform model of 256 levels has 8."""
    assert probability_flow.bits_per_dimension(jnp.float32(0), 784) == 7
    assert probability_flow.bits_per_dimension(jnp.float32(784 * math.log(0.5)), 784) == pytest.approx(8)
    levels = jnp.repeat(jnp.arange(256, dtype=jnp.uint8), 100).reshape(256, 10, 10, 1)
    x = np.asarray(probability_flow.dequantized(levels, jax.random.split(jax.random.key(0), 256)))
    assert (np.floor((x + 1) * 128).astype(int) == np.asarray(levels)).all()
    assert x.std() == pytest.approx(2 / 12**0.5, rel=1e-3) and abs(x.mean()) < 1e-3
    np.testing.assert_array_equal(probability_flow.quantized(jnp.asarray(x)), levels)
    np.testing.assert_allclose(probability_flow.middles(levels)[:, 0, 0, 0], x.mean(axis=(1, 2, 3)), atol=2e-3)


@pytest.mark.parametrize("dequantize", [False, True])
def test_what_it_draws_are_the_bytes_that_it_was_shown(dequantize: bool):
    """An image that a denoiser never leaves comes out as it went in."""
    shown = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)

    class Still(nnx.Module):
        def __init__(self, *, image, classes, rngs):
            self.unused = nnx.Param(jnp.zeros(()))

        def __call__(self, x, noise, label=None, key=None):
            to_float = probability_flow.middles if dequantize else pixels.signed
            return jnp.broadcast_to(to_float(jnp.asarray(shown)), x.shape)

    model = learner(Still, image=(16, 16, 1), classes=0, prediction=preconditioning.x0, dequantize=dequantize)  # pyright: ignore
    np.testing.assert_array_equal(draw(model, {"params": {"unused": 0.0}}, range(2)), [shown, shown])
    held = types.Images(image=shown[None], label=np.zeros(1, np.int32))
    assert model.judge({"params": {"unused": 0.0}}, held, jax.random.key(0))["loss"] < 1e-9


def test_the_likelihood_of_a_model_names_what_was_computed():
    model = exact(image=(4, 4, 1))
    view = {"params": model.network.init(jax.random.key(0))}
    held = types.Images(image=np.full((2, 4, 4, 1), 160, np.uint8), label=np.zeros(2, np.int32))
    found = jax.jit(functools.partial(model.log_likelihood, steps=32))(view, held, jax.random.key(0))["bits_per_dim"]
    # 160.5 / 128 - 1 lies 0.004 from the mean: log N(0) = -ln(0.5 √(2π))
    np.testing.assert_allclose(found, 7 + math.log2(0.5 * math.sqrt(2 * math.pi)), atol=2e-3)
    protocol = model.likelihood_protocol(steps=32)
    assert protocol["evaluations"] == 128 and protocol["trace"].startswith("Hutchinson's, 1")
    assert protocol["solver"] == "rk4, 32 steps in ln(sigma/alpha) from 0.001 to 1000"
    with pytest.raises(ValueError, match="steps=0: must be at least 1"):
        model.likelihood_protocol(steps=0)
    with pytest.raises(ValueError, match="probes=0: must be at least 1"):
        model.likelihood_protocol(probes=0)
    assert "uniform" in protocol["dequantization"] and protocol["conditional on the label"] is False


@pytest.mark.parametrize("preset", PRESETS)
def test_a_network_that_says_nothing_is_judged_by_hand(preset):
    """F = 0, so D = c_skip x; the judgement is the weighted error's mean over evenly spread levels."""
    model = learner(**PRESETS[preset], judge_levels=2)
    images, key = batch(), jax.random.key(3)
    judge = jax.jit(lambda key, images, other: model.judge({"params": model.network.init(key)}, images, other))
    found = judge(jax.random.key(0), images, key)["loss"]
    image, expected = pixels.signed(images.image), 0.0
    for index, u in enumerate((0.25, 0.75)):
        level = model.noise.levels(jnp.float32(u))
        c = model.prediction(level)
        x = level.alpha * image + level.sigma * jax.random.normal(jax.random.fold_in(key, index), image.shape)
        expected += np.mean((c.skip * x - image) ** 2, axis=(1, 2, 3)) / c.out**2 / 2
    np.testing.assert_allclose(found, expected, rtol=1e-4)


# ---- guidance and labels ----


def test_guidance_of_one_is_the_conditional_model_to_the_bit():
    """Pitfall 12: against the network asked by hand with the label."""
    model, label = learner(), np.array([0, 2, 1])
    view = random_view(model)
    x, level = jax.random.normal(jax.random.key(0), (3, *IMAGE)), noise.Level(jnp.full(3, 0.6), jnp.full(3, 0.8))
    skip, out, into = (part[:, None, None, None] for part in model.prediction(level))
    said = model.network.bind(view["params"])(into * x, noise.log_ratio(level) / 4, label)
    denoise = model._denoiser(view, jnp.asarray(label), guidance=1.0)
    np.testing.assert_array_equal(denoise(x, noise.Level(jnp.float32(0.6), jnp.float32(0.8))), skip * x + out * said)

    plain = draw(model, view, [1, 2, 3], label, guidance=1.0)
    never = learner(label_dropout=0.0)  # a model that has no unconditional part takes the same way
    np.testing.assert_array_equal(draw(never, view, [1, 2, 3], label), plain)
    nothing = draw(model, view, [1, 2, 3], [CLASSES] * 3)
    np.testing.assert_array_equal(draw(model, view, [1, 2, 3], label, guidance=0.0), nothing)
    assert (plain != nothing).any()


def test_guidance_moves_every_channel_away_from_the_unconditional_model():
    """Pitfall 12."""
    model, view = learner(), random_view(learner())
    x, level = jax.random.normal(jax.random.key(0), (3, *IMAGE)), noise.Level(jnp.float32(0.6), jnp.float32(0.8))
    label, none = jnp.array([0, 2, 1]), jnp.full(3, CLASSES)
    at = lambda label, s: model._denoiser(view, label, guidance=s)(x, level)
    u, c = at(none, 1.0), at(label, 1.0)
    np.testing.assert_allclose(at(label, 2.5), u + 2.5 * (c - u), rtol=1e-4, atol=1e-4)
    assert np.abs(np.asarray(at(label, 2.5) - c)).min() > 0


def test_labels_are_hidden_in_training_only():
    """Pitfall 12: at a dropout of nearly 1 the loss is the unconditional one; samples have their label all the same."""
    model, images = learner(label_dropout=0.999999), batch()
    params, key = random_view(model)["params"], jax.random.key(0)
    bare = dataclasses.replace(images, label=np.full(8, CLASSES, np.int32))
    loss = lambda model, images: model.loss(params, images, key)[0]
    assert loss(model, images) == loss(model, bare)
    assert loss(learner(label_dropout=0.0), images) != loss(model, bare)
    view = {"params": params}
    np.testing.assert_array_equal(draw(model, view, [4], [1]), draw(learner(label_dropout=0.0), view, [4], [1]))


def test_without_a_label_the_seed_draws_one():
    model, view = learner(), random_view(learner())
    images = draw(model, view, range(40))
    each = np.stack([draw(model, view, range(40), [label] * 40) for label in range(CLASSES)])
    same = (each == images).all(axis=(2, 3, 4))
    assert (same.sum(axis=0) == 1).all() and (same.sum(axis=1) > 5).all()


def test_a_model_without_labels_takes_none():
    for model in (learner(classes=0), learner(label_dropout=1.0)):
        assert model.classes == 0
        view = random_view(model)
        assert draw(model, view, [0]).shape == (1, *IMAGE)
        with pytest.raises(ValueError, match="trained without labels"):
            model.sample(view, jnp.arange(1), jnp.zeros(1, jnp.int32))


# ---- sampling ----


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("rule", RULES)
def test_any_sampler_on_any_model(rule, preset):
    """Along the model's own path, and along EDM's."""
    model, view = learner(**PRESETS[preset]), None
    view = random_view(model)
    for grid in (None, noise.Karras()):
        sampler = samplers.Sampler(rule=RULES[rule], steps=3, grid=grid, guidance=2.0)
        if preset == "logit-normal" and grid is None:
            continue  # as flow
        shape = jax.eval_shape(functools.partial(model.sample, sampler=sampler), view, jnp.arange(2))
        assert (shape.shape, shape.dtype) == ((2, *IMAGE), jnp.uint8)


def test_a_sample_depends_on_its_own_seed_and_label_alone():
    """Pitfall 15."""
    model, view = learner(sampler=samplers.Sampler(rule=samplers.Ancestral(), steps=4)), random_view(learner())
    both = draw(model, view, [5, 9, 7], [0, 1, 2])
    np.testing.assert_array_equal(draw(model, view, [1, 9, 2], [2, 1, 2])[1], both[1])
    assert np.abs(draw(model, view, [9], [1])[0].astype(int) - both[1]).max() <= 1  # other products, other rounding
    assert (draw(model, view, [5, 9, 7], [0, 2, 2])[1] != both[1]).any()
    assert len({image.tobytes() for image in both}) == 3


@pytest.mark.parametrize(
    "changes, sampler, message",
    [
        ({"label_dropout": 0.0}, {"guidance": 2.0}, r"guidance=2\.0: needs a model trained with labels"),
        ({"label_dropout": 1.0}, {"guidance": 0.0}, r"guidance=0\.0: needs a model trained with labels"),
        (PRESETS["ddpm"], {"steps": 101}, r"steps=101: a chain of timesteps=100 has 100 to take"),
        ({"prediction": preconditioning.epsilon}, {}, r"prediction=epsilon: finds no image in pure noise"),
        (
            PRESETS["ddpm"],
            {"grid": noise.Karras(least=2e4, greatest=3e4)},
            r"greatest=30000\.0: the model knows noise",
        ),
    ],
    ids=["no unconditional part", "no labels", "steps", "epsilon", "levels"],
)
def test_a_sampler_that_does_not_fit_is_refused_before_training(changes, sampler, message):
    model = learner(**changes)
    other = dataclasses.replace(model.sampler, **sampler)
    with pytest.raises(ValueError, match=message):
        model.sample({"params": {}}, jnp.arange(2), sampler=other)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(model, sampler=other).init(jax.random.key(0), batch())


def test_inpainting_keeps_what_is_known_and_fits_the_rest_to_it():
    """Two pixels that are always equal: the unknown one takes the known one's value."""

    class Twins(nnx.Module):
        def __init__(self, *, image, classes, rngs):
            self.unused = nnx.Param(jnp.zeros(()))

        def __call__(self, x, noise, label=None, key=None):  # x₀-prediction for a pair (z, z) with z ~ N(0, 0.25)
            ratio = jnp.exp(4 * noise)[:, None, None, None]
            total = jnp.sum(x, axis=2, keepdims=True) * jnp.hypot(1, ratio)
            return jnp.broadcast_to(total * 0.25 / (0.5 + ratio**2), x.shape)

    model = learner(Twins, image=(1, 2, 1), classes=0, prediction=preconditioning.x0, noise=noise.LogNormal())  # pyright: ignore
    known = np.array([[40, 7], [220, 7]], np.uint8).reshape(2, 1, 2, 1)
    mask = np.array([[[False, True]]] * 2)
    sampler = samplers.Sampler(rule=samplers.Ancestral(), steps=200)
    paint = jax.jit(functools.partial(model.inpaint, sampler=sampler))
    painted = np.asarray(paint({"params": {"unused": 0.0}}, jnp.arange(2), known, mask))
    assert painted.dtype == np.uint8 and (painted[:, 0, 0, 0] == [40, 220]).all()
    np.testing.assert_allclose(painted[:, 0, 1, 0].astype(int), [40, 220], atol=6)


# ---- training ----


def blots(count: int, seed: int = 0) -> types.Images:
    """Two kinds of images, dark left and dark right halves, with a little noise."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, count).astype(np.int32)
    side = np.where(np.arange(4)[None, :] < 2, 1, -1) * np.where(label, 1, -1)[:, None]
    value = 128 + 80 * side[:, None, :, None] + rng.normal(0, 5, (count, 4, 4, 1))
    return types.Images(image=np.clip(value, 0, 255).astype(np.uint8), label=label)


@pytest.mark.long
@pytest.mark.parametrize("preset", ["ddpm", "ddpm cosine", "v", "edm", "flow"])
def test_it_learns(preset):
    """The loss falls, and samples lie near real images of their class, where noise does not."""
    make = functools.partial(Dense, width=64, start=0.1)
    model = learner(
        make,  # pyright: ignore
        image=(4, 4, 1),
        classes=2,
        **PRESETS[preset],
        sampler=samplers.Sampler(rule=samplers.Heun(), steps=20, clip=True),  # pyright: ignore
    )
    held = blots(64, seed=1)
    state = jax.jit(model.init)(jax.random.key(0), held)
    batches = jax.tree.map(lambda *leaves: np.stack(leaves), *[blots(64, seed=seed) for seed in range(2, 602)])
    judge = jax.jit(model.judge)
    before = judge(model.view(state), held, jax.random.key(1))["loss"].mean()
    state, metrics = jax.jit(lambda state: jax.lax.scan(model.step, state, batches))(state)
    after = judge(model.view(state), held, jax.random.key(1))["loss"].mean()
    assert np.isfinite(metrics["loss/total"]).all() and int(state.step) == 600
    assert after < 0.6 * before, (before, after)
    label = np.arange(32) % 2
    images = draw(model, model.view(state), range(32), label).astype(float)
    ideal = (
        128 + 80 * np.where(np.arange(4) < 2, 1, -1)[None, None, :, None] * np.where(label, 1, -1)[:, None, None, None]
    )
    distance = lambda images: np.abs(images - ideal).mean()
    share = 0.7 if "ddpm" in preset else 0.25  # far from the image ε says little of it, to so small a network
    assert distance(images) < share * distance(np.random.default_rng(0).integers(0, 256, images.shape))


@pytest.mark.parametrize("dispatch", [1, 2])
def test_going_on_is_the_same_as_never_stopping(tmp_path: pathlib.Path, dispatch: int):
    """Pitfall 18."""
    images = batch(40, image=(4, 4, 1))
    np.savez(tmp_path / "images.npz", image=images.image, label=images.label)

    def play(folder: str, steps: int):
        source = stream.Stream(data=datasets.Npz(path=str(tmp_path / "images.npz")), batch=8, dispatch=dispatch, seed=0)
        model = learner(image=source.sizes["image"], classes=source.sizes["classes"], dequantize=True)
        try:
            budget = steps * source.examples_per_step
            return runs.run(tmp_path / folder, learner=model, source=source, budget=budget).state
        finally:
            source.close()

    whole = play("whole", 6)
    play("parts", 3)
    runs.assert_same(play("parts", 6), whole)


def test_refuses_what_cannot_work():
    for changes, message in [
        ({"label_dropout": 1.5}, r"label_dropout=1\.5: must lie in \[0, 1\]"),
        ({"judge_levels": 0}, r"judge_levels=0: must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            learner(**changes)
    for images in (batch(image=(4, 5, 2)), dataclasses.replace(batch(), image=np.zeros((8, *IMAGE), np.float32))):
        with pytest.raises(ValueError, match=r"network: made for uint8 images of \(4, 4, 2\), not"):
            learner().init(jax.random.key(0), images)


@pytest.mark.long
def test_one_device_equals_eight():
    """Pitfalls 15 and 17."""
    runs.on_eight_devices(pathlib.Path(__file__).with_name("eight_devices_diffusion.py"))
