"""Judging models of images: samples to look at, figures of held-out images, and distances to real images.

Each is a `types.Evaluator`, and `report(learner, view)` does the same for a view at hand. Of several processes each
draws and judges its share on all of its devices, and all return the same report. `prepare(learner)` refuses what cannot
be judged before the training begins. `stop` is called between two calls of the device; what it raises ends the judging.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import annotated_types
import jax
import numpy as np

from core import distributed, media, mesh, ranges, types
from core.images import datasets
from generative import calls, drawing, metrics
from generative import features as features_

_FIGURES = ("fid", "kid", "kid_stderr", "precision", "recall")
_RATIOS = ("fid", "precision", "recall")  # KID's floor is about 0, and either side of it
Stop = Callable[[], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """A grid of images from fixed seeds: one row for each class and one seed for each column where there are labels.

    Classes are shown evenly, however many images the data have of each; those of which `data` have none to train on are
    left out. With `count` less than two images a class each has one, in a square; with less than one, so many classes,
    evenly spread over all.
    """

    data: datasets.Recipe | None = None
    every: ranges.PositiveInt = 500_000  # images of training between two evaluations
    count: ranges.PositiveInt = 100
    seed: int = 0
    batch: ranges.PositiveInt = 100
    sampler: Any = None  # of a diffusion model; None: its own

    def __post_init__(self):
        ranges.check(self)
        types.check_seed(self.seed, count=self.count)

    def prepare(self, learner: Any) -> None:
        _require(learner, "sample", "samples")
        drawing.check_sampler(learner, self.sampler)
        if self.data is not None and drawing.classes(learner):
            len(self._counts)  # reads them

    def names(self, learner: Any, spec: Any) -> tuple[str, ...]:
        return ()

    def __call__(self, learner: Any, state: Any, key: jax.Array, *, stop: Stop = lambda: None) -> types.Report:
        return self.report(learner, learner.view(state), stop=stop)

    def report(self, learner: Any, view: Any, *, stop: Stop = lambda: None) -> types.Report:
        label, columns = self._laid(drawing.classes(learner))
        across = self.count if label is None else columns or 1
        seeds = self.seed + np.arange(self.count if label is None else len(label)) % across
        images = drawing.draw(learner, view, seeds, label=label, batch=self.batch, sampler=self.sampler, stop=stop)
        return types.Report(scalars={}, media={"samples": types.Image(pixels=media.grid(images, columns=columns))})

    def real(self, classes: int) -> np.ndarray:
        """Training images laid out as the samples of a model that takes so many classes: uint8 [rows, columns, 3].

        Raises: ValueError without `data`, and as `data.load`.
        """
        if self.data is None:
            raise ValueError("data=null: names no images")
        train, (label, columns) = self.data.load("train"), self._laid(classes)
        order = np.random.default_rng(self.seed).permutation(len(train.image))
        if label is None:
            chosen = order[: self.count]
        else:
            of = lambda each: np.resize(order[train.label[order] == each], columns or 1)  # again where there are fewer
            chosen = np.concatenate([of(each) for each in label[:: columns or 1]])
        return media.grid(train.image[chosen], columns=columns)

    def _laid(self, classes: int) -> tuple[np.ndarray | None, int | None]:
        """The label of each image and the columns of the grid; None, None for a model that takes no label."""
        if not classes:
            return None, None
        shown, columns = self._trained(classes), None
        if self.count >= 2 * len(shown):
            columns = self.count // len(shown)
        elif self.count < len(shown):
            distributed.say(f"samples: {self.count:,} of the {len(shown):,} classes are shown, one image each")
            shown = shown[np.arange(self.count) * len(shown) // self.count]
        return np.repeat(shown, columns or 1), columns

    def _trained(self, classes: int) -> np.ndarray:
        """Those of so many classes that there are images of to train on."""
        return np.arange(classes) if self.data is None else np.flatnonzero(self._counts[:classes])

    @functools.cached_property
    def _counts(self) -> np.ndarray:
        assert self.data is not None
        return self.data.load("train").counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The means of what `learner.judge` says of images that were never learned from, as `eval/<name>`.

    What is drawn at random in judging an image is the same at every evaluation, so that curves are smooth.
    """

    data: datasets.Recipe
    every: ranges.PositiveInt = 500_000  # images of training between two evaluations
    split: datasets.Split = "validation"
    images: ranges.PositiveInt | None = None  # chosen once by `seed`; None: `usual`, or all where there are fewer
    usual: int | None = None  # None: all
    batch: ranges.PositiveInt = 250
    seed: int = 0

    def __post_init__(self):
        ranges.check(self)
        types.check_seed(self.seed)

    def prepare(self, learner: Any) -> None:
        _require(learner, "judge", "held_out")
        len(self._held.image)  # reads them

    def names(self, learner: Any, spec: Any) -> list[str]:
        view = lambda key: learner.view(learner.init(key, spec))
        judged = jax.eval_shape(lambda key, batch: learner.judge(view(key), batch, key), jax.random.key(0), spec)
        return [f"eval/{name}" for name in judged]

    def __call__(self, learner: Any, state: Any, key: jax.Array, *, stop: Stop = lambda: None) -> types.Report:
        return self.report(learner, learner.view(state), stop=stop)

    def report(self, learner: Any, view: Any, *, stop: Stop = lambda: None) -> types.Report:
        _require(learner, "judge", "held_out")
        count, view = len(self._held.image), mesh.replicate(view)
        mine = distributed.share(count)
        size = calls.rows(_cost(learner, view, self._held), min(self.batch, len(mine)))
        judged: dict[str, list[np.ndarray]] = {}
        for rows, kept in calls.cut(len(mine), size):
            batch = jax.tree.map(lambda values, rows=mine[rows]: values[rows], self._held)
            found = _judge(learner, view, *mesh.spread((batch, mine[rows].astype(np.uint32))), self.seed)
            for name, figures in found.items():
                judged.setdefault(name, []).append(np.asarray(figures, np.float32)[:kept])
            stop()
        whole = {name: distributed.join(np.concatenate(parts), count) for name, parts in judged.items()}
        means = {name: float(np.mean(figures, dtype=np.float64)) for name, figures in whole.items()}
        return types.Report(scalars={f"eval/{name}": mean for name, mean in means.items()})

    @property
    def protocol(self) -> dict[str, Any]:
        """Of the images; what else the figures must be read with is the learner's `judge_protocol`."""
        return {"split": self.split, "images": len(self._held.image), "seed": self.seed}

    @functools.cached_property
    def _held(self) -> types.Images:
        held = self.data.load(self.split)
        count = self.images or min(self.usual or len(held.image), len(held.image))
        chosen = _chosen(held, count, self.seed, f"images={count}: the split {self.split}")
        return types.Images(image=held.image[chosen], label=held.label[chosen])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """FID, KID, precision and recall of `count` samples against the split `reference`, in the features given.

    Beside each stands what `count` real images of the split `floor` score in the samples' place. FID and precision and
    recall depend on the number of images: the former uses all of the reference, the latter `count` of it. A model that
    takes labels is asked for each class as often, in proportion, as the training images have it.
    """

    features: features_.Features
    data: datasets.Recipe
    every: ranges.PositiveInt = 500_000  # images of training between two evaluations
    count: int | None = None  # images; None: `usual`, or all of the floor where it has fewer
    usual: int = 2_000
    reference: datasets.Split = "validation"
    floor: datasets.Split = "train"
    neighbours: ranges.PositiveInt = 3  # k of precision and recall
    block: Annotated[int, annotated_types.Ge(2)] = 250  # images of each side in a block of KID
    batch: ranges.PositiveInt = 250  # images drawn and seen at a time
    seed: int = 0
    sampler: Any = None  # of a diffusion model; None: its own
    alarm: float = 0.05  # a recall below it is told once, from the second evaluation on

    def __post_init__(self):
        ranges.check(self)
        types.check_seed(self.seed, count=self.count or self.usual)
        if self.count is not None and self.count < self._fewest:
            raise ValueError(f"count={self.count}: must be at least {self._fewest}; 2000 is usual")
        if self.reference == self.floor:
            raise ValueError(f"floor={self.floor}: must be another split than the reference")

    def prepare(self, learner: Any) -> None:
        _require(learner, "sample", "quality")
        drawing.check_sampler(learner, self.sampler)
        features_.check(self.features, self._images[0].shape[1:])

    def names(self, learner: Any, spec: Any) -> list[str]:
        names = [f"{name}{floor}" for name in _FIGURES for floor in ("", "_floor")]
        return [f"eval/{name}" for name in [*names, *(f"{name}_ratio" for name in _RATIOS)]]

    def __call__(self, learner: Any, state: Any, key: jax.Array, *, stop: Stop = lambda: None) -> types.Report:
        report = self.report(learner, learner.view(state), stop=stop)
        self._watch(report.scalars)
        return report

    def report(self, learner: Any, view: Any, *, stop: Stop = lambda: None) -> types.Report:
        _require(learner, "sample", "quality")
        label, seeds = self.labels(learner), self.seed + np.arange(self.drawn)
        images = drawing.draw(learner, view, seeds, label=label, batch=self.batch, sampler=self.sampler, stop=stop)
        return types.Report(scalars=self.judge(images, stop=stop))

    @property
    def drawn(self) -> int:
        """How many samples there are, and images in the floor."""
        return len(self._images[1])

    def labels(self, learner: Any) -> np.ndarray | None:
        """[drawn] int32, in the proportions of the training images; None for a model that takes none."""
        return drawing.in_proportion(self._images[2], self.drawn, self.seed) if drawing.classes(learner) else None

    def judge(self, images: np.ndarray, *, stop: Stop = lambda: None) -> dict[str, float]:
        """The figures of images from anywhere, uint8 [count, H, W, C]."""
        if len(images) != self.drawn:
            raise ValueError(f"{len(images)} images: the floor is that of count={self.drawn}")
        found = self._compare(images, stop)
        floor = self._once("floor", lambda: self._compare(self._images[1], stop))
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
            "samples": self.drawn,
            "labels": "in the proportions of the training images, if the model takes any",
            "features": self.features.name,
            "features_sha256": self.features.digest,
            "reference": f"{self.reference}, {len(self._images[0])} images",
            "reference_sha256": self._images[3],
            "floor": f"{self.drawn} images of {self.floor}",
            "neighbours": self.neighbours,
            "kid_block": min(self.block, min(self.drawn, len(self._images[0])) // 2),
            "seed": self.seed,
            "sampler": str(self.sampler) if self.sampler is not None else "the model's own",
            "rounding": "uint8",
        }

    @property
    def _fewest(self) -> int:
        return max(4, self.neighbours + 1)

    @functools.cached_property
    def _images(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
        """Of the reference, in random order; for the floor; how many of each class train; the reference's digest."""
        splits = {split: self.data.load(split) for split in dict.fromkeys((self.reference, self.floor, "train"))}
        reference, floor = splits[self.reference], splits[self.floor]
        count = self.count
        if count is None:
            count = max(self._fewest, min(self.usual, len(floor.image)))
            if count < self.usual:
                what = f"{self.usual:,} are usual, and the split {self.floor} has {len(floor.image):,} images"
                distributed.say(f"quality: {count:,} samples are judged, beside as many real images: {what}")
        needed = f"count={count}: the split {self.floor}"
        _chosen(reference, min(count, self._fewest), self.seed, f"reference={self.reference}: the split")
        shuffled = reference.image[_chosen(reference, None, self.seed, "")]
        chosen = floor.image[_chosen(floor, count, self.seed, needed)]
        return shuffled, chosen, splits["train"].counts, reference.digest

    def _compare(self, images: np.ndarray, stop: Stop) -> dict[str, float]:
        see = lambda images: features_.extract(self.features, images, batch=self.batch, stop=stop)
        reference = self._once("reference", lambda: see(self._images[0]))  # [M, D]
        moments = self._once("moments", lambda: metrics.moments(self._split(reference)))
        seen = see(images)
        kid = metrics.kernel_distance(seen, reference, block=self.block, stop=stop)
        near = reference[: self.drawn]
        precision, recall = metrics.precision_recall(seen, near, neighbours=self.neighbours, stop=stop)
        fid = metrics.frechet(metrics.moments(self._split(seen)), moments)
        return dict(zip(_FIGURES, (fid, kid.value, kid.standard_error, precision, recall), strict=True))

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        """What is the same at every evaluation."""
        if name not in self._memory:
            self._memory[name] = compute()
        return self._memory[name]

    @functools.cached_property
    def _memory(self) -> dict[str, Any]:
        return {}

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


@functools.partial(jax.jit, static_argnums=(0, 4))
def _judge(learner: Any, view: Any, batch: types.Images, number: jax.Array, seed: int) -> dict[str, jax.Array]:
    """What `learner.judge` says of each image [B], with a key of its own: a function of the image's `number` [B]."""

    def one(image: types.Images, number: jax.Array) -> dict[str, jax.Array]:
        alone = jax.tree.map(lambda leaf: leaf[None], image)
        judged = learner.judge(view, alone, jax.random.fold_in(jax.random.key(seed), number))
        return jax.tree.map(lambda figure: figure[0], judged)

    return jax.vmap(one)(batch, number)


def _cost(learner: Any, view: Any, held: types.Images) -> float:
    """Operations of judging one image."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return calls.flops(learner.judge, view, calls.row(held), key)


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
