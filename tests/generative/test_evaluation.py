"""Evaluators of images, on models and data small enough to know what they must say."""

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import media, types
from core.images import datasets
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
    flops = 1.0

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


def test_classes_that_are_more_than_images_are_spread_over_a_square(capsys: pytest.CaptureFixture):
    """1,000 classes of 64 x 64 pixels were a sheet 65,998 pixels high."""
    sheet = pixels(evaluation.Samples(count=100).report(Large(classes=1_000), VIEW))
    assert sheet.shape == (10 * 66 - 2, 10 * 66 - 2, 3)
    shown = sheet.reshape(-1)[0], sheet[66, 0, 0], sheet[-1, -1, 0]
    assert shown == (0, 100 % 256, 990 % 256)  # every tenth class
    assert "samples: 100 of the 1,000 classes are shown" in capsys.readouterr().out
    sheet = pixels(evaluation.Samples(count=1_000).report(Large(classes=90), VIEW))
    assert sheet.shape == (62 * 66 - 2, 11 * 66 - 2, 3) and max(sheet.shape) <= media.SIDE
    assert "image grid: 682 of 990 images are shown" in capsys.readouterr().out


@dataclasses.dataclass(frozen=True)
class Large:
    """Images of 64 x 64 pixels, all of which are the label."""

    classes: int

    def sample(self, view, seeds, label: Any = None, *, sampler=None):
        return jnp.broadcast_to(label.astype(jnp.uint8)[:, None, None, None], (len(seeds), 64, 64, 1))


@dataclasses.dataclass(frozen=True)
class LongTail:
    """Five classes, each of its own brightness, from 55 % of the images down to 1 %; a sixth has none."""

    def load(self, split: datasets.Split) -> datasets.Dataset:
        label = np.repeat(np.arange(5), [165, 75, 36, 21, 3])
        noise = np.random.default_rng(datasets.SPLITS.index(split)).integers(0, 20, (300, *SHAPE))
        return datasets.Dataset(
            image=(noise + 40 * label[:, None, None, None]).astype(np.uint8), label=label, classes=6
        )


@dataclasses.dataclass(frozen=True)
class Perfect:
    """Draws what `LongTail` is made of."""

    classes = 6

    def sample(self, view, seeds, label: Any = None, *, sampler=None):
        keys = jax.vmap(jax.random.key)(seeds)
        noise = jax.vmap(lambda key: jax.random.randint(key, SHAPE, 0, 20))(keys)
        return (noise + 40 * label[:, None, None, None]).astype(jnp.uint8)


def test_labels_are_drawn_as_the_training_data_have_them():
    """A perfect conditional model is as good as real images, where labels drawn evenly would make it seem a bad one."""
    quality = dataclasses.replace(QUALITY, data=LongTail(), count=200)
    labels = quality.labels(Perfect())
    assert labels is not None and np.bincount(labels, minlength=6).tolist() == [110, 50, 24, 14, 2, 0]
    figures = quality.report(Perfect(), VIEW).scalars
    even = drawing.draw(Perfect(), VIEW, np.arange(200), label=np.arange(200) % 5)
    assert figures["eval/fid"] < 3 * figures["eval/fid_floor"] < 0.1 * quality.judge(even)["eval/fid"]
    assert quality.labels(Uniform()) is None
    assert "in the proportions of the training images" in quality.protocol["labels"]
    shown = pixels(evaluation.Samples(data=LongTail(), count=10).report(Perfect(), VIEW))
    assert shown.shape[:2] == (5 * 6 - 2, 2 * 6 - 2)  # no row for the class without images


def test_the_counts_behind_samples_are_read_before_the_training():
    class Once(LongTail):
        loads = 0

        def load(self, split: datasets.Split) -> datasets.Dataset:
            Once.loads += 1
            return super().load(split)

    evaluator = evaluation.Samples(data=Once(), count=10)
    evaluator.prepare(Perfect())
    assert Once.loads == 1
    evaluator.report(Perfect(), VIEW)
    assert Once.loads == 1
    evaluation.Samples(data=Once()).prepare(Uniform())  # no classes: nothing to count
    assert Once.loads == 1


def test_proportions_are_as_near_as_whole_numbers_allow():
    for counts, count, expected in (([1, 1, 1], 10, [4, 3, 3]), ([5, 0, 3], 8, [5, 0, 3]), ([99, 1], 10, [10, 0])):
        labels = drawing.in_proportion(np.array(counts), count, 0)
        assert np.bincount(labels, minlength=len(counts)).tolist() == expected
    many = drawing.in_proportion(np.array([3, 1]), 40, 0)
    assert (many != np.sort(many)).any() and (many == drawing.in_proportion(np.array([3, 1]), 40, 0)).all()
    seeds = np.arange(2**32 - 1_000, 2**32)
    by_seed = drawing.by_seed(np.array([550, 0, 440, 10]), seeds)
    np.testing.assert_allclose(np.bincount(by_seed), [550, 0, 440, 10], atol=3)
    assert (drawing.by_seed(np.array([550, 0, 440, 10]), seeds[5:]) == by_seed[5:]).all()


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
