"""Models of images on trial: held-out figures, likelihood where there is one, and distances to real images."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Annotated, Any

import annotated_types
import jax
import numpy as np

from core import progress, ranges, types
from core.images import datasets
from experiments import runs
from experiments.config import build
from experiments.evaluation import classifiers
from generative import drawing, evaluation, features

SPLIT = "test"
USUAL = 10_000  # images drawn for FID and its like


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What `conf/evaluate.yaml` may say of a model of images."""

    # Images drawn for FID and its like; None: `USUAL`, or as many as are trained on.
    count: Annotated[int, annotated_types.Ge(4)] | None = None
    images: ranges.NonNegativeInt = 1_000  # held-out images whose likelihood is estimated; 0: none
    samples: ranges.PositiveInt | None = None  # codes an image (VAE); None: the model's own number, as in what follows
    ode_steps: ranges.PositiveInt | None = None  # of the likelihood's ODE (diffusion)
    sampler: Any = None  # of a diffusion model
    steps: int | None = None
    guidance: float | None = None
    features: str | None = None  # a classifier's run or published file; None: as in the run's own evaluations
    batch: ranges.PositiveInt = 250

    @property
    def seeds(self) -> int:
        """How many, from the evaluation's own on: one an image."""
        return self.count or USUAL


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """Some figures and all they must be read with."""

    name: str
    figures: Mapping[str, float]
    protocol: Mapping[str, Any]
    warning: str = ""


def judge(run: runs.Trained, wanted: Wanted, *, seed: int) -> runs.Judgement:
    """Every figure that this kind of model has, on the test images of the data it was trained on.

    Raises build.ConfigError, before anything is computed, where the data cannot be read or a setting does not fit.
    """
    learner, data = run.learner, build.objects(run.config["source"]["data"], "source.data")
    try:
        train, test = data.load("train"), data.load(SPLIT)
    except ValueError as error:
        raise build.ConfigError("run", f"={run.folder}: its data cannot be read: {error}") from error
    told = _data(run, train, test)
    typed, protocol = _likelihood_settings(run, wanted)
    quality = _quality(run, wanted, data, seed)
    parts = []
    if hasattr(learner, "judge"):
        held = evaluation.HeldOut(data=data, split=SPLIT, batch=wanted.batch, seed=seed)
        own = getattr(learner, "judge_protocol", {})
        parts.append(
            _Part(name="held_out", figures=_bare(held.report(learner, run.view)), protocol=held.protocol | own)
        )
    if protocol is not None:
        parts.append(_likelihood(run, wanted, test, typed, protocol, seed))
    if quality is not None:
        parts.append(_drawn(run, quality))
    if not parts:
        problem = (
            "nothing to tell of it: no figures of given images, no likelihood, no features that see its samples; name "
            "a classifier's run: features=<run folder>"
        )
        raise build.ConfigError("run", f"={run.folder}: {problem}")
    scalars = {f"eval/{name}": value for part in parts for name, value in part.figures.items()}
    return runs.Judgement(
        text="\n".join([*([f"warning: {told['warning']}"] if "warning" in told else []), *map(_told, parts)]),
        content={part.name: {**part.figures, "protocol": dict(part.protocol)} for part in parts} | {"data": told},
        report=types.Report(scalars=scalars),
        protocol={part.name: dict(part.protocol) for part in parts} | {"data": told},
    )


def _data(run: runs.Trained, train: datasets.Dataset, test: datasets.Dataset) -> dict[str, Any]:
    """What the figures are of, with a warning where the run was trained on other images than these data have for it.

    Raises build.ConfigError for data that the model does not fit.
    """
    now, wanted = {"image": test.image.shape[1:], "classes": test.classes}, dict(run.sizes)
    if now != wanted:
        raise build.ConfigError("run", f"={run.folder}: the model is of {wanted}, and its data are {now} now")
    told = {"images": len(train.image), "images_sha256": train.digest, "test_sha256": test.digest}
    then = run.protocol.get("images_sha256")
    if then in (None, train.digest):
        return told
    warning = (
        f"these data are not those that the run was trained on: {run.protocol['images']:,} images to train on then "
        f"(SHA-256 {then[:8]}), {len(train.image):,} now ({train.digest[:8]}); some of the test images may have been "
        "among them"
    )
    return told | {"run_images_sha256": then, "warning": warning}


def _likelihood_settings(run: runs.Trained, wanted: Wanted) -> tuple[dict[str, int], Mapping[str, Any] | None]:
    """What was typed for the model's own estimate, and its protocol; None, and a word why, for one that has none."""
    learner = run.learner
    known = inspect.signature(learner.likelihood_protocol).parameters if hasattr(learner, "log_likelihood") else {}
    keys = {"samples": "samples", "steps": "ode_steps"}  # what they are typed as
    typed = {name: getattr(wanted, key) for name, key in keys.items() if getattr(wanted, key) is not None}
    for name in typed.keys() - known.keys():
        takes = " and ".join(key for each, key in keys.items() if each in known)
        problem = f"likelihood takes {takes}" if takes else "kind has no likelihood; leave it out"
        raise build.ConfigError(keys[name], f"={typed[name]}: this model's {problem}")
    if not known or not wanted.images:
        return typed, None
    try:
        return typed, learner.likelihood_protocol(**typed)
    except ValueError as error:
        print(f"no likelihood: {error}")
        return typed, None


def _likelihood(
    run: runs.Trained,
    wanted: Wanted,
    test: datasets.Dataset,
    typed: Mapping[str, int],
    protocol: Mapping[str, Any],
    seed: int,
) -> _Part:
    """The model's own estimate, averaged over images."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(test.image))[: wanted.images])
    found: dict[str, list[np.ndarray]] = {}
    estimate = jax.jit(functools.partial(run.learner.log_likelihood, **typed))
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
    return _Part(name="likelihood", figures=figures, protocol=shown | dict(protocol))


def _quality(run: runs.Trained, wanted: Wanted, data: Any, seed: int) -> evaluation.Quality | None:
    """For FID and its like in the features typed, or of the run's own evaluations or, where they fit, the published."""
    if not hasattr(run.learner, "sample"):
        return None
    own = next((e for e in run.objects.evaluators.values() if isinstance(e, evaluation.Quality)), None)
    seen_through = _features(wanted.features, own)
    try:
        features.check(seen_through, run.sizes["image"])
    except ValueError as error:
        if wanted.features is not None:
            raise build.ConfigError("features", f"={wanted.features}: {error}") from error
        print(f"no FID: {error}")
        return None
    quality = evaluation.Quality(
        features=seen_through,
        alarm=evaluation.Quality.alarm if own is None else own.alarm,
        data=data,
        count=wanted.count,
        usual=USUAL,
        reference=SPLIT,
        batch=wanted.batch,
        seed=seed,
        sampler=run.sampler(sampler=wanted.sampler, steps=wanted.steps, guidance=wanted.guidance),
    )
    try:
        quality.prepare(run.learner)
    except ValueError as error:
        raise build.ConfigError("", str(error)) from error
    return quality


def _features(typed: str | None, own: evaluation.Quality | None) -> features.Features:
    if typed is not None:
        return features.Published(file=typed) if typed.endswith(".npz") else classifiers.Judge(run=typed)
    return features.Published() if own is None else own.features


def _drawn(run: runs.Trained, quality: evaluation.Quality) -> _Part:
    """The figures of images drawn from the model."""
    with progress.Progress(quality.drawn, "images") as bar:
        images = drawing.draw(
            run.learner,
            run.view,
            quality.seed + np.arange(quality.drawn),
            label=quality.labels(run.learner),
            batch=quality.batch,
            sampler=quality.sampler,
            progress=lambda done: bar.update(done, {}),
        )
    scalars = quality.judge(images)
    figures = _bare(types.Report(scalars=scalars))
    return _Part(name="quality", figures=figures, protocol=quality.protocol, warning=quality.collapse(scalars))


def _bare(report: types.Report) -> dict[str, float]:
    return {name.removeprefix("eval/"): value for name, value in report.scalars.items()}


def _told(part: _Part) -> str:
    figures = "  ".join(f"{name} {value:,.4g}" for name, value in part.figures.items())
    protocol = ", ".join(f"{name} {value}" for name, value in part.protocol.items())
    warning = f"\n  warning: {part.warning}" if part.warning else ""
    return f"{part.name}: {figures}\n  protocol: {protocol}{warning}"
