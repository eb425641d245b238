"""Batches of images: `Stream`, where every model of images learns from, and `Shape`, what such a model must know.

The epochs' permutations are laid end to end, and batch k is the k-th stretch of that line: a function of (seed,
epoch, k), the same for any number of devices and processes, and after a resume.
"""

import concurrent.futures
import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from core import distributed, types, worker
from core.images import datasets

AHEAD = 2  # batches that are made before they are asked for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A `Stream` without its images: enough to build a learner anew, from a run's folder alone."""

    image: tuple[int, int, int]  # H, W, C
    classes: int  # K, 0 where images have no labels
    batch: int  # B, images of one update, over all devices and processes
    batches: int | None = None  # n of a GAN's [n, B, ...]; None: no such axis
    dispatch: int = 1  # learner steps in one call of the device

    @property
    def unit(self) -> str:
        return "images"

    @property
    def sizes(self) -> dict[str, Any]:
        return {"image": self.image, "classes": self.classes}

    @property
    def spec(self) -> types.Images:
        """Of one learner step: image uint8 [B, H, W, C], label int32 [B], both with n in front where there is one."""
        lead = (self.batch,) if self.batches is None else (self.batches, self.batch)
        return types.Images(
            image=jax.ShapeDtypeStruct((*lead, *self.image), np.uint8), label=jax.ShapeDtypeStruct(lead, np.int32)
        )

    @property
    def data_axis(self) -> int:
        return 0 if self.batches is None else 1

    @property
    def examples_per_step(self) -> int:
        return self.batch * (self.batches or 1) * self.dispatch

    @classmethod
    def from_protocol(cls, protocol: Mapping[str, Any]) -> "Shape":
        """The shape that `Stream.protocol` holds. Raises: ValueError where it is the protocol of something else."""
        names = [field.name for field in dataclasses.fields(cls)]
        if missing := [name for name in names if name not in protocol]:
            raise ValueError(f"protocol: no {', '.join(missing)} in it, so this is no run of images")
        values: dict[str, Any] = {name: protocol[name] for name in names}
        values["image"] = tuple(values["image"])
        return cls(**values)


class Stream:
    """A `types.Source` of `types.Images` from the training part of a data set.

    Each image comes once in an epoch, in an order of that epoch's own, and a batch may reach into the next epoch.
    Batches are made in a thread, up to `AHEAD` before they are asked for. What fails there is raised by `next`.

    Raises ValueError for settings that do not fit, before the data are read where that is possible, and for bad data.
    """

    def __init__(
        self,
        *,
        data: datasets.Recipe,
        batch: int,
        batches: int | None = None,
        dispatch: int = 1,
        flip: bool = False,  # mirrors half of the images, drawn anew in each epoch
        shift: int = 0,  # moves them by up to so many pixels along both sides, likewise; edges are repeated
        seed: int,
    ):
        processes = jax.process_count()
        _check(processes, seed, batch=batch, batches=batches, dispatch=dispatch)
        self._data = data.load("train")
        count = len(self._data.image)
        if batch > count:
            raise ValueError(f"batch={batch}: more than the {count} images to train on; take at most {count}")
        _tell_untrained(self._data)
        height, width, channels = self._data.image.shape[1:]
        if not 0 <= shift < min(height, width):
            raise ValueError(f"shift={shift}: must be at least 0 and less than the images' {min(height, width)} pixels")
        shape = Shape(
            image=(height, width, channels),
            classes=self._data.classes,
            batch=batch,
            batches=batches,
            dispatch=dispatch,
        )
        self.sizes, self.spec, self.unit = shape.sizes, shape.spec, shape.unit
        self.data_axis, self.dispatch, self.examples_per_step = shape.data_axis, dispatch, shape.examples_per_step
        self._shape, self._recipe, self._flip, self._shift = shape, data, flip, shift
        share = batch // processes
        self._mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        self._epoch = functools.lru_cache(maxsize=2)(functools.partial(_epoch, seed, count, shift))
        self._worker = worker.Worker("reader of images")
        self._started: deque[int] = deque()
        self._made: dict[int, concurrent.futures.Future[types.Images]] = {}
        self._seen: int | None = None  # images before the end of the last batch that `next` returned

    @property
    def protocol(self) -> dict[str, Any]:
        """Plain values: the data, how many images (of each class) are trained on, their digest, and the `Shape`."""
        shape = dataclasses.asdict(self._shape) | {"image": list(self._shape.image)}
        data = {"recipe": type(self._recipe).__name__, **vars(self._recipe)}
        if self._data.provenance:
            data["provenance"] = self._data.provenance
        return {
            "data": _plain(data),
            "images": len(self._data.image),
            "images_sha256": self._data.digest,
            "class_counts": self._data.counts.tolist(),
            **shape,
            "flip": self._flip,
            "shift": self._shift,
        }

    def attach(self, learner: Any) -> None:
        """Nothing here depends on who learns."""

    def start(self, step: int, view: Callable[[], Any]) -> None:
        """Begins batch `step`, and those after it, and returns at once; the view is not asked for."""
        self._started.append(step)
        for k in range(step, step + 1 + AHEAD):
            if k not in self._made:
                self._made[k] = self._worker.submit(self._batch, k)

    def next(self) -> types.Images:
        """Waits for the oldest batch started: this process's rows, as NumPy arrays that nobody else touches."""
        if not self._started:
            raise RuntimeError("no batch was started: call start(step, view) before next")
        step = self._started.popleft()
        batch = self._made.pop(step).result()
        self._made = {k: made for k, made in self._made.items() if k > step}
        self._seen = (step + 1) * self.examples_per_step
        return batch

    def metrics(self) -> dict[str, float]:
        """`train/epoch`: how often the images have been gone through, as of the last batch taken."""
        return {} if self._seen is None else {"train/epoch": self._seen / len(self._data.image)}

    def state_dict(self) -> dict[str, Any]:
        """Nothing: `start(step, view)` says which batch is wanted."""
        return {}

    def load_state_dict(self, tree: Mapping[str, Any]) -> None: ...

    def close(self) -> None:
        self._worker.close(timeout=10.0)

    # ---- in the thread ----

    def _batch(self, step: int) -> types.Images:
        if self._worker.stopping.is_set():
            raise concurrent.futures.CancelledError("the source was closed")
        total, count = self.examples_per_step, len(self._data.image)
        # [updates, B] places on the line of epochs, of which this process takes its columns
        places = np.arange(step * total, (step + 1) * total).reshape(-1, self._shape.batch)[:, self._mine].ravel()
        epochs, offsets = np.divmod(places, count)
        rows, mirrored, moved = np.empty_like(places), np.empty(len(places), bool), np.empty((len(places), 2), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            for one_batch, whole_epoch in zip((rows, mirrored, moved), self._epoch(int(epoch)), strict=True):
                one_batch[here] = whole_epoch[offsets[here]]
        image, label = self._data.image[rows], self._data.label[rows]
        if self._flip:
            image[mirrored] = image[mirrored, :, ::-1]
        if self._shift:
            image = _shifted(image, moved)
        lead = tuple(n for n in (self.dispatch if self.dispatch > 1 else None, self._shape.batches) if n is not None)
        return types.Images(image=image.reshape(*lead, -1, *self._shape.image), label=label.reshape(*lead, -1))


def _tell_untrained(data: datasets.Dataset) -> None:
    empty = np.flatnonzero(data.counts == 0)
    if len(empty):
        names = data.provenance.get("class_names") or range(data.classes)
        told = ", ".join(str(names[label]) for label in empty[:10])
        more = f" and {len(empty) - 10} more" if len(empty) > 10 else ""
        distributed.say(f"no image of the classes {told}{more} to train on: no sample of them is judged or shown")


def _epoch(seed: int, count: int, shift: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order of an epoch's images, int64 [N]; by place, which are mirrored, bool [N], and moved, int64 [N, 2]."""
    generator = np.random.default_rng((seed, epoch))
    order, mirrored = generator.permutation(count), generator.random(count) < 0.5
    return order, mirrored, generator.integers(-shift, shift, (count, 2), endpoint=True)


def _shifted(image: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C], each moved by its own pixels [N, 2] down and to the right."""
    down, right = (np.clip(np.arange(side) - by[:, [axis]], 0, side - 1) for axis, side in enumerate(image.shape[1:3]))
    return image[np.arange(len(image))[:, None, None], down[:, :, None], right[:, None, :]]


def _check(processes: int, seed: int, **counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    types.check_seed(seed)
    batch = counts["batch"] or 1
    if batch % processes:
        below, above = batch // processes * processes, -(-batch // processes) * processes
        sizes = f"{below} or {above}" if below else str(above)
        raise ValueError(f"batch={batch}: does not divide over {processes} processes; take {sizes}")


def _plain(value: Any) -> Any:
    """What JSON and YAML hold: tuples become lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
