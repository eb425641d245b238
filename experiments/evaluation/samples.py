"""Images from a run: what `experiments.sample` does with a composed config."""

import dataclasses
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core import media, platform, progress, ranges, types
from experiments import runs
from experiments.config import build, command_line

SHOWN = 256  # images in the PNG


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """`conf/sample.yaml` as an object."""

    run: str
    which: Literal["latest", "best"] = "latest"
    count: ranges.PositiveInt = 64
    out: str = "samples.npz"
    label: int | str | None = None  # a class's number or name
    inpaint: str | None = None
    sampler: Any = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    batch: ranges.PositiveInt = 64
    tune: bool = True

    def __post_init__(self):
        types.check_seed(self.seed, count=self.count)
        if not self.out.endswith(".npz"):
            raise ValueError(f"out={self.out}: must end with .npz")
        if not Path(self.out).absolute().parent.is_dir():
            raise ValueError(f"out={self.out}: there is no folder {Path(self.out).parent}; make it first")

    @property
    def seeds(self) -> np.ndarray:
        """[count], one for each image."""
        return self.seed + np.arange(self.count)


def task(settings: command_line.Config, _: Path) -> None:
    """Draws, writes the .npz and the PNG, and says where they lie."""
    wanted: Wanted = build.objects({**settings, "_target_": f"{__name__}.Wanted"})
    run = runs.load(wanted.run, wanted.which)
    platform.cache()
    sampler = run.sampler(sampler=wanted.sampler, steps=wanted.steps, guidance=wanted.guidance)
    labels = chosen_labels(run, wanted)
    if not hasattr(run.learner, "sample"):
        raise build.ConfigError("run", f"={run.folder}: draws no images; {type(run.learner).__name__} is its learner")
    known = known_pixels(run, wanted)
    with progress.Progress(wanted.count, "images") as bar:
        images = run.sample(
            wanted.count,
            seed=wanted.seed,
            label=labels,
            sampler=sampler,
            known=known,
            batch=wanted.batch,
            progress=lambda done: bar.update(done, {}),
        )
    out = Path(wanted.out)
    about = {
        "run": str(run.folder),
        "checkpoint": run.checkpoint.name,
        run.unit: run.examples,
        "sampler": None if sampler is None else str(sampler),
        "inpaint": wanted.inpaint,
        "class_names": list(run.class_names) or None,
        "cpu": platform.cpu(),
    }
    content: dict[str, Any] = {"image": images, "seed": wanted.seeds, "about": np.array(json.dumps(about))}
    part = out.with_name(f".{out.name}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, **content, **({} if labels is None else {"label": labels}))  # pyright: ignore
    os.replace(part, out)
    media.write_png(out.with_suffix(".png"), media.grid(images[:SHOWN]))
    classes = _told(run, labels, typed=wanted.label is not None)
    shown = f", which shows the first {SHOWN}" if wanted.count > SHOWN else ""
    print(
        f"{wanted.count} images of {run.folder} after {run.examples:,} {run.unit}{classes}: "
        f"{out}, {out.with_suffix('.png')}{shown}"
    )


def known_pixels(run: runs.Trained, wanted: Wanted) -> tuple[np.ndarray, np.ndarray] | None:
    """Images uint8 [count, H, W, C], the file's in turn, and which of their pixels to draw, bool [count, H, W]."""
    if wanted.inpaint is None:
        return None
    told = f"={wanted.inpaint}"
    if not hasattr(run.learner, "inpaint"):
        raise build.ConfigError("inpaint", f"{told}: {type(run.learner).__name__} cannot; only diffusion models can")
    try:
        with np.load(wanted.inpaint, allow_pickle=False) as found:
            image, mask = found["image"], found["mask"].astype(bool)
        mask = np.broadcast_to(mask, image.shape[:3])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        wish = (
            "an .npz with `image` [N, H, W, C] and `mask` [N, H, W] or [H, W], true where pixels are drawn, is wanted"
        )
        raise build.ConfigError("inpaint", f"{told}: {wish}: {error}") from error
    if image.dtype != np.uint8 or image.shape[1:] != tuple(run.sizes["image"]) or not len(image):
        wish = f"the model is of uint8 images of {tuple(run.sizes['image'])}"
        raise build.ConfigError("inpaint", f"{told}: its images are {image.dtype} {image.shape}; {wish}")
    chosen = np.arange(wanted.count) % len(image)
    return image[chosen], mask[chosen]


def chosen_labels(run: runs.Trained, wanted: Wanted) -> np.ndarray | None:
    """[count] int32: the class that was typed, else by the seed each that was trained on in turn; None without classes.

    Without one typed, images to fill in are of no class: that of what is known of them is not known here.
    """
    classes = run.classes
    if wanted.label is None and classes and wanted.inpaint is not None:
        return np.full(wanted.count, classes, np.int32)
    if wanted.label is None:
        trained = np.flatnonzero(run.class_counts)
        return None if not classes else trained[wanted.seeds % len(trained)].astype(np.int32)
    if not classes:
        raise build.ConfigError("label", f"={wanted.label}: {run.folder} was trained without labels; leave it out")
    label = _class(wanted.label, run.class_names, classes)
    if not run.class_counts[label]:
        raise build.ConfigError("label", f"={wanted.label}: there was no image of this class to train on")
    return np.full(wanted.count, label, np.int32)


def _class(typed: int | str, names: tuple[str, ...], classes: int) -> int:
    """The class of this name; else of this number, where names are not numbers themselves."""
    if str(typed) in names:
        return names.index(str(typed))
    numbers = [int(name) for name in names if name.isdecimal()]
    by_number = len(numbers) < classes
    known = list(range(classes)) if by_number else numbers
    number = int(typed) if str(typed).isdecimal() else None
    if number in known:
        return known.index(number)
    if names and (number is None or not by_number):
        raise build.ConfigError("label", f"={typed}: no such class; {build.nearest(str(typed), names)}")
    raise build.ConfigError("label", f"={typed}: the classes are 0 to {classes - 1}")


def _told(run: runs.Trained, label: np.ndarray | None, *, typed: bool) -> str:
    """Which classes were drawn, in words."""
    if label is None:
        return ""
    if not typed:
        none = (label == run.classes).all()
        return ", of no class" if none else f", {len(np.unique(label))} of its {run.classes} classes in turn"
    return f", class {label[0]}{f' ({run.class_names[label[0]]})' if run.class_names else ''}"
