import gymnasium
import numpy as np
import pytest

from agents import gym


class Picture(gymnasium.Env):
    """Images that count the steps; three long, actions 5..7."""

    observation_space = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._see(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.time += 1
        return self._see(), float(action), self.time == 3, self.time == 3, {}

    def _see(self):
        return np.full((4, 4, 3), self.time + 1, np.uint8)


class Continuous(Picture):
    action_space = gymnasium.spaces.Box(0, 1)


def lacking(**options):
    """As LunarLander without box2d."""
    raise gymnasium.error.DependencyNotInstalled("Lander is not installed, you can install it by `pip install lander`")


@pytest.fixture(scope="module", autouse=True)
def _registered():
    gymnasium.register("jaxcade/Picture-v0", lambda **options: Picture(**options))
    gymnasium.register("jaxcade/Continuous-v0", lambda **options: Continuous(**options))
    gymnasium.register("jaxcade/Lacking-v0", lacking)
    yield
    del gymnasium.registry["jaxcade/Picture-v0"], gymnasium.registry["jaxcade/Continuous-v0"]
    del gymnasium.registry["jaxcade/Lacking-v0"]


def test_vectors():
    games = gym.Gymnasium(id="CartPole-v1").make(3)
    assert (games.count, games.actions, games.stack, games.frame, games.frames_per_step) == (3, 2, 1, (4,), 1)
    observation = games.reset(0)
    assert observation.shape == (3, 1, 4) and observation.dtype == games.dtype == np.float32
    np.testing.assert_array_equal(games.reset(0), observation)
    step = games.step(np.ones(3, np.int32))
    assert step.observation.shape == (3, 1, 4) and step.reward.dtype == np.float32
    assert games.protocol() == {
        "environment": f"gymnasium {gymnasium.__version__}",
        "id": "CartPole-v1",
        "max_steps": 500,
        "options": {},
    }
    games.close()


def test_truncation_is_no_terminal_and_keeps_the_last_observation():
    capped, free = gym.Gymnasium(max_steps=5).make(2), gym.Gymnasium().make(2)
    np.testing.assert_array_equal(capped.reset(1), free.reset(1))
    for time in range(5):
        ours, theirs = (games.step(np.full(2, time % 2, np.int32)) for games in (capped, free))
        np.testing.assert_array_equal(ours.observation, theirs.observation)
        np.testing.assert_array_equal(ours.truncated, np.full(2, time == 4))
        assert not ours.terminal.any() and (ours.over == ours.truncated).all()
    step = capped.step(np.zeros(2, np.int32))
    assert not step.reward.any() and not step.over.any()
    assert (np.abs(step.observation) <= 0.05).all(), "a fresh pole"


def test_what_is_registered_without_a_limit_has_one(monkeypatch: pytest.MonkeyPatch):
    """CliffWalking under a policy that runs into the wall never ends."""
    assert gym.Gymnasium(id="CliffWalking-v1").make(1).protocol()["max_steps"] == gym.LONGEST == 27_000
    monkeypatch.setattr(gym, "LONGEST", 300)
    games = gym.Gymnasium(id="CliffWalking-v1").make(1)
    assert games.protocol()["max_steps"] == gym.LONGEST
    games.reset(0)
    over = [bool(games.step(np.zeros(1, np.int32)).over[0]) for _ in range(gym.LONGEST)]  # always up
    assert over.index(True) == gym.LONGEST - 1
    assert gym.Gymnasium(id="CliffWalking-v1", max_steps=7).make(1).protocol()["max_steps"] == 7


def test_images_are_stacked_with_a_blank_history_and_actions_start_at_zero():
    games = gym.Gymnasium(id="jaxcade/Picture-v0").make(2)
    assert (games.stack, games.frame, games.actions) == (4, (4, 4, 3), 3)
    seen, results = [games.reset(0)], []
    for _ in range(5):
        results.append(games.step(np.array([0, 2], np.int32)))
        seen.append(results[-1].observation)
    counts = np.array([observation[:, :, 0, 0, 0] for observation in seen])
    expected = [[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4], [0, 0, 0, 1], [0, 0, 1, 2]]
    np.testing.assert_array_equal(counts[:, 0], expected)
    np.testing.assert_array_equal(counts[:, 1], expected)
    np.testing.assert_array_equal([step.reward for step in results], [[5, 7]] * 3 + [[0, 0], [5, 7]])
    # Both flags at once: the end of the game counts.
    np.testing.assert_array_equal([step.terminal[0] for step in results], [False, False, True, False, False])
    assert not any(step.truncated.any() for step in results)


def test_a_states_number_becomes_a_vector():
    games = gym.Gymnasium(id="FrozenLake-v1", options={"is_slippery": False}).make(1)
    observation = games.reset(0)
    assert observation.shape == (1, 1, 16) and observation.sum() == observation[0, 0, 0] == 1
    assert games.step(np.full(1, 2)).observation[0, 0, 1] == 1


def test_arrays_are_never_written_to_again():
    games = gym.Gymnasium(id="jaxcade/Picture-v0").make(2)
    kept = [games.reset(0)]
    copies = [kept[0].copy()]
    for _ in range(6):
        step = games.step(np.zeros(2, np.int32))
        kept += step
        copies += [array.copy() for array in step]
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"id": "CartPol-v1"}, r"^id=CartPol-v1: no such environment; did you mean CartPole-v1\?"),
        ({"id": "no_such_package:Name-v0"}, r"^id=no_such_package:Name-v0: importing 'no_such_package' failed: Module"),
        ({"id": ":Name-v0"}, r"^id=:Name-v0: importing '' failed"),
        ({"id": "ale_py:ALE/Pung-v5"}, r"^id=ale_py:ALE/Pung-v5: no such environment; did you mean ale_py:ALE/Pong-v5"),
        ({"id": "CartPole-v9"}, r"^id=CartPole-v9: no such environment; did you mean CartPole-v1\?"),
        ({"id": "a name"}, r"^id=a name: no such environment; as gymnasium names it"),
        ({"stack": 0}, r"^stack=0: must lie in 1\.\.64"),
        ({"max_steps": 0}, r"^max_steps=0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        gym.Gymnasium(**options)


def test_whatever_gymnasium_makes_is_made_under_the_name_that_it_has():
    pairs = {"CartPole": "CartPole-v1", "jaxcade/Picture": "jaxcade/Picture-v0", "ale_py:ALE/Pong": "ALE/Pong-v5"}
    for name, known in pairs.items():
        games = gym.Gymnasium(id=name).make(1)
        assert games.protocol()["id"] == known
        games.close()


def test_options_that_an_environment_has_not_are_told():
    with pytest.raises(ValueError, match=r"^id=CartPole-v1: cannot be made here: .*unexpected keyword argument 'wind'"):
        gym.Gymnasium(options={"wind": 1}).make(1)


def test_a_package_that_an_environment_lacks_is_named():
    with pytest.raises(ValueError, match=r"^id=jaxcade/Lacking-v0: cannot be made here: .*pip install lander"):
        gym.Gymnasium(id="jaxcade/Lacking-v0").make(2)


def test_continuous_actions_are_refused():
    with pytest.raises(ValueError, match="only discrete actions"):
        gym.Gymnasium(id="jaxcade/Continuous-v0").make(1)
