"""What an autoencoder has learned, to look at: reconstructions, interpolations, traversals, and a 2-D manifold.

All are sheets of pictures, uint8 [rows, columns, 3], from a learner that has `encode` and `decode` (`vae.VAE`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any

import annotated_types
import jax
import jax.numpy as jnp
import jax.scipy.stats
import numpy as np

from core import distributed, media, mesh, ranges, types
from core.images import datasets
from generative import vae


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """A `types.Evaluator` of held-out images; a model with a prior and a code of two dimensions has a manifold, too."""

    data: datasets.Recipe
    every: ranges.PositiveInt = 500_000  # images of training between two evaluations
    split: datasets.Split = "validation"
    # Images that are reconstructed, and interpolated between neighbours; None: 12, or what there is.
    images: Annotated[int, annotated_types.Ge(2)] | None = None
    steps: Annotated[int, annotated_types.Ge(2)] = 11  # of an interpolation, and of each row of a traversal
    latents: ranges.PositiveInt = 10  # rows of the traversal: the dimensions of the code that say most
    grid: Annotated[int, annotated_types.Ge(2)] = 20  # rows and columns of the manifold
    seed: int = 0

    def __post_init__(self):
        ranges.check(self)
        types.check_seed(self.seed)

    def prepare(self, learner: Any) -> None:
        if not hasattr(learner, "encode"):
            raise ValueError(
                f"{type(learner).__name__} has no `encode`, which this needs: pictures are of autoencoders"
            )
        assert len(self._held.image)

    def names(self, learner: Any, spec: Any) -> tuple[str, ...]:
        return ()

    def __call__(
        self, learner: Any, state: Any, key: jax.Array, *, stop: Callable[[], None] = lambda: None
    ) -> types.Report:
        return self.report(learner, mesh.localize(learner.view(state)), stop=stop)

    def report(self, learner: Any, view: Any, *, stop: Callable[[], None] = lambda: None) -> types.Report:
        held, key = self._held, jax.random.key(self.seed)
        sheets = {"reconstructions": reconstructions(learner, view, held, key)}
        stop()
        sheets["interpolations"] = interpolations(learner, view, held, key, steps=self.steps)
        stop()
        sheets["traversals"] = traversals(learner, view, held, key, steps=self.steps, latents=self.latents)
        stop()
        mean, _ = _encode(learner, view, held, key)
        if mean.shape[1] == 2 and hasattr(learner, "sample"):
            sheets["manifold"] = manifold(learner, view, side=self.grid, label=int(held.label[0]))
        return types.Report(scalars={}, media={name: types.Image(pixels=sheet) for name, sheet in sheets.items()})

    @functools.cached_property
    def _held(self) -> types.Images:
        held = self.data.load(self.split)
        there, count = len(held.image), self.images
        if count is None:
            count = max(2, min(12, there))
            if count < 12:
                distributed.say(f"pictures: {count} images are shown, where 12 are usual: {self.split} has {there}")
        if there < count:
            raise ValueError(f"images={count}: {self.split} has {there}")
        chosen = np.random.default_rng(self.seed).permutation(there)[:count]
        return types.Images(image=held.image[chosen], label=held.label[chosen])


def reconstruct(learner: Any, view: Any, batch: types.Images, key: jax.Array) -> np.ndarray:
    """What the decoder makes of each image's mean code: uint8 [B, H, W, C]."""
    mean, _ = _encode(learner, view, batch, key)
    return np.asarray(_decode(learner, view, mean, batch.label))


def reconstructions(learner: Any, view: Any, batch: types.Images, key: jax.Array) -> np.ndarray:
    """Two rows: the images, and below each its reconstruction."""
    both = np.concatenate([batch.image, reconstruct(learner, view, batch, key)])
    return media.grid(both, columns=len(batch.image))


def interpolations(learner: Any, view: Any, batch: types.Images, key: jax.Array, *, steps: int = 11) -> np.ndarray:
    """A row for each pair of neighbours: the first image, what lies between its code and the other's, the other.

    Between the mean codes the way is straight; a conditional model keeps the first one's label.
    """
    mean, _ = _encode(learner, view, batch, key)
    first, last = np.arange(0, len(mean) - 1, 2), np.arange(1, len(mean), 2)
    share = np.linspace(0, 1, steps, dtype=np.float32)[None, :, None]
    codes = mean[first][:, None] * (1 - share) + mean[last][:, None] * share  # [pairs, steps, Z]
    drawn = _decode(learner, view, codes.reshape(-1, codes.shape[-1]), np.repeat(batch.label[first], steps))
    between = np.asarray(drawn).reshape(len(first), steps, *batch.image.shape[1:])
    rows = np.concatenate([batch.image[first][:, None], between, batch.image[last][:, None]], axis=1)
    return media.grid(rows.reshape(-1, *rows.shape[2:]), columns=steps + 2)


def traversals(
    learner: Any,
    view: Any,
    batch: types.Images,
    key: jax.Array,
    *,
    steps: Annotated[int, annotated_types.Ge(2)] = 11,
    latents: ranges.PositiveInt = 10,
    reach: float = 3,
) -> np.ndarray:
    """The first image's code with one dimension moved from -reach to reach, a row each; the most telling ones first.

    How much a dimension tells is its KL, averaged over the batch; a plain autoencoder's, its variance there, and it
    moves by so many standard deviations about its mean.
    """
    mean, log_variance = _encode(learner, view, batch, key)
    if hasattr(learner, "sample"):
        centre, spread = np.zeros(mean.shape[1]), np.ones(mean.shape[1])
        telling = np.mean(
            np.asarray(vae.kl_to_standard(jnp.asarray(mean[..., None]), jnp.asarray(log_variance[..., None]))), axis=0
        )
    else:
        centre, spread = np.mean(mean, axis=0), np.std(mean, axis=0)
        telling = spread
    chosen = np.argsort(-telling, kind="stable")[:latents]
    codes = np.tile(mean[0], (len(chosen), steps, 1))
    for row, latent in enumerate(chosen):
        codes[row, :, latent] = centre[latent] + spread[latent] * np.linspace(-reach, reach, steps)
    label = np.full(len(chosen) * steps, batch.label[0], np.int32)
    return media.grid(np.asarray(_decode(learner, view, codes.reshape(len(label), -1), label)), columns=steps)


def manifold(learner: Any, view: Any, *, side: int = 20, label: int = 0) -> np.ndarray:
    """Codes of two dimensions on a grid of the prior's quantiles, so that each picture stands for as much of it.

    The first dimension grows to the right, the second upwards. `label` is what a conditional model is asked for.
    """
    quantiles = jax.scipy.stats.norm.ppf((jnp.arange(side) + 0.5) / side)
    up, right = np.meshgrid(quantiles[::-1], quantiles, indexing="ij")
    codes = np.stack([right.ravel(), up.ravel()], axis=-1)
    return media.grid(np.asarray(_decode(learner, view, codes, np.full(len(codes), label, np.int32))), columns=side)


def _encode(learner: Any, view: Any, batch: types.Images, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    mean, log_variance = _encoded(learner, view, batch, key)
    return np.asarray(mean), np.asarray(log_variance)


@functools.partial(jax.jit, static_argnums=0)
def _encoded(learner: Any, view: Any, batch: types.Images, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    return learner.encode(view, batch, key)


@functools.partial(jax.jit, static_argnums=0)
def _decode(learner: Any, view: Any, code: jax.Array, label: jax.Array) -> jax.Array:
    return learner.decode(view, code, label)
