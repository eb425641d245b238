"""Each way of ale-py 0.12 that silently costs score is a test here."""

import contextlib
import itertools

import ale_py
import gymnasium
import numpy as np
import pytest
from ale_py import roms, vector_env
from gymnasium import vector

from agents import atari


def make(game="breakout", count=1, *, seed=0, **options):
    games = atari.Atari(game=game, **options).make(count)
    return games, games.reset(seed)


def play(games, steps, *, action=None, seed=0):
    """`steps` random (or given) actions; a list of Steps."""
    random = np.random.default_rng(seed)
    return [
        games.step(random.integers(0, games.actions, games.count) if action is None else np.full(games.count, action))
        for _ in range(steps)
    ]


def play_to_the_end(games, limit=3000, **options):
    steps = []
    while not (steps and steps[-1].over.any()) and len(steps) < limit:
        steps += play(games, 1, seed=len(steps), **options)
    assert steps[-1].over.any()
    return steps


def test_games_for_one_player_are_known():
    assert len(atari.games()) == len(roms.get_all_rom_ids()) - len(atari.TWO_PLAYERS) > 100
    assert {"pong", "breakout", "ms_pacman", "space_invaders"} < set(atari.games())


@pytest.mark.parametrize(
    "names", [atari.games()[::25], pytest.param(atari.games(), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_every_game_can_be_played(names):
    for name in names:
        games, observation = make(name, threads=1)
        step = games.step(np.zeros(1, np.int32))
        assert observation.shape == step.observation.shape == (1, 4, 84, 84), name
        assert not step.over.any(), name
        games.close()


def test_lives_run_down_and_the_game_goes_on():
    games, _ = make("breakout")
    lives, terminal, over, blank = [int(games.lives[0])], [], [], []
    while not (over and over[-1]):
        (step,) = play(games, 1, seed=len(over))
        lives.append(int(games.lives[0]))
        terminal.append(bool(step.terminal[0]))
        over.append(bool(step.over[0]))
        blank.append(not step.observation[0, 0].any())
    assert [number for number, _ in itertools.groupby(lives)] == [5, 4, 3, 2, 1, 0]
    assert terminal == [now < before for before, now in itertools.pairwise(lives)]
    assert over == [False] * (len(over) - 1) + [True]
    assert not any(blank[3:]), "no reset hides behind a lost life"
    (step,) = play(games, 1)
    assert games.lives[0] == 5 and not step.terminal[0], "lives that come back with a new game are no loss"


def test_lost_lives_can_be_left_to_the_game():
    games, _ = make("breakout", life_terminal=False)
    steps = play_to_the_end(games)
    assert [bool(step.terminal[0]) for step in steps] == [False] * (len(steps) - 1) + [True]


def test_games_without_lives_end_with_the_game():
    games, _ = make("pong")
    steps = play_to_the_end(games, action=0)
    assert games.lives[0] == 0 and steps[-1].terminal[0] and not steps[-1].truncated[0]
    assert sum(step.terminal[0] for step in steps) == 1
    assert sum(step.reward[0] for step in steps) == -21


def test_a_counter_at_zero_is_not_yet_the_end():
    """In Q*bert the counter shows 0 for some frames before the game is over: those are real steps."""
    games, _ = make("qbert")
    steps, lives = [], []
    while not (steps and steps[-1].over[0]):
        steps += play(games, 1, seed=len(steps))
        lives.append(int(games.lives[0]))
    lost = [now < before for before, now in zip([4, *lives], lives, strict=False)]
    assert [bool(step.terminal[0]) for step in steps] == [
        a or bool(b.over[0]) for a, b in zip(lost, steps, strict=True)
    ]
    assert all(step.observation[0].any(axis=(1, 2)).all() for step in steps[3:])


def test_rewards_are_raw():
    games, _ = make("ms_pacman", count=2)
    rewards = np.stack([step.reward for step in play(games, 100)])
    assert rewards.dtype == np.float32
    assert rewards.max() >= 10


def test_sticky_actions_are_off_unless_asked_for():
    (plain, _), (again, _), (sticky, _) = make("breakout"), make("breakout"), make("breakout", sticky=0.5)
    one, two, three = (np.stack([step.observation for step in play(games, 60)]) for games in (plain, again, sticky))
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()
    assert plain.protocol()["sticky"] == 0.0 and sticky.protocol()["sticky"] == 0.5


def test_games_open_with_no_ops():
    games, varied = make("seaquest", count=3)
    assert len({frame.tobytes() for frame in varied[:, -1]}) > 1
    assert games.protocol()["noops"] == "0..29"
    games, alike = make("seaquest", count=3, noop_max=0)
    assert len({frame.tobytes() for frame in alike[:, -1]}) == 1
    assert games.protocol()["noops"] == "0..0"


def test_fire_reset_serves_the_ball():
    moving = []
    for fire in (True, False):
        games, _ = make("breakout", fire_reset=fire, noop_max=0)
        steps = play(games, 60, action=0)
        moving.append(any(step.terminal[0] for step in steps))
    assert moving == [True, False]


def test_a_new_game_has_a_blank_history():
    games, observation = make("breakout", count=2)
    assert not observation[:, :3].any() and observation[:, 3].any()
    play_to_the_end(games)
    over = games._over.copy()
    (step,) = play(games, 1)
    assert not step.observation[over, :3].any() and step.observation[over, 3].any()
    assert step.observation[~over].any(axis=(2, 3)).all()


def test_the_step_after_an_end_ignores_its_action():
    outcomes = []
    for action in (0, 3):
        games, _ = make("breakout", noop_max=0)
        steps = play_to_the_end(games)
        after = games.step(np.full(1, action))
        assert steps[-1].over[0] and after.reward[0] == 0
        assert not (after.terminal[0] or after.truncated[0] or after.over[0])
        outcomes.append(after.observation)
    np.testing.assert_array_equal(*outcomes)


def test_the_frame_cap_counts_whole_steps_without_no_ops():
    games, _ = make("breakout", count=2, max_frames=40)
    steps = play(games, 23)
    cut = np.stack([step.truncated for step in steps])
    # Steps 10 and 21: a game, its reset step, a game.
    np.testing.assert_array_equal(cut, np.repeat([[step in (9, 20)] for step in range(23)], 2, axis=1))
    np.testing.assert_array_equal(cut, np.stack([step.over for step in steps]))
    assert not np.stack([step.terminal for step in steps]).any(), "a truncation is no terminal"
    assert make(max_frames=42)[0].protocol()["frame_cap"] == 42


def test_fewer_lives_in_the_next_game_are_no_loss():
    games, _ = make("breakout", max_frames=40)
    play(games, 10)
    games._lives = games._lives + 3  # as after games that give lives away
    (step,) = play(games, 1)
    assert games.lives[0] == 5 and not step.terminal[0]


def test_the_step_after_a_cut_earns_nothing(monkeypatch):
    games, _ = make("breakout", count=2, max_frames=40)
    emulate = games._games.step

    def generous(action):
        observation, reward, *rest = emulate(action)
        return observation, reward + 5, *rest

    monkeypatch.setattr(games._games, "step", generous)
    rewards = np.stack([step.reward for step in play(games, 12)])
    np.testing.assert_array_equal(rewards, [[5, 5]] * 10 + [[0, 0], [5, 5]])


def test_a_life_lost_on_the_last_step_before_the_cap_is_terminal():
    games, _ = make("breakout", max_frames=40)
    play(games, 9)
    games._lives = games._lives + 1
    (step,) = play(games, 1)
    assert step.terminal[0] and step.over[0] and not step.truncated[0]


def test_a_truncation_keeps_the_true_last_frame():
    capped, _ = make("breakout", count=3, max_frames=40)
    free, _ = make("breakout", count=3)
    last, true = play(capped, 10)[-1], play(free, 10)[-1]
    assert last.truncated.all() and not true.over.any()
    np.testing.assert_array_equal(last.observation, true.observation)


def test_ale_py_itself_blurs_the_last_frame():
    """Why the cap is ours. Once this fails, ale-py's own cap will do, and `AtariEnvironments.step` becomes shorter."""
    pictures = []
    for cap in (40, 10_000):
        games = vector_env.AtariVectorEnv("breakout", 1, max_num_frames_per_episode=cap)
        games.reset(seed=0)
        random = np.random.default_rng(0)
        for _ in range(10):
            observation, *_ = games.step(random.integers(0, 4, 1))
        pictures.append(observation)
    assert (pictures[0] != pictures[1]).any()


def test_ale_py_itself_tells_lives_of_the_next_game_with_the_last_state():
    """Why resets take a step of their own: with SAME_STEP the lives that ended a game are never seen."""
    same, following = (
        vector_env.AtariVectorEnv("breakout", 1, autoreset_mode=mode)
        for mode in (vector.AutoresetMode.SAME_STEP, vector.AutoresetMode.NEXT_STEP)
    )
    for games in (same, following):
        games.reset(seed=0)
    random, over, lives = np.random.default_rng(0), [False], [5]
    while not over[0]:
        action = random.integers(0, 4, 1)
        _, _, _, _, told = same.step(action)
        last, _, over, _, info = following.step(action)
        lives.append(int(told["lives"][0]))
    np.testing.assert_array_equal(told["final_obs"], last)
    assert info["lives"][0] == 0 and info["episode_frame_number"][0] > 100
    assert told["lives"][0] == 5 and told["episode_frame_number"][0] < 100
    assert 0 not in lives


def test_ale_py_itself_offers_its_xla_functions_with_next_step_alone():
    """Why playing within the jitted step would have to keep to NEXT_STEP, too."""
    games = vector_env.AtariVectorEnv("pong", 1, autoreset_mode=vector.AutoresetMode.SAME_STEP)
    with pytest.raises(AssertionError):
        games.xla()
    games = vector_env.AtariVectorEnv("pong", 1, autoreset_mode=vector.AutoresetMode.NEXT_STEP)
    with contextlib.suppress(gymnasium.error.DependencyNotInstalled):  # chex, which comes with ale_py[xla]
        assert len(games.xla()) == 3


def test_one_game_is_cut_while_the_others_go_on():
    # 11 steps in, the lost ball of one game has nothing to do with the cap of another.
    games, _ = make("breakout", count=2, max_frames=400)
    free, _ = make("breakout", count=2)
    random, ends = np.random.default_rng(0), np.zeros(2, int)
    fresh = np.ones(2, bool)  # still in step with the games without a cap
    for _ in range(160):
        action = random.integers(0, 4, 2)
        ours, theirs = games.step(action), free.step(action)
        np.testing.assert_array_equal(ours.observation[fresh], theirs.observation[fresh])
        np.testing.assert_array_equal(ours.reward[fresh], theirs.reward[fresh])
        ends += ours.truncated
        fresh &= ~ours.truncated
    assert (ends == 1).any()


def test_ended_and_cut_games_share_a_reset_step():
    """A game over and a cap in neighbouring games: each opens its next game once, after its own end."""
    games, _ = make("breakout", count=2, max_frames=600)
    over = np.zeros(2, bool)
    kinds = np.zeros(2, int)
    for number in range(400):
        (step,) = play(games, 1, seed=number)
        blank = ~step.observation[:, :3].any(axis=(1, 2, 3))
        np.testing.assert_array_equal(blank, over)
        assert not step.reward[over].any()
        np.testing.assert_array_equal(step.over, (step.terminal & (games.lives == 0)) | step.truncated)
        kinds += (step.terminal & step.over).sum(), step.truncated.sum()
        over = step.over
    assert kinds.all(), "both kinds of end must have been seen"


def test_frames_are_grey_then_the_maximum_of_two_then_area_resized():
    def area(rows, columns):  # [columns, rows]: the mean over each cell, cut pixels by their share
        edges = np.arange(columns + 1) * rows / columns
        low = np.maximum(edges[:-1, None], np.arange(rows))
        high = np.minimum(edges[1:, None], np.arange(1, rows + 1))
        return np.maximum(high - low, 0) * columns / rows

    raw = ale_py.ALEInterface()
    raw.setFloat("repeat_action_probability", 0.0)
    raw.setInt("random_seed", 7)
    raw.loadROM(str(roms.get_rom_path("space_invaders")))
    raw.reset_game()
    options = {"noop_max": 0, "fire_reset": False, "stack": 2, "seed": 7}
    full, _ = make("space_invaders", size=(210, 160), **options)
    small, _ = make("space_invaders", **options)
    for step in range(40):
        action = step % 6
        seen = []
        for _ in range(4):
            raw.act(raw.getMinimalActionSet()[action])
            seen.append(raw.getScreenGrayscale())
        expected = np.maximum(seen[-1], seen[-2])
        big, little = (
            full.step(np.full(1, action)).observation[0, -1],
            small.step(np.full(1, action)).observation[0, -1],
        )
        np.testing.assert_array_equal(big, expected)
        resized = area(210, 84) @ expected @ area(160, 84).T
        assert np.abs(resized - little).max() <= 1.0
        assert little.dtype == np.uint8


def test_options_reach_the_emulator():
    games, observation = make("pong", count=2, color="rgb", size=(60, 40), stack=3, full_actions=True, frame_skip=2)
    assert observation.shape == (2, 3, 60, 40, 3) and observation.dtype == games.dtype == np.uint8
    assert (games.stack, games.frame, games.frames_per_step, games.actions) == (3, (60, 40, 3), 2, 18)
    plain, _ = make("pong")
    assert (plain.stack, plain.frame, plain.frames_per_step, plain.actions) == (4, (84, 84), 4, 6)


def test_observations_are_never_written_to_again():
    games, first = make("breakout", count=4, max_frames=40)
    kept, copies = [first], [first.copy()]
    for step in play(games, 40):
        kept += step
        copies += [array.copy() for array in step]
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_reset_starts_all_games_anew():
    games, observation = make("breakout", count=3, seed=5, max_frames=40)
    play(games, 10)  # all are cut
    np.testing.assert_array_equal(games.reset(5), observation)
    steps = play(games, 10)
    assert not steps[0].over.any() and steps[-1].truncated.all()


def test_actions_out_of_range_are_refused():
    """ale-py would wait for ever."""
    games, _ = make("breakout", count=2)
    for action in ([0, 4], [-1, 0], [0]):
        with pytest.raises(ValueError, match=r"must"):
            games.step(np.array(action))
    games.step(np.zeros(2, np.int32))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"game": "pongg"}, r"^game=pongg: no such game; did you mean pong\?$"),
        ({"game": "MsPacman"}, r"did you mean ms_pacman\?$"),
        ({"game": "ALE/Breakout-v5"}, r"did you mean breakout\?$"),
        ({"game": "xxyyzz"}, r"no such game; agents.atari.games\(\) lists them"),
        ({"game": "combat"}, r"needs two players"),
        ({"frame_skip": 0}, r"^frame_skip=0: must lie in 1\.\.60; the usual value is 4$"),
        ({"stack": 0}, r"^stack=0"),
        ({"size": (84,)}, r"height, width"),
        ({"size": (0, 84)}, r"^size=0"),
        ({"color": "gray"}, r"must be grey or rgb"),
        ({"sticky": 1.5}, r"^sticky=1.5: must lie in 0.0..1.0"),
        ({"noop_max": -1}, r"^noop_max=-1"),
        ({"max_frames": 3}, r"^max_frames=3: must lie in 4\.\."),
        ({"threads": -1}, r"^threads=-1"),
        ({"period": 0}, r"^period=0: must lie in 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        atari.Atari(**options)
    with pytest.raises(ValueError, match="envs=0"):
        atari.Atari().make(0)
