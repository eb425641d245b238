"""Replay memory that lives in the learner's state: each frame once, n-step windows made when sampling.

A ring holds L rows of N streams (one a game) in each of S shards. A transition is a (row, stream) pair; its stack
of K frames are the rows before it, its successor the row k steps on. The shard axis is laid over `data`, and
nothing here crosses it but the largest weight of a batch.
"""

import dataclasses
import functools
from typing import Annotated, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from core import ranges, types


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayState:
    observation: Any  # [S, L, N, *frame]
    action: jax.Array  # [S, L, N] int32
    reward: jax.Array  # [S, L, N] float32
    terminal: jax.Array  # [S, L, N] bool
    truncated: jax.Array  # [S, L, N] bool
    first: jax.Array  # [S, L, N] bool
    valid: jax.Array  # [S, L, N] bool
    sampler: Any  # what the sampler keeps: () or priorities
    head: jax.Array  # [] int32, the row written next
    count: jax.Array  # [] int32, rows filled so far, at most L
    stack: int = dataclasses.field(metadata={"static": True})  # K


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """n-step transitions. A weight of 0 marks an entry that holds nothing to learn from."""

    observation: Any  # [B, K, *frame]
    action: jax.Array  # [B] int32
    reward: jax.Array  # [B] float32, sum of γ^i r_i over the k steps taken
    discount: jax.Array  # [B] float32, γ^k, or 0 after a terminal
    next_observation: Any  # [B, K, *frame], k steps on
    weight: jax.Array  # [B] float32 in [0, 1], importance
    index: jax.Array  # [S, B/S] int32, row * N + stream: whom `update` gives new priorities


class Window(NamedTuple):
    """Which rows of a ring transitions are drawn from; ages count rows from the oldest."""

    oldest: jax.Array  # [] int32, its row
    low: jax.Array  # [] int32, the least age that may be drawn
    high: jax.Array  # [] int32, the first beyond those
    outside: jax.Array  # [E] int32, the rows of all other ages, as far as they hold anything


class Sampler(Protocol):
    """How transitions are drawn, one shard at a time."""

    def init(self, rows: int, streams: int) -> Any: ...

    def add(self, state: Any, row: jax.Array, eligible: jax.Array) -> Any:
        """Rows [R] have changed; `eligible` [R, N] says which of their transitions may be drawn."""
        ...

    def draw(self, state: Any, key: jax.Array, valid: jax.Array, window: Window, batch: int, updates: jax.Array):
        """(index [batch], weight [batch]) among the `valid` [L, N] in the `window`."""
        ...

    def update(self, state: Any, index: jax.Array, error: jax.Array, weight: jax.Array) -> Any: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every valid transition alike, by rejection: reset rows are rare, so of eight tries one holds."""

    tries: ranges.PositiveInt = 8

    def __post_init__(self):
        ranges.check(self)

    def init(self, rows: int, streams: int) -> Any:
        return ()

    def add(self, state: Any, row: jax.Array, eligible: jax.Array) -> Any:
        return state

    def draw(self, state: Any, key: jax.Array, valid: jax.Array, window: Window, batch: int, updates: jax.Array):
        low, streams = window.low, valid.shape[1]
        tries = jax.random.randint(key, (batch, self.tries), low * streams, jnp.maximum(window.high, low + 1) * streams)
        index, held = _first_held(tries, valid, window)
        return index, held.astype(jnp.float32)

    def update(self, state: Any, index: jax.Array, error: jax.Array, weight: jax.Array) -> Any:
        return state


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prioritized:
    """P(i) = (1 - u)·p_i / Z + u / M with p = (|δ| + ε)^α, weights (M·P(i))^-β over their largest (1511.05952, § 3.3).

    New transitions get the largest priority seen. `beta` rises to 1 over `anneal` updates. Z is the sum over one
    shard, in which the same number is drawn in every shard; M counts the valid transitions of a shard.
    """

    alpha: ranges.Share = 0.6
    beta: ranges.Share = 0.4
    anneal: Annotated[ranges.PositiveInt, "beta=1 has the full weights at once"] = 1_000_000  # updates
    uniform: ranges.Share = 1e-3
    floor: Annotated[ranges.NonNegativeFloat, "the usual value is 1e-6"] = 1e-6  # ε

    def __post_init__(self):
        ranges.check(self)

    def init(self, rows: int, streams: int) -> Any:
        return {"priority": jnp.zeros((rows, streams)), "row_sum": jnp.zeros(rows), "largest": jnp.ones(())}

    def add(self, state: Any, row: jax.Array, eligible: jax.Array) -> Any:
        fresh = jnp.where(eligible, state["largest"], 0.0)
        return state | {
            "priority": state["priority"].at[row].set(fresh),
            "row_sum": state["row_sum"].at[row].set(fresh.sum(axis=1)),
        }

    def draw(self, state: Any, key: jax.Array, valid: jax.Array, window: Window, batch: int, updates: jax.Array):
        streams = valid.shape[1]
        # Blocks of blocks of rows, a row, a stream: each is picked with random bits of its own, since one float32
        # number cannot tell a million entries apart. Sums are made anew: they never drift.
        blocks = _blocks(state["row_sum"])
        single = 2 + len(blocks)
        bits = jax.random.bits(key, (batch, single + Uniform.tries), jnp.uint32)
        which, stream, *levels, tries = jnp.split(bits, list(range(1, single + 1)), axis=1)
        row = jnp.zeros(batch, jnp.int32)
        for block, chance in zip(reversed(blocks), levels, strict=True):
            row = row * _BLOCK + _pick(block[row], chance)
        index = row * streams + _pick(state["priority"][row], stream)
        span = (jnp.maximum(window.high - window.low, 1) * streams).astype(jnp.uint32)
        other, _ = _first_held(window.low * streams + (tries % span).astype(jnp.int32), state["priority"], window)
        index = jnp.where(which[:, 0] < self.uniform * 2.0**32, other, index)

        priority = state["priority"].reshape(-1)[index]
        count = jnp.maximum(_count(valid) - valid[window.outside].sum(), 1)
        probability = (1 - self.uniform) * priority / blocks[-1].sum() + self.uniform / count
        beta = self.beta + (1 - self.beta) * jnp.minimum(updates / float(self.anneal), 1.0)
        # What has no priority is drawn only where nothing has any, and is never learned from.
        return index, jnp.where(priority > 0, (count * probability) ** -beta, 0.0)

    def update(self, state: Any, index: jax.Array, error: jax.Array, weight: jax.Array) -> Any:
        streams = state["priority"].shape[1]
        row, stream = index // streams, index % streams
        fresh = jnp.maximum((jnp.abs(error) + self.floor) ** self.alpha, jnp.finfo(jnp.float32).tiny)  # 0: not eligible
        fresh = jnp.where((weight > 0) & jnp.isfinite(fresh), fresh, state["priority"][row, stream])
        priority = state["priority"].at[row, stream].set(fresh)
        return {
            "priority": priority,
            "row_sum": state["row_sum"].at[row].set(priority[row].sum(axis=1)),
            "largest": jnp.maximum(state["largest"], fresh.max()),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """`capacity` transitions over all shards; `shards` is configured, never the device count."""

    capacity: ranges.PositiveInt
    shards: ranges.PositiveInt = 1
    n_step: ranges.PositiveInt = 1
    sampler: Any = Uniform()

    def __post_init__(self):
        ranges.check(self)
        if self.capacity // self.shards >= 2**31:
            most = f"at most {2**31 - 1:,} transitions a shard"
            raise ValueError(f"capacity={self.capacity}: {most}; take more shards (source.shards)")

    def rollouts(self, spec: types.Rollout) -> int:
        """How many of these shapes an empty ring takes in until a transition with all its n steps can be drawn."""
        return -(-(self.n_step + 1) // spec.action.shape[1])

    def init(self, spec: types.Rollout) -> ReplayState:
        """An empty ring for rollouts of these shapes.

        Raises:
          ValueError: the rollout's shard axis is not `shards`, or the ring could not hold two rollouts.
        """
        shards, steps, streams = spec.action.shape
        if shards != self.shards:
            raise ValueError(f"replay.shards={self.shards}: rollouts come in {shards} shards; set both alike")
        rows = self.capacity // (shards * streams) // steps * steps
        least = 2 * (steps + self.n_step + spec.context.shape[1] + 1)
        if rows < least:
            raise ValueError(
                f"replay.capacity={self.capacity}: too few for {shards} x {streams} games and rollouts of {steps}; "
                f"the least is {least * shards * streams}"
            )
        ring = lambda leaf: jnp.zeros((shards, rows, *leaf.shape[2:]), leaf.dtype)
        per_shard = self.sampler.init(rows, streams)
        return ReplayState(
            observation=jax.tree.map(ring, spec.observation),
            **{name: ring(getattr(spec, name)) for name in _FIELDS},
            sampler=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (shards, *leaf.shape)), per_shard),
            head=jnp.zeros((), jnp.int32),
            count=jnp.zeros((), jnp.int32),
            stack=spec.context.shape[1] + 1,
        )

    def add(self, state: ReplayState, rollout: types.Rollout) -> ReplayState:
        """Writes T rows. Where a stream starts a game though its last one had not ended, that one is cut."""
        steps, (_, rows, _) = rollout.action.shape[1], state.action.shape
        write = lambda ring, new: jax.lax.dynamic_update_slice_in_dim(ring, new, state.head, axis=1)
        state = _cut(state, rollout.first[:, 0])
        state = dataclasses.replace(
            state,
            observation=jax.tree.map(write, state.observation, rollout.observation),
            **{name: write(getattr(state, name), getattr(rollout, name)) for name in _FIELDS},
            head=(state.head + steps) % rows,
            count=jnp.minimum(state.count + steps, rows),
        )
        # The newest n rows lack their n-step successors, the oldest K - 1 lack frames of their stacks: none is drawn.
        changed = jnp.arange(steps + self.n_step + state.stack - 1)
        row = (state.head - steps - self.n_step + changed) % rows
        eligible = state.valid[:, row] & (changed < steps)[None, :, None]
        sampler = jax.vmap(self.sampler.add, (0, None, 0))(state.sampler, row, eligible)
        return dataclasses.replace(state, sampler=sampler)

    def sample(
        self, state: ReplayState, key: jax.Array, *, batch: int, discount: float, updates: jax.Array | int = 0
    ) -> Sample:
        """`batch` transitions in all, the same number from each shard."""
        if batch % self.shards:
            raise ValueError(f"batch={batch}: must be a multiple of replay.shards={self.shards}")
        rows = state.valid.shape[1]
        window = Window(
            oldest=(state.head - state.count) % rows,
            low=jnp.where(state.count == rows, state.stack - 1, 0),
            high=state.count - self.n_step,
            outside=(state.head - self.n_step + jnp.arange(self.n_step + state.stack - 1)) % rows,
        )
        keys = jax.random.split(key, self.shards)
        draw = lambda sampler, key, valid: self.sampler.draw(
            sampler, key, valid, window, batch // self.shards, jnp.asarray(updates)
        )
        index, weight = jax.vmap(draw)(state.sampler, keys, state.valid)
        axes = jax.tree.map(lambda leaf: 0 if leaf.ndim else None, state)  # scalars are shared
        gather = lambda ring, index: _gather(ring, index, self.n_step, discount)
        taken = jax.vmap(gather, in_axes=(axes, 0))(state, index)
        merge = lambda leaf: leaf.reshape(batch, *leaf.shape[2:])
        weight = weight / jnp.maximum(weight.max(), 1e-30)
        return Sample(**jax.tree.map(merge, taken), weight=merge(weight), index=index)

    def update(self, state: ReplayState, sample: Sample, error: jax.Array) -> ReplayState:
        """New priorities from the TD errors [B] of a sample."""
        shape = sample.index.shape
        sampler = jax.vmap(self.sampler.update)(
            state.sampler, sample.index, error.reshape(shape), sample.weight.reshape(shape)
        )
        return dataclasses.replace(state, sampler=sampler)


_FIELDS = ("action", "reward", "terminal", "truncated", "first", "valid")
_BLOCK = 32  # sums of one level in one sum of the next; 64 to 360 were no quicker for 125,000 rows
_SLICES = 32  # at most 255, since bytes count them


def _blocks(row_sum: jax.Array) -> list[jax.Array]:
    """[L] as [L / 32, 32], the sums of these rows as [L / 32², 32], and so on up to [1, 32], padded with zeros."""
    levels = []
    while not levels or len(levels[-1]) > 1:
        sums = levels[-1].sum(axis=1) if levels else row_sum
        levels.append(jnp.pad(sums, (0, -len(sums) % _BLOCK)).reshape(-1, _BLOCK))
    return levels


def _pick(weights: jax.Array, bits: jax.Array) -> jax.Array:
    """One index for each row of weights [B, K], with a probability proportional to its weight, from bits uint32 [B, 1].

    Shares are rounded down to multiples of 2^-31, so that their sums are exact. A weight of 0 is never picked, except
    that an empty row gives 0.
    """
    share = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    tickets, shift = (share * 2.0**31).astype(jnp.uint32), 1
    while shift < tickets.shape[1]:  # a cumulative sum by doubling: XLA:CPU's own goes number by number
        tickets, shift = tickets + jnp.pad(tickets[:, :-shift], ((0, 0), (shift, 0))), 2 * shift
    return jnp.sum(tickets <= bits % jnp.maximum(tickets[:, -1:], 1), axis=1) % weights.shape[1]


def _first_held(tries: jax.Array, valid: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    """The first of the places `tries` [B, T], counted from the oldest row, that is valid: its index, and if one is."""
    rows, streams = valid.shape
    index = (window.oldest + tries // streams) % rows * streams + tries % streams
    held = (valid.reshape(-1)[index] > 0) & (window.high > window.low)
    index = jnp.take_along_axis(index, jnp.argmax(held, axis=1)[:, None], axis=1)[:, 0]
    return index, jnp.any(held, axis=1)


def _count(valid: jax.Array) -> jax.Array:
    """How many of [L, N] are true. Adds slices, which XLA:CPU does in vectors; it reduces one number at a time."""
    rows = len(valid) // _SLICES
    part = lambda i: valid[i * rows : (i + 1) * rows].astype(jnp.uint8)
    added = functools.reduce(jnp.add, map(part, range(_SLICES)))
    return added.sum(dtype=jnp.int32) + valid[_SLICES * rows :].sum(dtype=jnp.int32)


def _cut(state: ReplayState, starts: jax.Array) -> ReplayState:
    """Ends games that were left in flight (a resumed run): [S, N] `starts` marks streams that open a game.

    The last row's successor was never stored. Unless nothing follows it anyway, it becomes the true last frame of
    its game, not to be learned from, and the row before it is truncated: the very form of an ordinary end.
    """
    rows = state.valid.shape[1]
    last, before = (state.head - 1) % rows, (state.head - 2) % rows
    cut = starts & state.valid[:, last] & ~state.terminal[:, last]
    return dataclasses.replace(
        state,
        valid=state.valid.at[:, last].set(state.valid[:, last] & ~cut),
        truncated=state.truncated.at[:, before].set(state.truncated[:, before] | (cut & state.valid[:, before])),
    )


def _gather(ring: ReplayState, index: jax.Array, n_step: int, discount: float) -> dict[str, Any]:
    """One shard's transitions at `index` [b]: fields of `Sample` with a leading [b]."""
    rows, streams = ring.valid.shape
    row, stream = index // streams, index % streams
    at = lambda leaf, offsets: _take(leaf, (row[:, None] + offsets) % rows * streams + stream[:, None])

    steps = jnp.arange(n_step)[None]
    reward, terminal = at(ring.reward, steps), at(ring.terminal, steps)
    ended = terminal | at(ring.truncated, steps)
    alive = jnp.cumprod(1 - jnp.pad(ended, ((0, 0), (1, 0)))[:, :-1].astype(jnp.int32), axis=1)  # [b, n], before step i
    taken = alive.sum(axis=1)
    finished = jnp.any(terminal & (alive > 0), axis=1)

    def stacked(back: jax.Array) -> Any:
        """The K frames that end `back` [b, 1] rows on, blank before the game began: [b, K, *frame]."""
        offsets = back + jnp.arange(1 - ring.stack, 1)[None]
        opens = at(ring.first, offsets)
        later = jnp.cumsum(opens[:, ::-1], axis=1)[:, ::-1] - opens  # openings after frame j
        blank = lambda frames: jnp.where(later.reshape(*later.shape, *[1] * (frames.ndim - 2)) > 0, 0, frames)
        return jax.tree.map(lambda leaf: blank(at(leaf, offsets)), ring.observation)

    return {
        "observation": stacked(jnp.zeros_like(row)[:, None]),
        "action": _take(ring.action, index),
        "reward": jnp.sum(alive * discount**steps * reward, axis=1),
        "discount": jnp.where(finished, 0.0, jnp.float32(discount) ** taken),
        "next_observation": stacked(taken[:, None]),
    }


def _take(leaf: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of `leaf` [L, N, ...] by flat `index`: one flat axis is what gathers fastest."""
    return jnp.take(leaf.reshape(-1, *leaf.shape[2:]), index, axis=0, mode="clip")
