"""Evaluators of images, on models and data small enough to know what they must say."""

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import datasets, media, types
from generative import drawing, evaluation

SHAPE = (4, 4, 1)


@dataclasses.dataclass(frozen=True)
class Noise:
    """Uniform bytes in two classes."""

    train: int = 120
    validation: int = 90
    test: int = 60

    def load(self, split: datasets.Split) -> datasets.Dataset:
        rng = np.random.default_rng(datasets.SPLITS.index(split))
        count = getattr(self, split)
        label = rng.integers(0, 2, count)
        return datasets.Dataset(image=rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8), label=label, classes=2)


@dataclasses.dataclass(frozen=True)
class Corner:
    """Sees the first three pixels."""

    name = "corner"
    digest = hashlib.sha256(b"corner").hexdigest()
    image: tuple[int, int, int] | None = SHAPE

    def __call__(self, image: np.ndarray) -> np.ndarray:
        assert image.dtype == np.uint8
        return image.reshape(len(image), -1)[:, :3].astype(np.float32) / 255


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Draws what `Noise` is made of, times `scale`; a label adds ten to nothing but the last pixel."""

    classes: int = 0
    averaged: bool = False

    def view(self, state: types.TrainState) -> dict[str, Any]:
        return {"params": state.aux["ema"] if self.averaged else state.params}

    def sample(self, view, seeds, label=None, *, sampler=None):
        keys = jax.vmap(jax.random.key)(seeds)
        drawn = jax.vmap(lambda key: jax.random.randint(key, SHAPE, 0, 256))(keys) * view["params"]["scale"]
        last = jnp.zeros(len(seeds)) if label is None else 10.0 * label
        drawn = drawn.at[:, -1, -1, 0].set(last)
        return jnp.clip(drawn + (0 if sampler is None else sampler), 0, 255).astype(jnp.uint8)

    def judge(self, view, batch, key):
        noise = jax.random.normal(key, ())
        return {
            "brightness": jnp.mean(batch.image.astype(jnp.float32), axis=(1, 2, 3)) * view["params"]["scale"],
            "label": batch.label.astype(jnp.float32),
            "noise": jnp.full(len(batch.label), noise),
        }


@dataclasses.dataclass(frozen=True)
class Blind:
    """Neither draws nor judges."""

    def view(self, state):
        return {}


def state(scale: float = 1.0, ema: float = 1.0) -> types.TrainState:
    zero = jnp.zeros((), jnp.int32)
    return types.TrainState(
        step=zero,
        key=jax.random.key(0),
        params={"scale": jnp.array(scale)},
        aux={"ema": {"scale": jnp.array(ema)}},
        opt_state=(),
        diverged=zero - 1,
    )


def pixels(report: types.Report) -> np.ndarray:
    picture = report.media["samples"]
    assert isinstance(picture, types.Image)
    return picture.pixels


VIEW = {"params": {"scale": jnp.array(1.0)}}
KEY = jax.random.key(0)


def test_an_image_depends_on_its_own_seed_and_label_not_on_the_batch():
    """Pitfall 15."""
    learner, seeds, label = Uniform(classes=2), np.array([5, 900, 7, 2**32 - 1, 5]), np.array([0, 1, 1, 0, 1])
    whole = drawing.draw(learner, VIEW, seeds, label=label)
    assert whole.shape == (5, *SHAPE) and whole.dtype == np.uint8
    told: list[int] = []
    np.testing.assert_array_equal(drawing.draw(learner, VIEW, seeds, label=label, batch=2, progress=told.append), whole)
    assert told == [2, 4, 5]
    np.testing.assert_array_equal(drawing.draw(learner, VIEW, seeds[2:3], label=label[2:3])[0], whole[2])
    assert (whole[0, :-1] == whole[4, :-1]).all() and whole[4, -1, -1, 0] == whole[0, -1, -1, 0] + 10
    assert (drawing.draw(learner, VIEW, seeds, label=label, sampler=255) == 255).all()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="label=1: this model was trained without labels"):
        drawing.draw(Uniform(), VIEW, np.arange(2), label=np.array([1, 0]))
    with pytest.raises(ValueError, match="label=2: the classes are 0 to 1"):
        drawing.draw(Uniform(classes=2), VIEW, np.arange(2), label=np.array([0, 2]))
    with pytest.raises(ValueError, match=r"seed=4294967296: must lie in 0\.\.4294967295"):
        drawing.draw(Uniform(), VIEW, np.array([0, 2**32]))
    with pytest.raises(ValueError, match="label: 1 of them for 2 seeds"):
        drawing.draw(Uniform(classes=2), VIEW, np.arange(2), label=np.array([0]))
    with pytest.raises(ValueError, match="0 seeds"):
        drawing.draw(Uniform(), VIEW, np.arange(0))
    with pytest.raises(ValueError, match="batch=0"):
        drawing.draw(Uniform(), VIEW, np.arange(1), batch=0)


def test_samples_are_a_row_a_class_and_a_seed_a_column():
    evaluator = evaluation.Samples(count=6, batch=4)
    seen = pixels(evaluator(Uniform(classes=2), state(), KEY))
    images = drawing.draw(Uniform(classes=2), VIEW, np.array([0, 1, 2] * 2), label=np.array([0, 0, 0, 1, 1, 1]))
    np.testing.assert_array_equal(seen, media.grid(images, columns=3))
    np.testing.assert_array_equal(pixels(evaluator(Uniform(classes=2), state(), jax.random.key(1))), seen)
    plain = pixels(evaluator(Uniform(), state(), KEY))
    np.testing.assert_array_equal(plain, media.grid(drawing.draw(Uniform(), VIEW, np.arange(6))))


def test_evaluators_look_through_the_average():
    learner, evaluator = Uniform(averaged=True), evaluation.Samples(count=4)
    bright, dark = (pixels(evaluator(learner, state(ema=ema), KEY)) for ema in (1.0, 0.0))
    assert bright.max() > 0 == dark.max()
    assert pixels(evaluator(Uniform(), state(scale=0.0, ema=1.0), KEY)).max() == 0


@pytest.mark.parametrize("batch", [90, 32, 1000])
def test_held_out_figures_are_means_over_every_image_once(batch: int):
    evaluator, held = evaluation.HeldOut(data=Noise(), batch=batch), Noise().load("validation")
    scalars = evaluator(Uniform(), state(), KEY).scalars
    assert scalars["eval/brightness"] == pytest.approx(held.image.mean(), rel=1e-6)
    assert scalars["eval/label"] == pytest.approx(held.label.mean(), rel=1e-6)
    # The same noise at every evaluation, another for every image, whatever the batch.
    assert evaluator(Uniform(), state(), jax.random.key(1)).scalars == scalars
    draw = lambda number: jax.random.normal(jax.random.fold_in(jax.random.key(0), number), ())
    assert scalars["eval/noise"] == pytest.approx(float(np.mean(jax.vmap(draw)(np.arange(90)))), rel=1e-5)


def test_held_out_figures_of_some_images_and_another_split():
    some = evaluation.HeldOut(data=Noise(), split="test", images=20)
    held = Noise().load("test")
    chosen = np.random.default_rng(0).permutation(60)[:20]
    found = some.report(Uniform(), VIEW).scalars["eval/brightness"]
    assert found == pytest.approx(held.image[chosen].mean(), rel=1e-6)
    assert some.protocol == {"split": "test", "images": 20, "seed": 0}
    with pytest.raises(ValueError, match="images=61: the split test has 60 images"):
        evaluation.HeldOut(data=Noise(), split="test", images=61).prepare(Uniform())


QUALITY = evaluation.Quality(features=Corner(), data=Noise(), count=80, block=20, batch=32)


def test_quality_of_a_perfect_model_is_that_of_real_images():
    scalars = QUALITY.report(Uniform(), VIEW).scalars
    assert set(scalars) == {
        f"eval/{name}{floor}"
        for name in ("fid", "kid", "kid_stderr", "precision", "recall")
        for floor in ("", "_floor")
    } | {"eval/fid_ratio", "eval/precision_ratio", "eval/recall_ratio"}
    assert sorted(QUALITY.names(Uniform(), None)) == sorted(scalars)
    for name in ("fid", "precision", "recall"):
        assert scalars[f"eval/{name}_ratio"] == pytest.approx(scalars[f"eval/{name}"] / scalars[f"eval/{name}_floor"])
    assert 0 < scalars["eval/fid"] < 0.05 > scalars["eval/fid_floor"] > 0
    assert abs(scalars["eval/kid"]) < 4 * scalars["eval/kid_stderr"]
    assert min(scalars["eval/precision"], scalars["eval/recall"]) > 0.6
    # The floor takes images of `floor` in the samples' place.
    real = Noise().load("train").image[np.random.default_rng(0).permutation(120)[:80]]
    assert QUALITY.judge(real)["eval/fid"] == pytest.approx(scalars["eval/fid_floor"], rel=1e-6)


def test_quality_falls_with_the_model_and_says_what_it_was_measured_with():
    good = QUALITY.report(Uniform(), VIEW).scalars
    bad = QUALITY.report(Uniform(), {"params": {"scale": jnp.array(0.3)}}).scalars
    assert bad["eval/fid_ratio"] > 10 * good["eval/fid_ratio"]
    assert bad["eval/kid"] > good["eval/kid"] + 5 * bad["eval/kid_stderr"] and bad["eval/recall"] < good["eval/recall"]
    assert bad["eval/fid_floor"] == good["eval/fid_floor"]
    protocol = QUALITY.protocol
    assert protocol["samples"] == 80 and protocol["reference"] == "validation, 90 images"
    assert (protocol["features"], protocol["features_sha256"]) == ("corner", Corner.digest)


def test_the_reference_is_loaded_and_seen_once():
    calls: list[str] = []

    @dataclasses.dataclass(frozen=True)
    class Counted(Noise):
        def load(self, split: datasets.Split) -> datasets.Dataset:
            calls.append(split)
            return super().load(split)

    evaluator = dataclasses.replace(QUALITY, data=Counted())
    evaluator.prepare(Uniform())
    assert evaluator(Uniform(), state(), KEY).scalars == evaluator(Uniform(), state(), jax.random.key(1)).scalars
    assert sorted(calls) == ["train", "validation"]


def test_a_recall_that_dies_is_told_once_and_not_before_the_model_has_learned():
    evaluator = dataclasses.replace(QUALITY, alarm=0.3)
    dead, alive = state(scale=0.0), state()
    evaluator(Uniform(), dead, KEY)  # the first evaluation: nothing has been learned yet (warnings are errors here)
    evaluator(Uniform(), alive, KEY)
    with pytest.warns(UserWarning, match="recall is 0.000, where real images reach .*: the samples hardly vary"):
        evaluator(Uniform(), dead, KEY)
    evaluator(Uniform(), dead, KEY)


@dataclasses.dataclass(frozen=True)
class Walker(Uniform):
    """Knows samplers of up to 10."""

    def path(self, sampler: int) -> None:
        if sampler > 10:
            raise ValueError(f"steps={sampler}: at most 10")


@pytest.mark.parametrize(
    ("evaluator", "learner", "message"),
    [
        (evaluation.Samples(sampler=11), Walker(), "steps=11: at most 10"),
        (dataclasses.replace(QUALITY, sampler=11), Walker(), "steps=11: at most 10"),
        (evaluation.Samples(sampler=3), Uniform(), "sampler=3: Uniform draws in one step and takes none; leave it out"),
        (evaluation.Samples(), Blind(), "Blind has no `sample`.*evaluators.samples=null"),
        (evaluation.HeldOut(data=Noise()), Blind(), "Blind has no `judge`.*evaluators.held_out=null"),
        (QUALITY, Blind(), "Blind has no `sample`.*evaluators.quality=null"),
        (dataclasses.replace(QUALITY, features=Corner((28, 28, 1))), Uniform(), r"sees images of \(28, 28, 1\)"),
        (dataclasses.replace(QUALITY, count=121), Uniform(), "count=121: the split train has 120 images"),
        (dataclasses.replace(QUALITY, data=Noise(validation=3)), Uniform(), "reference=validation: the split has 3 im"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_the_training(evaluator: Any, learner: Any, message: str):
    with pytest.raises(ValueError, match=message):
        evaluator.prepare(learner)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 3}, "count=3: must be at least 4"),
        ({"every": 0}, "every=0: must be at least 1"),
        ({"block": 1}, "block=1: must be at least 2"),
        ({"floor": "validation"}, "floor=validation: must be another split"),
        ({"neighbours": 0}, "neighbours=0: must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(QUALITY, **changes)
