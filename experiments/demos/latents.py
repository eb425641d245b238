"""The study of latent sizes: what `experiments.latents` does."""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from core import types
from experiments import runs, training
from experiments.config import build, command_line
from generative import pictures

DEFAULTS = ("experiment=vae/latents", "network.latent=2,5")
SHOWN = 12  # images


def main() -> None:
    folders: list[Path] = []

    def task(settings: command_line.Config, folder: Path) -> None:
        training.task(settings, folder)
        folders.append(folder)

    typed = {argument.partition("=")[0] for argument in sys.argv[1:]}
    sys.argv[1:1] = ["-m", *(default for default in DEFAULTS if default.partition("=")[0] not in typed)]
    command_line.main(task)
    if folders:
        print(f"drawn: {draw(folders)}")


def draw(folders: list[Path]) -> Path:
    """`latents.png` above the first run's folder: a row of test images, and one of reconstructions for each run."""
    from matplotlib import figure  # here, because it looks through the machine's fonts

    trained = sorted((runs.load(folder) for folder in folders), key=_latent)
    test = build.objects(trained[0].config["source"]["data"], "source.data").load("test")
    every = np.random.default_rng(0).permutation(len(test.image))
    rows, titles = [test.image[every[:SHOWN]]], ["test images"]
    for run in trained:
        again = []
        for part in np.array_split(every, -(-len(every) // 1000)):
            batch = types.Images(image=test.image[part], label=test.label[part])
            again.append(pictures.reconstruct(run.learner, run.view, batch, jax.random.key(0)))
        again = np.concatenate(again)
        error = np.mean((np.float32(again) - test.image[every]) ** 2, dtype=float) / 255**2
        rows.append(again[:SHOWN])
        titles.append(f"{_latent(run)} latents\nMSE {error:.4f}")

    picture = figure.Figure(figsize=(SHOWN * 0.8 + 1.6, len(rows) * 0.85), dpi=120, layout="constrained")
    axes: Any = picture.subplots(len(rows), SHOWN, squeeze=False)
    for row, title, images in zip(axes, titles, rows, strict=True):
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize="small")
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
    path = folders[0].parent / "latents.png"
    picture.savefig(path)
    return path


def _latent(run: Any) -> int:
    return run.config["network"]["latent"]
