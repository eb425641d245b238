"""How a replay memory is read: as n-step transitions, or as sequences for recurrent learners, by the same windows.

A window is the rows that one sample needs: the row where it starts, and `reach` more. Both readings draw their starts
alike; a sequence with a length of 1 covers the very rows of a transition.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp

from core import ranges

if TYPE_CHECKING:
    from core import replay


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """n-step transitions. A weight of 0 marks an entry that holds nothing to learn from."""

    observation: Any  # [B, K, *frame]
    action: jax.Array  # [B] int32
    reward: jax.Array  # [B] float32, sum of γ^i r_i over the k steps taken
    discount: jax.Array  # [B] float32, γ^k, or 0 after a terminal
    next_observation: Any  # [B, K, *frame], k steps on
    extras: Any  # [B, ...] what `act` returned there
    weight: jax.Array  # [B] float32 in [0, 1], importance
    index: jax.Array  # [S, B/S] int32, row * N + stream: whom `update` gives new priorities


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceSample:
    """R = burn_in + length + n_step rows each, which may hold the end of one game and the start of the next.

    A recurrent learner resets its state where `first`, learns from the `valid` ones of rows burn_in ... burn_in +
    length - 1, and makes their targets with `returns`; the last n_step rows are there for these.
    """

    observation: Any  # [B, R, K, *frame]
    action: jax.Array  # [B, R] int32
    reward: jax.Array  # [B, R] float32, of single steps
    discount: jax.Array  # [B, R] float32, γ, or 0 after a terminal
    terminal: jax.Array  # [B, R] bool
    truncated: jax.Array  # [B, R] bool: the next row's observation is the true last one
    first: jax.Array  # [B, R] bool, `observation` opens a game
    valid: jax.Array  # [B, R] bool, False: a reset step, not to be learned from
    extras: Any  # [B, R, ...] what `act` returned; [B, 1, ...] of the first row where it is kept once a sequence
    weight: jax.Array  # [B] float32 in [0, 1], importance; 0: nothing to learn from
    index: jax.Array  # [S, B/S] int32, row * N + stream of the first row


class Reading(Protocol):
    @property
    def reach(self) -> int:
        """Rows that a window needs beyond its first."""
        ...

    @property
    def every(self) -> int:
        """Windows start at rows that are multiples of this."""
        ...

    def holds(self, valid: jax.Array, index: jax.Array) -> jax.Array:
        """Of windows at flat `index` of `valid` [L, N]: whether they hold anything to learn from."""
        ...

    def gather(
        self, ring: "replay.ReplayState", index: jax.Array, discount: float, clip: float | None
    ) -> dict[str, Any]:
        """One shard's windows at `index` [b]: fields with a leading [b]."""
        ...

    sample: Callable[..., Any]  # the class of its samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transitions:
    """Single steps with n-step returns: `Sample`."""

    n_step: ranges.PositiveInt = 1

    sample = Sample
    every = 1

    def __post_init__(self):
        ranges.check(self)

    @property
    def reach(self) -> int:
        return self.n_step

    def holds(self, valid: jax.Array, index: jax.Array) -> jax.Array:
        return valid.reshape(-1)[index]

    def gather(
        self, ring: "replay.ReplayState", index: jax.Array, discount: float, clip: float | None
    ) -> dict[str, Any]:
        at, ahead = _At(ring, index), jnp.arange(self.n_step)[None]
        reward, end, taken = returns(
            _clipped(at(ring.reward, ahead), clip),
            at(ring.terminal, ahead),
            at(ring.truncated, ahead),
            n_step=self.n_step,
            discount=discount,
        )
        one = lambda tree: jax.tree.map(lambda leaf: leaf[:, 0], tree)
        return {
            "observation": one(at.stacks(jnp.zeros((1, 1), jnp.int32))),
            "action": _take(ring.action, index),
            "reward": reward[:, 0],
            "discount": end[:, 0],
            "next_observation": one(at.stacks(taken)),
            "extras": one(at.extras(1)),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequences:
    """`burn_in` rows that only warm a recurrent state up, `length` to learn from: `SequenceSample`
    (R2D2, Kapturowski et al. 2019).

    `every`: sequences start at multiples of so many rows; extras kept once a sequence are those of these rows.
    """

    length: ranges.PositiveInt
    burn_in: ranges.NonNegativeInt = 0
    n_step: ranges.PositiveInt = 1
    every: ranges.PositiveInt = 1

    sample = SequenceSample

    def __post_init__(self):
        ranges.check(self)

    @property
    def reach(self) -> int:
        return self.burn_in + self.length + self.n_step - 1

    def holds(self, valid: jax.Array, index: jax.Array) -> jax.Array:
        rows, streams = valid.shape
        row = _plus(index // streams + self.burn_in, jnp.arange(self.length))
        return jnp.any(valid.reshape(-1)[row % rows * streams + (index % streams)[..., None]], axis=-1)

    def gather(
        self, ring: "replay.ReplayState", index: jax.Array, discount: float, clip: float | None
    ) -> dict[str, Any]:
        at, ahead = _At(ring, index), jnp.arange(self.reach + 1)[None]
        names = ("action", "terminal", "truncated", "first", "valid")
        fields = {name: at(getattr(ring, name), ahead) for name in names}
        return fields | {
            "observation": at.stacks(ahead),
            "reward": _clipped(at(ring.reward, ahead), clip),
            "discount": jnp.where(fields["terminal"], 0.0, jnp.float32(discount)),
            "extras": at.extras(self.reach + 1),
        }


def returns(
    reward: jax.Array, terminal: jax.Array, truncated: jax.Array, *, n_step: int, discount: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """n-step returns of the first T - n + 1 of T steps, all [..., T], which stop after an end.

    Returns [..., T - n + 1] each: Σ γ^i r_i over the k steps taken; γ^k, or 0 after a terminal; k. What is
    bootstrapped from lies k rows on.
    """
    steps = jnp.arange(n_step)
    at = _plus(jnp.arange(reward.shape[-1] - n_step + 1), steps)
    reward, terminal, truncated = reward[..., at], terminal[..., at], truncated[..., at]  # [..., T - n + 1, n]
    over = jnp.cumsum((terminal | truncated).astype(jnp.int32), axis=-1)
    alive = jnp.concatenate([jnp.ones_like(over[..., :1], bool), over[..., :-1] == 0], axis=-1)  # before step i
    taken = alive.sum(axis=-1, dtype=jnp.int32)
    ended = jnp.any(terminal & alive, axis=-1)
    total = jnp.sum(alive * jnp.broadcast_to(discount**steps, alive.shape) * reward, axis=-1)
    return total, jnp.where(ended, 0.0, jnp.float32(discount) ** taken), taken


class _At:
    """Reads the rings of one shard, [L, N, ...], at rows that lie ahead of those at a flat `index` [b]."""

    def __init__(self, ring: "replay.ReplayState", index: jax.Array):
        self._ring, (self._rows, self._streams) = ring, ring.valid.shape
        self._row, self._stream = index // self._streams, index % self._streams

    def __call__(self, leaf: jax.Array, ahead: jax.Array) -> jax.Array:
        """`ahead` rows on, [b or 1, ...]: [b, ..., *leaf]."""
        wide = (-1, *[1] * (ahead.ndim - 1))
        row = (self._row.reshape(wide) + ahead) % self._rows
        return _take(leaf, row * self._streams + self._stream.reshape(wide))

    def stacks(self, ahead: jax.Array) -> Any:
        """The K frames that end `ahead` [b or 1, R] rows on, blank before the game began: [b, R, K, *frame]."""
        ahead = _plus(ahead, jnp.arange(1 - self._ring.stack, 1))
        opens = self(self._ring.first, ahead)
        later = jnp.cumsum(opens[..., ::-1], axis=-1)[..., ::-1] - opens  # openings after frame j
        blank = lambda frames: jnp.where(later.reshape(*later.shape, *[1] * (frames.ndim - 3)) > 0, 0, frames)
        return jax.tree.map(lambda leaf: blank(self(leaf, ahead)), self._ring.observation)

    def extras(self, count: int) -> Any:
        """Of `count` rows, or of the first alone where they are kept for some rows only: [b, count or 1, ...]."""

        def read(leaf: jax.Array) -> jax.Array:
            kept_every = self._rows // len(leaf)
            if kept_every == 1:
                return self(leaf, jnp.arange(count)[None])
            return _take(leaf, self._row // kept_every * self._streams + self._stream)[:, None]

        return jax.tree.map(read, self._ring.extras)


def _plus(numbers: jax.Array, more: jax.Array) -> jax.Array:
    """[...] and [n] -> [..., n], each to each."""
    return numbers[..., None] + more.reshape(*[1] * numbers.ndim, -1)


def _clipped(reward: jax.Array, clip: float | None) -> jax.Array:
    return reward if clip is None else jnp.clip(reward, -clip, clip)


def _take(leaf: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of `leaf` [L, N, ...] by flat `index`: one flat axis is what gathers fastest."""
    return jnp.take(leaf.reshape(-1, *leaf.shape[2:]), index, axis=0, mode="clip")
