"""Models of images on trial: held-out figures, likelihood where there is one, and distances to real images."""

import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from core import progress, types
from experiments import build, runs
from generative import drawing, evaluation, features

SPLIT = "test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What `conf/evaluate.yaml` may say of a model of images."""

    count: int = 10_000  # images drawn for FID and its like
    images: int = 1_000  # held-out images whose likelihood is estimated; 0: none
    samples: int | None = None  # codes an image (VAE); None: the model's own number, like `steps`
    steps: int | None = None  # of the ODE (diffusion)
    batch: int = 250

    def __post_init__(self):
        for name, least in (("count", 4), ("images", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """Some figures and all they must be read with."""

    name: str
    figures: Mapping[str, float]
    protocol: Mapping[str, Any]


def judge(run: runs.Trained, wanted: Wanted, *, seed: int) -> runs.Judgement:
    """Every figure that this kind of model has, on the test images of the data it was trained on."""
    data = build.objects(run.config["source"]["data"], "source.data")
    parts = list(_parts(run, wanted, data, seed))
    if not parts:
        raise build.ConfigError("run", f"={run.folder}: neither judges images nor draws any")
    scalars = {f"eval/{name}": value for part in parts for name, value in part.figures.items()}
    return runs.Judgement(
        text="\n".join(_told(part) for part in parts),
        content={part.name: {**part.figures, "protocol": dict(part.protocol)} for part in parts},
        report=types.Report(scalars=scalars),
        protocol={part.name: dict(part.protocol) for part in parts},
    )


def _parts(run: runs.Trained, wanted: Wanted, data: Any, seed: int) -> Iterator[_Part]:
    learner = run.learner
    if hasattr(learner, "judge"):
        held = evaluation.HeldOut(data=data, split=SPLIT, batch=wanted.batch, seed=seed)
        yield _Part(name="held_out", figures=_bare(held.report(learner, run.view)), protocol=held.protocol)
    if hasattr(learner, "log_likelihood") and wanted.images:
        yield from _likelihood(run, wanted, data, seed)
    if hasattr(learner, "sample"):
        yield from _quality(run, wanted, data, seed)


def _likelihood(run: runs.Trained, wanted: Wanted, data: Any, seed: int) -> Iterator[_Part]:
    """The model's own estimate, averaged over images; nothing, and a word why, for a model that refuses."""
    learner = run.learner
    known = inspect.signature(learner.likelihood_protocol).parameters
    typed = {name: getattr(wanted, name) for name in ("samples", "steps") if getattr(wanted, name) is not None}
    for name in typed.keys() - known.keys():
        raise build.ConfigError(name, f"={typed[name]}: this model's likelihood takes {', '.join(known)}")
    try:
        protocol = learner.likelihood_protocol(**typed)
    except ValueError as error:
        print(f"no likelihood: {error}")
        return
    test = data.load(SPLIT)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(test.image))[: wanted.images])
    found: dict[str, list[np.ndarray]] = {}
    estimate = jax.jit(functools.partial(learner.log_likelihood, **typed))
    with progress.Progress(len(chosen), "images") as bar:
        for start in range(0, len(chosen), wanted.batch):
            rows = chosen[start : start + wanted.batch]
            full = np.resize(rows, min(wanted.batch, len(chosen)))
            batch = types.Images(image=test.image[full], label=test.label[full])
            key = jax.random.fold_in(jax.random.key(seed), start)
            for name, values in estimate(run.view, batch, key).items():
                found.setdefault(name, []).append(np.asarray(values[: len(rows)], np.float64))
            bar.update(start + len(rows), {})
    figures = {}
    for name, values in found.items():
        each = np.concatenate(values)
        figures[name] = float(each.mean())
        figures[f"{name}_stderr"] = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else 0.0
    shown = {"split": SPLIT, "images": f"{len(chosen)} of {len(test.image)}", "seed": seed}
    yield _Part(name="likelihood", figures=figures, protocol=shown | protocol)


def _quality(run: runs.Trained, wanted: Wanted, data: Any, seed: int) -> Iterator[_Part]:
    """FID and its like, in the features of the run's own evaluations or, where they fit, the published ones."""
    own = next((e for e in run.objects.evaluators.values() if isinstance(e, evaluation.Quality)), None)
    try:
        seen_through = features.Published() if own is None else own.features
        features.check(seen_through, run.sizes["image"])
    except ValueError as error:
        print(f"no FID: {error}")
        return
    quality = evaluation.Quality(
        features=seen_through, data=data, count=wanted.count, reference=SPLIT, batch=wanted.batch, seed=seed
    )
    with progress.Progress(wanted.count, "images") as bar:
        images = drawing.draw(
            run.learner,
            run.view,
            seed + np.arange(wanted.count),
            batch=wanted.batch,
            progress=lambda done: bar.update(done, {}),
        )
    yield _Part(name="quality", figures=_bare(types.Report(scalars=quality.judge(images))), protocol=quality.protocol)


def _bare(report: types.Report) -> dict[str, float]:
    return {name.removeprefix("eval/"): value for name, value in report.scalars.items()}


def _told(part: _Part) -> str:
    figures = "  ".join(f"{name} {value:,.4g}" for name, value in part.figures.items())
    protocol = ", ".join(f"{name} {value}" for name, value in part.protocol.items())
    return f"{part.name}: {figures}\n  protocol: {protocol}"
