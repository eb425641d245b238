"""One evaluation of a run: what `experiments.evaluate` does with a composed config."""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from core import platform, tracking, types
from experiments import runs
from experiments.config import build, command_line, overrides
from experiments.evaluation import agents, images

FILE = "evaluation.json"  # in a run's folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """`conf/evaluate.yaml` as an object, but for what is one family's own."""

    run: str
    which: Literal["latest", "best"] = "latest"
    seed: int = 0
    tune: bool = True

    def __post_init__(self):
        types.check_seed(self.seed)


def task(settings: command_line.Config, _: Path) -> None:
    """Evaluates, prints the figures with their protocol, writes `evaluation.json`."""
    places = {key: place for key, place in settings.pop("source").items() if place is not None}
    shared = {field.name for field in dataclasses.fields(Wanted)}
    own = {key: value for key, value in settings.items() if key not in shared and value is not None}
    wanted: Wanted = build.objects({k: settings[k] for k in shared} | {"_target_": f"{__name__}.Wanted"})
    run = runs.load(wanted.run, wanted.which, places)
    platform.cache()
    family = agents if runs.is_agent(run.learner) else images
    names = {field.name for field in dataclasses.fields(family.Wanted)}
    for key in own.keys() - names:
        value = "" if isinstance(own[key], Mapping) else f"={own[key]}"
        raise build.ConfigError(key, f"{value}: no setting of this kind of model; {build.nearest(key, names)}")
    judged: Any = build.objects(own | {"_target_": f"{family.__name__}.Wanted"})
    _check_seeds(wanted.seed, judged.seeds)
    found = family.judge(run, judged, seed=wanted.seed)
    print(f"{run.folder} after {run.examples:,} {run.unit} ({wanted.which} checkpoint), on {platform.cpu()}")
    print(found.text)
    print(f"written: {save(run, overrides.command(), found.content)}")
    _track(run, overrides.command(), found)


def _check_seeds(seed: int, count: int) -> None:
    try:
        types.check_seed(seed, count=count)
    except ValueError as error:
        key, _, problem = str(error).partition("=")
        raise build.ConfigError(key, f"={problem}") from error


def save(run: runs.Trained, command: str, content: Mapping[str, Any]) -> Path:
    """Writes `evaluation.json`, in place of an earlier one: the figures with all that they must be read with."""
    whole = {
        "command": command,
        "checkpoint": run.checkpoint.relative_to(run.folder.absolute()).as_posix(),
        "step": run.step,
        run.unit: run.examples,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": platform.cpu(),
        **content,
    }
    path = run.folder / FILE
    part = path.with_suffix(".part")
    part.write_text(json.dumps(whole, indent=2) + "\n")
    part.replace(path)
    return path


def _track(run: runs.Trained, command: str, found: runs.Judgement) -> None:
    """A W&B run of its own in the training run's group, kept in `evaluations/<date-time>/`.

    Not the training run's: that one may be going on, and a resume from its checkpoint would take the row back.
    """
    backend = run.objects.tracker
    if not isinstance(backend, tracking.Wandb):
        return
    folder = run.folder / "evaluations" / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")
    settings = {"command": command, "protocol": dict(found.protocol), "run": run.config}
    name = f"{backend.name or run.folder.resolve().name}-evaluate"[-tracking.LONGEST["name"] :]
    backend = dataclasses.replace(backend, job_type="evaluate", name=name)
    tracker = tracking.open(folder, unit=run.unit, config=settings, backend=backend)
    tracker.log(step=run.step, examples=run.examples, seconds=0.0, scalars={}, report=found.report)
    tracker.finish("finished")
