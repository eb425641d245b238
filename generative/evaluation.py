"""Judging models of images: samples to look at, figures of held-out images, and distances to real images.

Each is a `types.Evaluator`, and `report(learner, view)` does the same for a view at hand. Of several processes each
draws and judges its share on its own first device, and all find the same report. `prepare(learner)` refuses what cannot
be judged before the training begins.
"""

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from core import datasets, distributed, media, mesh, types
from generative import drawing, metrics
from generative import features as features_

_FIGURES = ("fid", "kid", "kid_stderr", "precision", "recall")
_RATIOS = ("fid", "precision", "recall")  # KID's floor is about 0, and either side of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """A grid of images from fixed seeds: one row for each class and one seed for each column where there are labels."""

    every: int = 500_000  # images of training between two evaluations
    count: int = 100
    seed: int = 0
    batch: int = 100
    sampler: Any = None  # of a diffusion model; None: its own

    def __post_init__(self):
        _at_least_1(self, "every", "count", "batch")
        types.check_seed(self.seed, count=self.count)

    def prepare(self, learner: Any) -> None:
        _require(learner, "sample", "samples")
        drawing.check_sampler(learner, self.sampler)

    def names(self, learner: Any, spec: Any) -> tuple[str, ...]:
        return ()

    def __call__(self, learner: Any, state: Any, key: jax.Array) -> types.Report:
        return self.report(learner, mesh.localize(learner.view(state)))

    def report(self, learner: Any, view: Any) -> types.Report:
        seeds, label, columns = self.seed + np.arange(self.count), None, None
        if classes := drawing.classes(learner):
            columns = max(1, self.count // classes)
            label, seeds = np.repeat(np.arange(classes), columns), np.tile(seeds[:columns], classes)
        images = drawing.draw(learner, view, seeds, label=label, batch=self.batch, sampler=self.sampler)
        return types.Report(scalars={}, media={"samples": types.Image(pixels=media.grid(images, columns=columns))})


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The means of what `learner.judge` says of images that were never learned from, as `eval/<name>`.

    What is drawn at random in judging an image is the same at every evaluation, so that curves are smooth.
    """

    data: datasets.Recipe
    every: int = 500_000  # images of training between two evaluations
    split: datasets.Split = "validation"
    images: int | None = None  # so many of them, chosen once by `seed`; None: all
    batch: int = 250
    seed: int = 0

    def __post_init__(self):
        _at_least_1(self, "every", "batch", *(["images"] if self.images is not None else []))
        types.check_seed(self.seed)

    def prepare(self, learner: Any) -> None:
        _require(learner, "judge", "held_out")
        len(self._held.image)  # reads them

    def names(self, learner: Any, spec: Any) -> list[str]:
        view = lambda key: learner.view(learner.init(key, spec))
        judged = jax.eval_shape(lambda key, batch: learner.judge(view(key), batch, key), jax.random.key(0), spec)
        return [f"eval/{name}" for name in judged]

    def __call__(self, learner: Any, state: Any, key: jax.Array) -> types.Report:
        return self.report(learner, mesh.localize(learner.view(state)))

    def report(self, learner: Any, view: Any) -> types.Report:
        _require(learner, "judge", "held_out")
        key, total = jax.random.key(self.seed), dict[str, float]()
        for index, (batch, size) in enumerate(_batches(self._held, self.batch)):
            if index % jax.process_count() != jax.process_index():
                continue
            judged = _judge(learner, view, batch, jax.random.fold_in(key, index))
            for name, figures in judged.items():
                total[name] = total.get(name, 0.0) + float(np.sum(np.float64(figures[:size])))
        parts = distributed.gather(total)
        means = {name: sum(part.get(name, 0.0) for part in parts) / len(self._held.image) for name in parts[0]}
        return types.Report(scalars={f"eval/{name}": mean for name, mean in means.items()})

    @property
    def protocol(self) -> dict[str, Any]:
        """Of the images; what else the figures must be read with is the learner's `judge_protocol`."""
        return {"split": self.split, "images": len(self._held.image), "seed": self.seed}

    @functools.cached_property
    def _held(self) -> types.Images:
        held = self.data.load(self.split)
        chosen = _chosen(held, self.images, self.seed, f"images={self.images}: the split {self.split}")
        return types.Images(image=held.image[chosen], label=held.label[chosen])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """FID, KID, precision and recall of `count` samples against the split `reference`, in the features given.

    Beside each stands what `count` real images of the split `floor` score in the samples' place. FID and precision and
    recall depend on the number of images: the former uses all of the reference, the latter `count` of it.
    """

    features: features_.Features
    data: datasets.Recipe
    every: int = 500_000  # images of training between two evaluations
    count: int = 2_000
    reference: datasets.Split = "validation"
    floor: datasets.Split = "train"
    neighbours: int = 3  # k of precision and recall
    block: int = 250  # images of each side in a block of KID
    batch: int = 250  # images drawn and seen at a time
    seed: int = 0
    sampler: Any = None  # of a diffusion model; None: its own
    alarm: float = 0.05  # a recall below it is told once, from the second evaluation on

    def __post_init__(self):
        _at_least_1(self, "every", "neighbours", "batch")
        types.check_seed(self.seed, count=self.count)
        if self.count < max(4, self.neighbours + 1):
            raise ValueError(f"count={self.count}: must be at least {max(4, self.neighbours + 1)}; 2000 is usual")
        if self.block < 2:
            raise ValueError(f"block={self.block}: must be at least 2")
        if self.reference == self.floor:
            raise ValueError(f"floor={self.floor}: must be another split than the reference")

    def prepare(self, learner: Any) -> None:
        _require(learner, "sample", "quality")
        drawing.check_sampler(learner, self.sampler)
        features_.check(self.features, self._images[0].shape[1:])

    def names(self, learner: Any, spec: Any) -> list[str]:
        names = [f"{name}{floor}" for name in _FIGURES for floor in ("", "_floor")]
        return [f"eval/{name}" for name in [*names, *(f"{name}_ratio" for name in _RATIOS)]]

    def __call__(self, learner: Any, state: Any, key: jax.Array) -> types.Report:
        report = self.report(learner, mesh.localize(learner.view(state)))
        self._watch(report.scalars)
        return report

    def report(self, learner: Any, view: Any) -> types.Report:
        _require(learner, "sample", "quality")
        seeds = self.seed + np.arange(self.count)
        images = drawing.draw(learner, view, seeds, batch=self.batch, sampler=self.sampler)
        return types.Report(scalars=self.judge(images))

    def judge(self, images: np.ndarray) -> dict[str, float]:
        """The figures of images from anywhere, uint8 [count, H, W, C]."""
        if len(images) != self.count:
            raise ValueError(f"{len(images)} images: the floor is that of count={self.count}")
        found, floor = self._compare(images), self._floor
        figures = found | {f"{name}_floor": value for name, value in floor.items()}
        figures |= {f"{name}_ratio": found[name] / max(floor[name], 1e-12) for name in _RATIOS}
        return {f"eval/{name}": value for name, value in figures.items()}

    def collapse(self, scalars: Mapping[str, float]) -> str:
        """What to warn of in figures of `judge` whose recall is below `alarm`; "" if it is not."""
        if scalars["eval/recall"] >= self.alarm:
            return ""
        return (
            f"recall is {scalars['eval/recall']:.3f}, where real images reach {scalars['eval/recall_floor']:.2f}: the "
            f"samples hardly vary (precision {scalars['eval/precision']:.2f}); a GAN that does this has collapsed"
        )

    @property
    def protocol(self) -> dict[str, Any]:
        """What the figures must be read with."""
        return {
            "samples": self.count,
            "features": self.features.name,
            "features_sha256": self.features.digest,
            "reference": f"{self.reference}, {len(self._images[0])} images",
            "floor": f"{self.count} images of {self.floor}",
            "neighbours": self.neighbours,
            "kid_block": self.block,
            "seed": self.seed,
            "sampler": str(self.sampler) if self.sampler is not None else "the model's own",
            "rounding": "uint8",
        }

    @functools.cached_property
    def _images(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the reference, in random order, and `count` for the floor."""
        reference, floor = self.data.load(self.reference), self.data.load(self.floor)
        needed = f"count={self.count}: the split {self.floor}"
        _chosen(reference, min(self.count, 4), self.seed, f"reference={self.reference}: the split")
        shuffled = reference.image[_chosen(reference, None, self.seed, "")]
        return shuffled, floor.image[_chosen(floor, self.count, self.seed, needed)]

    @functools.cached_property
    def _reference(self) -> tuple[np.ndarray, metrics.Moments]:
        """Features [M, D] of the reference, and their moments."""
        seen = features_.extract(self.features, self._images[0], batch=self.batch)
        return seen, metrics.moments(self._split(seen))

    @functools.cached_property
    def _floor(self) -> dict[str, float]:
        """What real images score."""
        return self._compare(self._images[1])

    def _compare(self, images: np.ndarray) -> dict[str, float]:
        seen = features_.extract(self.features, images, batch=self.batch)
        reference, moments = self._reference
        kid = metrics.kernel_distance(seen, reference, block=self.block)
        precision, recall = metrics.precision_recall(seen, reference[: self.count], neighbours=self.neighbours)
        fid = metrics.frechet(metrics.moments(self._split(seen)), moments)
        return dict(zip(_FIGURES, (fid, kid.value, kid.standard_error, precision, recall), strict=True))

    def _split(self, rows: np.ndarray) -> list[np.ndarray]:
        return [rows[start : start + self.batch] for start in range(0, len(rows), self.batch)]

    @functools.cached_property
    def _recalls(self) -> list[float]:
        """Of the evaluations so far."""
        return []

    def _watch(self, scalars: Mapping[str, float]) -> None:
        before = list(self._recalls)
        self._recalls.append(scalars["eval/recall"])
        problem = self.collapse(scalars)
        if problem and before and all(other >= self.alarm for other in before[1:]):
            warnings.warn(problem, stacklevel=2)


@functools.partial(jax.jit, static_argnums=0)
def _judge(learner: Any, view: Any, batch: types.Images, key: jax.Array) -> dict[str, jax.Array]:
    return learner.judge(view, batch, key)


def _batches(held: types.Images, batch: int) -> Iterator[tuple[types.Images, int]]:
    """Batches of one size, the last one filled up by repetition, and how many images of each count."""
    count = len(held.image)
    batch = min(batch, count)
    for start in range(0, count, batch):
        rows = np.resize(np.arange(start, min(start + batch, count)), batch)
        yield types.Images(image=held.image[rows], label=held.label[rows]), min(batch, count - start)


def _chosen(data: datasets.Dataset, count: int | None, seed: int, what: str) -> np.ndarray:
    """`count` different rows in random order; None: all."""
    there = len(data.image)
    if count is not None and count > there:
        raise ValueError(f"{what} has {there} images")
    return np.random.default_rng(seed).permutation(there)[:count]


def _require(learner: Any, method: str, name: str) -> None:
    if not hasattr(learner, method):
        raise ValueError(
            f"{type(learner).__name__} has no `{method}`, which this evaluation needs; leave it out with "
            f"evaluators.{name}=null"
        )


def _at_least_1(owner: Any, *names: str) -> None:
    for name in names:
        if getattr(owner, name) < 1:
            raise ValueError(f"{name}={getattr(owner, name)}: must be at least 1")
