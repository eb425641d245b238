"""Images from a run: what `experiments.sample` does with a composed config."""

import dataclasses
import itertools
import json
import os
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from core import media, platform, progress
from experiments import build, config, runs
from generative import drawing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """`conf/sample.yaml` as an object."""

    run: str
    which: Literal["latest", "best"] = "latest"
    count: int = 64
    out: str = "samples.npz"
    label: int | None = None
    sampler: Any = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    batch: int = 64
    tune: bool = True

    def __post_init__(self):
        for name, least in (("count", 1), ("batch", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        if not self.out.endswith(".npz"):
            raise ValueError(f"out={self.out}: must end with .npz")
        if not Path(self.out).absolute().parent.is_dir():
            raise ValueError(f"out={self.out}: there is no folder {Path(self.out).parent}; make it first")


def task(settings: config.Config, _: Path) -> None:
    """Draws, writes the .npz and the PNG, and says where they lie."""
    wanted: Wanted = build.objects({**settings, "_target_": f"{__name__}.Wanted"})
    run = runs.load(wanted.run, wanted.which)
    platform.cache()
    sampler = chosen_sampler(run, wanted)
    labels = chosen_labels(run, wanted)
    if not hasattr(run.learner, "sample"):
        raise build.ConfigError("run", f"={run.folder}: draws no images; {type(run.learner).__name__} is its learner")
    with progress.Progress(wanted.count, "images") as bar:
        images = run.sample(
            wanted.count,
            seed=wanted.seed,
            label=labels,
            sampler=watched(sampler, bar, wanted),
            batch=wanted.batch,
            progress=lambda done: bar.update(done, {}),
        )
        jax.effects_barrier()  # the last evaluations are told before the bar closes
    out = Path(wanted.out)
    about = {
        "run": str(run.folder),
        "checkpoint": run.checkpoint.name,
        run.unit: run.examples,
        "sampler": None if sampler is None else str(sampler),
        "cpu": platform.cpu(),
    }
    seeds = wanted.seed + np.arange(wanted.count)
    content: dict[str, Any] = {"image": images, "seed": seeds, "about": np.array(json.dumps(about))}
    part = out.with_name(f".{out.name}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, **content, **({} if labels is None else {"label": labels}))  # pyright: ignore
    os.replace(part, out)
    media.write_png(out.with_suffix(".png"), media.grid(images[:256]))
    print(f"{wanted.count} images of {run.folder} after {run.examples:,} {run.unit}: {out}, {out.with_suffix('.png')}")


def chosen_sampler(run: runs.Trained, wanted: Wanted) -> Any:
    """The model's own sampler with what was typed in its place; None for a model that has none."""
    own = getattr(run.learner, "sampler", None)
    typed = {name: getattr(wanted, name) for name in ("sampler", "steps", "guidance")}
    typed = {name: value for name, value in typed.items() if value is not None}
    if own is None:
        for name in typed:
            raise build.ConfigError(name, f": {run.folder} has no sampler to choose; only diffusion models have")
        return None
    sampler = typed.pop("sampler", own)
    for name, value in typed.items():
        if not hasattr(sampler, name):
            raise build.ConfigError(name, f"={value}: {type(sampler).__name__} has no such setting")
    try:
        sampler = dataclasses.replace(sampler, **typed)
        drawing.check_sampler(run.learner, sampler)
        return sampler
    except ValueError as error:
        key, _, problem = str(error).partition("=")
        raise build.ConfigError(key, f"={problem}") from error


def watched(sampler: Any, bar: progress.Progress, wanted: Wanted) -> Any:
    """`sampler`, moving the bar at every evaluation of the network: one batch may take minutes."""
    if sampler is None:
        return None
    share = min(wanted.batch, wanted.count) / sampler.evaluations  # of the images, in one evaluation
    evaluations = itertools.count(1)
    return dataclasses.replace(
        sampler, watch=lambda: bar.update(min(round(next(evaluations) * share), wanted.count), {})
    )


def chosen_labels(run: runs.Trained, wanted: Wanted) -> np.ndarray | None:
    """[count] int32: the class that was typed, else every class in turn; None for a model that knows none."""
    classes = run.classes
    if wanted.label is None:
        return None if not classes else (np.arange(wanted.count) % classes).astype(np.int32)
    if not classes:
        raise build.ConfigError("label", f"={wanted.label}: {run.folder} was trained without labels; leave it out")
    if not 0 <= wanted.label < classes:
        raise build.ConfigError("label", f"={wanted.label}: the classes are 0 to {classes - 1}")
    return np.full(wanted.count, wanted.label, np.int32)
