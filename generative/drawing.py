"""Drawing images from a trained model: any number of them, in batches of one compiled function."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from core import distributed


def draw(
    learner: Any,
    view: Any,
    seeds: np.ndarray,
    *,
    label: np.ndarray | None = None,
    batch: int = 250,
    sampler: Any = None,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Images uint8 [N, H, W, C] from seeds [N]; image i depends on seeds[i] and label[i] alone, not on `batch`.

    Of several processes each draws its share, and all get all.

    Args:
      learner: has `sample(view, seeds, label, *, sampler)`.
      view: what that needs, on this process's devices.
      seeds: whole numbers in 0..2³²-1.
      label: [N] classes (with `known` also their number, for none), or None for the model's own choice.
      batch: images drawn at a time; the last batch is filled up and cut.
      sampler: of a diffusion model, in place of its own.
      known: images uint8 [N, H, W, C] and which of their pixels to draw, bool [N, H, W]: inpainting, by diffusion.
      progress: is told after each batch how many images there are.
    """
    count = len(seeds)
    if batch < 1:
        raise ValueError(f"batch={batch}: must be at least 1")
    if not count:
        raise ValueError("0 seeds: nothing to draw")
    if np.min(seeds) < 0 or np.max(seeds) >= 2**32:
        raise ValueError(f"seed={np.max(seeds)}: must be a whole number from 0 to 2^32 - 1")
    _check_labels(learner, label, count, most=classes(learner) - (known is None))
    mine = distributed.share(count)
    given, wanted, count = (np.asarray(seeds, np.uint32), label, known), count, len(mine)
    seeds, label, known = jax.tree.map(lambda values: np.asarray(values)[mine], given)
    batch = min(batch, count)
    drawn = []
    for start in range(0, count, batch):
        rows = np.resize(np.arange(start, min(start + batch, count)), batch)  # repeated until the batch is full
        part = jax.tree.map(functools.partial(np.take, indices=rows, axis=0), (seeds, label, known))
        images = _sample(learner, view, *part, sampler=sampler)
        if images.dtype != jnp.uint8:
            raise TypeError(f"{type(learner).__name__}.sample gave {images.dtype}; uint8 is wanted")
        drawn.append(np.asarray(images)[: count - start])
        if progress is not None:
            progress(min(start + batch, count))
    return distributed.join(np.concatenate(drawn), wanted)


def check_sampler(learner: Any, sampler: Any) -> None:
    """Raises ValueError where a model cannot be sampled so; None is its own way."""
    if sampler is None:
        return
    if not hasattr(learner, "path"):
        raise ValueError(f"sampler={sampler}: {type(learner).__name__} draws in one step and takes none; leave it out")
    learner.path(sampler)


def classes(learner: Any) -> int:
    """How many classes a model can be asked for; 0 where it takes no label.

    A learner says it by `classes`, or by `conditional` and its network's sizes.
    """
    if hasattr(learner, "classes"):
        return learner.classes
    return learner.network.sizes["classes"] if getattr(learner, "conditional", False) else 0


def in_proportion(counts: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Labels [count] int32, in random order, of which each class has the share that it has of `counts` [K].

    As near as whole numbers allow: what is left by rounding down goes to the largest remainders.
    """
    whole, rest = np.divmod(np.asarray(counts, np.int64) * count, np.sum(counts))
    whole[np.argsort(-rest, kind="stable")[: count - whole.sum()]] += 1
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts), dtype=np.int32), whole))


def by_seed(counts: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Labels [N] int32, each from its seed alone; over consecutive seeds nearly in the proportions of `counts` [K]."""
    places = np.asarray(seeds, np.float64) * 0.6180339887498949 % 1  # the golden ratio's multiples fill [0, 1) evenly
    return np.searchsorted(np.cumsum(counts), places * np.sum(counts), side="right").astype(np.int32)


@functools.partial(jax.jit, static_argnums=0, static_argnames="sampler")
def _sample(learner: Any, view: Any, seeds: jax.Array, label: Any, known: Any, *, sampler: Any) -> jax.Array:
    if known is None:
        return learner.sample(view, seeds, label, sampler=sampler)
    return learner.inpaint(view, seeds, *known, label, sampler=sampler)


def _check_labels(learner: Any, label: np.ndarray | None, count: int, *, most: int) -> None:
    if label is None:
        return
    known = classes(learner)
    if len(label) != count:
        raise ValueError(f"label: {len(label)} of them for {count} seeds; one for each is wanted")
    if not known:
        raise ValueError(f"label={label[0]}: this model was trained without labels; leave it out")
    if np.min(label) < 0 or np.max(label) > most:
        wrong = next(each for each in label if not 0 <= each <= most)
        raise ValueError(f"label={wrong}: the classes are 0 to {known - 1}")
