"""Autoencoders that are trained by likelihood: VAE (1312.6114), β-VAE, IWAE (1509.00519), and the plain autoencoder.

`network` (encoder and decoder) x `likelihood` x `objective` x `optimizer`, with an optional label. All figures are in
nats an image: sums over pixels and latents, means over images.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Protocol

import jax
import jax.numpy as jnp
import optax

from core import network as network_
from core import optim, ranges, types
from generative import descent, likelihoods

PIXELS = 2**22  # decoded at a time when a likelihood is estimated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
    """What K codes drawn from q(z|x) say of each of B images, in nats."""

    log_likelihood: jax.Array  # [K, B] log p(x|z)
    log_ratio: jax.Array  # [K, B] log p(z) - log q(z|x) of the very codes drawn
    kl: jax.Array  # [B] KL(q(z|x) || p(z)) in closed form


class Objective(Protocol):
    @property
    def samples(self) -> int:
        """K, the codes drawn for each image; 0: one code, the mean of q(z|x)."""
        ...

    def __call__(self, terms: Terms) -> jax.Array:
        """What is maximised, [B] nats."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """log p(x|z) at the mean of q: a plain autoencoder, which has no prior to sample from."""

    samples = 0

    def __call__(self, terms: Terms) -> jax.Array:
        return jnp.mean(terms.log_likelihood, axis=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ELBO:
    """E_q log p(x|z) - β KL(q || p), the latter in closed form. β counts nats against nats: 1 is the ELBO."""

    beta: Annotated[ranges.NonNegativeFloat, "1 is the evidence lower bound"] = 1.0
    samples: ranges.PositiveInt = 1  # codes an image

    def __post_init__(self):
        ranges.check(self)

    def __call__(self, terms: Terms) -> jax.Array:
        return jnp.mean(terms.log_likelihood, axis=0) - self.beta * terms.kl


@dataclasses.dataclass(frozen=True, kw_only=True)
class IWAE:
    """log 1/K Σ p(x, z_k) / q(z_k|x) (1509.00519, eq. 8): closer to log p(x) the more codes are drawn."""

    samples: ranges.PositiveInt = 5  # K

    def __post_init__(self):
        ranges.check(self)

    def __call__(self, terms: Terms) -> jax.Array:
        return log_mean_exp(terms.log_likelihood + terms.log_ratio)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAE:
    """`network` makes an `autoencoders.Autoencoder`; `conditional` gives the label to both of its halves."""

    network: network_.Network
    likelihood: likelihoods.Likelihood
    optimizer: optax.GradientTransformation
    objective: Objective = dataclasses.field(default_factory=ELBO)
    conditional: bool = False
    averages: descent.Averages = dataclasses.field(default_factory=dict, hash=False)
    accumulate: int = 1  # parts of a batch whose gradients are taken one after the other

    def warmup(self, spec: types.Images) -> int:
        return 0

    def init(self, key: jax.Array, spec: types.Images) -> descent.State:
        """Raises: ValueError where a label is wanted and the data has none."""
        if self.conditional and not self.network.sizes["classes"]:
            raise ValueError("learner.conditional=true: this data has no classes; use data that has, or false")
        optim.check_parts(self.accumulate, spec.image.shape[0])
        return descent.begin(key, self._network.init(jax.random.fold_in(key, 0)), self.optimizer, self.averages)

    def loss(self, params: types.Params, batch: types.Images, key: jax.Array) -> tuple[jax.Array, types.Metrics]:
        terms = self._terms(params, batch, key)
        metrics = {"loss/reconstruction": -jnp.mean(terms.log_likelihood)}
        if self.objective.samples:
            metrics["loss/kl"] = jnp.mean(terms.kl)
        return -jnp.mean(self.objective(terms)), metrics

    def step(self, state: descent.State, batch: types.Images) -> tuple[descent.State, types.Metrics]:
        return descent.descend(state, self.loss, batch, self.optimizer, self.averages, accumulate=self.accumulate)

    def absorb(self, state: descent.State, batch: types.Images) -> descent.State:
        return dataclasses.replace(state, step=state.step + 1)

    def view(self, state: descent.State) -> dict[str, Any]:
        return descent.chosen(state, self.averages)

    @property
    def sample(self) -> Callable[..., jax.Array]:
        """`sample(view, seeds, label=None, *, sampler=None)`; a plain autoencoder has no prior and so no `sample`."""
        if not self.objective.samples:
            raise AttributeError("learner.objective: a plain autoencoder has no prior to sample from; train a VAE")
        return self._sample

    def encode(self, view: dict[str, Any], batch: types.Images, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance of the images' codes, [B, Z] each; `key` is for data that are made binary by chance."""
        target = self.likelihood.prepare(batch.image, key)
        return self._network.bind(view["params"]).encode(target, self._given(batch.label))

    def decode(self, view: dict[str, Any], code: jax.Array, label: jax.Array | None = None) -> jax.Array:
        """[B, Z], [B] -> the expected pictures, uint8 [B, H, W, C]."""
        parameters = self._network.bind(view["params"]).decode(code, self._given(label))
        return self.likelihood.mean(parameters)

    def judge(self, view: dict[str, Any], batch: types.Images, key: jax.Array) -> dict[str, jax.Array]:
        """Figures of each image [B] in nats, with as many codes as the objective draws.

        `loss` is what is trained; `reconstruction` -log p(x|z), `kl`, and `elbo`, a lower bound on log p(x), where
        codes are drawn and the data are fit for a likelihood; `bits_per_dim` besides, where they are bytes.
        """
        terms = self._terms(view["params"], batch, key)
        figures = {"loss": -self.objective(terms), "reconstruction": -jnp.mean(terms.log_likelihood, axis=0)}
        if not self.objective.samples:
            return figures
        figures["kl"] = terms.kl
        if self.likelihood.refusal is not None:
            return figures
        figures["elbo"] = -figures["reconstruction"] - terms.kl
        if self.likelihood.of_bytes:
            figures["bits_per_dim"] = likelihoods.bits_per_dimension(figures["elbo"], batch.image.shape[1:])
        return figures

    def log_likelihood(
        self, view: dict[str, Any], batch: types.Images, key: jax.Array, *, samples: int = 5_000
    ) -> dict[str, jax.Array]:
        """-log p(x) of each image [B] by importance sampling with `samples` codes from q(z|x) (1509.00519, eq. 8).

        An upper bound in expectation, tight as `samples` grows. Raises ValueError where `likelihood_protocol` does.
        """
        self.likelihood_protocol(samples=samples)
        prepare, draw = jax.random.split(key)
        target = self.likelihood.prepare(batch.image, prepare)
        label, module = self._given(batch.label), self._network.bind(view["params"])
        posterior = module.encode(target, label)

        def log_weight(key: jax.Array) -> jax.Array:
            code, log_ratio = _draw(key, *posterior)
            return self.likelihood.log_prob(module.decode(code, label), target) + log_ratio

        chunk = min(samples, max(1, PIXELS // target.size))
        log_weights = jax.lax.map(log_weight, jax.random.split(draw, samples), batch_size=chunk)
        log_prob = log_mean_exp(log_weights)
        figures = {"nll_nats": -log_prob}
        if self.likelihood.of_bytes:
            figures["bits_per_dim"] = likelihoods.bits_per_dimension(log_prob, batch.image.shape[1:])
        return figures

    @property
    def judge_protocol(self) -> dict[str, Any]:
        """What the figures of `judge` must be read with: its likelihood, and how many codes are drawn for an image."""
        return {**self.likelihood.protocol, "codes": self.objective.samples}

    def likelihood_protocol(self, *, samples: int = 5_000) -> dict[str, Any]:
        """What `log_likelihood` must be read with. Raises ValueError where the model has no likelihood to report."""
        if samples < 1:
            raise ValueError(f"samples={samples}: must be at least 1 code an image")
        if not self.objective.samples:
            raise ValueError("learner.objective: a plain autoencoder has no prior and so no likelihood; train a VAE")
        if self.likelihood.refusal is not None:
            raise ValueError(f"learner.likelihood.{self.likelihood.refusal}")
        estimator = "importance sampling from q(z|x), log of the mean weight"
        return {"estimator": estimator, "samples": samples, **self.likelihood.protocol}

    def _sample(
        self, view: dict[str, Any], seeds: jax.Array, label: jax.Array | None = None, *, sampler: Any = None
    ) -> jax.Array:
        """Uint8 [B, H, W, C], the mean of p(x|z) at z ~ N(0, I); image i depends on seeds[i] and label[i] alone.

        Without a label, a conditional model draws one from the seed.
        """
        if sampler is not None:
            raise ValueError(f"sampler={sampler}: a VAE decodes in one step and takes none")
        code_keys, label_keys = jax.vmap(jax.random.split, out_axes=1)(jax.vmap(jax.random.key)(seeds))
        if label is None and self.conditional:
            label = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.network.sizes["classes"]))(label_keys)
        latent = self._network.bind(view["params"]).latent
        return self.decode(view, jax.vmap(lambda key: jax.random.normal(key, (latent,)))(code_keys), label)

    @property
    def _network(self) -> network_.Network:
        """The network with what it must know of the likelihood, and of classes only where it is conditional."""
        sizes = dict(self.network.sizes) | {"maps": self.likelihood.maps, "shared": self.likelihood.shared}
        return dataclasses.replace(self.network, sizes=sizes if self.conditional else sizes | {"classes": 0})

    def _given(self, label: jax.Array | None) -> jax.Array | None:
        if self.conditional and label is None:
            raise ValueError("label=None: a conditional model needs the label of every image")
        return label if self.conditional else None

    def _terms(self, params: types.Params, batch: types.Images, key: jax.Array) -> Terms:
        prepare, draw = jax.random.split(key)
        target = self.likelihood.prepare(batch.image, prepare)
        label, module = self._given(batch.label), self._network.bind(params)
        mean, log_variance = module.encode(target, label)
        samples = self.objective.samples
        if samples:
            keys = jax.random.split(draw, samples)
            code, log_ratio = jax.vmap(_draw, (0, None, None))(keys, mean, log_variance)
        else:
            code, log_ratio = mean[None], jnp.zeros((1, mean.shape[0]))
        return Terms(
            log_likelihood=self._log_likelihood(module, code, label, target),
            log_ratio=log_ratio,
            kl=kl_to_standard(mean, log_variance),
        )

    def _log_likelihood(self, module: Any, code: jax.Array, label: jax.Array | None, target: jax.Array) -> jax.Array:
        """[K, B] log p(x|z) of codes [K, B, Z]: one pass of the decoder over all of them."""
        samples, batch, latent = code.shape
        label = None if label is None else jnp.tile(label, samples)
        parameters = module.decode(code.reshape(samples * batch, latent), label)
        parameters = jax.tree.map(lambda each: each.reshape(samples, batch, *each.shape[1:]), parameters)
        return jax.vmap(self.likelihood.log_prob, (0, None))(parameters, target)


def kl_to_standard(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, variance) || N(0, I)): [..., Z] -> [...], summed over Z."""
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, axis=-1)


def log_mean_exp(values: jax.Array) -> jax.Array:
    """[K, ...] -> [...], without overflow."""
    return jax.nn.logsumexp(values, axis=0) - jnp.log(values.shape[0])


def _draw(key: jax.Array, mean: jax.Array, log_variance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Codes [B, Z] from N(mean, variance), and their log p(z) - log q(z) [B] with p = N(0, I)."""
    noise = jax.random.normal(key, mean.shape)
    code = mean + jnp.exp(0.5 * log_variance) * noise
    return code, 0.5 * jnp.sum(noise**2 + log_variance - code**2, axis=-1)
