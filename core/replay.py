"""Replay memory that lives in the learner's state: each frame once, rewards raw, windows made when sampling.

A ring holds L rows of N streams (one a game) in each of S shards. A transition is a (row, stream) pair; its stack
of K frames are the rows before it, its successor the row k steps on (`core/windows.py`: a memory is read as transitions
or as sequences). The shard axis is laid over `data`, and nothing here crosses it but the largest weight of a batch.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, Protocol

import jax
import jax.numpy as jnp

from core import ranges, types, windows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayState:
    observation: Any  # [S, L, N, *frame]
    action: jax.Array  # [S, L, N] int32
    reward: jax.Array  # [S, L, N] float32, raw
    terminal: jax.Array  # [S, L, N] bool
    truncated: jax.Array  # [S, L, N] bool
    first: jax.Array  # [S, L, N] bool
    valid: jax.Array  # [S, L, N] bool
    extras: Any  # [S, L, N, ...] what `act` returned; [S, L/P, N, ...] where it is kept for every P-th row
    sampler: Any  # what the sampler keeps: () or priorities
    head: jax.Array  # [] int32, the row written next
    count: jax.Array  # [] int32, rows filled so far, at most L
    stack: int = dataclasses.field(metadata={"static": True})  # K


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """Where the windows lie that may be drawn from one shard; ages count rows from the oldest."""

    rows: int  # L
    streams: int  # N
    oldest: jax.Array  # [] int32, its row
    low: jax.Array  # [] int32, the least age that may be drawn
    high: jax.Array  # [] int32, the first beyond those
    every: int = 1  # ages that may be drawn differ by multiples of this

    @property
    def places(self) -> jax.Array:
        """How many there are, [] int32, at least one row of them."""
        return jnp.maximum((self.high - self.low + self.every - 1) // self.every, 1) * self.streams

    def index(self, place: jax.Array) -> jax.Array:
        """The flat index, row * N + stream, of the places with these numbers."""
        age = self.low + self.every * (place // self.streams)
        return (self.oldest + age) % self.rows * self.streams + place % self.streams


Holds = Callable[[jax.Array], jax.Array]  # index [...] -> [...] bool: whether there is anything to learn from


class Sampler(Protocol):
    """How windows are drawn, one shard at a time."""

    def init(self, rows: int, streams: int) -> Any: ...

    def add(self, state: Any, row: jax.Array, eligible: jax.Array) -> Any:
        """Rows [R] have changed; `eligible` [R, N] says which of the windows that start there may be drawn."""
        ...

    def draw(self, state: Any, key: jax.Array, holds: Holds, window: Window, batch: int, updates: jax.Array):
        """(index [batch], weight [batch]) of what `holds` something in the `window`."""
        ...

    def update(self, state: Any, index: jax.Array, error: jax.Array, weight: jax.Array) -> Any: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every window alike, by rejection: reset rows are rare, so of eight tries one holds."""

    tries: ranges.PositiveInt = 8

    def __post_init__(self):
        ranges.check(self)

    def init(self, rows: int, streams: int) -> Any:
        return ()

    def add(self, state: Any, row: jax.Array, eligible: jax.Array) -> Any:
        return state

    def draw(self, state: Any, key: jax.Array, holds: Holds, window: Window, batch: int, updates: jax.Array):
        tries = jax.random.randint(key, (batch, self.tries), 0, window.places)
        index, held = _first_held(tries, holds, window)
        return index, held.astype(jnp.float32)

    def update(self, state: Any, index: jax.Array, error: jax.Array, weight: jax.Array) -> Any:
        return state


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prioritized:
    """P(i) = (1 - u)·p_i / Z + u / M with p = (|δ| + ε)^α, weights (M·P(i))^-β over their largest (1511.05952, § 3.3).

    New ones get the largest priority seen. `beta` rises to 1 over `anneal` updates. Z is the sum over one
    shard, in which the same number is drawn in every shard; M counts what may be drawn in a shard.
    """

    alpha: ranges.Share = 0.6
    beta: ranges.Share = 0.4
    anneal: Annotated[ranges.PositiveInt, "beta=1 has the full weights at once"] = 1_000_000  # updates
    uniform: ranges.Share = 1e-3
    floor: Annotated[ranges.NonNegativeFloat, "the usual value is 1e-6"] = 1e-6  # ε

    def __post_init__(self):
        ranges.check(self)

    def init(self, rows: int, streams: int) -> Any:
        return {
            "priority": jnp.zeros((rows, streams)),
            "row_sum": jnp.zeros(rows),
            "largest": jnp.ones(()),
            "row_held": jnp.zeros(rows, jnp.int32),  # how many of a row's priorities are above 0
        }

    def add(self, state: Any, row: jax.Array, eligible: jax.Array) -> Any:
        fresh = jnp.where(eligible, state["largest"], 0.0)
        return state | {
            "priority": state["priority"].at[row].set(fresh),
            "row_held": state["row_held"].at[row].set(eligible.sum(axis=1, dtype=jnp.int32)),
            "row_sum": state["row_sum"].at[row].set(fresh.sum(axis=1)),
        }

    def draw(self, state: Any, key: jax.Array, holds: Holds, window: Window, batch: int, updates: jax.Array):
        del holds  # what holds nothing has no priority
        # Blocks of blocks of rows, a row, a stream: each is picked with random bits of its own, since one float32
        # number cannot tell a million entries apart. Sums are made anew: they never drift.
        blocks = _blocks(state["row_sum"])
        single = 2 + len(blocks)
        bits = jax.random.bits(key, (batch, single + Uniform.tries), jnp.uint32)
        which, stream, *levels, tries = jnp.split(bits, list(range(1, single + 1)), axis=1)
        row = jnp.zeros(batch, jnp.int32)
        for block, chance in zip(reversed(blocks), levels, strict=True):
            row = row * _BLOCK + _pick(block[row], chance)
        index = row * window.streams + _pick(state["priority"][row], stream)
        tries = (tries % window.places.astype(jnp.uint32)).astype(jnp.int32)
        other, _ = _first_held(tries, lambda index: state["priority"].reshape(-1)[index] > 0, window)
        index = jnp.where(which[:, 0] < self.uniform * 2.0**32, other, index)

        priority, count = state["priority"].reshape(-1)[index], jnp.maximum(state["row_held"].sum(), 1)
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
        return state | {
            "priority": priority,
            "row_sum": state["row_sum"].at[row].set(priority[row].sum(axis=1)),
            "largest": jnp.maximum(state["largest"], fresh.max()),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """`capacity` transitions over all shards; `shards` is configured, never the device count."""

    capacity: ranges.PositiveInt
    shards: ranges.PositiveInt = 1
    read: windows.Transitions | windows.Sequences = dataclasses.field(default_factory=windows.Transitions)
    sampler: Any = Uniform()

    def __post_init__(self):
        ranges.check(self)
        if self.capacity // self.shards >= 2**31:
            most = f"at most {2**31 - 1:,} transitions a shard"
            raise ValueError(f"capacity={self.capacity}: {most}; take more shards (source.shards)")

    def rollouts(self, spec: types.Rollout) -> int:
        """How many of these shapes an empty ring takes in until a whole window can be drawn."""
        return -(-(self.read.reach + 1) // spec.action.shape[1])

    def init(self, spec: types.Rollout) -> ReplayState:
        """An empty ring for rollouts of these shapes.

        Extras may have fewer than T rows in a rollout, M: then they are those of every T/M-th row.

        Raises:
          ValueError: the rollout's shard axis is not `shards`, the ring could not hold two rollouts, or sequences
            would start where no extras are kept.
        """
        shards, steps, streams = spec.action.shape
        if shards != self.shards:
            raise ValueError(f"replay.shards={self.shards}: rollouts come in {shards} shards; set both alike")
        for leaf in jax.tree.leaves(spec.extras):
            if not leaf.shape[1] or steps % leaf.shape[1]:
                raise ValueError(f"extras of {leaf.shape[1]} rows in rollouts of {steps}: must divide them")
            if self.read.every % (apart := steps // leaf.shape[1]):
                raise ValueError(
                    f"replay.read.every={self.read.every}: extras are kept for every {apart}th row alone, and windows "
                    "must start there; read Sequences with a multiple of it"
                )
        whole, stack = math.lcm(steps, self.read.every), spec.context.shape[1] + 1
        rows = self.capacity // (shards * streams) // whole * whole
        least = -(-2 * (steps + self.read.reach + stack + self.read.every - 1) // whole) * whole
        if rows < least:
            raise ValueError(
                f"replay.capacity={self.capacity}: too few for {shards} x {streams} games and rollouts of {steps}; "
                f"the least is {least * shards * streams}"
            )
        ring = lambda leaf: jnp.zeros((shards, rows * leaf.shape[1] // steps, *leaf.shape[2:]), leaf.dtype)
        per_shard = self.sampler.init(rows, streams)
        return ReplayState(
            **{name: jax.tree.map(ring, getattr(spec, name)) for name in _FIELDS},
            sampler=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (shards, *leaf.shape)), per_shard),
            head=jnp.zeros((), jnp.int32),
            count=jnp.zeros((), jnp.int32),
            stack=stack,
        )

    def add(self, state: ReplayState, rollout: types.Rollout) -> ReplayState:
        """Writes T rows. Where a stream starts a game though its last one had not ended, that one is cut."""
        steps, (_, rows, streams) = rollout.action.shape[1], state.action.shape

        def write(ring: jax.Array, new: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(ring, new, state.head * new.shape[1] // steps, axis=1)

        state = _cut(state, rollout.first[:, 0])
        state = dataclasses.replace(
            state,
            **{name: jax.tree.map(write, getattr(state, name), getattr(rollout, name)) for name in _FIELDS},
            head=(state.head + steps) % rows,
            count=jnp.minimum(state.count + steps, rows),
        )
        # Windows that start in the newest rows are not whole yet, the oldest K - 1 rows lack frames of their stacks:
        # none of them is drawn.
        changed = jnp.arange(steps + self.read.reach + state.stack - 1)
        age = changed + state.count - steps - self.read.reach
        row = (state.head - steps - self.read.reach + changed) % rows
        index = row[:, None] * streams + jnp.arange(streams)[None]
        eligible = jax.vmap(self.read.holds, (0, None))(state.valid, index)
        eligible &= ((changed < steps) & (age >= 0) & (row % self.read.every == 0))[None, :, None]
        sampler = jax.vmap(self.sampler.add, (0, None, 0))(state.sampler, row, eligible)
        return dataclasses.replace(state, sampler=sampler)

    def sample(
        self,
        state: ReplayState,
        key: jax.Array,
        *,
        batch: int,
        discount: float,
        clip: float | None = None,
        updates: jax.Array | int = 0,
    ) -> Any:
        """`batch` windows in all, the same number from each shard: a `read.sample`. Rewards are clipped to ±`clip`."""
        if batch % self.shards:
            raise ValueError(f"batch={batch}: must be a multiple of replay.shards={self.shards}")
        _, rows, streams = state.valid.shape
        oldest, every = (state.head - state.count) % rows, self.read.every
        low = jnp.where(state.count == rows, state.stack - 1, 0)
        window = Window(
            rows=rows,
            streams=streams,
            oldest=oldest,
            low=low + -(oldest + low) % every,
            high=state.count - self.read.reach,
            every=every,
        )
        keys = jax.random.split(key, self.shards)
        draw = lambda sampler, key, valid: self.sampler.draw(
            sampler, key, functools.partial(self.read.holds, valid), window, batch // self.shards, jnp.asarray(updates)
        )
        index, weight = jax.vmap(draw)(state.sampler, keys, state.valid)
        axes = jax.tree.map(lambda leaf: 0 if leaf.ndim else None, state)  # scalars are shared
        gather = lambda ring, index: self.read.gather(ring, index, discount, clip)
        taken = jax.vmap(gather, in_axes=(axes, 0))(state, index)
        merge = lambda leaf: leaf.reshape(batch, *leaf.shape[2:])
        weight = weight / jnp.maximum(weight.max(), 1e-30)
        return self.read.sample(**jax.tree.map(merge, taken), weight=merge(weight), index=index)

    def update(
        self, state: ReplayState, sample: windows.Sample | windows.SequenceSample, error: jax.Array
    ) -> ReplayState:
        """New priorities from the TD errors [B] of a sample, one for each window."""
        shape = sample.index.shape
        sampler = jax.vmap(self.sampler.update)(
            state.sampler, sample.index, error.reshape(shape), sample.weight.reshape(shape)
        )
        return dataclasses.replace(state, sampler=sampler)


_FIELDS = ("observation", "action", "reward", "terminal", "truncated", "first", "valid", "extras")
_BLOCK = 32  # sums of one level in one sum of the next; 64 to 360 were no quicker for 125,000 rows


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


def _first_held(tries: jax.Array, holds: Holds, window: Window) -> tuple[jax.Array, jax.Array]:
    """The first of the places `tries` [B, T] that holds something: its index, and if one does."""
    index = window.index(tries)
    held = holds(index) & (window.high > window.low)
    index = jnp.take_along_axis(index, jnp.argmax(held, axis=1)[:, None], axis=1)[:, 0]
    return index, jnp.any(held, axis=1)


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
