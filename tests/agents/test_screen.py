"""The coloured game must be the very game that the policy was trained on: compared with the vector environment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import atari, evaluation, screen


class Looker:
    """Acts on what it sees (a hash of the newest frame), and at random with ε."""

    def carry(self, envs: int):
        return ()

    def act(self, view, carry, observation, first, key, epsilon):
        seen = observation.astype(jnp.int32).sum(axis=tuple(range(1, observation.ndim))) % view["actions"]
        random = jax.random.randint(key, seen.shape, 0, view["actions"])
        return jnp.where(jax.random.uniform(key, seen.shape) < epsilon, random, seen), (), ()


LOOKER = Looker()
RECIPES = {
    "pong": atari.Atari(game="pong"),
    "fire and lives": atari.Atari(game="breakout"),
    "sticky": atari.Atari(game="seaquest", sticky=0.25),
    "no no-ops, no fire": atari.Atari(game="space_invaders", noop_max=0, fire_reset=False),
    "colour, 18 actions": atari.Atari(game="ms_pacman", color="rgb", full_actions=True, stack=2),
    "other size and skip": atari.Atari(game="freeway", size=(60, 96), frame_skip=3),
    "every frame, whole screen": atari.Atari(game="pong", size=(210, 160), frame_skip=1),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("seed", [0, 7])
def test_the_policy_sees_what_it_sees_in_training(recipe, seed):
    games, alone = recipe.make(1), screen.Screen(recipe, seed=seed)
    np.testing.assert_array_equal(alone.reset(), games.reset(seed)[0])
    random = np.random.default_rng(seed)
    for _ in range(80):
        action = int(random.integers(games.actions))
        expected, seen = games.step(np.array([action], np.int32)), alone.step(action)
        np.testing.assert_array_equal(seen.observation, expected.observation[0])  # equal, not merely close
        assert (seen.reward, seen.over) == (expected.reward[0], expected.over[0])
        assert 1 <= len(seen.pictures) <= recipe.frame_skip
        assert seen.pictures[0].shape == (210, 160, 3)
        if seen.over:
            break
    games.close()


def test_whole_factors_differ_by_one_level_at_most():
    recipe = atari.Atari(game="ms_pacman", size=(105, 80))
    games, alone = recipe.make(1), screen.Screen(recipe, seed=1)
    difference = alone.reset().astype(int) - games.reset(1)[0]
    assert np.abs(difference).max() <= 1
    games.close()


@pytest.mark.parametrize("recipe", [RECIPES["fire and lives"], RECIPES["sticky"]])
def test_a_recorded_game_is_an_evaluated_game(recipe):
    view = {"actions": jnp.int32(recipe.make(1).actions)}
    play = screen.record(LOOKER, view, recipe, epsilon=0.5, seed=3, max_seconds=300.0, frames_per_second=15)
    scores = evaluation.evaluate(LOOKER, view, environments=recipe, episodes=1, envs=1, epsilon=0.5, seed=3)
    assert play.over
    assert play.score == scores.returns[0]
    assert 0 <= scores.frames[0] - play.frames < 4  # an evaluation counts the last step whole
    assert len(play.video.frames) == play.frames // 4


def test_the_frame_cap_ends_a_game():
    recipe = atari.Atari(game="pong", max_frames=43)  # met within the eleventh step, which is played out
    play = screen.record(LOOKER, {"actions": jnp.int32(6)}, recipe, epsilon=0.1, seed=0)
    assert play.over and play.frames == 44


@pytest.mark.parametrize("rate", [60, 30, 15])
def test_film_runs_at_real_speed_in_the_games_own_colours(rate):
    view, recipe = {"actions": jnp.int32(6)}, RECIPES["pong"]
    play = screen.record(LOOKER, view, recipe, epsilon=0.1, seed=0, max_seconds=3.0, frames_per_second=rate)
    assert play.video.frames.shape == (3 * rate, 210, 160, 3) and play.video.frames.dtype == np.uint8
    assert play.video.frames_per_second == rate and not play.over
    colours = {tuple(colour) for colour in play.video.frames[-1].reshape(-1, 3)}
    assert {(213, 130, 74), (92, 186, 92)} <= colours  # the two paddles


def test_objects_drawn_on_every_other_frame_stay_visible():
    pictures = [np.zeros((210, 160, 3), np.uint8) for _ in range(8)]
    for lit in pictures[::2]:
        lit[5, 5] = 255
    film = screen._Film(every=4)
    film.add(pictures)
    assert (film.frames()[:, 5, 5] == 255).all() and len(film.frames()) == 2


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="frames_per_second=25"):
        screen.record(LOOKER, {}, RECIPES["pong"], epsilon=0.0, seed=0, frames_per_second=25)
    with pytest.raises(ValueError, match="max_seconds=0"):
        screen.record(LOOKER, {}, RECIPES["pong"], epsilon=0.0, seed=0, max_seconds=0)
    with pytest.raises(ValueError, match=r"size=\(300, 84\)"):
        screen.shrink(np.zeros((210, 160), np.uint8), (300, 84))
