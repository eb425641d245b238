"""The learner: exact on a small MDP, its parts by hand, the same on one device and on eight."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents import acting, dqn, networks, td
from core import network, optim, replay, types
from tests import toys


def linear_table(states: int, actions: int) -> network.Network:
    make = functools.partial(
        networks.QNetwork,
        torso=functools.partial(networks.MLP, widths=()),
        head=functools.partial(networks.PlainHead, hidden=None),
    )
    return network.Network(make=make, sizes={"observation": (1, states), "actions": actions})


def learner(table: network.Network, **changes) -> dqn.DQN:
    settings = {
        "network": table,
        "optimizer": optim.optimizer(rule=optax.sgd, learning_rate=0.5),
        "replay": replay.Replay(capacity=512),
        "target": dqn.HardUpdate(period=10),
        "loss": td.squared,
        "discount": 0.9,
        "update_every": 4,
        "learning_starts": 64,
        "reward_clip": None,
    }
    return dqn.DQN(**(settings | changes))


def play(agent: dqn.DQN, environments, *, batches: int, look=lambda state: None) -> tuple[dqn.DQNState, acting.Actor]:
    """Trains with uniformly random behaviour; `look` sees every state."""
    actor = acting.Actor(environments=environments, envs=4, steps=8, shards=1, exploration=lambda _: 1.0, seed=0)
    actor.attach(agent)
    state = jax.jit(functools.partial(agent.init, spec=actor.spec))(jax.random.key(0))
    step, absorb = jax.jit(agent.step, donate_argnums=0), jax.jit(agent.absorb, donate_argnums=0)
    for index in range(batches):
        actor.start(jax.tree.map(jnp.copy, agent.view(state)), index)
        batch = actor.next()
        state = absorb(state, batch) if index < agent.warmup(actor.spec) else step(state, batch)[0]
        look(state)
    return state, actor


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bootstrap": td.double_bootstrap},
        {"target": dqn.SoftUpdate(rate=0.1)},
        {"replay": replay.Replay(capacity=512, sampler=replay.Prioritized(anneal=100))},
    ],
    ids=["max", "double", "soft", "prioritized"],
)
def test_a_linear_table_reaches_the_exact_optimum(changes):
    """Random behaviour, episodes cut by truncation: only right bootstrapping gives Q*, to four digits."""
    mdp = toys.Tabular()
    states, actions = mdp.frame[0], mdp.actions
    agent = learner(linear_table(states, actions), **changes)
    state, actor = play(agent, mdp, batches=500)
    actor.close()
    values = agent.network.bind(state.params)(jnp.eye(states)[:, None])
    np.testing.assert_allclose(values, mdp.optimal(0.9), atol=2e-4)


def test_warmup_only_takes_data_in():
    mdp = toys.Tabular()
    agent = learner(linear_table(mdp.frame[0], mdp.actions))
    state, actor = play(agent, mdp, batches=2)
    actor.close()
    assert agent.warmup(actor.spec) == 2
    assert (int(state.step), int(state.updates), int(state.replay.count)) == (2, 0, 16)
    fresh = agent.init(jax.random.key(0), actor.spec)
    jax.tree.map(np.testing.assert_array_equal, state.params, fresh.params)


def test_a_hard_target_is_copied_every_period_and_never_between():
    mdp = toys.Tabular()
    agent = learner(linear_table(mdp.frame[0], mdp.actions), target=dqn.HardUpdate(period=24))
    kernels = {}  # updates -> (online, target)

    def look(state: dqn.DQNState) -> None:
        both = (state.params, state.target_params)
        kernels[int(state.updates)] = [np.array(params["head"]["value"]["kernel"]) for params in both]

    _, actor = play(agent, mdp, batches=6, look=look)  # two of them to warm up, then 8 updates each
    actor.close()
    assert sorted(kernels) == [0, 8, 16, 24, 32]
    (start, _), (_, early), (online, copied), (_, late) = (kernels[updates] for updates in (0, 16, 24, 32))
    np.testing.assert_array_equal(early, start)
    np.testing.assert_array_equal(copied, online)
    np.testing.assert_array_equal(late, copied)


def test_a_soft_target_follows_by_its_rate():
    target, params = {"w": jnp.array([0.0])}, {"w": jnp.array([8.0])}
    soft = dqn.SoftUpdate(rate=0.25)(target, params, jnp.int32(3))
    np.testing.assert_allclose(soft["w"], [2.0])


def test_rewards_are_clipped_for_learning_only():
    mdp = toys.Tabular(reward=((7.0, -7.0),) * 4)
    agent = learner(linear_table(4, 2), reward_clip=1.0)
    state, actor = play(agent, mdp, batches=20)
    held = np.asarray(state.replay.reward)[np.asarray(state.replay.valid)]
    assert set(np.unique(held)) == {-1.0, 1.0}
    assert abs(actor.metrics()["train/episode_return"]) > 1  # the score stays raw
    actor.close()


def test_acting_is_greedy_or_random_as_epsilon_says():
    agent = learner(linear_table(4, 2))
    params = {"torso": {}, "head": {"value": {"kernel": jnp.array([[1.0, 0.0]] * 4), "bias": jnp.zeros(2)}}}
    params = {"head": params["head"]} if "torso" not in agent.network.init(jax.random.key(0)) else params
    observation = jnp.ones((4000, 1, 4))
    epsilon = jnp.where(jnp.arange(4000) < 2000, 0.0, 0.5)
    action, carry, extras = agent.act(
        {"params": params}, (), observation, jnp.zeros(4000, bool), jax.random.key(0), epsilon
    )
    assert action.dtype == jnp.int32 and (carry, extras) == ((), ())
    assert not np.asarray(action[:2000]).any()
    assert np.asarray(action[2000:]).mean() == pytest.approx(0.25, abs=0.05)  # half random, half of those the other


def test_pixels_are_scaled_once_and_frames_become_channels():
    class Sum:
        features = 1

        def __init__(self, *, shape, rngs):
            assert shape == (36, 36, 12)

        def __call__(self, x):
            return x.sum(axis=(1, 2, 3))[:, None]

    class Same:
        def __init__(self, **_):
            pass

        def __call__(self, x):
            return x

    net = networks.QNetwork(torso=Sum, head=Same, observation=(4, 36, 36, 3), actions=2, rngs=None)  # type: ignore
    np.testing.assert_allclose(net(jnp.full((2, 4, 36, 36, 3), 255, jnp.uint8)), 36 * 36 * 12, rtol=1e-6)


@pytest.mark.parametrize("torso", [networks.NatureCNN, networks.ImpalaResNet], ids=["nature", "impala"])
@pytest.mark.parametrize("head", [networks.PlainHead, networks.DuelingHead], ids=["plain", "dueling"])
def test_networks_value_every_action(torso, head):
    net = network.Network(
        make=functools.partial(networks.QNetwork, torso=torso, head=head),
        sizes={"observation": (4, 84, 84), "actions": 6},
    )
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    values = jax.eval_shape(lambda p, x: net.bind(p)(x), shapes, jax.ShapeDtypeStruct((2, 4, 84, 84), jnp.uint8))
    assert (values.shape, values.dtype) == ((2, 6), jnp.float32)
    if (torso, head) == (networks.NatureCNN, networks.PlainHead):  # Nature's 1,687,206 with 6 actions
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 1_687_206


def test_dueling_values_average_to_the_states_value():
    head = networks.DuelingHead(features=5, actions=3, hidden=None, rngs=__import__("flax").nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (4, 5))
    np.testing.assert_allclose(head(x).mean(axis=-1), head.state(x)[:, 0], rtol=1e-5, atol=1e-6)


def test_refuses_what_cannot_work():
    table = linear_table(4, 2)
    for changes, message in [
        ({"batch": 0}, "batch=0"),
        ({"discount": 1.5}, r"discount=1\.5"),
        ({"learning_starts": 1000}, r"learning_starts=1000: more than replay\.capacity=512"),
        ({"replay": replay.Replay(capacity=512, shards=5)}, r"batch=32: must be a multiple of replay\.shards=5"),
    ]:
        with pytest.raises(ValueError, match=message):
            learner(table, **changes)
    agent = learner(table, update_every=7)
    spec = types.Rollout(**{f.name: jax.ShapeDtypeStruct((1, 8, 4), bool) for f in dataclasses.fields(types.Rollout)})
    with pytest.raises(ValueError, match=r"learner\.update_every=7: does not divide a rollout's 32"):
        agent.init(jax.random.key(0), spec)
    with pytest.raises(ValueError, match=r"NatureCNN: observations of shape \(4,\) are no images"):
        networks.NatureCNN(shape=(4,), rngs=None)  # type: ignore


def test_one_device_equals_eight():
    """In a process of its own, since the number of simulated devices is fixed when JAX starts."""
    script = pathlib.Path(__file__).with_name("eight_devices.py")
    flags = "--xla_force_host_platform_device_count=8"
    root = str(script.parents[2])
    result = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
