"""A model of images as it is trained and as it draws: a process of the suite `generative` (see `timing.serve`).

    python -m experiments.benchmarks.generative_parts --drawn 16 experiment=diffusion/ddpm_unet [...]

The steps are the loop's own, compiled, placed and donated as in a training. The images are noise: no data is read.
"""

import argparse
import tempfile
from typing import Any

import jax
import numpy as np

from core import loop, platform, types
from core.checkpoints import checkpoint
from core.images import stream
from experiments.benchmarks import timing
from experiments.config import build, command_line
from generative import drawing

IMAGE, CLASSES = (28, 28, 1), 10  # Fashion-MNIST's


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--drawn", type=int, required=True)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    platform.cache()
    run = described(command_line.compose(*given.overrides))
    start = begun(run)
    sampler = getattr(run.learner, "sampler", None)
    facts = {
        "batch": run.source.batch,
        "steps": 1 if sampler is None else sampler.steps,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(start.state.params)),
    }
    timing.serve({"draw": drawn(start, given.drawn), "train": trained(start)}, facts)


def described(
    settings: command_line.Config, *, image: tuple[int, int, int] = IMAGE, classes: int = CLASSES
) -> build.Run:
    """The run's objects, its source no more than the shape of what it would give."""
    source = {name: settings["source"][name] for name in ("batch", "batches", "dispatch")}
    return build.run(settings, source=stream.Shape(image=image, classes=classes, **source))


def begun(run: build.Run) -> loop.Start:
    with tempfile.TemporaryDirectory(prefix="jaxcade-benchmark-") as folder:
        return loop.begin(
            learner=run.learner,
            source=run.source,
            placement=run.mesh,
            seed=run.seed,
            checkpoints=checkpoint.Checkpoints(folder),
        )


def trained(start: loop.Start) -> timing.Part:
    """One call of the device: as many steps as the run dispatches at once, counted in images. Ends `start.state`."""
    random, source = np.random.default_rng(0), start.source
    lead = () if source.dispatch == 1 else (source.dispatch,)
    image, label = (lead + leaf.shape for leaf in (source.spec.image, source.spec.label))
    batch = types.Images(
        image=random.integers(256, size=image, dtype=np.uint8),
        label=random.integers(CLASSES, size=label, dtype=np.int32),
    )
    held: list[Any] = [start.state]

    def train() -> int:
        state, metrics = start.functions.step(held[0], start.functions.globalize(batch))
        held[0] = state
        jax.block_until_ready((state, metrics))
        return source.examples_per_step

    return train


def drawn(start: loop.Start, count: int) -> timing.Part:
    """So many images at a time, as `experiments.sample` draws them."""
    view = start.functions.view(start.state)
    return lambda: len(drawing.draw(start.learner, view, np.arange(count), batch=count))


if __name__ == "__main__":
    main()
