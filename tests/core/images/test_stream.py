"""A batch is a function of (seed, epoch, k), whoever asks for it and when."""

import dataclasses
import json
import pathlib
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import loop, mesh, types
from core.images import datasets, stream
from tests import runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbered:
    """Image i is full of i but for its left edge, which is 255; its label is i modulo 3."""

    count: int = 10
    side: int = 3

    def load(self, split: datasets.Split) -> datasets.Dataset:
        assert split == "train"
        image = np.broadcast_to(np.arange(self.count, dtype=np.uint8)[:, None, None, None], self.shape).copy()
        image[:, :, 0] = 255
        return datasets.Dataset(image=image, label=np.arange(self.count) % 3, classes=3, provenance={"colours": (1, 2)})

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, self.side, self.side, 1)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Same:
    """One picture [H, W], many times."""

    picture: np.ndarray
    count: int

    def load(self, split: datasets.Split) -> datasets.Dataset:
        image = np.repeat(self.picture[None, :, :, None], self.count, axis=0)
        return datasets.Dataset(image=image, label=np.zeros(self.count, np.int64), classes=1)


@pytest.fixture
def streaming():
    """Makes streams, and closes them."""
    made: list[stream.Stream] = []

    def make(recipe: datasets.Recipe | None = None, **settings: Any) -> stream.Stream:
        settings = {"batch": 4, "seed": 5} | settings
        made.append(stream.Stream(data=recipe or Numbered(), **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def take(source: stream.Stream, *steps: int) -> list[types.Images]:
    batches = []
    for step in steps:
        source.start(step, lambda: None)
        batches.append(source.next())
    return batches


def seen(batches: list[types.Images]) -> list[int]:
    """The numbers of the images, in the order of training."""
    return [int(image[0, 1, 0]) for batch in batches for image in batch.image.reshape(-1, *batch.image.shape[-3:])]


def test_epochs_lie_end_to_end(streaming):
    source = streaming()  # 10 images in batches of 4: the third batch begins the second epoch
    order = seen(take(source, *range(15)))
    epochs = [order[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_labels_go_with_their_images(streaming):
    for batch in take(streaming(), 0, 1, 2):
        np.testing.assert_array_equal(batch.label, batch.image[:, 0, 1, 0] % 3)
        assert batch.label.dtype == np.int32 and batch.image.dtype == np.uint8


def test_a_batch_depends_on_seed_and_number_alone(streaming):
    in_order = take(streaming(flip=True, shift=1), *range(8))
    for step in (7, 2, 3, 0):  # as after a resume
        runs.assert_same(take(streaming(flip=True, shift=1), step)[0], in_order[step])
    other = take(streaming(flip=True, seed=6), *range(8))
    assert seen(other) != seen(in_order)


def test_the_size_of_batches_does_not_change_the_order(streaming):
    order = seen(take(streaming(), *range(10)))
    assert seen(take(streaming(batch=2), *range(20))) == order
    assert seen(take(streaming(batch=2, batches=5), *range(4))) == order
    assert seen(take(streaming(batch=2, batches=2, dispatch=5), *range(2))) == order


def test_images_are_mirrored_half_the_time_and_only_where_asked(streaming):
    def mirrored(**settings: Any) -> np.ndarray:
        source = streaming(Numbered(count=200), batch=100, **settings)
        batches = take(source, *range(20))
        edges = np.concatenate([batch.image[:, :, [0, 2], 0] for batch in batches])
        assert set(np.unique(edges[:, :, 0] == 255)) <= {True, False}
        assert ((edges[:, :, 0] == 255) ^ (edges[:, :, 1] == 255)).all()
        return edges[:, 0, 1] == 255

    assert not mirrored().any()
    flips = mirrored(flip=True)
    assert 0.4 < flips.mean() < 0.6
    assert len({tuple(epoch) for epoch in flips.reshape(10, 200).tolist()}) == 10


def test_images_are_moved_by_all_numbers_of_pixels_up_to_the_limit(streaming):
    """Each is what a window of the picture with its edges repeated shows; the pixel in row y, column x holds 6y + x."""
    picture, moves = np.arange(36, dtype=np.uint8).reshape(6, 6), []
    for batch in take(streaming(Same(picture=picture, count=100), batch=100, shift=2), *range(3)):
        for image in batch.image[..., 0]:
            row, column = divmod(int(image[2, 2]), 6)
            np.testing.assert_array_equal(image, np.pad(picture, 2, mode="edge")[row:, column:][:6, :6])
            moves.append((row, column))
    assert set(moves) == {(row, column) for row in range(5) for column in range(5)}
    assert moves[:100] != moves[100:200]  # anew in each epoch


@pytest.mark.parametrize("shift", [-1, 3])
def test_a_shift_that_leaves_nothing_is_refused(streaming, shift: int):
    with pytest.raises(ValueError, match=rf"shift={shift}: must be at least 0 and less than the images' 3 pixels"):
        streaming(shift=shift)


def test_the_data_are_never_written_to(streaming):
    source = streaming(flip=True)
    before = source._data.image.copy()
    for batch in take(source, *range(6)):
        batch.image[:] = 0
    np.testing.assert_array_equal(source._data.image, before)


def as_process(monkeypatch: pytest.MonkeyPatch, index: int, count: int) -> None:
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(jax, "process_count", lambda: count)


@pytest.mark.parametrize("settings", [{"batch": 8}, {"batch": 4, "batches": 3, "dispatch": 2}])
def test_processes_share_each_batch(streaming, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]):
    whole = take(streaming(flip=True, shift=2, **settings), *range(4))
    parts = []
    for index in range(4):
        as_process(monkeypatch, index, 4)
        source = streaming(flip=True, shift=2, **settings)
        assert source.spec.image.shape[source.data_axis] == settings["batch"]  # global
        parts.append(take(source, *range(4)))
    axis = 0 if "batches" not in settings else 2
    for batch, *shares in zip(whole, *parts, strict=True):
        runs.assert_same(batch, jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=axis), *shares))


# ---- shapes ----


@pytest.mark.parametrize(
    "settings, shape, axis, examples",
    [
        ({}, (4, 3, 3, 1), 0, 4),
        ({"batches": 2}, (2, 4, 3, 3, 1), 1, 8),
        ({"batches": 1}, (1, 4, 3, 3, 1), 1, 4),
        ({"dispatch": 3}, (4, 3, 3, 1), 0, 12),
        ({"batches": 2, "dispatch": 3}, (2, 4, 3, 3, 1), 1, 24),
    ],
)
def test_a_spec_is_that_of_one_learner_step(streaming, settings, shape, axis: int, examples: int):
    source = streaming(**settings)
    assert source.spec.image == jax.ShapeDtypeStruct(shape, np.uint8)
    assert source.spec.label == jax.ShapeDtypeStruct(shape[:-3], np.int32)
    assert (source.data_axis, source.examples_per_step, source.unit) == (axis, examples, "images")
    assert source.sizes == {"image": (3, 3, 1), "classes": 3}
    (batch,) = take(source, 0)
    lead = (3,) if settings.get("dispatch") else ()
    assert batch.image.shape == (*lead, *shape) and batch.label.shape == (*lead, *shape[:-3])


def test_a_shape_comes_back_from_the_protocol(streaming):
    source = streaming(batches=2, dispatch=3, flip=True)
    protocol = json.loads(json.dumps(source.protocol))
    assert protocol == source.protocol
    assert protocol["data"] == {"recipe": "Numbered", "count": 10, "side": 3, "provenance": {"colours": [1, 2]}}
    assert (protocol["images"], protocol["flip"], protocol["shift"]) == (10, True, 0)
    shape = stream.Shape.from_protocol(protocol)
    assert shape == stream.Shape(image=(3, 3, 1), classes=3, batch=4, batches=2, dispatch=3)
    for name in ("sizes", "spec", "examples_per_step", "data_axis", "unit", "dispatch"):
        assert getattr(shape, name) == getattr(source, name)
    assert hash(shape) is not None


def test_another_runs_protocol_is_no_shape():
    with pytest.raises(ValueError, match="protocol: no image, classes, batch, batches, dispatch in it"):
        stream.Shape.from_protocol({"game": "pong"})


# ---- what is refused ----


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"batch": 0}, "batch=0: must be at least 1"),
        ({"batches": 0}, "batches=0: must be at least 1"),
        ({"dispatch": 0}, "dispatch=0: must be at least 1"),
        ({"seed": -1}, "seed=-1: must lie in 0"),
        ({"batch": 11}, "batch=11: more than the 10 images to train on; take at most 10"),
    ],
)
def test_settings_that_do_not_fit_are_refused(streaming, settings: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        streaming(**settings)


@pytest.mark.parametrize("batch, told", [(6, "4 processes; take 4 or 8"), (3, "4 processes; take 4$")])
def test_a_batch_that_does_not_divide_is_refused_with_sizes_that_do(streaming, monkeypatch, batch: int, told: str):
    as_process(monkeypatch, 0, 4)
    with pytest.raises(ValueError, match=f"batch={batch}: does not divide over {told}"):
        streaming(recipe=None, batch=batch)


def test_settings_are_checked_before_the_data_are_read():
    class Slow:
        def load(self, split: str):
            raise AssertionError("read")

    with pytest.raises(ValueError, match="batch=0"):
        stream.Stream(data=Slow(), batch=0, seed=0)


def test_next_wants_a_start_and_nothing_works_after_the_end(streaming):
    source = streaming()
    with pytest.raises(RuntimeError, match="no batch was started"):
        source.next()
    source.close()
    with pytest.raises(RuntimeError, match="was closed"):
        source.start(0, lambda: None)


# ---- the thread ----


def test_batches_are_made_ahead_of_their_start(streaming, monkeypatch: pytest.MonkeyPatch):
    assert stream.AHEAD >= 1
    source = streaming()
    made: list[tuple[int, str]] = []
    batch = source._batch
    monkeypatch.setattr(
        source, "_batch", lambda step: (made.append((step, threading.current_thread().name)), batch(step))[1]
    )
    source.start(3, lambda: None)
    until(lambda: [step for step, _ in made] == list(range(3, 4 + stream.AHEAD)))
    source.next()
    source.start(4, lambda: None)
    source.next()
    until(lambda: [step for step, _ in made] == list(range(3, 5 + stream.AHEAD)))  # each once
    assert {name for _, name in made} == {"reader of images"}


def until(true) -> None:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < 10
        time.sleep(0.001)


def test_two_may_be_on_their_way_and_leaps_leave_nothing_behind(streaming):
    source = streaming()
    expected = take(streaming(), *range(30))
    source.start(0, lambda: None)
    source.start(1, lambda: None)
    runs.assert_same(source.next(), expected[0])
    runs.assert_same(source.next(), expected[1])
    for step in (20, 5, 6):
        runs.assert_same(take(source, step)[0], expected[step])
    assert len(source._made) <= 2 * stream.AHEAD + 1


def test_what_fails_in_the_thread_is_raised_by_next(streaming, monkeypatch: pytest.MonkeyPatch):
    source = streaming()

    def epoch(number: int):
        raise MemoryError("no more")

    monkeypatch.setattr(source, "_epoch", epoch)
    source.start(0, lambda: None)
    with pytest.raises(MemoryError, match="no more"):
        source.next()


def test_epochs_are_counted(streaming):
    source = streaming()
    assert source.metrics() == {}
    take(source, 0, 1, 2)
    assert source.metrics() == {"train/epoch": 1.2}
    take(source, 24)
    assert source.metrics() == {"train/epoch": 10.0}


# ---- in the loop ----


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hashing:
    """Its one number depends on every image so far and on their order."""

    def warmup(self, spec: Any) -> int:
        return 0

    def init(self, key: jax.Array, spec: types.Images) -> types.TrainState:
        step, healthy = jnp.zeros((), jnp.int32), -jnp.ones((), jnp.int32)
        return types.TrainState(
            step=step, key=key, params={"hash": jnp.zeros((), jnp.uint32)}, aux={}, opt_state=(), diverged=healthy
        )

    def step(self, state: types.TrainState, batch: types.Images) -> tuple[types.TrainState, types.Metrics]:
        pixels = batch.image.astype(jnp.uint32).ravel()
        weights = 2 * jnp.arange(pixels.size, dtype=jnp.uint32) + 1
        value = state.params["hash"] * jnp.uint32(2654435761) + jnp.sum(pixels * weights)
        state = dataclasses.replace(state, step=state.step + 1, params={"hash": value})
        return state, {"loss/none": jnp.zeros(())}

    absorb = step

    def view(self, state: types.TrainState) -> Any:
        return {"params": state.params}


def play(folder: pathlib.Path, streaming, steps: int, **settings: Any) -> loop.Outcome:
    source = streaming(flip=True, **{k: settings.pop(k) for k in ("batch", "batches", "dispatch") if k in settings})
    return runs.run(folder, learner=Hashing(), source=source, budget=steps * source.examples_per_step, **settings)


@pytest.mark.parametrize("lag", [0, 1])
def test_a_resumed_run_sees_what_an_unbroken_one_does(streaming, tmp_path: pathlib.Path, lag: int):
    whole = play(tmp_path / "whole", streaming, 9, lag=lag)
    play(tmp_path / "parts", streaming, 4, lag=lag)
    parts = play(tmp_path / "parts", streaming, 9, lag=lag)
    assert parts.step == 9
    runs.assert_same(parts.state.params, whole.state.params)
    assert whole.scalars["train/epoch"] == parts.scalars["train/epoch"]


def test_several_steps_in_one_call_are_the_same_steps(streaming, tmp_path: pathlib.Path):
    one = play(tmp_path / "one", streaming, 12)
    many = play(tmp_path / "many", streaming, 3, dispatch=4)
    assert one.examples == many.examples == 48
    runs.assert_same(one.state.params, many.state.params)


def test_a_batch_that_does_not_divide_over_the_devices_is_refused():
    eight = jax.sharding.AbstractMesh((8, 1), mesh.AXES)
    shape = stream.Shape(image=(3, 3, 1), classes=0, batch=30, batches=2)
    with pytest.raises(ValueError, match=r"the 30 rows of a batch do not divide over the 8 devices .* 24 or 32"):
        mesh.check_batch(shape.spec, eight, axis=1)
    mesh.check_batch(dataclasses.replace(shape, batch=32).spec, eight, axis=1)
