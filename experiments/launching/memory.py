"""Whether a run's state fits the GPUs that it is launched on: by shapes alone, before anything is submitted."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from core import mesh
from experiments.config import build
from slurm import jobs


def check(runs: Sequence[Mapping[str, Any]], settings: jobs.Settings) -> None:
    """The composed configs of a launch, as far as `settings` say how much memory a GPU has.

    Each is built, its source included, and not started; of several that differ in their seed only the first.

    Raises:
      build.ConfigError: the state needs more, or does not divide over so many GPUs.
    """
    if settings.gpu_memory is None or not settings.gpus_per_node:
        return
    jax.config.update("jax_platforms", "cpu")  # not the GPUs of this machine, which may be others or none
    seen = []
    for plain in runs:
        if (shape := _without_seed(plain)) not in seen:
            seen.append(shape)
            _check(plain, settings)


def _check(plain: Mapping[str, Any], settings: jobs.Settings) -> None:
    gpus = settings.nodes * settings.gpus_per_node
    run = build.run(plain)
    try:
        run.source.attach(run.learner)
        planned = run.mesh.planned(gpus)
        abstract = jax.eval_shape(run.learner.init, jax.random.key(0), run.source.spec)
        shardings = run.mesh.shardings(abstract, planned)
        mesh.check_batch(run.source.spec, planned, axis=run.source.data_axis)
        need = mesh.state_bytes(abstract, shardings) / 1e9
    except ValueError as error:
        raise build.ConfigError("", f"on {gpus} GPUs: {error}") from error
    finally:
        run.source.close()
    if need > (settings.gpu_memory or 0):
        told = f"={settings.gpu_memory:g}: the state alone needs {need:.2f} GB on each of {gpus} GPUs"
        remedy = "a smaller learner.replay.capacity or network, or more GPUs, would fit"
        raise build.ConfigError("gpu_memory", f"{told}; {remedy}")


def _without_seed(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {name: _without_seed(value) for name, value in node.items() if name != "seed"}
    return node
