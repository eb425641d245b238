"""The classifier and its networks: by hand, over a restart, on eight devices, and learning."""

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
from generative import averaging, classifier, evaluation
from generative.networks import classifiers
from tests import runs

NETWORKS = {
    "mlp": classifiers.MLP,
    "lenet": classifiers.LeNet,
    "resnet": functools.partial(classifiers.ResNet, widths=(4, 8)),
}


@dataclasses.dataclass(frozen=True)
class Bars:
    """8 x 8 pictures of noise in which one of four quarters is brighter: the label."""

    def load(self, split: datasets.Split) -> datasets.Dataset:
        rng = np.random.default_rng(datasets.SPLITS.index(split))
        label = rng.integers(0, 4, 96)
        image = rng.integers(0, 200, (96, 8, 8, 1))
        for i, quarter in enumerate(label):
            image[i, 4 * (quarter // 2) :, 4 * (quarter % 2) :][:4, :4] += 50
        return datasets.Dataset(image=image.astype(np.uint8), label=label, classes=4)


def learner(sizes: types.Sizes, **changes) -> classifier.Classifier:
    settings = {
        "network": network.Network(make=functools.partial(classifiers.ResNet, widths=(4, 8)), sizes=sizes),
        "optimizer": optim.optimizer(
            rule=optax.adam, learning_rate=2e-2, schedule=optim.cosine(images=1_920, batch=32, warmup=64)
        ),
        "averages": {"ema": averaging.HalfLife(images=64)},
    }
    return classifier.Classifier(**(settings | changes))


def streaming(**changes) -> stream.Stream:
    return stream.Stream(**({"data": Bars(), "batch": 32, "seed": 0, "flip": False} | changes))


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_the_layer_before_the_logits_and_images_do_not_meet(name: str):
    net = network.Network(make=NETWORKS[name], sizes={"image": (14, 15, 3), "classes": 5})
    params = jax.tree.map(lambda leaf: leaf + 0.01, jax.jit(net.init)(jax.random.key(0)))  # nothing is zero
    see = jax.jit(lambda image: (net.bind(params)(image), net.bind(params).features(image)))
    image = np.random.default_rng(0).integers(0, 256, (6, 14, 15, 3), dtype=np.uint8)
    logits, features = see(image)
    assert logits.shape == (6, 5) and logits.dtype == features.dtype == jnp.float32
    assert features.shape == (6, params["out"]["kernel"].shape[0])
    out = params["out"]
    np.testing.assert_allclose(features @ out["kernel"] + out["bias"][None], logits, rtol=1e-5, atol=1e-5)
    others = np.concatenate([255 - image[:4], image[4:]])
    np.testing.assert_allclose(see(others)[0][4:], logits[4:], rtol=1e-5, atol=1e-5)
    assert np.ptp(np.asarray(logits), axis=0).min() > 0


@pytest.mark.parametrize(
    ("make", "parameters", "features"),
    [(classifiers.MLP, 784 * 512 + 512 + 5_130, 512), (classifiers.LeNet, 61_706, 84)],
)
def test_the_classics_have_their_size(make, parameters: int, features: int):
    net = network.Network(make=make, sizes={"image": (28, 28, 1), "classes": 10})
    params = jax.eval_shape(net.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters
    assert params["out"]["kernel"].shape == (features, 10)


def test_every_weight_of_a_resnet_learns_although_its_blocks_begin_as_nothing():
    net = network.Network(make=NETWORKS["resnet"], sizes={"image": (8, 8, 1), "classes": 4})
    batch = Bars().load("train")
    batch = types.Images(image=batch.image[:32], label=batch.label[:32])
    plain = learner(net.sizes, network=net, averages={})
    state = jax.jit(plain.init)(jax.random.key(0), batch)
    kernel = lambda state: state.params["block1_0"]["conv2"]["kernel"]
    assert not np.any(kernel(state))
    step = jax.jit(plain.step)
    for _ in range(2):
        state, _ = step(state, batch)
    gradient = jax.jit(jax.grad(lambda params: plain.loss(params, batch, jax.random.key(0))[0]))(state.params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    assert np.any(kernel(state))


@pytest.mark.parametrize("name", NETWORKS)
def test_images_without_labels_are_refused(name: str):
    with pytest.raises(ValueError, match=r"classes=0: .* tells classes apart and these images have no labels; use"):
        NETWORKS[name](image=(28, 28, 1), classes=0, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("make", "image", "message"),
    [
        (classifiers.LeNet, (8, 8, 1), "at least 12 x 12 pixels; use network=classifier_mlp"),
        (classifiers.ResNet, (4, 28, 1), "at least 8 x 8 pixels"),
        (classifiers.MLP, (28, 28), r"needs \[H, W, C\]"),
        (functools.partial(classifiers.MLP, widths=()), (28, 28, 1), "at least one hidden layer"),
        (functools.partial(classifiers.ResNet, depth=0), (28, 28, 1), "depth=0: a ResNet has at least one stage"),
    ],
)
def test_what_no_network_can_be_built_for_is_refused(make, image: tuple[int, ...], message: str):
    with pytest.raises(ValueError, match=message):
        make(image=image, classes=10, rngs=nnx.Rngs(0))


def test_each_image_is_judged_by_its_own_logits():
    class Fixed(nnx.Module):
        def __init__(self, *, image, classes, rngs):
            self.logits = nnx.Param(jnp.log(jnp.array([0.5, 0.3, 0.2])))

        def __call__(self, image):
            return jnp.tile(self.logits[...][None], (len(image), 1))

    sizes = {"image": (2, 2, 1), "classes": 3}
    model = learner(sizes, network=network.Network(make=Fixed, sizes=sizes))
    batch = types.Images(image=np.zeros((3, 2, 2, 1), np.uint8), label=np.array([0, 1, 2], np.int32))
    params = model.network.init(jax.random.key(0))
    judged = model.judge({"params": params}, batch, jax.random.key(0))
    np.testing.assert_allclose(judged["loss"], -np.log([0.5, 0.3, 0.2]), rtol=1e-6)
    np.testing.assert_array_equal(judged["accuracy"], [1, 0, 0])
    loss, metrics = model.loss(params, batch, jax.random.key(0))
    assert float(loss) == pytest.approx(-np.mean(np.log([0.5, 0.3, 0.2])))
    assert float(metrics["train/accuracy"]) == pytest.approx(1 / 3)


def test_it_learns_and_its_average_is_judged(tmp_path: pathlib.Path):
    source, rows = streaming(), runs.Rows()
    model = learner(source.sizes)
    held_out = evaluation.HeldOut(data=Bars(), batch=40)  # pyright: ignore
    outcome = runs.run(tmp_path, learner=model, source=source, budget=1_920, tracker=rows)
    losses = [scalars["loss/total"] for _, _, scalars in rows.rows if "loss/total" in scalars]
    assert np.mean(losses[-4:]) < 0.5 * losses[0]
    found = held_out(model, outcome.state, jax.random.key(0)).scalars
    assert found["eval/accuracy"] > 0.9 and found["eval/loss"] < 0.5
    last = held_out.report(model, {"params": outcome.state.params}).scalars
    assert last["eval/loss"] != pytest.approx(found["eval/loss"], rel=1e-6)
    assert jax.eval_shape(model.features, model.view(outcome.state), Bars().load("test").image).shape == (96, 8)
    source.close()


@pytest.mark.parametrize("dispatch", [1, 2])
def test_a_restart_changes_no_bit(tmp_path: pathlib.Path, dispatch: int):
    """Pitfall 18."""

    def train(folder: pathlib.Path, images: int):
        source = streaming(dispatch=dispatch, flip=True)
        try:
            small = network.Network(make=functools.partial(classifiers.MLP, widths=(8,)), sizes=source.sizes)
            model = learner(source.sizes, network=small)
            return runs.run(folder, learner=model, source=source, budget=images, lag=1).state
        finally:
            source.close()

    whole = train(tmp_path / "whole", 256)
    train(tmp_path / "parts", 128)
    runs.assert_same(train(tmp_path / "parts", 256), whole)
    assert int(whole.step) == 8


@pytest.mark.long
def test_one_device_equals_eight():
    runs.on_eight_devices(pathlib.Path(__file__).with_name("eight_devices_classifier.py"))


def test_a_batch_in_parts_makes_the_same_update():
    source = streaming()
    mlp = network.Network(make=functools.partial(classifiers.MLP, widths=(8,)), sizes=source.sizes)
    source.start(0, lambda: None)
    batch, states = source.next(), []
    source.close()
    for parts in (1, 4):
        model = learner(source.sizes, network=mlp, optimizer=optax.sgd(0.1), averages={}, accumulate=parts)
        state = jax.jit(functools.partial(model.init, spec=source.spec))(jax.random.key(0))
        states.append(jax.jit(model.step)(state, batch))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), states[1][1], states[0][1])
    params = [state.params for state, _ in states]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *params)
    with pytest.raises(ValueError, match="accumulate=5: does not divide the batch of 32 images; take 2 or 4"):
        learner(source.sizes, accumulate=5).init(jax.random.key(0), source.spec)
