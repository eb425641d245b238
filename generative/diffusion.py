"""Diffusion and flow matching: one learner, composed.

network x `prediction` x `noise` in training x `weighting` x `sampler` x averages. x = α x₀ + σ ε, the wrapped network
estimates E[x₀ | x], and that is all a sampler needs to know: training and sampling are independent (2206.00364). DDPM,
its cosine schedule, v-diffusion, EDM and flow matching are choices of these, made in `conf/learner/`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core import network, optim, ranges, types
from generative import descent, pixels, preconditioning, probability_flow, samplers
from generative import noise as noise_

Known = tuple[jax.Array, jax.Array]  # uint8 [B, H, W, C] and bool [B, H, W]: images, and which of their pixels to draw


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion:
    """`network` maps (x float32 [B, H, W, C], noise [B], label [B] or None, key=) to [B, H, W, C].

    Labels are hidden from a share `label_dropout` of the images, so that the model knows both the conditional and the
    unconditional distribution; 1 makes an unconditional model of images with labels.
    """

    network: network.Network
    optimizer: optax.GradientTransformation
    noise: noise_.Noise
    prediction: Callable[[noise_.Level], preconditioning.Coefficients]
    weighting: Callable[[noise_.Level, jax.Array], jax.Array] = preconditioning.of_output
    sampler: samplers.Sampler = dataclasses.field(default_factory=lambda: samplers.Sampler(rule=samplers.DDIM()))
    averages: descent.Averages = dataclasses.field(default_factory=dict, hash=False)
    accumulate: int = 1  # parts of a batch whose gradients are taken one after the other
    label_dropout: ranges.Share = 0.1
    dequantize: bool = False  # train on what likelihoods are of: levels of gray filled evenly
    judge_levels: ranges.PositiveInt = 8  # of noise, for each image that `judge` sees

    def __post_init__(self):
        ranges.check(self)

    def warmup(self, spec: types.Images) -> int:
        return 0

    def init(self, key: jax.Array, spec: types.Images) -> descent.State:
        """Raises ValueError where the images do not fit the network, or the sampler not the model."""
        if spec.image.shape[-3:] != self._image or spec.image.dtype != jnp.uint8:
            raise ValueError(
                f"network: made for uint8 images of {self._image}, not {spec.image.dtype} {spec.image.shape}"
            )
        self.path(self.sampler)
        optim.check_parts(self.accumulate, spec.image.shape[0])
        return descent.begin(key, self.network.init(jax.random.fold_in(key, 0)), self.optimizer, self.averages)

    def loss(self, params: types.Params, batch: types.Images, key: jax.Array) -> tuple[jax.Array, types.Metrics]:
        """[] weighted squared error, a mean over images and pixels, at levels spread evenly over the batch."""
        level_key, image_key, noise_key, label_key, drop_key = jax.random.split(key, 5)
        count = batch.image.shape[0]
        level = self.noise.levels(noise_.stratified(level_key, count))
        label = batch.label if self.classes else None
        if label is not None:
            hidden = jax.random.bernoulli(label_key, self.label_dropout, (count,))
            label = jnp.where(hidden, self.classes, label)
        image = self._signed(batch.image)
        if self.dequantize:
            image = probability_flow.dequantized(batch.image, jax.random.split(image_key, count))
        fresh = jax.random.normal(noise_key, image.shape)
        weighted, error = self._errors(self.network.bind(params), image, fresh, level, label, drop_key)
        return jnp.mean(weighted), {"train/squared_error": jnp.mean(error)}

    def step(self, state: descent.State, batch: types.Images) -> tuple[descent.State, types.Metrics]:
        return descent.descend(state, self.loss, batch, self.optimizer, self.averages, accumulate=self.accumulate)

    def absorb(self, state: descent.State, batch: types.Images) -> descent.State:
        return dataclasses.replace(state, step=state.step + 1)

    def view(self, state: descent.State) -> dict[str, Any]:
        return descent.chosen(state, self.averages)

    def judge(self, view: dict[str, Any], batch: types.Images, key: jax.Array) -> dict[str, jax.Array]:
        """The loss of each image [B], with its label where the model has labels, over fixed levels of noise."""
        module, image = self.network.bind(view["params"]), self._signed(batch.image)
        label = batch.label if self.classes else None

        def at(index: jax.Array) -> jax.Array:
            u = jnp.full(image.shape[0], (index + 0.5) / self.judge_levels)
            fresh = jax.random.normal(jax.random.fold_in(key, index), image.shape)
            return self._errors(module, image, fresh, self.noise.levels(u), label, None)[0]

        return {"loss": jnp.mean(jax.vmap(at)(jnp.arange(self.judge_levels)), axis=0)}

    def sample(
        self,
        view: dict[str, Any],
        seeds: jax.Array,
        label: jax.Array | None = None,
        *,
        sampler: samplers.Sampler | None = None,
    ) -> jax.Array:
        """Uint8 [B, H, W, C]; image i is a function of seeds[i] and label[i] alone.

        `label` [B] int32: a class, or the number of classes for no label. None: where the model knows labels, one of
        them by the seed. Raises ValueError where the sampler does not fit the model.
        """
        return self._drawn(view, seeds, label, None, sampler or self.sampler)

    def inpaint(
        self,
        view: dict[str, Any],
        seeds: jax.Array,
        image: jax.Array,
        mask: jax.Array,
        label: jax.Array | None = None,
        *,
        sampler: samplers.Sampler | None = None,
    ) -> jax.Array:
        """Uint8 [B, H, W, C]: `image`, with the pixels where `mask` [B, H, W] is true drawn anew to fit the others.

        At every level the known pixels are put in with their share of noise (2011.13456, appendix I.2). Samplers that
        add noise on their way (`ancestral`, churn) bring both parts into better agreement than deterministic ones.
        """
        return self._drawn(view, seeds, label, (image, mask), sampler or self.sampler)

    def begin(self, seeds: jax.Array, *, sampler: samplers.Sampler) -> samplers.Carry:
        """Noise from seeds [B]: where `advance` starts. Raises ValueError where the sampler does not fit the model."""
        return sampler.begin(self.path(sampler), jax.vmap(jax.random.key)(seeds), self._image)

    def advance(
        self,
        view: dict[str, Any],
        carry: samplers.Carry,
        seeds: jax.Array,
        label: jax.Array | None,
        known: Known | None,
        first: Any,
        count: Any,
        *,
        sampler: samplers.Sampler,
    ) -> samplers.Carry:
        """`count` of the sampler's evaluations from number `first` on, which may be [] arrays.

        `sample` and `inpaint` are all of them in one; in parts, a host can do something else in between.
        """
        keys = jax.vmap(jax.random.key)(seeds)
        if label is None and self.classes:
            label = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, _LABEL), (), 0, self.classes))(keys)
        elif label is not None and not self.classes:
            raise ValueError("label: this model was trained without labels; sample without one")
        denoise = self._denoiser(view, label, guidance=sampler.guidance)
        if known is not None:
            denoise = self._held(denoise, known, keys)
        return sampler.advance(denoise, self.path(sampler), keys, carry, first, count)

    def finish(self, carry: samplers.Carry, known: Known | None) -> jax.Array:
        """The images that have been drawn, uint8 [B, H, W, C]."""
        drawn = self._bytes(carry[0])
        return drawn if known is None else jnp.where(known[1][..., None].astype(bool), drawn, known[0])

    def log_likelihood(
        self,
        view: dict[str, Any],
        batch: types.Images,
        key: jax.Array,
        *,
        steps: int = 64,
        method: probability_flow.Method = "rk4",
        trace: probability_flow.Trace = "hutchinson",
        probes: int = 1,
    ) -> dict[str, jax.Array]:
        """Bits a dimension of each image [B], given its label where the model has labels, by the probability-flow ODE.

        `likelihood_protocol` with the same settings says in words what was computed.
        """
        label = batch.label if self.classes else None
        keys = jax.random.split(key, (2, batch.image.shape[0]))
        nats = probability_flow.log_density(
            self._denoiser(view, label, guidance=1.0),
            probability_flow.dequantized(batch.image, keys[0]),
            keys[1],
            limits=self._likelihood_limits,
            steps=steps,
            method=method,
            trace=trace,
            probes=probes,
        )
        return {"bits_per_dim": probability_flow.bits_per_dimension(nats, math.prod(self._image))}

    def likelihood_protocol(
        self,
        *,
        steps: int = 64,
        method: probability_flow.Method = "rk4",
        trace: probability_flow.Trace = "hutchinson",
        probes: int = 1,
    ) -> dict[str, Any]:
        """What `log_likelihood` of the same settings computes. Raises ValueError for settings out of range."""
        for name, value in (("steps", steps), ("probes", probes)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        least, greatest = self._likelihood_limits
        return {
            "estimator": "probability-flow ODE",
            "dequantization": "uniform, one draw an image",
            "trained on dequantized images": self.dequantize,
            "conditional on the label": self.classes > 0,
            "solver": f"{method}, {steps} steps in ln(sigma/alpha) from {least:g} to {greatest:g}",
            "evaluations": steps * probability_flow.EVALUATIONS[method],
            "trace": "exact" if trace == "exact" else f"Hutchinson's, {probes} Rademacher probe(s) an image",
        }

    def path(self, sampler: samplers.Sampler) -> noise_.Level:
        """The sampler's levels. Raises ValueError where the sampler does not fit the model."""
        if sampler.guidance != 1 and not (self.classes and self.label_dropout > 0):
            raise ValueError(
                f"guidance={sampler.guidance}: needs a model trained with labels of which some were hidden (here "
                f"classes={self.network.sizes['classes']}, label_dropout={self.label_dropout}); sample with guidance=1"
            )
        path = sampler.path(self.noise)
        with np.errstate(divide="ignore"), jax.ensure_compile_time_eval():
            first = self.prediction(noise_.Level(np.float32(path.alpha[0]), np.float32(path.sigma[0])))
        if not all(np.isfinite(part) for part in first):
            name = getattr(self.prediction, "__name__", self.prediction)
            raise ValueError(
                f"prediction={name}: finds no image in pure noise (α = 0), where this path begins; train with "
                "velocity, v or x0, or sample along another grid, such as generative.noise.Karras"
            )
        return path

    def _errors(
        self, module: Any, image: jax.Array, fresh: jax.Array, level: noise_.Level, label: Any, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """([B] weighted, [B] plain) mean squared errors of the denoised images."""
        x = _by_image(level.alpha) * image + _by_image(level.sigma) * fresh
        error = jnp.mean((self._denoise(module, x, level, label, key) - image) ** 2, axis=(1, 2, 3))
        return self.weighting(level, self.prediction(level).out) * error, error

    def _denoise(
        self, module: Any, x: jax.Array, level: noise_.Level, label: jax.Array | None, key: jax.Array | None = None
    ) -> jax.Array:
        """D(x; α, σ) of x [B, H, W, C] at levels [B]. The network is told ln(σ/α) / 4 (2206.00364)."""
        skip, out, into = map(_by_image, self.prediction(level))
        return skip * x + out * module(into * x, noise_.log_ratio(level) / 4, label, key=key)

    def _denoiser(self, view: dict[str, Any], label: jax.Array | None, *, guidance: float) -> samplers.Denoise:
        """D at a level of [] arrays, guided; a guidance of 0 or 1 asks the network for one of the two only."""
        module = self.network.bind(view["params"])
        nothing = None if label is None else jnp.full_like(label, self.classes)

        def denoise(x: jax.Array, level: noise_.Level) -> jax.Array:
            count = x.shape[0]
            at = lambda count: noise_.Level(*(jnp.broadcast_to(part, (count,)) for part in level))
            if label is None or nothing is None or guidance in (0, 1):
                return self._denoise(module, x, at(count), label if guidance else nothing)
            both = self._denoise(module, jnp.concatenate([x, x]), at(2 * count), jnp.concatenate([label, nothing]))
            return both[count:] + guidance * (both[:count] - both[count:])

        return denoise

    def _drawn(
        self, view: dict[str, Any], seeds: jax.Array, label: Any, known: Known | None, sampler: samplers.Sampler
    ) -> jax.Array:
        carry = self.begin(seeds, sampler=sampler)
        carry = self.advance(view, carry, seeds, label, known, 0, sampler.evaluations, sampler=sampler)
        return self.finish(carry, known)

    def _held(self, denoise: samplers.Denoise, known: Known, keys: jax.Array) -> samplers.Denoise:
        """`denoise` with the known pixels put in: with their share of noise before, as they are after."""
        image, unknown = self._signed(known[0]), known[1][..., None].astype(bool)
        fresh = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, _KNOWN), self._image))(keys)

        def held(x: jax.Array, level: noise_.Level) -> jax.Array:
            x = jnp.where(unknown, x, level.alpha * image + level.sigma * fresh)
            return jnp.where(unknown, denoise(x, level), image)

        return held

    def _signed(self, image: jax.Array) -> jax.Array:
        """Uint8 -> float32 in [-1, 1], as the model has seen images."""
        return probability_flow.middles(image) if self.dequantize else pixels.signed(image)

    def _bytes(self, x: jax.Array) -> jax.Array:
        return probability_flow.quantized(x) if self.dequantize else pixels.to_bytes(x)

    @property
    def _likelihood_limits(self) -> noise_.Limits:
        least, greatest = self.noise.limits
        return max(least, 1e-3), min(greatest, 1e3)

    @property
    def _image(self) -> tuple[int, ...]:
        return tuple(self.network.sizes["image"])

    @property
    def classes(self) -> int:
        """How many classes can be asked for; 0 for an unconditional model. As a label, it means none of them."""
        return self.network.sizes["classes"] if self.label_dropout < 1 else 0


_LABEL, _KNOWN = 2**32 - 1, 2**32 - 2  # what a seed's key is folded with, far from the numbers of steps


def _by_image(values: jax.Array) -> jax.Array:
    return values[:, None, None, None]
