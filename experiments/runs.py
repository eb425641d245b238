"""A run that has left something behind: its config, its learner and its weights, from its folder alone."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from core import types
from core.checkpoints import checkpoint
from core.images import stream
from experiments.config import build, command_line, resume, saved
from generative import drawing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run has learned by one of its checkpoints."""

    folder: Path
    config: command_line.Config  # as the run began with it
    objects: build.Run  # the config's objects; the source among them is closed
    view: Any  # of the weights, on the first device: what acting and sampling need
    step: int
    examples: int  # frames or images seen by then
    checkpoint: Path
    protocol: Mapping[str, Any]  # what its figures must be read with

    @property
    def learner(self) -> Any:
        return self.objects.learner

    @property
    def unit(self) -> str:
        return self.objects.source.unit

    @property
    def sizes(self) -> types.Sizes:
        """What its network knows of the data."""
        return self.objects.source.sizes

    @property
    def classes(self) -> int:
        """How many classes it can be asked for; 0 where it takes no label."""
        return drawing.classes(self.learner)

    @property
    def class_names(self) -> tuple[str, ...]:
        """By class; () where the data had no names."""
        return tuple(self.protocol.get("data", {}).get("provenance", {}).get("class_names", ()))

    @property
    def class_counts(self) -> np.ndarray:
        """[classes], how many training images it had of each; of a run that does not say it, 1 each."""
        return np.asarray(self.protocol.get("class_counts") or np.ones(self.classes, np.int64))

    def sampler(self, **typed: Any) -> Any:
        """The model's own sampler with what was typed (`sampler`, `steps`, `guidance`; None: nothing) in its place.

        None for a model that has none. Raises build.ConfigError where they do not fit.
        """
        own = getattr(self.learner, "sampler", None)
        typed = {name: value for name, value in typed.items() if value is not None}
        if own is None:
            for name in typed:
                raise build.ConfigError(name, f": {self.folder} has no sampler to choose; only diffusion models have")
            return None
        sampler = typed.pop("sampler", own)
        for name, value in typed.items():
            if not hasattr(sampler, name):
                raise build.ConfigError(name, f"={value}: {type(sampler).__name__} has no such setting")
        try:
            sampler = dataclasses.replace(sampler, **typed)
            drawing.check_sampler(self.learner, sampler)
            return sampler
        except ValueError as error:
            key, _, problem = str(error).partition("=")
            raise build.ConfigError(key, f"={problem}") from error

    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        label: np.ndarray | None = None,
        sampler: Any = None,
        known: tuple[np.ndarray, np.ndarray] | None = None,
        batch: int = 250,
        progress: Callable[[int], None] = lambda done: None,
    ) -> np.ndarray:
        """Images uint8 [count, H, W, C] from a model of images; the i-th is drawn from `seed` + i alone.

        Without `label` a model of classes is asked for each as often, in proportion, as its training images had it.
        `known`: images, and where to draw their pixels anew, bool [count, H, W] (diffusion).
        """
        seeds = seed + np.arange(count)
        if label is None and known is None and self.classes:
            label = drawing.by_seed(self.class_counts, seeds)
        return drawing.draw(
            self.learner,
            self.view,
            seeds,
            label=label,
            batch=batch,
            sampler=sampler,
            known=known,
            progress=progress,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """What an evaluation of a run found."""

    text: str  # for a person
    content: Mapping[str, Any]  # plain values, for a file
    report: types.Report
    protocol: Mapping[str, Any]


def is_agent(learner: Any) -> bool:
    return hasattr(learner, "act")


def load(
    folder: str | Path, which: Literal["latest", "best"] = "latest", places: Mapping[str, str] | None = None
) -> Trained:
    """Reads a run that is finished or still going on, and changes nothing in its folder.

    `places` says where its data lie now, by `path` or `folder`.

    Only weights are read: neither the replay memory nor the optimiser's state takes memory here, and a model of images
    needs no data.

    Raises:
      build.ConfigError: there is no run here, or it has no such checkpoint.
    """
    settings, protocol = resume.moved(saved.load(folder), places or {}), saved.protocol(folder)
    settings["tracker"] = _tracker(settings["tracker"])
    objects = build.run(settings, source=stream.Shape.from_protocol(protocol) if "image" in protocol else None)
    source, learner = objects.source, objects.learner
    if is_agent(learner):
        source.attach(learner)
        source.close()
    wanted = _weights(jax.eval_shape(learner.init, jax.random.key(0), source.spec))
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
        protocol=protocol,
    )


def _tracker(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The run's own, or none where that is one of before its limits were checked."""
    try:
        build.objects(node, "tracker")
    except build.ConfigError as error:
        print(f"{error}: so what follows is not tracked")
        return {"_target_": "core.tracking.Nothing"}
    return node


def _weights(state: Any) -> Any:
    """The shapes of a state without what only going on needs."""
    left_out = {field.name: None for field in dataclasses.fields(state) if field.name in ("opt_state", "replay")}
    return dataclasses.replace(state, **left_out)
