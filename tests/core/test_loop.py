"""The loop: what acts with which weights, what happens when, and that going on equals never having stopped."""

import dataclasses
import functools
import pathlib
import signal
import time
from typing import Any

import jax
import numpy as np
import pytest

from core import loop, profiling, stopping, types
from core.checkpoints import checkpoint, folders
from tests import runs

Alone = tuple[Any, Any, list[Any]]


@pytest.fixture(scope="module")
def alone() -> Alone:
    """A learner without a loop: its step (of one update), a fresh state, ten rollouts."""
    source = runs.actor()
    learner = runs.dqn_learner(source.sizes, update_every=16)
    source.attach(learner)
    state = jax.jit(lambda: learner.init(jax.random.key(0), source.spec))()
    rollouts = []
    for index in range(10):
        source.start(index, lambda: learner.view(state))
        rollouts.append(source.next())
    source.close()
    return jax.jit(learner.step), state, rollouts


def stopping_at(wanted: int) -> dict[str, Any]:
    """Settings under which a signal comes while step `wanted` is being looked at."""
    stop = stopping.Stop()

    def watch(step: int, state: Any) -> None:
        if step == wanted:
            stop.signal = signal.SIGTERM

    return {"stop": stop, "watch": watch}


# Who acts with what


@pytest.mark.parametrize("lag", [0, 1])
def test_a_batch_is_begun_with_the_weights_that_the_lag_says(tmp_path: pathlib.Path, lag: int):
    source = runs.Recording()
    runs.run(tmp_path, learner=runs.Counting(), source=source, budget=60, lag=lag)
    assert source.calls == [(k, max(k - lag, 0)) for k in range(7)]  # the last one waits in the checkpoint


@pytest.mark.parametrize("lag", [0, 1])
def test_a_batch_that_was_begun_is_kept_and_never_begun_again(tmp_path: pathlib.Path, lag: int):
    begun = []
    for budget in (30, 30, 60):  # the second has nothing to do
        source = runs.Recording()
        outcome = runs.run(
            tmp_path, learner=runs.Counting(), source=source, budget=budget, lag=lag, checkpoint_every=20
        )
        assert (outcome.step, outcome.examples, outcome.finished) == (budget // 10, budget, True)
        begun += source.calls
    assert begun == [(k, max(k - lag, 0)) for k in range(7)]


# Intervals and budgets


def test_intervals_and_budgets_count_frames_whether_or_not_they_divide(tmp_path: pathlib.Path):
    looked, rows = [], runs.Rows()
    outcome = runs.run(
        tmp_path,
        learner=runs.Counting(),
        source=runs.Recording(10),
        budget=95,
        log_every=25,
        checkpoint_every=35,
        every=45,
        watch=lambda step, state: looked.append(step),
        tracker=rows,
    )
    assert (outcome.step, outcome.examples, outcome.finished) == (10, 100, True)
    assert rows.steps("loss/fit") == [3, 5, 8, 10]  # the first steps at or past 25, 50, 75 frames, and the last
    assert looked == [5, 9, 10]
    assert rows.committed == [4, 7, 10]
    assert [int(path.name) for path in checkpoint.complete(tmp_path)] == [7, 10]
    assert {examples / step for step, examples, _ in rows.rows} == {10.0}


def test_an_interval_shorter_than_a_step_is_every_step(tmp_path: pathlib.Path):
    rows = runs.Rows()
    runs.run(tmp_path, learner=runs.Counting(), source=runs.Recording(10), budget=40, log_every=3, tracker=rows)
    assert rows.steps("loss/fit") == [1, 2, 3, 4]


def test_a_row_holds_the_means_of_its_window(tmp_path: pathlib.Path):
    each, pairs = runs.Rows(), runs.Rows()
    for name, rows, every in (("each", each, 10), ("pairs", pairs, 20)):
        runs.run(
            tmp_path / name,
            learner=runs.Counting(),
            source=runs.Recording(10),
            budget=40,
            log_every=every,
            tracker=rows,
        )
    losses = np.array([scalars["loss/fit"] for *_, scalars in each.rows])
    np.testing.assert_allclose([s["loss/fit"] for *_, s in pairs.rows], losses.reshape(2, 2).mean(axis=1), rtol=1e-6)
    assert all(scalars["time/frames_per_second"] > 0 for *_, scalars in pairs.rows)


def test_the_best_checkpoint_stays_beside_the_latest(tmp_path: pathlib.Path):
    scores = {3: 1.0, 6: 3.0, 9: 2.0, 10: 2.5}
    runs.run(
        tmp_path,
        learner=runs.Counting(),
        source=runs.Recording(),
        budget=100,
        every=30,
        watch=lambda step, state: {"eval/score": scores[step]},
        metric="eval/score",
    )
    best = checkpoint.load(tmp_path, {"step": jax.ShapeDtypeStruct((), np.int32)}, which="best")
    assert (int(best.tree["step"]), best.extra) == (6, {"metric": "eval/score", "value": 3.0})
    assert checkpoint.Checkpoints(tmp_path).latest() == tmp_path / f"{10:012d}"


@pytest.mark.parametrize("name", ["budget", "log_every", "checkpoint_every"])
def test_a_schedule_that_never_comes_is_refused(name: str):
    settings = {"budget": 1, "log_every": 1, "checkpoint_every": 1}
    with pytest.raises(ValueError, match=f"{name}=0: must be at least 1"):
        loop.Schedule(**(settings | {name: 0}))
    with pytest.raises(ValueError, match=r"lag=2: must be 0 .* or 1"):
        loop.Schedule(**settings, lag=2)


# Going on


@pytest.mark.parametrize("lag, log_every", [(0, 50), (1, 1)])  # frames; a step has 16
def test_stopping_and_going_on_equals_never_having_stopped(tmp_path: pathlib.Path, lag: int, log_every: int):
    """Environments, acting, prioritised replay that wraps, 3-step returns, targets, Adam: every leaf, bit and row."""
    steps, rows = runs.WARMUP + 8, runs.Rows()
    whole = runs.play(tmp_path / "whole", steps=steps, lag=lag, log_every=log_every, tracker=rows)
    assert int(whole.state.updates) == 16

    parts, broken = tmp_path / "parts", runs.Rows()
    go_on = lambda **settings: runs.play(parts, lag=lag, log_every=log_every, tracker=broken, **settings)
    for wanted in (runs.WARMUP - 1, runs.WARMUP + 2, runs.WARMUP + 3):  # while it only takes data in; while it learns
        outcome = go_on(steps=steps, **stopping_at(wanted))
        assert (outcome.step, outcome.finished) == (wanted, False)
    if log_every == 1:
        assert go_on(steps=steps - 2).finished  # a budget that is spent, then extended
    runs.assert_same(go_on(steps=steps).state, whole.state)

    untimed = lambda scalars: {name: value for name, value in scalars.items() if not name.startswith("time/")}
    told = lambda rows: [(step, untimed(scalars)) for step, _, scalars in rows.rows if untimed(scalars)]
    assert told(broken) == told(rows) and len(told(rows)) == (steps if log_every == 1 else 4)


class Killed(Exception):
    pass


def test_a_kill_goes_back_to_the_newest_checkpoint_with_its_replay_and_a_stop_saves_it(tmp_path: pathlib.Path):
    """Checkpoints at every step, with the replay at every fifth: bit for bit the run that was never killed."""
    steps, every = runs.WARMUP + 12, {"checkpoint_every": 16, "replay_every": 5 * 16}

    def killed(at: int):
        def watch(step: int, state: Any) -> None:
            if step == at:
                raise Killed

        return watch

    whole, parts = runs.play(tmp_path / "whole", steps=steps), tmp_path / "parts"
    seen: list[int] = []
    for at in (4, 9, 14):
        with pytest.raises(Killed):
            runs.play(parts, steps=steps, **every, watch=killed(at))
        seen.append(int(folders.with_memory(parts)[-1].name))
        assert int(checkpoint.complete(parts)[-1].name) == at - 1
    assert seen == [1, 5, 10]  # the first checkpoint of all has it, too
    began: list[int] = []
    stop = stopping_at(12)
    look = stop.pop("watch")
    runs.play(parts, steps=steps, **every, **stop, watch=lambda step, state: began.append(step) or look(step, state))
    assert began[0] == 11 and int(folders.with_memory(parts)[-1].name) == 12
    runs.assert_same(runs.play(parts, steps=steps, **every).state, whole.state)


def test_a_long_run_writes_a_large_replay_forty_times_at_most():
    def every(budget: int, size: int = 200_000_000, **more: Any) -> int:
        schedule = loop.Schedule(budget=budget, log_every=1, checkpoint_every=100, **more)
        return schedule.memory_every({"replay": jax.ShapeDtypeStruct((1, size), np.uint8)})

    assert [every(budget) for budget in (50, 4_000, 4_001, 20_000)] == [100, 100, 200, 500]
    assert every(20_000, size=1_000) == 100 and every(20_000, replay_every=70) == 70


@pytest.mark.parametrize("wanted", [6, 10], ids=["on the way", "at the end"])
def test_an_evaluation_that_a_stop_cuts_short_is_made_again(tmp_path: pathlib.Path, wanted: int):
    made: list[tuple[str, int]] = []  # (evaluator, step)

    @dataclasses.dataclass(frozen=True)
    class Judge:
        name: str
        every: int = 30

        def __call__(self, learner, state, key, *, stop) -> types.Report:
            if self.name == "b" and int(state.step) == wanted and not asked.signal and not given_again:
                asked.signal = signal.SIGUSR1
            stop()
            made.append((self.name, int(state.step)))
            return types.Report(scalars={f"eval/{self.name}": float(jax.random.uniform(key))})

    rows, given_again = runs.Rows(), False

    def go_on(budget: int = 100) -> loop.Outcome:
        judges = {name: Judge(name) for name in "abc"}
        given = {"learner": runs.Counting(), "source": runs.Recording(), "log_every": 50}
        return runs.run(tmp_path, **given, budget=budget, stop=asked, tracker=rows, evaluators=judges)

    asked = stopping.Stop()
    outcome = go_on()
    assert (outcome.step, outcome.finished, asked.exit_status) == (wanted, False, 75)
    assert made[-1] == ("a", wanted)
    asked, given_again = stopping.Stop(), True
    assert go_on().finished and go_on().finished and go_on(budget=120).step == 12
    assert made == [(name, step) for step in (3, 6, 9, 10, 12) for name in "abc"]  # each once, in its order
    assert all(scalars["time/evaluation_seconds"] >= 0 for *_, scalars in rows.rows if "eval/b" in scalars)


def test_a_row_tells_the_speed_with_and_without_what_did_not_train(tmp_path: pathlib.Path):
    rows = runs.Rows()
    settings: dict[str, Any] = {"learner": runs.Counting(), "log_every": 10, "checkpoint_every": 20, "tracker": rows}
    watch = lambda step, state: time.sleep(1) if step == 2 else None
    runs.run(tmp_path, source=runs.Recording(), budget=40, watch=watch, every=20, **settings)
    logged = {step: scalars for step, _, scalars in rows.rows if "loss/fit" in scalars}
    evaluated = {step: scalars for step, _, scalars in rows.rows if "time/evaluation_seconds" in scalars}
    assert evaluated[2]["time/evaluation_seconds"] >= 1 > evaluated[4]["time/evaluation_seconds"]
    assert logged[3]["time/frames_per_second"] > 10  # without the second
    assert logged[3]["time/frames_per_second_overall"] < 30
    assert logged[3]["time/checkpoint_seconds"] > 0 and "time/checkpoint_seconds" not in logged[4]


def test_the_clock_goes_on_where_it_stopped(tmp_path: pathlib.Path):
    rows = runs.Rows()
    wait = lambda step, state: time.sleep(1.5) if step == 1 else None
    for budget in (20, 30):
        runs.run(tmp_path, learner=runs.Counting(), source=runs.Recording(), budget=budget, watch=wait, tracker=rows)
    assert rows.seconds == sorted(rows.seconds) and rows.seconds[-1] >= 1.5


def test_a_checkpoint_on_the_way_changes_nothing(tmp_path: pathlib.Path):
    one = runs.play(tmp_path / "one", steps=8, lag=1)
    many = runs.play(tmp_path / "many", steps=8, lag=1, checkpoint_every=1)
    runs.assert_same(one.state, many.state)


def test_the_learner_alone_goes_on_bit_for_bit(tmp_path: pathlib.Path, alone: Alone):
    """The same rollouts, and a state that went through the disk in between."""
    step, state, rollouts = alone
    for rollout in rollouts[:4]:
        state, _ = step(state, rollout)
    checkpoint.Checkpoints(tmp_path, log=lambda line: None).save(4, state, None, extra={})
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    restored = checkpoint.Checkpoints(tmp_path).restore(jax.tree.map(place, state))
    assert restored is not None
    again = restored.state
    for rollout in rollouts[4:]:
        state, _ = step(state, rollout)
        again, _ = step(again, rollout)
    assert int(again.updates) == len(rollouts)
    runs.assert_same(again, state)


def test_a_replay_that_was_not_saved_is_filled_again_before_learning_goes_on(tmp_path: pathlib.Path):
    rows, updates, filled = runs.Rows(), {}, {}

    def watch(step: int, state: Any) -> None:
        updates[step], filled[step] = int(state.updates), int(state.replay.count)

    first = runs.WARMUP + 5
    runs.play(tmp_path, steps=first, replay=False, watch=watch)
    assert updates[first] == 10
    outcome = runs.play(tmp_path, steps=first + runs.WARMUP + 2, replay=False, watch=watch, tracker=rows)
    assert [updates[first + k] for k in range(runs.WARMUP + 3)] == [10] * (runs.WARMUP + 1) + [12, 14]
    assert [filled[first + k] for k in (1, 2, 3)] == [4, 8, 12]  # rows of the ring
    assert outcome.examples == 16 * (first + runs.WARMUP + 2)  # what refills is counted
    # Batch k explores as at frame 16·k of a run that never stopped: row k + 1 tells of batch k.
    explored = {step: scalars["train/epsilon"] for step, _, scalars in rows.rows if "train/epsilon" in scalars}
    assert explored[first + 2] == pytest.approx(1 - 16 * (first + 1) / 400)


def test_stacks_are_true_after_a_replay_that_was_not_saved(tmp_path: pathlib.Path):
    """Frames say whose they are, (environment, game, steps into it), and the checkpoint lies in the middle of games."""
    for steps in (runs.WARMUP + 1, runs.WARMUP + 4):
        outcome = runs.play(tmp_path, steps=steps, replay=False)
    learner = runs.dqn_learner(runs.actor().sizes)
    draw = jax.jit(functools.partial(learner.replay.sample, batch=512, discount=0.9))
    sample = jax.device_get(draw(outcome.state.replay, jax.random.key(0)))
    frames = sample.observation[sample.weight > 0].astype(int)  # [B, K, 3]
    assert len({tuple(frame) for frame in frames[:, -1]}) > 16
    back = np.arange(frames.shape[1])[::-1]
    time = frames[:, -1:, 2] - back
    whole = np.stack([*np.broadcast_arrays(frames[:, -1:, 0], frames[:, -1:, 1], time)], axis=-1)
    np.testing.assert_array_equal(frames, np.where(time[..., None] > 0, whole, 0))


def test_the_ring_stays_where_it_is(tmp_path: pathlib.Path):
    """Donated and never copied: not by a view, a checkpoint, an evaluation, nor after a resume."""
    for steps in (runs.WARMUP + 4, runs.WARMUP + 8):
        seen = set()
        runs.play(
            tmp_path,
            steps=steps,
            lag=1,
            checkpoint_every=32,
            watch=lambda step, state, seen=seen: seen.add(state.replay.observation.unsafe_buffer_pointer()),
        )
        assert len(seen) == 1


# What is not finite


@pytest.mark.parametrize("every", [10, 30, 1000], ids=["logs", "an evaluation is first", "the checkpoint is first"])
def test_a_loss_that_is_not_finite_ends_the_run_within_one_log_interval(tmp_path: pathlib.Path, every: int):
    judged, rows, source = [], runs.Rows(), runs.Recording(bad=12)
    with pytest.raises(loop.Diverged) as caught:
        runs.run(
            tmp_path,
            learner=runs.Counting(),
            source=source,
            budget=1000,
            log_every=50 if every == 10 else 1000,
            checkpoint_every=1000 if every == 30 else 70,
            every=every,
            watch=lambda step, state: judged.append(step),
            tracker=rows,
            metric="eval/none",
        )
    kept = "none" if every == 30 else str(tmp_path / f"{7:012d}")
    assert str(caught.value).startswith("step 12: grad/norm, loss/fit was not finite and nothing has been learned")
    assert f"the last good checkpoint is {kept}." in str(caught.value)
    assert source.calls[-1][0] <= 15
    assert all(path.name <= f"{12:012d}" for path in checkpoint.complete(tmp_path))
    assert all(np.isfinite(value) for *_, scalars in rows.rows for value in scalars.values())
    assert max(judged, default=0) <= 12


def test_dqn_keeps_weights_and_optimiser_bit_for_bit_from_the_first_bad_update_on(alone: Alone):
    step, state, rollouts = alone
    states = [state]
    for index, rollout in enumerate(rollouts):
        if index == 4:
            rollout = dataclasses.replace(rollout, reward=np.full_like(rollout.reward, np.nan))
        states.append(step(states[-1], rollout)[0])
    bad = int(states[-1].diverged)
    assert 4 <= bad < 8
    assert [int(state.diverged) for state in states] == [-1] * (bad + 1) + [bad] * (10 - bad)
    assert [int(state.updates) for state in states] == [min(k, bad) for k in range(11)]
    for later in states[bad + 1 :]:
        runs.assert_same((later.params, later.opt_state), (states[bad].params, states[bad].opt_state))
        assert np.isfinite(later.replay.sampler["priority"]).all()


# Looking at it


def test_a_profile_is_a_trace_and_the_memory(tmp_path: pathlib.Path):
    profiler = profiling.Profiler(folder=tmp_path / "profile", skip=2, steps=2)
    runs.run(tmp_path / "run", learner=runs.Counting(), source=runs.Recording(), budget=100, profiler=profiler)
    profiler.close()
    assert [*(tmp_path / "profile").rglob("*.xplane.pb")]
    assert (tmp_path / "profile" / "memory.prof").stat().st_size > 0


def test_a_profile_that_the_end_cuts_short_is_written(tmp_path: pathlib.Path):
    profiler = profiling.Profiler(folder=tmp_path / "profile", skip=2, steps=20)
    runs.run(tmp_path / "run", learner=runs.Counting(), source=runs.Recording(), budget=50, profiler=profiler)
    profiler.close()
    assert [*(tmp_path / "profile").rglob("*.xplane.pb")]
