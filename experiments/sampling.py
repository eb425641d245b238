"""Images from a run: what `experiments.sample` does with a composed config."""

import dataclasses
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core import media, platform, progress, types
from experiments import build, config, runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """`conf/sample.yaml` as an object."""

    run: str
    which: Literal["latest", "best"] = "latest"
    count: int = 64
    out: str = "samples.npz"
    label: int | None = None
    inpaint: str | None = None
    sampler: Any = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    batch: int = 64
    tune: bool = True

    def __post_init__(self):
        for name in ("count", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        types.check_seed(self.seed, count=self.count)
        if not self.out.endswith(".npz"):
            raise ValueError(f"out={self.out}: must end with .npz")
        if not Path(self.out).absolute().parent.is_dir():
            raise ValueError(f"out={self.out}: there is no folder {Path(self.out).parent}; make it first")

    @property
    def seeds(self) -> np.ndarray:
        """[count], one for each image."""
        return self.seed + np.arange(self.count)


def task(settings: config.Config, _: Path) -> None:
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
        "cpu": platform.cpu(),
    }
    content: dict[str, Any] = {"image": images, "seed": wanted.seeds, "about": np.array(json.dumps(about))}
    part = out.with_name(f".{out.name}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, **content, **({} if labels is None else {"label": labels}))  # pyright: ignore
    os.replace(part, out)
    media.write_png(out.with_suffix(".png"), media.grid(images[:256]))
    print(f"{wanted.count} images of {run.folder} after {run.examples:,} {run.unit}: {out}, {out.with_suffix('.png')}")


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
    """[count] int32: the class that was typed, else the seed's; None for a model that knows none.

    Without one typed, images to fill in are of no class: that of what is known of them is not known here.
    """
    classes = run.classes
    if wanted.label is None and classes and wanted.inpaint is not None:
        return np.full(wanted.count, classes, np.int32)
    if wanted.label is None:
        return None if not classes else (wanted.seeds % classes).astype(np.int32)
    if not classes:
        raise build.ConfigError("label", f"={wanted.label}: {run.folder} was trained without labels; leave it out")
    if not 0 <= wanted.label < classes:
        raise build.ConfigError("label", f"={wanted.label}: the classes are 0 to {classes - 1}")
    return np.full(wanted.count, wanted.label, np.int32)
