"""Generative adversarial networks (Goodfellow et al. 2014, 1406.2661): one learner, composed.

Generator x discriminator (`network`) x `loss` x `regularizers` x `optimizer` x `averages` of the generator, with
labels or without. R3GAN, DCGAN, WGAN-GP and conditional GANs are choices of these, made in `conf/learner/`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from core import network as network_
from core import optim, ranges, types
from generative import adversarial, descent, pixels

Params = dict[str, types.Params]  # by player


@dataclasses.dataclass(frozen=True, kw_only=True)
class Players:
    """`generator` maps z [B, Z] to images in [-1, 1] and says its Z as `latent`; `discriminator` images to logits [B].

    Both take the labels [B] int32, or None, as their second argument.
    """

    generator: network_.Network
    discriminator: network_.Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class GAN:
    """A batch is [n, B, H, W, C]: n updates of the discriminator, each on its B, then one of the generator."""

    network: Players
    optimizer: optax.GradientTransformation
    budget: ranges.PositiveInt  # images over which whatever moves (`annealing`) comes to its end
    loss: adversarial.Loss = adversarial.Relativistic
    regularizers: Mapping[str, adversarial.Regularizer] = dataclasses.field(default_factory=dict, hash=False)
    discriminator_optimizer: optax.GradientTransformation | None = None  # None: as the generator's
    averages: descent.Averages = dataclasses.field(default_factory=dict, hash=False)  # of the generator
    accumulate: int = 1  # parts of a batch whose gradients are taken one after the other
    conditional: bool = False

    def __post_init__(self):
        ranges.check(self)
        if self.conditional and self._sizes.get("classes") == 0:
            raise ValueError("conditional=true: these images have no labels; take conditional=false or another source")

    @property
    def classes(self) -> int:
        """How many classes it can be asked for, 0 without labels."""
        return self._sizes["classes"] if self.conditional else 0

    def warmup(self, spec: types.Images) -> int:
        return 0

    def init(self, key: jax.Array, spec: types.Images) -> descent.State:
        if spec.image.ndim != 5:
            raise ValueError(
                f"a batch of shape {spec.image.shape}: a GAN takes [n, B, H, W, C]; set source.batches=1, or as many "
                "discriminator updates as one of the generator shall have"
            )
        optim.check_parts(self.accumulate, spec.image.shape[1])
        params = {
            name: self._player(name).init(jax.random.fold_in(key, index))
            for index, name in enumerate(("generator", "discriminator"))
        }
        return descent.State(
            step=jnp.zeros((), jnp.int32),
            key=key,
            params=params,
            aux={},
            opt_state={name: rule.init(params[name]) for name, rule in self._optimizers.items()},
            diverged=-jnp.ones((), jnp.int32),
            ema_params={name: jax.tree.map(jnp.copy, params["generator"]) for name in self.averages},
        )

    def discriminator_loss(
        self, params: Params, batch: types.Images, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, types.Metrics]:
        """[] and its parts, on images [B, H, W, C] and as many fresh generated ones with the same labels."""
        latent, *keys = jax.random.split(key, 1 + len(self.regularizers))
        real = pixels.signed(batch.image)
        fake = jax.lax.stop_gradient(self._generate(params["generator"], latent, batch.label))
        critic = lambda image: self._judge(params["discriminator"], image, batch.label)
        real_logit, fake_logit = critic(real), critic(fake)
        parts = {"loss/discriminator": jnp.mean(self.loss.discriminator(real_logit, fake_logit))} | {
            f"loss/{name}": jnp.mean(penalty(critic, real, fake, own, progress))
            for own, (name, penalty) in zip(keys, self.regularizers.items(), strict=True)
        }
        return jnp.sum(jnp.stack(list(parts.values()))), parts | {
            "train/real_logit": jnp.mean(real_logit),
            "train/fake_logit": jnp.mean(fake_logit),
            "train/accuracy": jnp.mean((real_logit > fake_logit).astype(jnp.float32)),  # of telling a pair apart
        }

    def generator_loss(self, params: Params, batch: types.Images, key: jax.Array) -> tuple[jax.Array, types.Metrics]:
        """[], with as many fresh images as the batch has."""
        fake = self._generate(params["generator"], key, batch.label)
        real_logit = self._judge(params["discriminator"], pixels.signed(batch.image), batch.label)
        fake_logit = self._judge(params["discriminator"], fake, batch.label)
        loss = jnp.mean(self.loss.generator(real_logit, fake_logit))
        return loss, {"loss/generator": loss}

    def step(self, state: descent.State, batch: types.Images) -> tuple[descent.State, types.Metrics]:
        """Makes n updates of the discriminator and one of the generator, the latter on the last of the n batches."""
        updates, size = batch.image.shape[:2]
        images = updates * size
        progress = state.step.astype(jnp.float32) * images / self.budget
        *keys, generator_key = jax.random.split(jax.random.fold_in(state.key, state.step), updates + 1)

        def discriminate(state: descent.State, given: tuple[types.Images, jax.Array]) -> Any:
            loss = functools.partial(self.discriminator_loss, progress=progress)
            return self._update(state, "discriminator", loss, *given, progress)

        state, judged = jax.lax.scan(discriminate, state, (batch, jnp.stack(keys)))
        last = jax.tree.map(lambda leaf: leaf[-1], batch)
        state, metrics = self._update(state, "generator", self.generator_loss, last, generator_key, progress)
        state = dataclasses.replace(state, step=state.step + 1)
        averages = descent.averaged(state, state.params["generator"], self.averages, images=images)
        judged = jax.tree.map(lambda values: jnp.mean(values, axis=0), judged)
        return dataclasses.replace(state, ema_params=averages), judged | metrics

    def absorb(self, state: descent.State, batch: types.Images) -> descent.State:
        return dataclasses.replace(state, step=state.step + 1)

    def view(self, state: descent.State) -> dict[str, Any]:
        """The generator that is sampled with: the average that the config names first, or the weights themselves."""
        name = next(iter(self.averages), None)
        return {"params": state.params["generator"] if name is None else state.ema_params[name]}

    def sample(
        self, view: dict[str, Any], seeds: jax.Array, label: jax.Array | None = None, *, sampler: Any = None
    ) -> jax.Array:
        """Seeds [B], labels [B] or None (a conditional model draws its classes) -> uint8 [B, H, W, C]."""
        if sampler is not None:
            raise ValueError(f"sampler={sampler}: a GAN draws in one step and has no sampler; leave it out")
        keys = jax.vmap(jax.random.key)(seeds)
        generator = self._player("generator").bind(view["params"])
        z = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), (generator.latent,)))(keys)
        if self.conditional and label is None:
            label = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, self.classes))(keys)
        return pixels.to_bytes(generator(z, label if self.conditional else None))

    def _update(
        self,
        state: descent.State,
        player: str,
        loss: Callable[[Params, types.Images, jax.Array], tuple[jax.Array, types.Metrics]],
        batch: types.Images,
        key: jax.Array,
        progress: jax.Array,
    ) -> tuple[descent.State, types.Metrics]:
        """One guarded update of one player; the other one's parameters stay."""
        opt_states: Any = state.opt_state  # by player
        of_player = lambda moving, batch, key: loss(state.params | {player: moving}, batch, key)
        (value, metrics), gradient = optim.gradient(of_player, state.params[player], batch, key, parts=self.accumulate)
        params, opt_state, healthy, norm = optim.apply(
            _moving(self._optimizers[player], progress),
            loss=value,
            gradient=gradient,
            params=state.params[player],
            opt_state=opt_states[player],
            healthy=state.diverged < 0,
        )
        state = dataclasses.replace(
            state,
            params=state.params | {player: params},
            opt_state=opt_states | {player: opt_state},
            diverged=jnp.where(healthy | (state.diverged >= 0), state.diverged, state.step),
        )
        return state, metrics | {f"grad/{player}": norm}

    def _generate(self, params: types.Params, key: jax.Array, label: jax.Array) -> jax.Array:
        generator = self._player("generator").bind(params)
        z = jax.random.normal(key, (label.shape[0], generator.latent))
        return generator(z, label if self.conditional else None)

    def _judge(self, params: types.Params, image: jax.Array, label: jax.Array) -> jax.Array:
        return self._player("discriminator").bind(params)(image, label if self.conditional else None)

    def _player(self, name: str) -> network_.Network:
        """Without labels a network is made as for data that have none."""
        player = getattr(self.network, name)
        return player if self.conditional else dataclasses.replace(player, sizes={**player.sizes, "classes": 0})

    @property
    def _optimizers(self) -> dict[str, optax.GradientTransformation]:
        return {"generator": self.optimizer, "discriminator": self.discriminator_optimizer or self.optimizer}

    @property
    def _sizes(self) -> types.Sizes:
        return self.network.generator.sizes


def _moving(transformation: optax.GradientTransformation, progress: jax.Array) -> optax.GradientTransformation:
    """`transformation` where the run has come to; only those of `annealing` look at it."""
    open_ended = optax.with_extra_args_support(transformation)
    return optax.GradientTransformation(
        transformation.init,
        lambda gradient, state, params=None: open_ended.update(gradient, state, params, progress=progress),  # pyright: ignore
    )
