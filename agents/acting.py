"""The actor: plays games with an agent's newest view and hands over rollouts, in a thread of its own.

The rollout's frames are kept once; `context` and `first` are all that is needed to rebuild every stack.
"""

import concurrent.futures
import dataclasses
import functools
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from agents import environments as environments_
from agents import resuming
from core import distributed, types, worker


class Actor:
    """A `types.Source` of `types.Rollout`s. Batch k is acted by the view that `start(k, view)` asks for.

    `envs` and `shards` are totals: a run of P processes plays envs / P games in shards / P shards in each.
    Environment e belongs to shard e // N. The action key of step t of batch k is fold_in(key', k·T + t), where key'
    follows from the seed and the process. A view is held on one device of this process, and its arrays must live
    until `next` has returned its batch.

    Raises ValueError for sizes that do not divide. What fails in the thread is raised by `next`.
    """

    unit = "frames"
    data_axis = 0
    dispatch = 1

    def __init__(
        self,
        *,
        environments: environments_.Recipe,
        envs: int,
        steps: int,
        shards: int,
        exploration: Callable[[float], float],  # frames of all processes -> ε
        seed: int,
    ):
        processes = jax.process_count()
        _check_sizes(envs, steps, shards, processes)
        types.check_seed(seed)
        self._games = environments.make(envs // processes)
        self._played = resuming.Resumable(self._games)
        self._layout = (shards // processes, steps, envs // shards)  # S, T, N of this process
        self._exploration = exploration
        self._seed = seed
        self.sizes = {"observation": (self._games.stack, *self._games.frame), "actions": self._games.actions}
        self.examples_per_step = envs * steps * self._games.frames_per_step
        self.spec = _spec((shards, steps, envs // shards), self._games, extras=())
        self._agent = None
        self._position: _Position | None = None  # None: games start anew with the next batch
        self._worker = worker.Worker("actor")
        self._started: deque[concurrent.futures.Future[tuple[types.Rollout, _Record]]] = deque()
        self._record = _Record()

    @property
    def protocol(self) -> dict[str, Any]:
        """What the training scores must be read with."""
        return self._games.protocol()

    def attach(self, agent: Any) -> None:
        """Says who plays; completes `spec` by the agent's extras. Call it once, before the first batch."""
        self._agent = agent
        key = jax.random.key(self._seed)
        # Away from the keys of learner steps, fold_in(key, step), and from other processes' games.
        self._key = jax.random.fold_in(key, 2**32 - 1 - jax.process_index())
        self._extras, self._carry = _abstract(agent, self._games, self.spec, key)
        self.spec = _spec(self.spec.action.shape, self._games, self._extras)

        def act(view, carry, observation, first, key, index, epsilon):
            return agent.act(view, carry, observation, first, jax.random.fold_in(key, index), epsilon)

        self._act = jax.jit(act)

    def start(self, step: int, view: Callable[[], Any]) -> None:
        """Begins batch `step` and returns at once."""
        if self._agent is None:
            raise RuntimeError("no agent to act with: call attach(agent) before start")
        self._started.append(self._worker.submit(self._batch, view(), step))

    def next(self) -> types.Rollout:
        """Waits for the oldest batch started: this process's shards, as NumPy arrays that it never touches again."""
        if not self._started:
            raise RuntimeError("no batch was started: call start(step, view) before next")
        rollout, record = self._started.popleft().result()
        self._record.add(record)
        return rollout

    def metrics(self) -> dict[str, float]:
        """Of what `next` returned since the last call, over all processes; returns are raw and over all lives."""
        record, self._record = self._record, _Record()
        return record.summary()

    def state_dict(self) -> dict[str, Any]:
        """How the games came to where they stand after the last batch; {} before the first one.

        Raises RuntimeError while a batch is on its way: its weights are gone by the time it could be begun again.
        """
        if self._started:
            raise RuntimeError(
                f"{len(self._started)} batches are on their way: take them with next() before state_dict"
            )
        if self._position is None:
            return {}
        return {"games": self._played.state_dict(), "position": self._position.pack(), "record": self._record.pack()}

    def load_state_dict(self, tree: Mapping[str, Any]) -> None:
        """Plays the games again up to where `state_dict` was taken, and goes on there bitwise.

        From {}, or where they come to another place, games restart with seeds of (seed, step), and a line says so.
        """
        if not tree:
            return
        if self._agent is None:
            raise RuntimeError("no agent to restore for: call attach(agent) before load_state_dict")
        position = _Position.unpack(tree["position"], self._carry)
        if self._played.load_state_dict(tree["games"], position.observation):
            self._position = position
        self._record = _Record.unpack(tree["record"])

    def close(self) -> None:
        """Stops within a step; warns and goes on where a game does not return within ten seconds."""
        if self._worker.close(timeout=10.0):
            self._games.close()
        else:
            warnings.warn(
                "the actor's games did not return within 10 s and are left alone", RuntimeWarning, stacklevel=2
            )

    # ---- in the thread ----

    def _batch(self, view: Any, step: int) -> tuple[types.Rollout, "_Record"]:
        # None meanwhile: games that a failure leaves in the middle of a step are never gone on with.
        position, self._position = self._position, None
        position = position if position is not None else self._open(step)
        shards, steps, envs = self._layout
        epsilon = float(self._exploration(float(step * self.examples_per_step)))
        epsilons = np.full(self._games.count, epsilon, np.float32)
        record = _Record(epsilon=epsilon, steps=steps)
        rollout = _allocate(self._layout, self._games, self._extras)
        # [S*N, K-1, ...] -> [S, K-1, N, ...]
        history = position.observation[:, :-1].reshape(shards, envs, self._games.stack - 1, *self._games.frame)
        rollout.context[:] = history.swapaxes(1, 2)
        for t in range(steps):
            if self._worker.stopping.is_set():
                raise concurrent.futures.CancelledError("the actor was closed")
            index = np.uint32((step * steps + t) % 2**32)
            position = self._step(view, position, index, epsilons, functools.partial(_write, rollout, t), record)
        rollout.tail[:] = position.observation[:, -1].reshape(shards, envs, *self._games.frame)
        self._position = position
        return rollout, record

    def _open(self, step: int) -> "_Position":
        if step:
            distributed.say("the games in flight restart: the checkpoint has none that go on here")
        sequence = np.random.SeedSequence((self._seed, step, jax.process_index()))
        count = self._games.count
        return _Position(
            observation=self._played.reset(int(sequence.generate_state(1)[0]) % 2**30),  # int32 in the emulator
            first=np.ones(count, bool),
            over=np.zeros(count, bool),
            returns=np.zeros(count, np.float64),
            lengths=np.zeros(count, np.int64),
            carry=self._agent.carry(count),  # pyright: ignore[reportOptionalMemberAccess]
        )

    def _step(self, view, position, index, epsilons, write, record) -> "_Position":
        began = time.perf_counter()
        action, carry, extras = self._act(
            view, position.carry, position.observation, position.first, self._key, index, epsilons
        )
        action = np.asarray(action)  # waits
        acted = time.perf_counter()
        step = self._played.step(action)
        record.act_seconds += acted - began
        record.environment_seconds += time.perf_counter() - acted
        write(position, action, step, extras)
        returns = position.returns + step.reward
        lengths = position.lengths + ~position.over
        if step.over.any():
            frames = lengths[step.over] * self._games.frames_per_step
            record.episodes += zip(returns[step.over].tolist(), frames.tolist(), strict=True)
            returns[step.over] = 0
            lengths[step.over] = 0
        return _Position(step.observation, position.over, step.over, returns, lengths, carry)


@dataclasses.dataclass(slots=True)
class _Position:
    """Where the games stand between two steps; arrays are replaced, never written to."""

    observation: np.ndarray  # [S*N, K, *frame]
    first: np.ndarray  # [S*N] bool, it opens a game
    over: np.ndarray  # [S*N] bool, it is a game's last: the next step resets
    returns: np.ndarray  # [S*N] float64, raw score so far
    lengths: np.ndarray  # [S*N] int64, environment steps so far
    carry: Any  # the agent's recurrent state

    def pack(self) -> dict[str, Any]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"carry": _pack(self.carry)}

    @classmethod
    def unpack(cls, tree: Mapping[str, Any], carry: Any) -> "_Position":
        return cls(**{**tree, "carry": _unpack(carry, tree["carry"])})


@dataclasses.dataclass(slots=True)
class _Record:
    """What the metrics are made of."""

    episodes: list[tuple[float, int]] = dataclasses.field(default_factory=list)  # raw return, frames
    epsilon: float = math.nan  # of the last batch
    steps: int = 0  # vector steps
    act_seconds: float = 0.0
    environment_seconds: float = 0.0

    def add(self, later: "_Record") -> None:
        self.episodes += later.episodes
        self.epsilon = later.epsilon
        self.steps += later.steps
        self.act_seconds += later.act_seconds
        self.environment_seconds += later.environment_seconds

    def summary(self) -> dict[str, float]:
        """Over all processes."""
        ended = np.array(self.episodes, np.float64).reshape(-1, 2)
        here = [self.steps, self.act_seconds, self.environment_seconds, len(ended), *ended.sum(axis=0)]
        steps, act, environment, episodes, returns, frames = distributed.total(np.array(here)).tolist()
        if not steps:
            return {}
        metrics = {
            "train/epsilon": self.epsilon,
            "train/episodes": episodes,
            "time/act_seconds": act / steps,  # a vector step
            "time/environment_seconds": environment / steps,
        }
        if episodes:
            metrics |= {"train/episode_return": returns / episodes, "train/episode_frames": frames / episodes}
        return metrics

    def pack(self) -> dict[str, Any]:
        return {
            "episodes": np.array(self.episodes, np.float64).reshape(-1, 2),
            "numbers": np.array([self.epsilon, self.steps, self.act_seconds, self.environment_seconds], np.float64),
        }

    @classmethod
    def unpack(cls, tree: Mapping[str, Any]) -> "_Record":
        epsilon, steps, act, environment = (float(number) for number in tree["numbers"])
        episodes = [(float(score), int(frames)) for score, frames in tree["episodes"]]
        return cls(episodes, epsilon, int(steps), act, environment)


def _check_sizes(envs: int, steps: int, shards: int, processes: int) -> None:
    for name, value in (("envs", envs), ("steps", steps), ("shards", shards)):
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    if envs % shards:
        raise ValueError(
            f"envs={envs}: not a multiple of {shards} shards; try envs={math.ceil(envs / shards) * shards}"
        )
    if shards % processes:
        raise ValueError(
            f"shards={shards}: not a multiple of {processes} processes; "
            f"try shards={math.ceil(shards / processes) * processes}"
        )


def _spec(layout: tuple[int, int, int], games: environments_.Environments, extras: Any) -> types.Rollout:
    """Shapes and dtypes of a rollout of `layout` (S, T, N)."""
    shards, _, envs = layout

    def frames(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*shape, *games.frame), games.dtype)

    flags = jax.ShapeDtypeStruct(layout, np.bool_)
    return types.Rollout(
        observation=frames(*layout),
        action=jax.ShapeDtypeStruct(layout, np.int32),
        reward=jax.ShapeDtypeStruct(layout, np.float32),
        terminal=flags,
        truncated=flags,
        first=flags,
        valid=flags,
        context=frames(shards, games.stack - 1, envs),
        tail=frames(shards, envs),
        extras=jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*layout, *leaf.shape[1:]), leaf.dtype), extras),
    )


def _allocate(layout: tuple[int, int, int], games: environments_.Environments, extras: Any) -> types.Rollout:
    """Fresh for every batch: JAX may take NumPy's memory over instead of copying it."""
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), _spec(layout, games, extras))


def _write(rollout: types.Rollout, t: int, position: _Position, action: np.ndarray, step: environments_.Step, extras):
    """Row t: where the games stood, what was done, what it led to."""
    shards, _, envs = rollout.action.shape

    def rows(array: np.ndarray) -> np.ndarray:
        return array.reshape(shards, envs, *array.shape[1:])

    rollout.observation[:, t] = rows(position.observation[:, -1])
    rollout.action[:, t] = rows(action)
    rollout.reward[:, t] = rows(step.reward)
    rollout.terminal[:, t] = rows(step.terminal)
    rollout.truncated[:, t] = rows(step.truncated)
    rollout.first[:, t] = rows(position.first)
    rollout.valid[:, t] = rows(~position.over)
    for into, leaf in zip(jax.tree.leaves(rollout.extras), jax.tree.leaves(extras), strict=True):
        into[:, t] = rows(np.asarray(leaf))


def _abstract(agent: Any, games: environments_.Environments, spec: types.Rollout, key: jax.Array) -> tuple[Any, Any]:
    """Shapes of what one call of act returns beside its actions, (extras, carry), found without computing."""
    count = games.count
    view = jax.eval_shape(lambda key: agent.view(agent.init(key, spec)), key)
    carry = jax.eval_shape(lambda: agent.carry(count))
    observation = jax.ShapeDtypeStruct((count, games.stack, *games.frame), games.dtype)
    first = jax.ShapeDtypeStruct((count,), np.bool_)
    epsilon = jax.ShapeDtypeStruct((count,), np.float32)
    _, carry, extras = jax.eval_shape(agent.act, view, carry, observation, first, key, epsilon)
    return extras, carry


def _pack(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _unpack(like: Any, leaves: list[np.ndarray]) -> Any:
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
