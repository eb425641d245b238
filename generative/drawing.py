"""Drawing images from a trained model: any number of them, in calls of the device that take less than two seconds."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from core import distributed, mesh, types
from generative import calls


def draw(
    learner: Any,
    view: Any,
    seeds: np.ndarray,
    *,
    label: np.ndarray | None = None,
    batch: int = 250,
    sampler: Any = None,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    progress: Callable[[int], None] = lambda done: None,
    stop: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Images uint8 [N, H, W, C] from seeds [N]; image i depends on seeds[i] and label[i] alone, not on `batch`.

    Of several processes each draws its share on all of its devices, and all get all. All of them have to call it.

    Args:
      learner: has `sample(view, seeds, label, *, sampler)`.
      view: what that needs, wherever it lies.
      seeds: whole numbers in 0..2³²-1.
      label: [N] classes (with `known` also their number, for none), or None for the model's own choice.
      batch: images drawn at a time at most; the last batch is filled up and cut.
      sampler: of a diffusion model, in place of its own.
      known: images uint8 [N, H, W, C] and which of their pixels to draw, bool [N, H, W]: inpainting, by diffusion.
      progress: is told after each call how many images there are, unfinished ones in part.
      stop: called after each call; what it raises ends the drawing.
    """
    count = len(seeds)
    if batch < 1:
        raise ValueError(f"batch={batch}: must be at least 1")
    if not count:
        raise ValueError("0 seeds: nothing to draw")
    for seed in (np.min(seeds), np.max(seeds)):
        types.check_seed(int(seed))
    _check_labels(learner, label, count, most=classes(learner) - (known is None))
    mine = distributed.share(count)
    given, wanted, count = (np.asarray(seeds, np.uint32), label, known), count, len(mine)
    given = jax.tree.map(lambda values: np.asarray(values)[mine], given)
    if _in_parts(learner):
        sampler = sampler or learner.sampler
    view, drawn = mesh.replicate(view), []
    for rows, kept in calls.cut(count, calls.rows(_cost(learner, view, given, sampler), min(batch, count))):
        part = mesh.spread(jax.tree.map(lambda values, rows=rows: values[rows], given))
        before = sum(map(len, drawn))
        told = lambda share, before=before, kept=kept: progress(before + int(share * kept))
        images = _batch(learner, view, part, sampler, told, stop)
        if images.dtype != np.uint8:
            raise TypeError(f"{type(learner).__name__}.sample gave {images.dtype}; uint8 is wanted")
        drawn.append(images[:kept])
    return distributed.join(np.concatenate(drawn), wanted)


def lowered(learner: Any, view: Any, seeds: Any) -> list[jax.stages.Lowered]:
    """The programs that `draw` runs for a batch of seeds, given shapes: ready to be compiled."""
    if not _in_parts(learner):
        return [_sample.lower(learner, view, seeds, None, sampler=None)]
    sampler = learner.sampler
    carry = jax.eval_shape(functools.partial(learner.begin, sampler=sampler), seeds)
    return [
        _begin.lower(learner, seeds, sampler=sampler),
        _advance.lower(learner, view, carry, seeds, None, None, 0, 1, sampler=sampler),
        _finish.lower(learner, carry, None),
    ]


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


def _batch(
    learner: Any, view: Any, part: Any, sampler: Any, told: Callable[[float], None], stop: Callable
) -> np.ndarray:
    """Images of one batch; `told` hears after each call which share of them is done."""
    seeds, label, known = part
    if not _in_parts(learner):
        images = np.asarray(_sample(learner, view, seeds, label, sampler=sampler))
        stop()
        told(1)
        return images
    size = calls.fitting(len(seeds) * _cost(learner, view, part, sampler))
    carry = _begin(learner, seeds, sampler=sampler)
    for first in range(0, sampler.evaluations, size):
        count = min(size, sampler.evaluations - first)
        carry = jax.block_until_ready(_advance(learner, view, carry, *part, first, count, sampler=sampler))
        stop()
        told((first + count) / sampler.evaluations)
    return np.asarray(_finish(learner, carry, known))


def _in_parts(learner: Any) -> bool:
    """Whether an image takes many evaluations of the network: one call would take all of them."""
    return hasattr(learner, "advance")


def _cost(learner: Any, view: Any, given: Any, sampler: Any) -> float:
    """Operations of one image: of one evaluation, where it takes many."""
    shapes = lambda tree: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
    leaves, structure = jax.tree.flatten((shapes(view), calls.row(given)))
    return _cost_by_shape(learner, tuple(leaves), structure, sampler)


@functools.lru_cache(maxsize=32)
def _cost_by_shape(learner: Any, leaves: tuple, structure: Any, sampler: Any) -> float:
    view, (seeds, label, known) = jax.tree.unflatten(structure, leaves)
    if not _in_parts(learner):
        return calls.flops(functools.partial(learner.sample, sampler=sampler), view, seeds, label)
    carry = jax.eval_shape(functools.partial(learner.begin, sampler=sampler), seeds)
    once = functools.partial(learner.advance, sampler=sampler)
    return calls.flops(once, view, carry, seeds, label, known, 0, 1)


@functools.partial(jax.jit, static_argnums=0, static_argnames="sampler")
def _sample(learner: Any, view: Any, seeds: jax.Array, label: Any, *, sampler: Any) -> jax.Array:
    return learner.sample(view, seeds, label, sampler=sampler)


@functools.partial(jax.jit, static_argnums=0, static_argnames="sampler")
def _begin(learner: Any, seeds: jax.Array, *, sampler: Any) -> Any:
    return learner.begin(seeds, sampler=sampler)


@functools.partial(jax.jit, static_argnums=0, static_argnames="sampler")
def _advance(learner: Any, *given: Any, sampler: Any) -> Any:
    return learner.advance(*given, sampler=sampler)


@functools.partial(jax.jit, static_argnums=0)
def _finish(learner: Any, carry: Any, known: Any) -> jax.Array:
    return learner.finish(carry, known)


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
