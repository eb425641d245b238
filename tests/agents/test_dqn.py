"""The learner: exact on a small MDP, its parts by hand, the same on one device and on eight."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from agents import acting, dqn, networks, td
from core import network, optim, replay, types, windows
from tests import runs, toys

# Q(s, a; θ) and Q(s, a; θ⁻), [X, A]: in every state they disagree about the best action.
ONLINE = np.array([[1.0, 0.0], [2.0, 5.0], [0.0, 3.0], [4.0, 3.0]], np.float32)
TARGET = np.array([[1.0, 4.0], [2.0, -1.0], [6.0, -2.0], [-3.0, 0.5]], np.float32)


def linear_table(states: int, actions: int) -> network.Network:
    make = functools.partial(
        networks.QNetwork,
        torso=functools.partial(networks.MLP, widths=()),
        head=functools.partial(networks.PlainHead, hidden=None),
    )
    return network.Network(make=make, sizes={"observation": (1, states), "actions": actions})


def holding(values: np.ndarray) -> types.Params:
    """The parameters of a linear table with these values."""
    return {"head": {"value": {"kernel": jnp.asarray(values), "bias": jnp.zeros(values.shape[1])}}}


def kernel(params: types.Params) -> np.ndarray:
    return np.array(params["head"]["value"]["kernel"])


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
        actor.start(index, functools.partial(lambda state: jax.tree.map(jnp.copy, agent.view(state)), state))
        batch = actor.next()
        state = absorb(state, batch) if index < agent.warmup(actor.spec) else step(state, batch)[0]
        look(state)
    return state, actor


@pytest.mark.long
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


@pytest.mark.parametrize(
    ("bootstrap", "errors", "loss"),
    [
        # R + d·max_a Q(s', a; θ⁻) - Q(s, a; θ): 1.5 + 0.5·2 - 0, -1 + 0.25·6 - 2, 2 + 0 - 3
        (td.max_bootstrap, [2.5, -1.5, -1.0], (1 * 2.0 + 0.5 * 1.0 + 0.25 * 0.5) / 3),
        # with the θ⁻ values of what θ chooses: 1.5 + 0.5·(-1) - 0, -1 + 0.25·(-2) - 2, 2 + 0 - 3
        (td.double_bootstrap, [1.0, -3.5, -1.0], (1 * 0.5 + 0.5 * 3.0 + 0.25 * 0.5) / 3),
    ],
    ids=["max", "double"],
)
def test_the_loss_by_hand(bootstrap, errors, loss):
    agent = learner(linear_table(4, 2), bootstrap=bootstrap, loss=td.huber)
    state, action, later, weight = [0, 1, 2], [1, 0, 1], [1, 2, 0], np.array([1.0, 0.5, 0.25], np.float32)
    sample = windows.Sample(
        observation=jnp.eye(4)[jnp.array(state), None],
        action=jnp.array(action),
        reward=jnp.array([1.5, -1.0, 2.0]),
        discount=jnp.array([0.5, 0.25, 0.0]),
        next_observation=jnp.eye(4)[jnp.array(later), None],
        extras=(),
        weight=jnp.asarray(weight),
        index=jnp.zeros((1, 3), jnp.int32),
    )
    differentiate = jax.value_and_grad(agent.loss_and_errors, has_aux=True)
    (got, (error, value)), gradient = differentiate(holding(ONLINE), holding(TARGET), sample)
    np.testing.assert_allclose(error, errors, rtol=1e-6)
    np.testing.assert_allclose(value, [0.0, 2.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(got, loss, rtol=1e-6)
    expected = np.zeros_like(ONLINE)  # by the values of the actions taken alone, each clipped error by its weight
    expected[state, action] = -weight * np.clip(errors, -1, 1) / 3
    np.testing.assert_allclose(kernel(gradient), expected, rtol=1e-6)


def test_an_update_by_hand_from_priorities_to_priorities():
    """8 draws with β on its way from 0.4 to 1: weights, errors, loss, SGD, and new priorities for the drawn alone."""
    mdp = toys.Tabular()
    sampler = replay.Prioritized(alpha=0.6, beta=0.4, anneal=100, uniform=0.1, floor=0.01)
    memory = replay.Replay(capacity=512, sampler=sampler)
    agent = learner(linear_table(4, 2), replay=memory, bootstrap=td.double_bootstrap, batch=8, update_every=32)
    state, actor = play(agent, mdp, batches=2)
    actor.start(2, lambda: agent.view(state))
    rollout = actor.next()
    actor.close()
    uneven = state.replay.sampler["priority"] * jax.random.uniform(jax.random.key(1), state.replay.valid.shape)
    varied = {**state.replay.sampler, "priority": uneven, "row_sum": uneven.sum(axis=2)}
    state = dataclasses.replace(
        state,
        params=holding(ONLINE),
        target_params=holding(TARGET),
        replay=dataclasses.replace(state.replay, sampler=varied),
        updates=jnp.int32(30),
    )
    after, metrics = jax.jit(agent.step)(state, rollout)

    before = jax.jit(memory.add)(state.replay, rollout)
    key = jax.random.split(jax.random.fold_in(state.key, state.step), 1)[0]
    drawn = jax.device_get(jax.jit(functools.partial(memory.sample, batch=8, discount=0.9))(before, key))
    priority, index = np.asarray(before.sampler["priority"]).ravel(), drawn.index[0]
    held = (priority > 0).sum()
    share = 0.9 * priority[index] / priority.sum() + 0.1 / held
    weight = (held * share) ** -(0.4 + 0.6 * 30 / 100)
    weight /= weight.max()
    now, later = drawn.observation[:, 0].argmax(axis=-1), drawn.next_observation[:, 0].argmax(axis=-1)
    bootstrap = TARGET[later, ONLINE[later].argmax(axis=-1)]
    error = drawn.reward + drawn.discount * bootstrap - ONLINE[now, drawn.action]

    np.testing.assert_allclose(metrics["loss/td"], np.mean(weight * 0.5 * error**2), rtol=1e-5)
    moved = ONLINE.copy()
    np.add.at(moved, (now, drawn.action), 0.5 * weight * error / 8)  # the learning rate is 0.5
    np.testing.assert_allclose(kernel(after.params), moved, rtol=1e-5)
    np.testing.assert_array_equal(kernel(after.target_params), TARGET)  # its period is 10, and this is update 31
    renewed = priority.copy()
    renewed[index] = (np.abs(error) + 0.01) ** 0.6
    assert len({*weight.tolist()}) > 4 and len({*index.tolist()}) < held
    np.testing.assert_allclose(np.asarray(after.replay.sampler["priority"]).ravel(), renewed, rtol=1e-5)


def test_warmup_only_takes_data_in():
    mdp = toys.Tabular()
    agent = learner(linear_table(mdp.frame[0], mdp.actions))
    state, actor = play(agent, mdp, batches=2)
    actor.close()
    assert agent.warmup(actor.spec) == 2
    assert (int(state.step), int(state.updates), int(state.replay.count)) == (2, 0, 16)
    fresh = agent.init(jax.random.key(0), actor.spec)
    jax.tree.map(np.testing.assert_array_equal, state.params, fresh.params)


@pytest.mark.parametrize("sampler", [replay.Uniform(), replay.Prioritized()])
def test_the_first_update_waits_for_whole_windows_and_no_longer(sampler: replay.Sampler):
    """However few steps `learning_starts` asks for: every weight is 0 a rollout before the first update, none at it."""
    for n_step, steps, stack in [(1, 1, 1), (4, 4, 4), (10, 4, 1)]:
        ring = replay.Replay(capacity=512, read=windows.Transitions(n_step=n_step), sampler=sampler)
        agent = learner(linear_table(4, 2), replay=ring, learning_starts=1, update_every=1)
        shape = (1, steps, 3)
        flags = {name: np.zeros(shape, bool) for name in ("terminal", "truncated", "first")}
        rollout = types.Rollout(
            observation=np.ones((*shape, 4), np.float32),
            action=np.zeros(shape, np.int32),
            reward=np.ones(shape, np.float32),
            **flags,
            valid=np.ones(shape, bool),
            context=np.zeros((1, stack - 1, 3, 4), np.float32),
            tail=np.ones((1, 3, 4), np.float32),
            extras=(),
        )
        opening = dataclasses.replace(rollout, first=np.arange(steps)[None, :, None] + flags["first"] == 0)
        draw = jax.jit(functools.partial(ring.sample, batch=8, discount=0.9))
        add, state, empty = jax.jit(ring.add), ring.init(rollout), []
        for index in range(agent.warmup(rollout) + 1):
            state = add(state, rollout if index else opening)
            weight = draw(state, jax.random.key(index)).weight
            empty.append(float(jnp.mean(weight == 0)))
        assert empty[-1] == 0 and (agent.warmup(rollout) <= 1 or empty[:-1] == [1.0] * (len(empty) - 1))


def test_the_first_update_after_a_long_window_changes_the_weights():
    mdp = toys.Tabular()
    ring = replay.Replay(capacity=512, read=windows.Transitions(n_step=10))
    agent = learner(linear_table(mdp.frame[0], mdp.actions), replay=ring, learning_starts=1, update_every=32)
    kernels, updates = [], []
    look = lambda state: (kernels.append(kernel(state.params)), updates.append(int(state.updates)))
    _, actor = play(agent, mdp, batches=3, look=look)
    actor.close()
    assert updates == [0, 1, 2]  # rollouts of 8 steps: the first holds no window of 10
    assert np.abs(kernels[1] - kernels[0]).max() > 1e-3


def test_a_hard_target_is_copied_every_period_and_never_between():
    mdp = toys.Tabular()
    agent = learner(linear_table(mdp.frame[0], mdp.actions), target=dqn.HardUpdate(period=24))
    kernels = {}  # updates -> (online, target)

    def look(state: dqn.DQNState) -> None:
        both = (state.params, state.target_params)
        kernels[int(state.updates)] = [kernel(params) for params in both]

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


def test_nothing_moves_once_a_loss_was_not_finite():
    mdp = toys.Tabular()
    agent = learner(linear_table(mdp.frame[0], mdp.actions), target=dqn.SoftUpdate(rate=0.25))
    state, actor = play(agent, mdp, batches=3)
    actor.start(3, lambda: agent.view(state))
    rollout = actor.next()
    actor.close()
    assert (kernel(state.target_params) != kernel(state.params)).any()
    state = dataclasses.replace(state, diverged=jnp.int32(2))
    after, _ = jax.jit(agent.step)(state, rollout)
    for name in ("params", "target_params", "opt_state", "updates", "diverged"):
        runs.assert_same(getattr(after, name), getattr(state, name))


def test_rewards_are_clipped_for_learning_only():
    mdp = toys.Tabular(reward=((7.0, -7.0),) * 4)
    agent = learner(linear_table(4, 2), reward_clip=1.0)
    state, actor = play(agent, mdp, batches=20)
    held = np.asarray(state.replay.reward)[np.asarray(state.replay.valid)]
    assert set(np.unique(held)) == {-7.0, 7.0}  # as the memory keeps them
    small, other = play(learner(linear_table(4, 2)), toys.Tabular(reward=((1.0, -1.0),) * 4), batches=20)
    other.close()
    np.testing.assert_array_equal(kernel(state.params), kernel(small.params))
    assert np.abs(kernel(state.params)).max() > 0.05
    assert abs(actor.metrics()["train/episode_return"]) > 1  # the score stays raw
    actor.close()


def test_acting_is_greedy_or_random_as_epsilon_says():
    agent = learner(linear_table(4, 2))
    params = holding(np.array([[1.0, 0.0]] * 4))
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
    head = networks.DuelingHead(features=5, actions=3, hidden=None, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (4, 5))
    np.testing.assert_allclose(head(x).mean(axis=-1), head.state(x)[:, 0], rtol=1e-5, atol=1e-6)


def test_refuses_what_cannot_work():
    table = linear_table(4, 2)
    for changes, message in [
        ({"batch": 0}, "batch=0"),
        ({"discount": 1.5}, r"discount=1\.5"),
        ({"reward_clip": -1.0}, r"reward_clip=-1\.0: must be greater than 0, or null"),
        ({"learning_starts": -5}, "learning_starts=-5: must be at least 0"),
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (functools.partial(networks.NatureCNN, shape=(84, 84, 4), width=0), r"torso\.width=0: a layer has at least 1"),
        (functools.partial(networks.ImpalaResNet, shape=(84, 84, 4), widths=(16, -1)), r"torso\.widths=-1: a layer"),
        (functools.partial(networks.MLP, shape=(4,), widths=(0,)), r"torso\.widths=0: a layer"),
        (functools.partial(networks.PlainHead, features=4, actions=2, hidden=-3), r"head\.hidden=-3: a layer"),
        (functools.partial(networks.DuelingHead, features=4, actions=2, hidden=0), r"head\.hidden=0: a layer"),
    ],
)
def test_layers_without_units_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(rngs=nnx.Rngs(0))


def test_updates_are_those_of_the_frames():
    assert dqn.updates(frames=200_000_000, update_every=4, frame_skip=4) == 12_500_000
    assert dqn.updates(frames=100_000, update_every=2) == 50_000
    assert dqn.updates(frames=3, update_every=4) == 1
    for name in ("update_every", "frame_skip"):
        with pytest.raises(ValueError, match=f"{name}=0: must be at least 1"):
            dqn.updates(**{"frames": 3, "update_every": 4, name: 0})


@pytest.mark.long
def test_one_device_equals_eight():
    runs.on_eight_devices(pathlib.Path(__file__).with_name("eight_devices.py"), optimized=True)
