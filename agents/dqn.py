"""Deep Q-learning from replay (Mnih et al. 2015): one learner, composed.

torso x head (`network`) x `bootstrap` x n-step and sampling (`replay`) x `target` x `loss` x `optimizer`. Double DQN
(1509.06461), dueling networks (1511.06581) and prioritised replay (1511.05952) are choices of these, made in
`conf/learner/`.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import annotated_types
import jax
import jax.numpy as jnp
import optax

from agents import td
from core import network, optim, ranges, types, windows
from core import replay as memory


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DQNState(types.TrainState):
    target_params: types.Params
    replay: memory.ReplayState
    updates: jax.Array  # [] int32, gradient steps so far


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardUpdate:
    """θ⁻ ← θ every `period` updates."""

    period: ranges.PositiveInt

    def __post_init__(self):
        ranges.check(self)
        if self.period >= 2**31:
            raise ValueError(f"period={self.period}: must be less than 2^31 updates, as far as they are counted")

    def __call__(self, target: types.Params, params: types.Params, updates: jax.Array) -> types.Params:
        return jax.lax.cond(updates % self.period == 0, lambda: params, lambda: target)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftUpdate:
    """θ⁻ ← θ⁻ + rate·(θ - θ⁻) at every update (1509.02971)."""

    rate: Annotated[float, annotated_types.Interval(gt=0, le=1)]

    def __post_init__(self):
        ranges.check(self)

    def __call__(self, target: types.Params, params: types.Params, updates: jax.Array) -> types.Params:
        del updates
        return jax.tree.map(lambda old, new: old + self.rate * (new - old), target, params)


def updates(*, frames: int, update_every: int, frame_skip: int = 1) -> int:
    """How many updates that many frames pay for: from what budgets count to what a sampler anneals by."""
    for name, value in (("update_every", update_every), ("frame_skip", frame_skip)):
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    return max(frames // (update_every * frame_skip), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DQN:
    """Counts are of environment steps (agent decisions), whatever the frame skip."""

    network: network.Network
    optimizer: optax.GradientTransformation
    replay: memory.Replay
    target: Callable[..., types.Params]
    bootstrap: Callable[[jax.Array, jax.Array], jax.Array] = td.max_bootstrap
    loss: Callable[[jax.Array], jax.Array] = td.huber
    batch: ranges.PositiveInt = 32
    discount: ranges.Share = 0.99
    update_every: ranges.PositiveInt = 4  # environment steps to one update
    learning_starts: ranges.NonNegativeInt = 50_000  # environment steps
    reward_clip: Annotated[ranges.PositiveFloat, "null leaves rewards as they are"] | None = 1.0

    def __post_init__(self):
        ranges.check(self)
        if not isinstance(self.replay.read, windows.Transitions):
            raise ValueError(
                f"replay.read={type(self.replay.read).__name__}: DQN learns from single transitions; take "
                "core.windows.Transitions"
            )
        if self.batch % self.replay.shards:
            raise ValueError(f"batch={self.batch}: must be a multiple of replay.shards={self.replay.shards}")
        if self.batch > self.replay.capacity:
            raise ValueError(f"batch={self.batch}: more than replay.capacity={self.replay.capacity} ever holds")
        if self.learning_starts > self.replay.capacity:
            raise ValueError(
                f"learning_starts={self.learning_starts}: more than replay.capacity={self.replay.capacity} ever holds"
            )

    def warmup(self, spec: types.Rollout) -> int:
        """`learning_starts`, and at least so long that the first update finds something to learn from."""
        return max(-(-self.learning_starts // spec.action.size), self.replay.rollouts(spec) - 1)

    def init(self, key: jax.Array, spec: types.Rollout) -> DQNState:
        self.updates_per_step(spec)
        params = self.network.init(jax.random.fold_in(key, 0))
        return DQNState(
            step=jnp.zeros((), jnp.int32),
            key=key,
            params=params,
            aux={},
            opt_state=self.optimizer.init(params),
            diverged=-jnp.ones((), jnp.int32),
            target_params=jax.tree.map(jnp.copy, params),
            replay=self.replay.init(spec),
            updates=jnp.zeros((), jnp.int32),
        )

    def loss_and_errors(
        self, params: types.Params, target_params: types.Params, sample: windows.Sample
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """([] weighted mean loss, (TD errors [B], values of the actions taken [B]))."""
        value = td.chosen(self.network.bind(params)(sample.observation), sample.action)
        later = self.network.bind(target_params)(sample.next_observation)
        online = later
        if self.bootstrap is not td.max_bootstrap:
            online = jax.lax.stop_gradient(self.network.bind(params)(sample.next_observation))
        error = td.target(sample.reward, sample.discount, self.bootstrap(later, online)) - value
        return jnp.mean(sample.weight * self.loss(error)), (error, value)

    def step(self, state: DQNState, rollout: types.Rollout) -> tuple[DQNState, types.Metrics]:
        """Takes a rollout in, then makes one update for every `update_every` of its environment steps."""
        state = self._remember(state, rollout)
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), self.updates_per_step(rollout))
        state, metrics = jax.lax.scan(self._update, state, keys)
        metrics = jax.tree.map(lambda values: jnp.mean(values, axis=0), metrics)
        return dataclasses.replace(state, step=state.step + 1), metrics

    def absorb(self, state: DQNState, rollout: types.Rollout) -> DQNState:
        return dataclasses.replace(self._remember(state, rollout), step=state.step + 1)

    def view(self, state: DQNState) -> dict[str, Any]:
        return {"params": state.params}

    def carry(self, envs: int) -> tuple:
        return ()

    def act(
        self, view: dict[str, Any], carry: tuple, observation: Any, first: jax.Array, key: jax.Array, epsilon: jax.Array
    ) -> tuple[jax.Array, tuple, tuple]:
        """ε-greedy: observation [N, K, *frame], epsilon [N] -> action [N] int32."""
        values = self.network.bind(view["params"])(observation)
        explore, choice = jax.random.split(key)
        random = jax.random.randint(choice, values.shape[:1], 0, values.shape[-1])
        action = jnp.where(jax.random.uniform(explore, epsilon.shape) < epsilon, random, jnp.argmax(values, axis=-1))
        return action.astype(jnp.int32), carry, ()

    def updates_per_step(self, spec: types.Rollout) -> int:
        """How many updates a rollout of these shapes pays for."""
        if spec.action.size % self.update_every:
            raise ValueError(
                f"learner.update_every={self.update_every}: does not divide a rollout's {spec.action.size} environment "
                "steps (source.envs x source.steps); change one of the three"
            )
        return spec.action.size // self.update_every

    def _remember(self, state: DQNState, rollout: types.Rollout) -> DQNState:
        return dataclasses.replace(state, replay=self.replay.add(state.replay, rollout))

    def _update(self, state: DQNState, key: jax.Array) -> tuple[DQNState, types.Metrics]:
        sample = self.replay.sample(
            state.replay,
            key,
            batch=self.batch,
            discount=self.discount,
            clip=self.reward_clip,
            updates=state.updates,
        )
        differentiate = jax.value_and_grad(self.loss_and_errors, has_aux=True)
        (loss, (error, value)), gradient = differentiate(state.params, state.target_params, sample)
        params, opt_state, healthy, norm = optim.apply(
            self.optimizer,
            loss=loss,
            gradient=gradient,
            params=state.params,
            opt_state=state.opt_state,
            healthy=state.diverged < 0,
        )
        updates = state.updates + healthy
        state = dataclasses.replace(
            state,
            params=params,
            opt_state=opt_state,
            diverged=jnp.where(healthy | (state.diverged >= 0), state.diverged, state.step),
            target_params=jax.lax.cond(
                healthy, self.target, lambda kept, *_: kept, state.target_params, params, updates
            ),
            replay=self.replay.update(state.replay, sample, error),
            updates=updates,
        )
        return state, {
            "loss/td": loss,
            "grad/norm": norm,
            "value/mean": jnp.mean(value),
            "value/error": jnp.mean(jnp.abs(error)),
        }
