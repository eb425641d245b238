"""A run that has left something behind: its config, its learner and its weights, from its folder alone."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax

from core import checkpoint
from experiments import build, config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run has learned by one of its checkpoints."""

    folder: Path
    config: config.Config  # as the run began with it
    objects: build.Run  # the config's objects; the source among them is closed
    view: Any  # of the weights, on the first device: what acting and sampling need
    step: int
    examples: int  # frames or images seen by then
    checkpoint: Path

    @property
    def learner(self) -> Any:
        return self.objects.learner

    @property
    def unit(self) -> str:
        return self.objects.source.unit


def load(folder: str | Path, which: Literal["latest", "best"] = "latest") -> Trained:
    """Reads a run that is finished or still going on, and changes nothing in its folder.

    Only weights are read: neither the replay memory nor the optimiser's state takes memory here.

    Raises:
      build.ConfigError: there is no run here, or it has no such checkpoint.
    """
    settings = config.load(folder)
    objects = build.run(settings)
    source, learner = objects.source, objects.learner
    try:
        source.attach(learner)
        wanted = _weights(jax.eval_shape(learner.init, jax.random.key(0), source.spec))
    finally:
        source.close()
    try:
        loaded = checkpoint.load(Path(folder) / "checkpoints", wanted, which)
    except checkpoint.CheckpointError as error:
        raise build.ConfigError("run", f"={folder}: {error}") from error
    return Trained(
        folder=Path(folder),
        config=settings,
        objects=objects,
        view=learner.view(loaded.tree),
        step=loaded.step,
        examples=loaded.step * source.examples_per_step,
        checkpoint=loaded.path,
    )


def _weights(state: Any) -> Any:
    """The shapes of a state without what only going on needs."""
    left_out = {field.name: None for field in dataclasses.fields(state) if field.name in ("opt_state", "replay")}
    return dataclasses.replace(state, **left_out)
