"""Most tests play a scripted game, whose every length and reward is known."""

import dataclasses
import json
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import atari, environments, evaluation
from core import stopping


@dataclasses.dataclass(frozen=True)
class Script:
    """Environment e plays games of `lengths[e]` steps, over and over; each step is worth 1, a reset step 1000."""

    lengths: tuple[int, ...]
    game: str | None = None
    max_frames: int = 10**6  # a game is cut there, by steps of 4
    made: list = dataclasses.field(default_factory=list)

    def make(self, count: int) -> "Scripted":
        self.made.append(Scripted(self, count))
        return self.made[-1]


class Scripted:
    actions, stack, frame, dtype, frames_per_step, period = 3, 1, (2,), np.dtype(np.float32), 4, 1_000

    def __init__(self, script: Script, count: int):
        self.count, self.script, self.closed = count, script, False
        self.lengths = np.array(script.lengths[:count])
        self.actions_seen: list[np.ndarray] = []

    def _observation(self) -> np.ndarray:
        return np.stack([self.time, self.time], axis=-1)[:, None].astype(np.float32)

    def reset(self, seed: int) -> np.ndarray:
        self.seed, self.time, self.over = seed, np.zeros(self.count, int), np.zeros(self.count, bool)
        return self._observation()

    def step(self, action: np.ndarray) -> environments.Step:
        self.actions_seen.append(action)
        opens = self.over
        self.time = np.where(opens, 0, self.time + 1)
        cut = (4 * self.time >= self.script.max_frames) & ~opens
        self.over = (self.time >= self.lengths) | cut
        reward = np.where(opens, 1000, 1).astype(np.float32)
        lost_life = self.time % 2 == 1  # every other step is an end for the learner, and none for the score
        return environments.Step(self._observation(), reward, (self.over & ~cut) | lost_life, cut, self.over)

    def protocol(self) -> dict[str, Any]:
        return {"game": self.script.game, "frame_cap": self.script.max_frames}

    def reseed(self, mask, seeds):
        raise NotImplementedError("an evaluation goes on nowhere")

    def close(self):
        self.closed = True


class Agent:
    """Counts, in its carry, the steps since each game's first observation, and reports them as its action."""

    def carry(self, envs: int):
        return jnp.zeros(envs, jnp.int32)

    def act(self, view, carry, observation, first, key, epsilon):
        carry = jnp.where(first, 0, carry + 1)
        random = jax.random.randint(key, carry.shape, 100, 200)
        explore = jax.random.uniform(jax.random.fold_in(key, 1), carry.shape) < epsilon
        return jnp.where(explore, random, carry + view["offset"]), carry, ()

    def view(self, state):
        return state


AGENT, VIEW = Agent(), {"offset": jnp.int32(0)}


def play(script: Script, *, episodes: int, envs: int, epsilon: float = 0.0, seed: int = 3) -> evaluation.Scores:
    return evaluation.evaluate(
        AGENT, VIEW, environments=script, episodes=episodes, envs=envs, epsilon=epsilon, seed=seed
    )


def test_long_games_count_as_often_as_short_ones():
    scores = play(Script((2, 50)), episodes=6, envs=2)  # the first six to finish would all be games of two
    np.testing.assert_array_equal(scores.returns, [2, 2, 2, 50, 50, 50])
    np.testing.assert_array_equal(scores.frames, [8, 8, 8, 200, 200, 200])
    assert scores.mean == scores.median == 26


def test_what_does_not_divide_goes_to_the_first_environments():
    np.testing.assert_array_equal(play(Script((1, 2, 3)), episodes=5, envs=3).returns, [1, 1, 2, 2, 3])


def test_no_more_environments_than_episodes():
    script = Script((5, 7, 9, 11))
    np.testing.assert_array_equal(play(script, episodes=2, envs=4).returns, [5, 7])
    assert script.made[0].count == 2 and script.made[0].closed


def test_the_agent_learns_of_a_new_game_when_it_begins():
    script = Script((3,))
    play(script, episodes=2, envs=1)
    # Steps 0 1 2 end game one; 3 is the action that a reset ignores; then `first` starts the count again.
    assert [int(action[0]) for action in script.made[0].actions_seen] == [0, 1, 2, 3, 0, 1, 2]


def test_a_game_cut_by_the_cap_is_counted_and_marked():
    scores = play(Script((3, 50), max_frames=40), episodes=2, envs=2)
    np.testing.assert_array_equal(scores.returns, [3, 10])
    np.testing.assert_array_equal(scores.truncated, [False, True])
    assert scores.protocol["frame_cap"] == 40


def test_epsilon_1_is_random_play_on_the_same_games():
    script = Script((20,))
    play(script, episodes=1, envs=1, epsilon=1.0, seed=9)
    play(script, episodes=1, envs=1, epsilon=0.0, seed=9)
    random, greedy = script.made
    assert min(action[0] for action in random.actions_seen) >= 100
    assert max(action[0] for action in greedy.actions_seen) < 100
    assert random.seed == greedy.seed == 9
    assert len({int(action[0]) for action in random.actions_seen}) > 5  # a key of its own for every step


def test_statistics_agree_with_hand_computed_ones():
    scores = play(Script((1, 2, 6), game="pong"), episodes=3, envs=3)
    assert scores.mean == 3 and scores.median == 2
    assert scores.standard_error == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))
    assert scores.human_normalised == pytest.approx((3 + 20.7) / (14.6 + 20.7))


def test_summary_is_plain_json_with_its_protocol():
    summary = evaluation.summary(play(Script((4, 6), game="pong"), episodes=2, envs=2, epsilon=0.25))
    again = json.loads(json.dumps(summary, allow_nan=False))
    assert again == summary
    assert (again["mean"], again["minimum"], again["maximum"], again["returns"]) == (5, 4, 6, [4, 6])
    expected = {"game": "pong", "frame_cap": 10**6, "epsilon": 0.25, "episodes": 2, "envs": 2, "frames_per_step": 4}
    assert expected.items() <= again["protocol"].items()
    assert again["protocol"]["seed"] == 3 and "all lives" in again["protocol"]["score"]


def test_one_game_has_no_standard_error():
    scores = play(Script((4,)), episodes=1, envs=1)
    assert math.isnan(scores.standard_error)
    assert evaluation.summary(scores)["standard_error"] is None
    assert "eval/episode_return_stderr" not in evaluation.report(scores).scalars


def test_table_shows_agents_and_their_protocol_once():
    script = Script((4, 6), game="pong")
    agents = {"trained": play(script, episodes=2, envs=2), "random": play(script, episodes=2, envs=2, epsilon=1.0)}
    lines = evaluation.table(agents).splitlines()
    assert lines[1].split()[:3] == ["trained", "5.00", "1.00"]
    assert sum("frame_cap" in line for line in lines) == 1
    assert lines[-2:] == ["trained: epsilon 0.0", "random: epsilon 1.0"]


def test_separation_is_in_standard_errors():
    better, worse = play(Script((10, 14)), episodes=2, envs=2), play(Script((2, 6)), episodes=2, envs=2)
    assert evaluation.separation(better, worse) == pytest.approx(8 / math.sqrt(4 + 4))
    constant = play(Script((3, 3)), episodes=2, envs=2)
    assert evaluation.separation(constant, constant) == 0
    assert evaluation.separation(play(Script((4, 4)), episodes=2, envs=2), constant) == math.inf


def test_evaluation_reports_what_a_run_logs():
    script = Script((4, 6, 50), game="pong")
    judge = evaluation.Evaluation(environments=script, every=100, episodes=3, envs=3, epsilon=0.0, max_frames=32)
    report = judge(AGENT, VIEW, jax.random.key(5))
    assert set(report.scalars) == {
        "eval/episode_return",
        "eval/episode_return_median",
        "eval/episode_return_stderr",
        "eval/human_normalised",
        "eval/episode_frames",
    }
    assert report.scalars["eval/episode_return"] == 6  # 50 was cut at 8 steps
    np.testing.assert_array_equal(report.arrays["eval/episode_returns"], [4, 6, 8])
    again = judge(AGENT, VIEW, jax.random.key(5))
    assert again.scalars == report.scalars


def test_a_game_without_end_hears_a_stop_and_is_closed():
    script, heard = Script((10**9,)), []

    def stop() -> None:
        heard.append(time.monotonic())
        if len(heard) == 3:
            raise stopping.Stopped

    judge = evaluation.Evaluation(environments=script, episodes=1, envs=1)
    with pytest.raises(stopping.Stopped):
        judge(AGENT, VIEW, jax.random.key(5), stop=stop)
    assert max(np.diff(heard)) < 2 and script.made[0].closed


def test_two_keys_play_different_games():
    script = Script((4,))
    judge = evaluation.Evaluation(environments=script, episodes=1, envs=1)
    for seed in (5, 5, 6):
        judge(AGENT, VIEW, jax.random.key(seed))
    first, same, other = (games.seed for games in script.made)
    assert first == same != other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"episodes": 0}, "episodes=0"),
        ({"envs": 0}, "envs=0"),
        ({"epsilon": 1.5}, "epsilon=1.5"),
        ({"every": 0}, "every=0"),
    ],
)
def test_impossible_values_are_refused_by_name(change, words):
    with pytest.raises(ValueError, match=words):
        evaluation.Evaluation(environments=Script((1,)), **change)


def test_environments_are_closed_when_an_agent_fails():
    script = Script((4,))
    with pytest.raises(KeyError):
        evaluation.evaluate(AGENT, {}, environments=script, episodes=1, envs=1, epsilon=0.0, seed=0)
    assert script.made[0].closed


class Uniform:
    def carry(self, envs: int):
        return ()

    def act(self, view, carry, observation, first, key, epsilon):
        return jax.random.randint(key, observation.shape[:1], 0, view["actions"]), (), ()


UNIFORM = Uniform()


def test_random_play_of_pong_is_near_what_was_published():
    recipe = atari.Atari(game="pong", max_frames=6_000)
    scores = evaluation.evaluate(
        UNIFORM, {"actions": jnp.int32(6)}, environments=recipe, episodes=2, envs=2, epsilon=1.0, seed=0
    )
    assert -21 <= scores.mean <= -19  # published -20.7; 20 games here gave -19.9 ± 0.3
    assert abs(scores.human_normalised or 1.0) < 0.05
    assert (scores.protocol["noops"], scores.protocol["sticky"]) == ("0..29", 0.0)
    assert not scores.truncated.any() and (scores.frames > 2_000).all()


def test_a_score_is_over_all_lives():
    recipe = atari.Atari(game="breakout", life_terminal=True)
    scores = [
        evaluation.evaluate(
            UNIFORM, {"actions": jnp.int32(4)}, environments=each, episodes=2, envs=2, epsilon=1.0, seed=0
        )
        for each in (recipe, dataclasses.replace(recipe, life_terminal=False))
    ]
    np.testing.assert_array_equal(scores[0].returns, scores[1].returns)
    np.testing.assert_array_equal(scores[0].frames, scores[1].frames)
    assert (scores[0].frames > 4 * 60).all()  # five lives last longer than one
