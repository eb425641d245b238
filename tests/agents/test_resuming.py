import os
import pathlib
import signal
import time

import numpy as np
import pytest

from agents import atari, gym, resuming
from core import distributed, stopping
from core.checkpoints import tree_files
from tests import toys


def make(recipe, count: int, period: int) -> resuming.Resumable:
    games = recipe.make(count)
    games.period = period
    return resuming.Resumable(games)


def saved(games: resuming.Resumable, folder: pathlib.Path):
    tree_files.save(folder / "games.npz", games.state_dict())
    return tree_files.load(folder / "games.npz")


@pytest.mark.parametrize(
    "recipe, period, steps",
    [
        (atari.Atari(game="pong", max_frames=100, threads=1), 1_000, 60),
        (atari.Atari(game="breakout", sticky=0.25, threads=1), 40, 160),
        (gym.Gymnasium(), 50, 400),
        (toys.Counter(), 30, 200),
    ],
    ids=["pong", "breakout", "cartpole", "counter"],
)
def test_games_go_on_bitwise_where_a_saved_state_left_them(recipe, period, steps, tmp_path: pathlib.Path):
    never_stopped, resumed = make(recipe, 2, period), make(recipe, 2, period)
    actions = np.random.default_rng(1).integers(0, 2, (2 * steps, 2))
    never_stopped.reset(5)
    before = [never_stopped.step(action) for action in actions[:steps]]
    tree = saved(never_stopped, tmp_path)
    assert sum(step.over.sum() for step in before) >= 2, "games must have ended"
    assert (tree["begun"] > 0).all() == (period < steps), "and others have been seeded anew where a period is over"
    assert resumed.load_state_dict(tree, before[-1].observation)
    for action in actions[steps : steps + 60]:
        one, other = never_stopped.step(action), resumed.step(action)
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)
    state, again = never_stopped.state_dict(), resumed.state_dict()
    for name, value in state.items():
        np.testing.assert_array_equal(value, again[name])
    for games in (never_stopped, resumed):
        games._games.close()


def test_what_is_written_down_reaches_back_one_period_and_a_game_at_most():
    games, period, longest = make(toys.Counter(longest=9), 4, 50), 50, 9
    games.reset(0)
    lengths, over = [], np.zeros(4, bool)
    for step in range(1, 400):
        taken = games.step(np.zeros(4, np.int64))
        frames = taken.observation
        # A seeded game begins where an automatic reset would have: its last one keeps its last frame.
        np.testing.assert_array_equal(frames[:, -1, 2] == 1, over)
        assert not frames[over, :-1].any() and not taken.reward[over].any()
        over = taken.over
        state = games.state_dict()
        assert state["actions"].dtype == np.uint8 and len(state["actions"]) == step - state["begun"].min()
        # Once all have begun anew in this period: at most `longest + 1` steps into it.
        assert (state["begun"] // period == step // period).all() or step % period <= longest + 1
        lengths.append(len(state["actions"]))
    assert max(lengths) <= period + longest + 1
    assert len(set(games._seeds())) == 4


@pytest.mark.parametrize("count, changed", [(2, {}), (3, {"environment": "old 1.0"}), (3, {"seed": 6})])
def test_games_that_come_to_another_place_are_told_and_not_gone_on_with(count, changed, capsys):
    games, other = make(toys.Counter(), 3, 50), make(toys.Counter(), count, 50)
    games.reset(5)
    step = [games.step(np.zeros(3, np.int64)) for _ in range(40)][-1]
    tree = games.state_dict() | changed
    distributed.say.cache_clear()
    screen = step.observation + ("environment" in changed)
    assert not other.load_state_dict(tree, screen)
    told = capsys.readouterr().out
    assert ("3 games were saved, and there are 2 now" if count == 2 else "do not come to the saved screens") in told
    assert ("they were of old 1.0, and this is toy" in told) == ("environment" in changed)


def test_it_says_how_long_it_plays_and_a_signal_ends_it_at_once(capsys, monkeypatch):
    games, other = make(toys.Counter(), 3, 1_000), make(toys.Counter(), 3, 1_000)
    games.reset(5)
    step = [games.step(np.zeros(3, np.int64)) for _ in range(40)][-1]
    monkeypatch.setattr(resuming, "ROUND", 0.02)
    play, played = other._games.step, []

    def slowly(action):
        played.append(action)
        time.sleep(0.005)
        if len(played) == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return play(action)

    monkeypatch.setattr(other._games, "step", slowly)
    with stopping.Stop(), pytest.raises(SystemExit) as end:
        other.load_state_dict(games.state_dict(), step.observation)
    assert end.value.code == 75 and len(played) == 20
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "the games in flight are played again up to the checkpoint: 120 frames, about 1 s"
    assert "/120 frames" in told[-1]
