import copy
import dataclasses
import itertools
import threading
import traceback

import jax
import numpy as np
import pytest

from agents import acting, atari
from core import distributed, types
from tests import toys

VIEW = {"bias": np.zeros((), np.int32)}


def make_actor(recipe=None, *, envs=6, steps=5, shards=2, seed=0, exploration=lambda frames: 0.5):
    actor = acting.Actor(
        environments=recipe or toys.Counter(), envs=envs, steps=steps, shards=shards, exploration=exploration, seed=seed
    )
    actor.attach(toys.RandomAgent(actor.sizes["actions"]))
    return actor


def play(actor, batches, begin=0):
    rollouts = []
    for k in range(begin, begin + batches):
        actor.start(k, lambda: VIEW)
        rollouts.append(actor.next())
    return rollouts


def joined(rollouts, name):
    """A field over all rollouts: [S, batches*T, N, ...]."""
    return np.concatenate([getattr(rollout, name) for rollout in rollouts], axis=1)


def stacks(frames, first, count):
    """[S, T, N, K, *frame] rebuilt from single frames [S, K-1+T, N, *frame] and first [S, T, N]."""
    shards, steps, envs = first.shape
    built = np.zeros((shards, steps, envs, count, *frames.shape[3:]), frames.dtype)
    open_ = np.ones((shards, steps, envs), bool)  # no game began between the frame and the newest
    for back in range(count):
        built[..., count - 1 - back, :] = np.where(
            open_[..., None], frames[:, count - 1 - back : count - 1 - back + steps], 0
        )
        shifted = np.pad(first, ((0, 0), (back, 0), (0, 0)))[:, :steps]
        open_ &= ~shifted
    return built


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize("recipe", [toys.Counter(), toys.Counter(stack=1), toys.Counter(longest=2), toys.Tabular()])
def test_single_frames_rebuild_the_environments_stacks(recipe):
    actor = make_actor(recipe, steps=7)
    rollouts = play(actor, 8)
    actor.close()
    for rollout in rollouts:  # each by itself: context, frames, first
        frames = np.concatenate([rollout.context, rollout.observation], axis=1)
        np.testing.assert_array_equal(stacks(frames, rollout.first, recipe.stack), rollout.extras["stack"])
    first = joined(rollouts, "first")  # all in a row: the context of later ones is not needed
    frames = np.concatenate([rollouts[0].context, joined(rollouts, "observation")], axis=1)
    np.testing.assert_array_equal(
        stacks(frames, first, recipe.stack), np.concatenate([rollout.extras["stack"] for rollout in rollouts], axis=1)
    )
    assert first[:, 1:].sum() > 10, "several games must have begun in between"


def test_a_rollout_opens_where_the_one_before_ended():
    actor = make_actor()
    rollouts = play(actor, 6)
    actor.close()
    for before, after in itertools.pairwise(rollouts):
        np.testing.assert_array_equal(before.tail, after.observation[:, 0])
        np.testing.assert_array_equal(
            after.context[:, -1], np.where(after.first[:, 0, :, None], 0, before.observation[:, -1])
        )


def test_ends_keep_their_last_frame_and_reset_steps_are_not_valid():
    actor = make_actor(envs=4, steps=60, shards=1)
    (rollout,) = play(actor, 1)
    actor.close()
    game, time = rollout.observation[0, ..., 1].astype(int), rollout.observation[0, ..., 2].astype(int)
    valid, first = rollout.valid[0], rollout.first[0]
    # A game's frames count 1, 2, ..., length+1; only the last of them is a reset step.
    last = np.append(game[1:] != game[:-1], np.zeros((1, 4), bool), axis=0)
    np.testing.assert_array_equal(valid[:-1], ~last[:-1])
    np.testing.assert_array_equal(first, time == 1)
    assert not (rollout.reward[0] * ~valid).any()
    assert not ((rollout.terminal | rollout.truncated)[0] & ~valid).any()
    assert not (rollout.terminal & rollout.truncated).any()
    ends = np.append(last[1:], np.zeros((1, 4), bool), axis=0)  # the action before the last frame
    lost = time == toys.Counter().life
    np.testing.assert_array_equal(rollout.terminal[0, :-2], ((ends & (game % 2 == 1)) | (lost & valid))[:-2])
    np.testing.assert_array_equal(rollout.truncated[0, :-2], (ends & (game % 2 == 0) & ~lost)[:-2])
    alive = lost & valid & ~ends
    assert alive.any() and valid[1:][alive[:-1]].all(), "a lost life costs no step"


def test_layout_spec_and_sizes():
    actor = make_actor(envs=6, steps=5, shards=2)
    (rollout,) = play(actor, 1)
    actor.close()
    assert jax.tree.structure(rollout) == jax.tree.structure(actor.spec)
    assert_same(
        jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), rollout),
        jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), actor.spec),
    )
    assert all(leaf.flags.c_contiguous for leaf in jax.tree.leaves(rollout))
    np.testing.assert_array_equal(
        rollout.observation[:, 0, :, 0], [[1, 2, 3], [4, 5, 6]]
    )  # environment e in shard e // N
    assert rollout.context.shape == (2, 3, 3, 3)
    assert actor.sizes == {"observation": (4, 3), "actions": 3}
    assert actor.examples_per_step == 30 and actor.unit == "frames"


def test_processes_share_environments_and_shards(monkeypatch):
    whole = make_actor(envs=6, shards=2)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    parts = []
    for index in range(2):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        parts.append(make_actor(envs=6, shards=2))
    for actor in parts:
        assert actor.examples_per_step == whole.examples_per_step
        assert jax.tree.leaves(actor.spec) == jax.tree.leaves(whole.spec), "the spec is of all processes"
    rollouts = [play(actor, 1)[0] for actor in parts]
    assert rollouts[0].observation.shape == (1, 5, 3, 3)
    assert (rollouts[0].action != rollouts[1].action).any(), "processes explore apart"
    with pytest.raises(ValueError, match="shards=1: not a multiple of 2 processes; try shards=2"):
        make_actor(shards=1)
    for actor in (whole, *parts):
        actor.close()


def test_rollouts_share_no_memory():
    actor = make_actor()
    rollouts = play(actor, 4)
    kept = copy.deepcopy(rollouts)
    play(actor, 3, begin=4)
    actor.close()
    assert_same(rollouts, kept)
    for one in jax.tree.leaves(rollouts[0]):
        assert not any(np.shares_memory(one, other) for other in jax.tree.leaves(rollouts[1]))


def test_the_recurrent_carry_sees_where_games_begin():
    actor = make_actor(envs=3, shards=1, steps=40)
    (rollout,) = play(actor, 1)
    actor.close()
    np.testing.assert_array_equal(rollout.extras["age"], rollout.observation[..., 2])


def test_exploration_counts_frames():
    seen = []

    def exploration(frames):
        seen.append(frames)
        return 1.0 / (1.0 + frames)

    recipe = atari.Atari(game="pong", threads=1)
    actor = make_actor(recipe, envs=2, shards=1, steps=3, exploration=exploration)
    rollouts = play(actor, 3, begin=10)
    actor.close()
    assert actor.examples_per_step == 2 * 3 * 4
    assert seen == [240.0, 264.0, 288.0]
    np.testing.assert_allclose(rollouts[1].extras["epsilon"], 1 / 265, rtol=1e-6)
    assert actor.metrics()["train/epsilon"] == pytest.approx(1 / 289)


def test_metrics_are_of_the_batches_taken_and_count_whole_games():
    actor = make_actor(envs=2, shards=1, steps=50)
    assert actor.metrics() == {}
    (rollout,) = play(actor, 1)
    metrics = actor.metrics()
    actor.close()
    scores, lengths = [], []
    for env in range(2):
        game = rollout.observation[0, :, env, 1]
        for number in range(1, game.max() + 1):
            rows = (game == number) & rollout.valid[0, :, env]
            if number < game.max() or not rollout.valid[0, -1, env]:
                scores.append(rollout.reward[0, rows, env].sum())
                lengths.append(rows.sum())
    assert metrics["train/episodes"] == len(scores)
    assert metrics["train/episode_return"] == pytest.approx(np.mean(scores))
    assert metrics["train/episode_frames"] == pytest.approx(np.mean(lengths))
    assert metrics["time/act_seconds"] > 0 and metrics["time/environment_seconds"] > 0
    assert actor.metrics() == {}


def test_same_seed_same_rollouts_and_lag_changes_nothing_for_a_fixed_view():
    one, other, ahead = make_actor(seed=3), make_actor(seed=4), make_actor(seed=3)
    expected = play(one, 4)
    for k in range(4):
        ahead.start(k, lambda: VIEW)
    assert_same(expected, [ahead.next() for _ in range(4)])
    assert any((a.action != b.action).any() for a, b in zip(expected, play(other, 4), strict=True))
    for actor in (one, other, ahead):
        actor.close()


@pytest.mark.parametrize(
    "recipe, envs",
    [(toys.Counter(period=7), 6), (atari.Atari(game="breakout", sticky=0.25, max_frames=60, noop_max=9, threads=1), 2)],
    ids=["toy", "breakout"],
)
def test_going_on_from_a_state_is_bitwise(recipe, envs):
    never_stopped = make_actor(recipe, envs=envs)
    expected = play(never_stopped, 7)
    first = make_actor(recipe, envs=envs)
    play(first, 3)
    state = copy.deepcopy(first.state_dict())
    resumed = make_actor(recipe, envs=envs)
    resumed.load_state_dict(state)
    assert_same(expected[3:], play(resumed, 4, begin=3))
    now, then = resumed.metrics(), never_stopped.metrics()
    assert now.keys() == then.keys()
    assert all(now[name] == then[name] for name in now if not name.startswith("time/"))
    for actor in (never_stopped, first, resumed):
        actor.close()


@pytest.mark.parametrize("seed", [None, 1])
def test_games_restart_with_other_seeds_where_they_cannot_go_on(seed, capsys):
    first, other = make_actor(steps=20), make_actor(steps=20)
    (before,) = play(first, 1)
    state = first.state_dict()
    if seed is not None:
        state["games"]["seed"] = seed
    distributed.say.cache_clear()
    other.load_state_dict({} if seed is None else state)
    (after,) = play(other, 1, begin=9)
    told = capsys.readouterr().out
    assert "the games in flight restart: the checkpoint has none that go on here" in told
    assert ("do not come to the saved screens" in told) == (seed is not None)
    assert after.first[:, 0].all() and not after.context.any()
    assert (before.tail != after.tail).any()
    for actor in (first, other):
        actor.close()


def test_state_is_refused_while_a_batch_is_on_its_way():
    actor = make_actor()
    actor.start(0, lambda: VIEW)
    with pytest.raises(RuntimeError, match="take them with next"):
        actor.state_dict()
    actor.close()


def test_a_failure_in_the_thread_surfaces_with_its_traceback():
    actor = make_actor()
    actor.attach(toys.RandomAgent(actions=9))  # three exist
    actor.start(0, lambda: VIEW)
    with pytest.raises(ValueError, match=r"must lie in 0\.\.2") as caught:
        actor.next()
    assert "check_actions" in "".join(traceback.format_tb(caught.tb))
    actor.close()


def test_close_ends_the_thread_in_the_middle_of_a_batch():
    others = set(threading.enumerate())  # of tests before
    actor = make_actor(steps=50_000)
    actor.start(0, lambda: VIEW)
    actor.start(1, lambda: VIEW)
    actor.close()
    assert not any(thread.name == "actor" for thread in set(threading.enumerate()) - others)
    with pytest.raises(RuntimeError, match="closed"):
        actor.start(2, lambda: VIEW)
    actor.close()


def test_a_game_that_never_returns_does_not_hold_up_the_end(monkeypatch):
    actor = make_actor()
    entered, release = threading.Event(), threading.Event()
    monkeypatch.setattr(actor._games, "step", lambda action: (entered.set(), release.wait(60)))
    close = actor._worker.close
    monkeypatch.setattr(actor._worker, "close", lambda timeout: close(0.05))
    actor.start(0, lambda: VIEW)
    assert entered.wait(60)
    with pytest.warns(RuntimeWarning, match="left alone"):
        actor.close()
    release.set()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"envs": 7}, r"envs=7: not a multiple of 2 shards; try envs=8"),
        ({"steps": 0}, r"steps=0: must be at least 1"),
        ({"seed": -1}, r"seed=-1: must lie in 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_actor(**changes)


def test_order_of_calls_is_told():
    actor = acting.Actor(environments=toys.Counter(), envs=1, steps=1, shards=1, exploration=lambda frames: 0.0, seed=0)
    with pytest.raises(RuntimeError, match="attach"):
        actor.start(0, lambda: VIEW)
    with pytest.raises(RuntimeError, match="start"):
        actor.next()
    actor.close()


def test_breakout_rollouts_rebuild_stacks_and_count_the_score_of_all_lives():
    recipe = atari.Atari(game="breakout", max_frames=1200, noop_max=5)
    actor = make_actor(recipe, envs=4, shards=2, steps=50)
    rollouts = play(actor, 12)
    metrics = actor.metrics()
    actor.close()
    for rollout in rollouts:
        frames = np.concatenate([rollout.context, rollout.observation], axis=1)
        flat = frames.reshape(*frames.shape[:3], -1)
        seen = rollout.extras["stack"].reshape(*rollout.first.shape, 4, -1)
        np.testing.assert_array_equal(stacks(flat, rollout.first, 4), seen)
    valid, terminal = joined(rollouts, "valid"), joined(rollouts, "terminal")
    first, reward = joined(rollouts, "first"), joined(rollouts, "reward")
    games = (~valid[:, :-1]).sum()
    assert metrics["train/episodes"] >= games >= 4
    assert terminal.sum() > 3 * games, "every lost life is terminal"
    np.testing.assert_array_equal(first[:, 1:], ~valid[:, :-1])
    unfinished = sum(
        reward[s, np.flatnonzero(first[s, :, n])[-1] :, n].sum() for s in range(2) for n in range(2) if valid[s, -1, n]
    )
    assert metrics["train/episode_return"] * metrics["train/episodes"] == pytest.approx(reward.sum() - unfinished)


def test_tabular_values_are_optimal():
    recipe = toys.Tabular()
    values = recipe.optimal(0.9)
    np.testing.assert_allclose(values[:, 0], [0.729, 0.81, 0.9, 1.0], atol=1e-9)  # straight to the end
    best = values.max(axis=1)
    for state, (following, reward) in enumerate(zip(recipe.following, recipe.reward, strict=True)):
        for action in range(recipe.actions):
            later = following[action]
            assert values[state, action] == pytest.approx(reward[action] + (0.9 * best[later] if later >= 0 else 0))


def test_rollout_is_the_shared_type():
    actor = make_actor()
    (rollout,) = play(actor, 1)
    actor.close()
    assert isinstance(rollout, types.Rollout)
    assert {field.name for field in dataclasses.fields(rollout)} == {
        field.name for field in dataclasses.fields(types.Rollout)
    }
