"""Others' programs, in a virtual environment of their own that pip fills with some GB; nothing else needs it."""

import contextlib
import importlib.metadata
import math
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmarks import processes

# On Linux pip's default torch brings CUDA along; pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL) choose
# another build, and what lies in the folder already is taken as it is.
TORCH = "torch==2.13.0"
REQUIREMENTS = {  # by suite
    "dqn": (
        "dopamine-rl==4.1.2",
        "gymnasium[atari]==1.4.0",
        "stable-baselines3==2.9.2",
        TORCH,
        *(f"{package}=={importlib.metadata.version(package)}" for package in ("jax", "jaxlib", "flax", "optax")),
    ),
    "generative": ("diffusers==0.42.1", TORCH),
}
DQNS = {"stable-baselines3": "sb3_dqn", "dopamine": "dopamine_dqn", "plain JAX": "plain_jax"}
FOREIGN = "experiments.benchmarks.foreign"


def python(folder: str | None, suite: str, stack: contextlib.ExitStack) -> Path:
    """The interpreter of the environment in `folder`, to which is added what the suite's peers need and it lacks.

    None: a temporary one that `stack` ends.
    """
    made = Path(folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="jaxcade-peers-"))).absolute()
    found, filled = made / "bin" / "python", made / "filled"
    if not filled.exists():
        venv.create(made, with_pip=True)
    held = filled.read_text().splitlines() if filled.exists() else []
    if missing := [requirement for requirement in REQUIREMENTS[suite] if requirement not in held]:
        print(f"installing {', '.join(missing)} into {made}", file=sys.stderr, flush=True)
        install = [str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *missing]
        subprocess.run(install, check=True)
        filled.write_text("".join(f"{requirement}\n" for requirement in [*held, *missing]))
    return found


def torch_update(python: Path, batches: Sequence[int]) -> list[str]:
    """The command of a process that serves `single <batch>`."""
    return [str(python), "-m", f"{FOREIGN}.torch_update", *map(str, batches)]


def torch_images(python: Path, model: str, *, batch: int, drawn: int, steps: int) -> list[str]:
    """The command of a process that serves `train` and `draw`, both counted in images."""
    return [str(python), "-m", f"{FOREIGN}.torch_images", model, *map(str, (batch, drawn, steps))]


def train(python: Path, name: str, kind: processes.Kind, *, seconds: float) -> float:
    """Environment steps a second of one of `DQNS` once it learns; NaN, and a word why, where it fails."""
    try:
        found = processes.last_line([str(python), "-m", f"{FOREIGN}.{DQNS[name]}", str(seconds)], kind)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"{name} failed and is left out: {error}", file=sys.stderr, flush=True)
        return math.nan
    return found["steps_per_second"]
