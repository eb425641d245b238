"""The ring against a plain list of episodes, the seams by hand, and the priorities against their formula."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import replay, types, windows

STACK, DISCOUNT = 3, 0.9


class Games:
    """Random games in N streams whose frames are all different, told both as rollouts and as plain lists."""

    def __init__(
        self, *, shards: int, streams: int, steps: int, seed: int = 0, truncate: float = 0.1, once: bool = False
    ):
        self.shape, self.once = (shards, steps, streams), once
        self.rng, self.truncate = np.random.default_rng(seed), truncate
        self.frame = 0  # 0 is the blank
        self.expected: dict[int, dict] = {}  # newest frame -> one step of a game
        self.live = [[self._open() for _ in range(streams)] for _ in range(shards)]
        self.told: list[list[list[dict]]] = [[[] for _ in range(streams)] for _ in range(shards)]  # every row so far
        self.places: dict[int, tuple[int, int, int]] = {}  # frame -> where it is in `told`

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
        for before, last in (rows[-2:] for shard in self.told for rows in shard):
            if last["valid"] and not last["terminal"]:  # it becomes the last frame of its game
                last["valid"], before["truncated"] = False, before["truncated"] or before["valid"]

    def rollout(self) -> types.Rollout:
        shards, steps, streams = self.shape
        names = ("observation", "action", "reward", "terminal", "truncated", "first", "valid")
        out = {name: np.zeros(self.shape, np.float32 if name == "reward" else np.int32) for name in names}
        for s in range(shards):
            for n in range(streams):
                for t in range(steps):
                    row = self._step(s, n)
                    for name in row.keys() & out.keys():
                        out[name][s, t, n] = row[name]
                    self.places[row["observation"]] = (s, n, len(self.told[s][n]))
                    self.told[s][n].append({"reward": 0.0, "terminal": False, "truncated": False} | row)
        flags = {name: out[name].astype(bool) for name in ("terminal", "truncated", "first", "valid")}
        blank = np.zeros((shards, STACK - 1, streams), np.int32)
        return types.Rollout(**(out | flags), context=blank, tail=blank[:, 0], extras=self._extras(out))

    def _extras(self, out: dict) -> dict[str, np.ndarray]:
        """Two numbers a row, and a state [3] a row or a rollout, all known from the frame."""
        frame = out["observation"]
        state = (frame[..., None] + np.arange(3) / 4).astype(np.float32)
        return {"twice": np.stack([2 * frame, -frame], axis=-1), "state": state[:, :1] if self.once else state}

    def window(self, frame: int, count: int) -> list[dict]:
        """The rows of that frame's stream from it on."""
        s, n, at = self.places[frame]
        return self.told[s][n][at : at + count]

    def _step(self, s: int, n: int) -> dict:
        game = self.live[s][n]
        newest, action, reward = game["frames"][-1], int(self.rng.integers(4)), float(self.rng.integers(-3, 4))
        row = {"observation": newest, "action": action, "first": game["first"], "valid": not game["over"]}
        row["stack"] = game["frames"][-STACK:]
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


def check(sample: windows.Sample, games: Games, n_step: int) -> set[int]:
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
    np.testing.assert_array_equal(sample.extras["twice"][counts], np.stack([2 * newest, -newest], axis=-1))
    np.testing.assert_array_equal(sample.extras["state"][counts], newest[:, None] + np.arange(3) / 4)
    return {*wanted}


@pytest.mark.parametrize("sampler", [replay.Uniform(), replay.Prioritized()], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("rollouts", [3, 5, 23], ids=["filling", "full", "wrapped"])
@pytest.mark.parametrize("restart_at", [None, 2, 21])
def test_every_sample_is_a_true_transition(sampler, n_step, rollouts, restart_at):
    games = Games(shards=2, streams=3, steps=4)
    memory = replay.Replay(capacity=2 * 3 * 20, shards=2, read=windows.Transitions(n_step=n_step), sampler=sampler)
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


SEQUENCES = [  # and whether the state is kept once a rollout, of 4 rows
    (windows.Sequences(length=5, burn_in=2, n_step=3), False),
    (windows.Sequences(length=9, n_step=2, every=8), True),
    (windows.Sequences(length=1, burn_in=3, every=4), True),
    (windows.Sequences(length=4, every=3), False),
]


@pytest.mark.parametrize("sampler", [replay.Uniform(), replay.Prioritized()], ids=["uniform", "prioritized"])
@pytest.mark.parametrize(("read", "once"), SEQUENCES, ids=lambda value: getattr(value, "length", None))
def test_every_sequence_is_true_row_by_row(sampler, read, once):
    """While the ring fills, when it is full and later; games lost in a resume and not."""
    memory = replay.Replay(capacity=2 * 3 * 48, shards=2, read=read, sampler=sampler)
    for seed, restarts in ((0, ()), (1, (3, 13, 14, 29))):
        games = Games(shards=2, streams=3, steps=4, once=once, seed=seed)
        first = games.rollout()
        state = _add(memory, memory.init(spec(first)), first)
        for index in range(1, 31):
            if index in restarts:
                games.restart()
            state = _add(memory, state, games.rollout())
            if index in (4, 12, 14, 30):
                sample = jax.device_get(draw(memory, state, index, batch=4096))
                assert check_sequences(sample, games, read) == starts(state, games, read)


def starts(state: replay.ReplayState, games: Games, read: windows.Sequences) -> set[int]:
    """The frames with which a sequence may begin: all its rows are there, and one of them is to be learned from."""
    frames, rows = np.asarray(state.observation), state.valid.shape[1]
    oldest, count = int(state.head - state.count) % rows, int(state.count)
    size = read.burn_in + read.length + read.n_step
    ages = range(STACK - 1 if count == rows else 0, count - size + 1)
    at = [row for row in ((oldest + age) % rows for age in ages) if row % read.every == 0]
    learned = lambda frame: games.window(frame, read.burn_in + read.length)[read.burn_in :]
    return {frame for frame in frames[:, at].ravel().tolist() if any(row["valid"] for row in learned(frame))}


def check_sequences(sample: windows.SequenceSample, games: Games, read: windows.Sequences) -> set[int]:
    """Every entry is what its stream told, and its n-step targets those of the games; returns the first frames."""
    size, counts = read.burn_in + read.length + read.n_step, sample.weight > 0
    assert counts.mean() > 0.98
    begins = sample.observation[:, 0, -1]
    total, discount, taken = jax.device_get(
        windows.returns(sample.reward, sample.terminal, sample.truncated, n_step=read.n_step, discount=DISCOUNT)
    )
    frames, once = np.unique(np.where(counts, begins, -1), return_index=True)
    once = once[frames >= 0]
    rows = [games.window(frame, size) for frame in begins[once].tolist()]
    want = lambda name: np.array([[row[name] for row in each] for each in rows])
    for name in ("action", "reward", "terminal", "truncated", "first", "valid"):
        np.testing.assert_array_equal(getattr(sample, name)[once], want(name), err_msg=name)
    np.testing.assert_array_equal(sample.observation[once], want("stack"))
    np.testing.assert_allclose(sample.discount[once], np.where(want("terminal"), 0, DISCOUNT), rtol=1e-6)
    told = want("observation")
    np.testing.assert_array_equal(sample.extras["twice"][once], np.stack([2 * told, -told], axis=-1))
    told = told[:, :1] if games.once else told
    np.testing.assert_array_equal(sample.extras["state"][once], told[..., None] + np.arange(3) / 4)
    learned = [(entry, t) for entry in range(len(rows)) for t in range(read.burn_in, read.burn_in + read.length)]
    learned = [(entry, t) for entry, t in learned if rows[entry][t]["valid"]]
    targets = [games.transition(rows[entry][t]["observation"], read.n_step) for entry, t in learned]
    entry, t = once[[entry for entry, _ in learned]], np.array([t for _, t in learned])
    np.testing.assert_allclose(total[entry, t], [target["reward"] for target in targets], rtol=1e-5, atol=1e-5)
    onward = np.array([target["discount"] for target in targets])
    np.testing.assert_allclose(discount[entry, t], onward, rtol=1e-5)
    later = sample.observation[entry, t + taken[entry, t]]
    np.testing.assert_array_equal(later[onward > 0], np.array([t["next_observation"] for t in targets])[onward > 0])
    return {*frames[frames >= 0].tolist()}


@pytest.mark.parametrize("read", [windows.Transitions(n_step=2), windows.Sequences(length=3, every=4)])
def test_a_donated_ring_stays_where_it_is(read):
    games = Games(shards=2, streams=2, steps=4, once=read.every > 1)
    memory = replay.Replay(capacity=2 * 2 * 40, shards=2, read=read, sampler=replay.Prioritized())
    add, rollout = jax.jit(memory.add, donate_argnums=0), games.rollout()
    state = add(jax.jit(lambda: memory.init(spec(rollout)))(), rollout)
    places = lambda state: [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state.observation, state.extras))]
    before = places(state)
    for _ in range(12):
        state = add(state, games.rollout())
        assert places(state) == before


def test_extras_cost_what_they_hold_and_nothing_where_there_are_none():
    """A state of 1,024 numbers kept every 40th row, beside one number a row."""
    rollout = spec(Games(shards=1, streams=2, steps=40).rollout())
    wide = jax.ShapeDtypeStruct((1, 1, 2, 1024), jnp.float32)
    one = jax.ShapeDtypeStruct((1, 40, 2), jnp.float32)
    memory = replay.Replay(capacity=8_000, read=windows.Sequences(length=80, burn_in=40, every=40))
    size = lambda extras: sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(jax.eval_shape(memory.init, dataclasses.replace(rollout, extras=extras)))
    )
    assert size({"state": wide, "value": one}) - size(()) == 8_000 * (4096 // 40 + 0.4 + 4)


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
    np.testing.assert_array_equal(state.sampler["row_held"], (priority > 0).sum(axis=2))
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


def whole(rows, streams=8):
    """All rows of a ring."""
    age = jnp.int32
    return replay.Window(rows=rows, streams=streams, oldest=age(0), low=age(0), high=age(rows))


def nothing(index):
    """Priorities alone say what is held."""
    raise AssertionError(index)


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
    sums = {"row_sum": priority.sum(axis=2), "row_held": (priority > 0).sum(axis=2, dtype=jnp.int32)}
    state = {"priority": priority, "largest": jnp.ones(shards)} | sums
    sampler, window = replay.Prioritized(), whole(shape[1])

    @jax.jit
    def counted(state):
        def one(i, found):
            keys = jax.random.split(jax.random.key(i), shards)
            draw = lambda state, key: sampler.draw(state, key, nothing, window, 2**16 // shards, i)
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
        lambda key: sampler.draw(sampler.init(100, 8), key, lambda index: index < 0, window, 64, jnp.int32(0))
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
    index, weight = jax.jit(lambda state, key: sampler.draw(state, key, nothing, window, 1_000, jnp.int32(0)))(
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
        windows.Transitions(n_step=0)
    with pytest.raises(ValueError, match="length=0"):
        windows.Sequences(length=0)
    once = spec(Games(shards=1, streams=2, steps=4, once=True).rollout())
    with pytest.raises(ValueError, match=r"read\.every=6: extras are kept for every 4th row alone.* a multiple of it"):
        replay.Replay(capacity=1000, read=windows.Sequences(length=3, every=6)).init(once)
    with pytest.raises(ValueError, match=r"the least is 80$"):
        replay.Replay(capacity=60, read=windows.Sequences(length=3, every=8)).init(once)
    replay.Replay(capacity=80, read=windows.Sequences(length=3, every=8)).init(once)
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
