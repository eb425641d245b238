"""The ring against a plain list of episodes, the seams by hand, and the priorities against their formula."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import replay, types

STACK, DISCOUNT = 3, 0.9


class Games:
    """Random games in N streams whose frames are all different, told both as rollouts and as plain lists."""

    def __init__(self, *, shards: int, streams: int, steps: int, seed: int = 0, truncate: float = 0.1):
        self.shape = (shards, steps, streams)
        self.rng, self.truncate = np.random.default_rng(seed), truncate
        self.frame = 0  # 0 is the blank
        self.expected: dict[int, dict] = {}  # newest frame -> one step of a game
        self.live = [[self._open() for _ in range(streams)] for _ in range(shards)]

    def _new(self) -> int:
        self.frame += 1
        return self.frame

    def _open(self) -> dict:
        return {"frames": [0] * (STACK - 1) + [self._new()], "first": True, "over": False}

    def restart(self) -> None:
        """All games in flight are lost, as when a run resumes."""
        for row in self.live:
            for game in row:
                if not game["first"] and not self.expected[game["last"]]["terminal"]:
                    self.expected[game["last"]]["lost"] = True  # its successor was never seen
        self.live = [[self._open() for _ in row] for row in self.live]

    def rollout(self) -> types.Rollout:
        shards, steps, streams = self.shape
        names = ("observation", "action", "reward", "terminal", "truncated", "first", "valid")
        out = {name: np.zeros(self.shape, np.float32 if name == "reward" else np.int32) for name in names}
        for s in range(shards):
            for n in range(streams):
                for t in range(steps):
                    for name, value in self._step(s, n).items():
                        out[name][s, t, n] = value
        flags = {name: out[name].astype(bool) for name in ("terminal", "truncated", "first", "valid")}
        blank = np.zeros((shards, STACK - 1, streams), np.int32)
        return types.Rollout(**(out | flags), context=blank, tail=blank[:, 0], extras=())

    def _step(self, s: int, n: int) -> dict:
        game = self.live[s][n]
        newest, action, reward = game["frames"][-1], int(self.rng.integers(4)), float(self.rng.integers(-3, 4))
        row = {"observation": newest, "action": action, "first": game["first"], "valid": not game["over"]}
        if game["over"]:  # the reset step: its action is ignored
            self.live[s][n] = self._open()
            return row
        life, over, cut = self.rng.random(3) < (0.1, 0.1, self.truncate)
        following = self._new()
        frames = [*game["frames"], following]
        self.expected[newest] = {
            "stack": frames[-STACK - 1 : -1],
            "next": following,
            "next_stack": frames[-STACK:],
            "action": action,
            "reward": reward,
            "terminal": bool(life or over),
            "truncated": bool(cut and not over),
        }
        self.live[s][n] = {"frames": frames, "first": False, "over": bool(over or cut), "last": newest}
        return row | {"reward": reward, "terminal": life or over, "truncated": cut and not over}

    def transition(self, newest: int, n_step: int) -> dict:
        """What an n-step sample that starts at `newest` must be."""
        total, discount, frame = 0.0, 1.0, newest
        for _ in range(n_step):
            step = self.expected[frame]
            assert "lost" not in step, "a window reaches into a game that was lost"
            total += discount * step["reward"]
            discount *= DISCOUNT
            frame = step["next"]
            if step["terminal"] or step["truncated"] or self.expected.get(frame, {}).get("lost"):
                discount = 0.0 if step["terminal"] else discount
                break
        start = self.expected[newest]
        return {
            "observation": start["stack"],
            "action": start["action"],
            "reward": total,
            "discount": discount,
            "next_observation": step["next_stack"],
        }


def spec(rollout: types.Rollout) -> types.Rollout:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), rollout)


def draw(memory: replay.Replay, state: replay.ReplayState, seed: int, *, batch: int, updates: int = 0):
    return _sample(memory, state, jax.random.key(seed), batch, updates)


@functools.partial(jax.jit, static_argnames=("memory", "batch"))
def _sample(memory, state, key, batch, updates):
    return memory.sample(state, key, batch=batch, discount=DISCOUNT, updates=updates)


@functools.partial(jax.jit, static_argnames="memory")
def _add(memory, state, rollout):
    return memory.add(state, rollout)


def filled(memory: replay.Replay, games: Games, *, rollouts: int, restart_at: int | None = None):
    first = games.rollout()
    state = _add(memory, memory.init(spec(first)), first)
    for index in range(1, rollouts):
        if index == restart_at:
            games.restart()
        state = _add(memory, state, games.rollout())
    return state


def check(sample: replay.Sample, games: Games, n_step: int) -> set[int]:
    """Every entry that counts is a true transition; returns the frames that were drawn."""
    sample = jax.device_get(sample)
    counts = sample.weight > 0
    newest = sample.observation[counts, -1]
    wanted = {frame: games.transition(frame, n_step) for frame in set(newest.tolist())}
    want = {name: np.array([wanted[frame][name] for frame in newest.tolist()]) for name in wanted[int(newest[0])]}
    for name, values in want.items():
        held = getattr(sample, name)[counts]
        if name == "next_observation":  # nothing is bootstrapped from it where the discount is 0
            held, values = held[want["discount"] > 0], values[want["discount"] > 0]
        np.testing.assert_allclose(held, values, rtol=1e-5, err_msg=name)
    return {*wanted}


@pytest.mark.parametrize("sampler", [replay.Uniform(), replay.Prioritized()], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("rollouts", [3, 5, 23], ids=["filling", "full", "wrapped"])
@pytest.mark.parametrize("restart_at", [None, 2, 21])
def test_every_sample_is_a_true_transition(sampler, n_step, rollouts, restart_at):
    games = Games(shards=2, streams=3, steps=4)
    memory = replay.Replay(capacity=2 * 3 * 20, shards=2, n_step=n_step, sampler=sampler)
    state = filled(memory, games, rollouts=rollouts, restart_at=restart_at)
    sample = draw(memory, state, 0, batch=2048)
    drawn = check(sample, games, n_step)
    assert float(np.mean(np.asarray(sample.weight) > 0)) > 0.98
    assert drawn == eligible(state, games, n_step)


def eligible(state: replay.ReplayState, games: Games, n_step: int) -> set[int]:
    """The transitions that the ring holds whole: their stacks, and n rows after them."""
    frames, rows = np.asarray(state.observation), state.valid.shape[1]
    oldest, count = int(state.head - state.count) % rows, int(state.count)
    ages = range(STACK - 1 if count == rows else 0, count - n_step)
    order = [(oldest + age) % rows for age in ages]
    held = frames[:, order].ravel().tolist()
    return {frame for frame in held if frame in games.expected and "lost" not in games.expected[frame]}


def test_uniform_is_uniform():
    games = Games(shards=1, streams=2, steps=4)
    memory = replay.Replay(capacity=64)
    state = filled(memory, games, rollouts=20)
    sample = draw(memory, state, 1, batch=20_000)
    _, counts = np.unique(np.asarray(sample.index)[np.asarray(sample.weight)[None] > 0], return_counts=True)
    expected = counts.sum() / len(counts)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_priorities_follow_their_formula():
    """P(i) ∝ (|δ| + ε)^α mixed with uniform; w_i = (M·P(i))^-β over the largest in the batch."""
    games = Games(shards=2, streams=2, steps=4)
    sampler = replay.Prioritized(alpha=0.6, beta=0.4, anneal=100, uniform=0.1, floor=0.0)
    memory = replay.Replay(capacity=2 * 64, shards=2, sampler=sampler)
    state = filled(memory, games, rollouts=20)
    update = jax.jit(memory.update)
    for seed in range(40):  # give everything a priority of its own
        sample = draw(memory, state, seed, batch=64)
        errors = 0.1 + (sample.observation[:, -1] % 7).astype(jnp.float32)
        state = update(state, sample, errors)
    priority = np.asarray(state.sampler["priority"])
    np.testing.assert_allclose(state.sampler["row_sum"], priority.sum(axis=-1), rtol=1e-6)
    sample = draw(memory, state, 99, batch=100_000, updates=50)
    beta = 0.4 + 0.6 * 0.5
    weights = []
    for shard in range(2):
        p = priority[shard].ravel()
        held = p > 0
        probability = np.where(held, 0.9 * p / p.sum() + 0.1 / held.sum(), 0)
        index = np.asarray(sample.index[shard])
        share = np.bincount(index, minlength=p.size) / index.size
        np.testing.assert_allclose(share, probability, atol=5 * np.sqrt(probability.max() / index.size))
        assert not share[~held].any()
        weights.append((held.sum() * probability[index]) ** -beta)
    weights = np.concatenate(weights)
    np.testing.assert_allclose(sample.weight, weights / weights.max(), rtol=1e-4)


def whole(rows):
    """All rows of a ring."""
    age = jnp.int32
    return replay.Window(oldest=age(0), low=age(0), high=age(rows), outside=jnp.zeros(0, jnp.int32))


def test_an_error_of_zero_leaves_a_transition_in_the_share_drawn_uniformly():
    games = Games(shards=1, streams=2, steps=4, truncate=0.0)
    memory = replay.Replay(capacity=64, sampler=replay.Prioritized(floor=0.0, uniform=0.5))
    state = filled(memory, games, rollouts=8)
    held = np.asarray(state.sampler["priority"]) > 0
    everyone = dataclasses.replace(
        draw(memory, state, 0, batch=64), index=jnp.arange(64)[None], weight=jnp.asarray(held.ravel(), jnp.float32)
    )
    state = memory.update(state, everyone, jnp.zeros(64).at[20].set(1.0))
    sample = draw(memory, state, 1, batch=2_000)
    index = np.asarray(sample.index)[0]
    zero = index != 20
    assert set(index[zero]) == set(np.flatnonzero(held)) - {20}
    np.testing.assert_allclose(np.asarray(sample.weight)[zero], 1.0)  # the least likely ones
    assert 0.45 < zero.mean() < 0.55


@pytest.mark.long
@pytest.mark.parametrize(("priorities", "shards"), [("wide", 2), ("one huge", 1)])
def test_a_million_entries_are_drawn_as_often_as_they_should_be(priorities, shards):
    """Two draws an entry: Pearson's χ² has a mean of 1 over the entries; probabilities 7 % off (rms) add 0.01."""
    rng, shape, draws = np.random.default_rng(0), (shards, 125_000 // shards, 8), 32
    priority = rng.lognormal(sigma=2, size=shape) if priorities == "wide" else np.ones(shape)
    priority[rng.random(shape) < 0.05] = 0
    priority[:, 1000:1064] = priority[:, -100:] = 0  # whole rows and blocks, the last ones too
    if priorities == "one huge":
        priority[0, 500, 3] = 1e7
    priority = jnp.asarray(priority, jnp.float32)
    state = {"priority": priority, "row_sum": priority.sum(axis=2), "largest": jnp.ones(shards)}
    sampler, window = replay.Prioritized(), whole(shape[1])

    @jax.jit
    def counted(state):
        def one(i, found):
            keys = jax.random.split(jax.random.key(i), shards)
            draw = lambda state, key: sampler.draw(state, key, state["priority"] > 0, window, 2**16 // shards, i)
            index, weight = jax.vmap(draw)(state, keys)
            counts, zeros = found
            return counts.at[jnp.arange(shards)[:, None], index].add(1), zeros + jnp.sum(weight == 0)

        return jax.lax.fori_loop(0, draws, one, (jnp.zeros((shards, shape[1] * shape[2]), jnp.int32), jnp.int32(0)))

    counts, zeros = jax.device_get(counted(state))
    p = np.asarray(priority, np.float64).reshape(shards, -1)
    held = p > 0
    expected = np.where(held, (1 - sampler.uniform) * p / p.sum(1, keepdims=True), 0)
    expected += sampler.uniform * held / held.sum(1, keepdims=True)
    expected *= draws * 2**16 // shards
    assert zeros == 0 and not counts[~held].any() and counts.sum() == draws * 2**16
    expected, counts = expected[held], counts[held]
    squared = (counts - expected) ** 2 / expected
    noise = np.sqrt(np.sum(2 + 1 / expected)) / counts.size
    assert abs(squared.mean() - 1) < 5 * noise < 0.04
    assert squared[expected > 4].max() < 70


def test_a_ring_without_any_priority_gives_what_is_not_learned_from():
    sampler = replay.Prioritized()
    window = whole(100)
    draw = jax.jit(
        lambda key: sampler.draw(sampler.init(100, 8), key, jnp.zeros((100, 8), bool), window, 64, jnp.int32(0))
    )
    index, weight = draw(jax.random.key(0))
    assert not np.asarray(weight).any() and np.min(index) >= 0 and np.max(index) < 800


def test_new_transitions_get_the_largest_priority():
    games = Games(shards=1, streams=2, steps=4, truncate=0.0)
    memory = replay.Replay(capacity=64, sampler=replay.Prioritized(floor=0.0))
    state = filled(memory, games, rollouts=3)
    sample = draw(memory, state, 0, batch=8)
    state = jax.jit(memory.update)(state, sample, jnp.full(8, 9.0))
    state = _add(memory, state, games.rollout())
    newest = np.asarray(state.sampler["priority"])[0, 11:15]  # the rows that have just got a successor
    np.testing.assert_allclose(newest[np.asarray(state.valid)[0, 11:15]], 9.0**0.6, rtol=1e-6)


def test_zero_priorities_are_never_learned_from():
    """Pitfall 15: also where float32 sums point beside the mark, as the second row's sum does here, which is empty."""
    sampler = replay.Prioritized(uniform=0.0)
    held = jnp.ones((4, 8), bool).at[1].set(False)
    state = sampler.add(sampler.init(4, 8), jnp.arange(4), held)
    state = state | {"row_sum": state["row_sum"].at[1].set(2.0)}
    window = whole(4)
    index, weight = jax.jit(lambda state, key: sampler.draw(state, key, held, window, 1_000, jnp.int32(0)))(
        state, jax.random.key(1)
    )
    beside = ~np.asarray(held).ravel()[np.asarray(index)]
    assert 20 < beside.sum() < 200
    assert not np.asarray(weight)[beside].any() and np.asarray(weight)[~beside].all()


def test_stores_any_tree_and_counts_its_bytes():
    shape = (1, 4, 8)
    frame = jax.ShapeDtypeStruct((*shape, 84, 84), jnp.uint8)
    flags = {name: jax.ShapeDtypeStruct(shape, bool) for name in ("terminal", "truncated", "first", "valid")}
    rollout = types.Rollout(
        observation=frame,
        action=jax.ShapeDtypeStruct(shape, jnp.int32),
        reward=jax.ShapeDtypeStruct(shape, jnp.float32),
        **flags,
        context=jax.ShapeDtypeStruct((1, 3, 8, 84, 84), jnp.uint8),
        tail=jax.ShapeDtypeStruct((1, 8, 84, 84), jnp.uint8),
        extras=(),
    )
    memory = replay.Replay(capacity=1_000_000, sampler=replay.Prioritized())
    state = jax.eval_shape(memory.init, rollout)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert size <= 7.2e9
    assert state.valid.size == 1_000_000

    floats = {"position": jax.ShapeDtypeStruct((*shape, 4), jnp.float32), "seen": frame}
    both = jax.eval_shape(memory.init, dataclasses.replace(rollout, observation=floats))
    assert both.observation["position"].shape == (1, 125_000, 8, 4)


def test_refuses_what_cannot_work():
    rollout = spec(Games(shards=2, streams=2, steps=4).rollout())
    with pytest.raises(ValueError, match=r"replay\.shards=1: rollouts come in 2 shards"):
        replay.Replay(capacity=100).init(rollout)
    with pytest.raises(ValueError, match=r"replay\.capacity=20: too few"):
        replay.Replay(capacity=20, shards=2).init(rollout)
    with pytest.raises(ValueError, match="n_step=0"):
        replay.Replay(capacity=20, n_step=0)
    with pytest.raises(ValueError, match=r"alpha=1\.5"):
        replay.Prioritized(alpha=1.5)
    with pytest.raises(ValueError, match=r"anneal=0: must be at least 1; beta=1 has the full"):
        replay.Prioritized(anneal=0)
    with pytest.raises(ValueError, match=r"floor=-1: must be at least 0"):
        replay.Prioritized(floor=-1)


@pytest.mark.slow
def test_a_ring_beyond_two_to_the_31_elements_wraps():
    """2.2e9 bytes of frames, written once around in place, and sampled on both sides of the seam."""
    rows, streams, steps = 4 * 9_800, 8, 400
    shape = (1, steps, streams)
    flags = {name: jnp.zeros(shape, bool) for name in ("terminal", "truncated", "first")}
    memory = replay.Replay(capacity=rows * streams)

    def rollout(number):
        observation = jnp.broadcast_to(jnp.uint8(number % 251), (*shape, 84, 84))
        zeros = jnp.zeros((1, STACK - 1, streams, 84, 84), jnp.uint8)
        return types.Rollout(
            observation=observation,
            action=jnp.full(shape, number, jnp.int32),
            reward=jnp.zeros(shape),
            **flags,
            valid=jnp.ones(shape, bool),
            context=zeros,
            tail=zeros[:, 0],
            extras=(),
        )

    state = jax.jit(memory.init, static_argnums=())(rollout(0))
    assert state.observation.size > 2**31
    add = jax.jit(lambda state, number: memory.add(state, rollout(number)), donate_argnums=0)
    total = rows // steps + 10
    for number in range(total):
        state = add(state, number)
    sample = memory.sample(state, jax.random.key(0), batch=512, discount=1.0)
    np.testing.assert_array_equal(sample.observation[:, -1, 0, 0], sample.action % 251)
    assert int(sample.action.min()) >= 10
    assert int(sample.action.max()) == total - 1
