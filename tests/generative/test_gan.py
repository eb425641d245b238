"""The GAN learner: one step by hand, its average, its samples, a small training, one device and eight."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from core import network, optim, types
from core.images import datasets, stream
from generative import adversarial, annealing, averaging, gan
from generative.networks import gans
from tests import runs

IMAGE, CLASSES = (2, 1, 1), 4  # a point in the plane


class Generator(nnx.Module):
    """z and the label's one-hot through two dense layers."""

    def __init__(self, *, image, classes, latent=4, width=32, rngs):
        self.latent, self.classes, self.image = latent, classes, image
        self.hidden = nnx.Linear(latent + classes, width, rngs=rngs)
        self.out = nnx.Linear(width, int(np.prod(image)), rngs=rngs)

    def __call__(self, z, label=None):
        x = jnp.concatenate([z, jax.nn.one_hot(label, self.classes)], axis=-1) if self.classes else z
        return self.out(nnx.leaky_relu(self.hidden(x), 0.2)).reshape(-1, *self.image)


class Discriminator(nnx.Module):
    def __init__(self, *, image, classes, width=32, rngs):
        self.classes = classes
        self.first = nnx.Linear(int(np.prod(image)) + classes, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, image, label=None):
        x = image.reshape(image.shape[0], -1)
        x = jnp.concatenate([x, jax.nn.one_hot(label, self.classes)], axis=-1) if self.classes else x
        x = nnx.leaky_relu(self.second(nnx.leaky_relu(self.first(x), 0.2)), 0.2)
        return self.out(x)[:, 0]


def learner(*, classes=CLASSES, **changes) -> gan.GAN:
    sizes = {"image": IMAGE, "classes": classes}
    settings = {
        "network": gan.Players(
            generator=network.Network(make=Generator, sizes=sizes),
            discriminator=network.Network(make=Discriminator, sizes=sizes),
        ),
        "optimizer": optim.optimizer(rule=functools.partial(optax.adam, b1=0.0), learning_rate=1e-3),
        "budget": 10_000,
        "regularizers": {"r1": adversarial.R1(gamma=0.1), "r2": adversarial.R2(gamma=0.1)},
        "averages": {"ema": averaging.HalfLife(images=100, ramp=None)},
    }
    return gan.GAN(**(settings | changes))


CENTRES = np.array([[60, 60], [60, 195], [195, 60], [195, 195]])


def points(*lead: int, seed: int = 0) -> types.Images:
    """Four clouds, which are the classes."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, lead).astype(np.int32)
    image = np.clip(rng.normal(CENTRES[label], 8), 0, 255).astype(np.uint8)
    return types.Images(image=image.reshape(*lead, *IMAGE), label=label)


def begun(model: gan.GAN, batch: types.Images):
    return jax.jit(functools.partial(model.init, spec=batch))(jax.random.key(0))


@functools.cache
def standard():
    """A model, a batch of two updates, its compiled step and the state at step 0."""
    model, batch = learner(), points(2, 8)
    return model, batch, jax.jit(model.step), begun(model, batch)


# ---- one step ----


def test_a_batch_in_parts_makes_nearly_the_same_update():
    """Nothing but the fresh images differs: gradients of the same size that point the same way."""
    batch, found = points(1, 256), []
    for parts in (1, 4):
        model = learner(optimizer=optax.sgd(1.0), averages={}, accumulate=parts)
        state = begun(model, batch)
        after, metrics = jax.jit(model.step)(state, batch)
        moved = jax.tree.map(jnp.subtract, after.params["discriminator"], state.params["discriminator"])
        found.append((jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moved)]), metrics))
    (whole, told), (parts, told_of_parts) = found
    cosine = jnp.vdot(whole, parts) / jnp.linalg.norm(whole) / jnp.linalg.norm(parts)
    assert cosine > 0.98 and float(jnp.linalg.norm(parts) / jnp.linalg.norm(whole)) == pytest.approx(1, abs=0.15)
    assert float(told_of_parts["loss/r1"]) == pytest.approx(float(told["loss/r1"]), rel=1e-4)  # of the real images
    with pytest.raises(ValueError, match="accumulate=3: does not divide the batch of 256"):
        begun(learner(accumulate=3), batch)


def test_a_step_by_hand():
    """Three updates of the discriminator, each on its own batch with fresh fakes, then the generator's, on the last."""
    model = learner(
        optimizer=optax.sgd(0.2), discriminator_optimizer=optax.sgd(0.1), regularizers={"r1": adversarial.R1(gamma=1.0)}
    )
    batch = points(3, 8)
    state = begun(model, batch)
    after, metrics = jax.jit(model.step)(state, batch)

    *keys, last = jax.random.split(jax.random.fold_in(state.key, 0), 4)
    players, values = dict(state.params), []
    judge = lambda moving, players, part, key: model.discriminator_loss(
        players | {"discriminator": moving}, part, key, jnp.float32(0)
    )
    differentiate = jax.jit(jax.value_and_grad(judge, has_aux=True))
    for key, index in zip(keys, range(3), strict=True):
        part = jax.tree.map(lambda leaf, index=index: leaf[index], batch)
        (_, found), gradient = differentiate(players["discriminator"], players, part, key)
        players["discriminator"] = jax.tree.map(lambda p, g: p - 0.1 * g, players["discriminator"], gradient)
        values.append(found["loss/discriminator"])
    loss = lambda moving: model.generator_loss(players | {"generator": moving}, part, last)
    (value, _), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(players["generator"])
    players["generator"] = jax.tree.map(lambda p, g: p - 0.2 * g, players["generator"], gradient)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), after.params, players)
    assert float(metrics["loss/generator"]) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics["loss/discriminator"]) == pytest.approx(np.mean(values), rel=1e-5)
    assert len(set(map(float, values))) == 3


def test_updates_are_counted_by_player():
    _, batch, step, state = standard()
    for _ in range(3):
        state, metrics = step(state, batch)
    counts = {name: int(optax.tree.get(state.opt_state[name], "count")) for name in state.opt_state}
    assert counts == {"generator": 3, "discriminator": 3 * 2}
    assert int(state.step) == 3
    names = ["loss/discriminator", "loss/generator", "loss/r1", "loss/r2", "train/real_logit", "train/fake_logit"]
    assert set(metrics) == {*names, "train/accuracy", "grad/discriminator", "grad/generator"}
    assert all(value.shape == () and value.dtype == jnp.float32 and np.isfinite(value) for value in metrics.values())


def test_logits_and_the_share_of_pairs_told_apart():
    """A discriminator that returns 10 plus an image's first pixel, and a generator of grey alone."""
    model, _, _, state = standard()
    params = jax.tree.map(jnp.zeros_like, state.params)
    judge = params["discriminator"]
    for name in ("first", "second", "out"):
        judge[name]["kernel"] = judge[name]["kernel"].at[0, 0].set(1)
    judge["first"]["bias"] = judge["first"]["bias"].at[0].set(10)
    batch = jax.tree.map(lambda leaf: leaf[0], points(1, 64))
    loss, metrics = jax.jit(model.discriminator_loss)(params, batch, jax.random.key(0), jnp.float32(0))
    bright = np.asarray(batch.image)[:, 0, 0, 0] / 127.5 - 1
    assert float(metrics["train/accuracy"]) == np.mean(bright > 0)
    assert float(metrics["train/real_logit"]) == pytest.approx(10 + bright.mean(), rel=1e-5)
    assert float(metrics["train/fake_logit"]) == pytest.approx(10, rel=1e-6)
    assert float(metrics["loss/r1"]) == pytest.approx(0.05, rel=1e-5)  # γ/2 · 1²
    assert float(metrics["loss/r2"]) == pytest.approx(0.05, rel=1e-5)
    assert float(loss) == pytest.approx(np.log1p(np.exp(-bright)).mean() + 0.1, rel=1e-5)


def test_what_moves_does_so_with_the_images_seen():
    """Halfway through a budget of 64 images, 2 x 8 a step: at step 2."""
    rule = functools.partial(annealing.adam, end=0.0, b2=0.0, eps=1e-12)  # every number moves by the rate
    model = learner(optimizer=optim.optimizer(rule=rule, learning_rate=0.1), budget=64, regularizers={})
    batch = points(2, 8)
    before, advance = begun(model, batch), jax.jit(model.step)
    for step, rate in [(0, 0.1), (2, 0.05), (4, 0.0)]:
        after, _ = advance(dataclasses.replace(before, step=jnp.int32(step)), batch)
        moved = jax.tree.map(lambda a, b: abs(a - b).max(), after.params["generator"], before.params["generator"])
        assert max(jax.tree.leaves(moved)) == pytest.approx(rate, abs=1e-6)


# ---- the average ----


def test_the_first_update_copies_the_generator_and_the_next_ones_average():
    """Pitfall 13."""
    model, batch, step, state = standard()
    first, _ = step(state, batch)
    runs.assert_same(first.ema_params["ema"], first.params["generator"])
    second, _ = step(first, batch)
    kept = 0.5 ** (16 / 100)
    wanted = jax.tree.map(lambda a, p: kept * a + (1 - kept) * p, first.ema_params["ema"], second.params["generator"])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7), second.ema_params["ema"], wanted)
    runs.assert_same(model.view(second)["params"], second.ema_params["ema"])
    plain = dataclasses.replace(model, averages={})
    runs.assert_same(plain.view(second)["params"], second.params["generator"])


# ---- divergence ----


def test_a_loss_that_is_not_finite_keeps_all_old_values():
    _, batch, step, state = standard()
    state, _ = step(state, batch)
    nothing = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params["generator"])
    broken = dataclasses.replace(state, params=state.params | {"generator": nothing})
    for expected in (2, 3):  # and it never learns again
        before, (broken, _) = broken, step(broken, batch)
        assert int(broken.diverged) == 1 and int(broken.step) == expected
        runs.assert_same(dataclasses.replace(broken, step=before.step, diverged=before.diverged), before)


class Broken(adversarial.Relativistic):
    @staticmethod
    def generator(real, fake):
        return jnp.nan * fake


def test_a_broken_generator_loss_stops_both_players():
    model, batch = learner(loss=Broken, regularizers={}), points(2, 8)
    before, step = begun(model, batch), jax.jit(model.step)
    after, _ = step(before, batch)
    assert int(after.diverged) == 0
    runs.assert_same(
        (after.params["generator"], after.opt_state["generator"], after.ema_params),
        (before.params["generator"], before.opt_state["generator"], before.ema_params),
    )
    again, _ = step(after, batch)
    runs.assert_same((again.params, again.opt_state), (after.params, after.opt_state))


# ---- samples ----


@pytest.mark.parametrize("conditional", [False, True])
def test_a_sample_depends_on_its_own_seed_and_label_alone(conditional):
    """Pitfall 15."""
    model = learner(conditional=conditional)
    view, draw = model.view(begun(model, points(1, 8))), jax.jit(model.sample)
    seeds = jnp.array([5, 6, 7, 4_000_000_000], jnp.uint32)
    drawn = draw(view, seeds)
    assert (drawn.shape, drawn.dtype) == ((4, *IMAGE), jnp.uint8)
    assert len({np.asarray(image).tobytes() for image in drawn}) == 4
    np.testing.assert_array_equal(drawn[2:3], draw(view, seeds[2:3]))
    np.testing.assert_array_equal(drawn[::-1], draw(view, seeds[::-1]))
    labelled = draw(view, jnp.array([5, 5], jnp.uint32), jnp.array([0, 3]))
    assert bool((labelled[0] == labelled[1]).all()) == (not conditional)


def test_a_conditional_model_draws_the_class_where_none_is_asked_for():
    model = learner(conditional=True)
    assert (model.classes, learner().classes) == (4, 0)
    params = begun(model, points(1, 8)).params["generator"]
    params = jax.tree.map(jnp.zeros_like, params)
    kernel = params["hidden"]["kernel"].at[4:, :2].set(jnp.array(CENTRES / 127.5 - 1 + 2, jnp.float32))
    params["hidden"]["kernel"] = kernel  # the label's row alone, moved to where the kink is not
    params["out"]["kernel"] = params["out"]["kernel"].at[:2].set(jnp.eye(2))
    params["out"]["bias"] = jnp.full(2, -2.0)
    drawn = np.asarray(model.sample({"params": params}, jnp.arange(200))).reshape(200, 2).astype(int)
    nearest = np.abs(drawn[:, None] - CENTRES[None]).sum(axis=-1)
    assert (nearest.min(axis=1) <= 2).all()
    assert np.bincount(nearest.argmin(axis=1)).min() > 30


# ---- training ----


@pytest.fixture(scope="module")
def trained():
    """A conditional R3GAN after 800 steps on four clouds."""
    budget = 800 * 64
    rule = functools.partial(annealing.adam, end=0.1, b2=(0.9, 0.99))
    model = learner(
        conditional=True,
        optimizer=optim.optimizer(rule=rule, learning_rate=2e-3),
        regularizers={"r1": adversarial.R1(gamma=(0.2, 0.02)), "r2": adversarial.R2(gamma=(0.2, 0.02))},
        averages={"ema": annealing.HalfLife(images=(0, 5_000), over=budget)},
        budget=budget,
    )
    batches = points(800, 1, 64)
    state = begun(model, jax.tree.map(lambda leaf: leaf[0], batches))
    return model, jax.jit(lambda state: jax.lax.scan(model.step, state, batches))(state)[0]


def energy_distance(left: np.ndarray, right: np.ndarray) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|, which is 0 for equal distributions."""
    apart = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=-1).mean()
    return float(2 * apart(left, right) - apart(left, left) - apart(right, right))


def test_samples_beat_noise_and_cover_the_data(trained):
    model, state = trained
    drawn = np.asarray(jax.jit(model.sample)(model.view(state), jnp.arange(500))).reshape(-1, 2).astype(float)
    real = points(500, seed=1).image.reshape(-1, 2).astype(float)
    noise = np.random.default_rng(0).integers(0, 256, (500, 2)).astype(float)
    assert energy_distance(drawn, real) < 0.1 * energy_distance(noise, real)
    nearest = np.linalg.norm(drawn[:, None] - CENTRES[None], axis=-1)
    assert (nearest.min(axis=1) < 40).mean() > 0.9
    assert np.bincount(nearest.argmin(axis=1), minlength=4).min() > 50


def test_samples_have_the_class_that_was_asked_for(trained):
    model, state = trained
    label = jnp.arange(200) % 4
    drawn = np.asarray(jax.jit(model.sample)(model.view(state), jnp.arange(200), label)).reshape(-1, 2).astype(float)
    nearest = np.linalg.norm(drawn[:, None] - CENTRES[None], axis=-1).argmin(axis=1)
    assert (nearest == np.asarray(label)).mean() > 0.9


# ---- whole runs ----


@dataclasses.dataclass(frozen=True)
class Clouds:
    """A recipe of `points`."""

    def load(self, split: datasets.Split) -> datasets.Dataset:
        made = points(96, seed=datasets.SPLITS.index(split))
        return datasets.Dataset(image=made.image, label=made.label, classes=CLASSES)


def test_going_on_is_the_same_as_never_stopping(tmp_path: pathlib.Path):
    """Pitfall 18, bit for bit: both players, their optimisers, the average, the key, the place in the data."""
    model = learner(conditional=True, regularizers={})

    def run(folder: str, steps: int):
        source = stream.Stream(data=Clouds(), batch=8, batches=3, seed=0)
        try:
            budget = steps * source.examples_per_step
            return runs.run(tmp_path / folder, learner=model, source=source, budget=budget)
        finally:
            source.close()

    whole, _, parts = run("whole", 8), run("parts", 3), run("parts", 8)
    assert int(parts.state.step) == 8 and parts.examples == 8 * 3 * 8  # real images, each once
    runs.assert_same(whole.state, parts.state)


@pytest.mark.long
def test_one_device_equals_eight():
    """Pitfalls 14 and 17."""
    runs.on_eight_devices(pathlib.Path(__file__).with_name("eight_devices_gan.py"))


# ---- mistakes ----


def test_refuses_what_cannot_work():
    batch = points(8)
    for make, message in [
        (lambda: learner(budget=0), "budget=0: must be at least 1"),
        (lambda: learner(conditional=True, classes=0), "conditional=true: these images have no labels"),
        (lambda: learner().init(jax.random.key(0), batch), r"a batch of shape \(8, 2, 1, 1\).*source\.batches=1"),
        (lambda: learner().sample({}, jnp.arange(2), sampler="heun"), "sampler=heun: a GAN draws in one step"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_without_labels_the_networks_are_made_as_for_data_that_have_none():
    for make in (gans.DCGANGenerator, gans.ResNetDiscriminator):
        sizes = {"image": (8, 8, 1), "classes": 4}
        player = network.Network(make=make, sizes=sizes)
        model = dataclasses.replace(learner(), network=gan.Players(generator=player, discriminator=player))
        shapes = jax.eval_shape(model._player("generator").init, jax.random.key(0))
        assert not any("label" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes))
