"""The images' demo: a model of each family, trained one after the other, and their samples beside real images."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from core import media, platform, stopping
from experiments import runs, training
from experiments.config import build, command_line, overrides

FAMILIES = ("demo/vae", "demo/gan", "demo/diffusion")
PICTURE = "samples.png"
SLOW = 300.0  # seconds that the demo should not take
COLUMNS = 10  # of each family's images, two rows


def task(settings: command_line.Config, folder: Path) -> None:
    """Trains in `folder`/<family> and draws `samples.png`. A Ctrl-C ends it, with a checkpoint of the model in hand."""
    if settings["resume"]:
        remedy = f"experiments.train resume={settings['resume']} goes on with one run"
        raise build.ConfigError("resume", f"={settings['resume']}: the demo trains three runs anew; {remedy}")
    began = time.monotonic()
    typed = [line for line in overrides.typed() if not line.startswith("experiment=")]
    print(_opening(settings), flush=True)
    drawn: dict[str, np.ndarray] = {"real": _real(settings)}
    lines = []
    with stopping.Stop() as stop:
        for family in FAMILIES:
            name = family.rpartition("/")[2]
            print(f"\n== {name} ==", flush=True)
            before = time.monotonic()
            outcome = training.train(command_line.compose(f"experiment={family}", *typed), folder / name, stop=stop)
            if not outcome.finished:
                sys.exit(stop.exit_status)
            run = runs.load(folder / name)
            drawn[name] = run.sample(2 * COLUMNS)
            lines.append(f"  {name}: {run.examples:,} images in {time.monotonic() - before:.0f} s, {folder / name}")
    draw(folder / PICTURE, drawn)
    print(_closing(folder, lines, seconds=time.monotonic() - began), flush=True)


def draw(path: Path, drawn: Mapping[str, np.ndarray]) -> None:
    """Rows of images, uint8 [N, H, W, C] by name, below each other with their names."""
    from matplotlib import figure  # here, because it looks through the machine's fonts

    picture = figure.Figure(figsize=(7, 1.5 * len(drawn)), dpi=120, layout="constrained")
    for axes, (name, images) in zip(picture.subplots(len(drawn), squeeze=False)[:, 0], drawn.items(), strict=True):
        axes.imshow(media.grid(images, columns=COLUMNS, gap=1), interpolation="nearest")
        axes.set_ylabel(name)
        axes.set(xticks=[], yticks=[])
    picture.savefig(path)


def _real(settings: command_line.Config) -> np.ndarray:
    """Images that no model has seen."""
    data = build.objects(settings["source"]["data"], "source.data").load("test")
    return data.image[np.random.default_rng(settings["seed"]).permutation(len(data.image))[: 2 * COLUMNS]]


def _opening(settings: command_line.Config) -> str:
    recipe = settings["source"]["data"]["_target_"].rpartition(".")[2]
    return (
        f"A VAE, a GAN and a diffusion model learn to draw ({recipe}), one after the other, on\n{platform.cpu()}. "
        "It takes two to five minutes; Ctrl-C stops it."
    )


def _closing(folder: Path, lines: list[str], *, seconds: float) -> str:
    slow = f" Slower than the {SLOW / 60:g} minutes meant: is the machine busy?" if seconds > SLOW else ""
    return "\n".join(
        [
            "",
            f"== {folder / PICTURE}: real images, and below them what each model draws ==",
            *lines,
            f"{seconds:.0f} s in all on {platform.cpu()}.{slow}",
            "",
            "== Try next ==",
            f"  {sys.executable} -m experiments.sample run={folder / 'diffusion'} count=100 out=digits.npz",
            f"  {sys.executable} -m experiments.evaluate run={folder / 'vae'}",
            f"  {sys.executable} -m experiments.train experiment=vae/fashion_mnist",
        ]
    )
