"""The suite `compile`: the processor time in which each experiment's programs are compiled, with nothing cached.

    python -m experiments.benchmarks.compile experiment=diffusion/ddpm_unet [...]

measures one experiment and is a process of its own for each. Programs are traced, lowered and compiled, never run: no
state is made, and images are given by their shapes alone.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from core import loop
from experiments.benchmarks import generative_parts, processes, programs, results
from experiments.config import build, command_line
from generative import drawing

EXPERIMENTS = tuple(
    sorted(
        file.relative_to(command_line.CONF / "experiment").with_suffix("").as_posix()
        for file in (command_line.CONF / "experiment").rglob("*.yaml")
    )
)
# [H, W, C] and classes by recipe, so that no data are read; frames of games are as `experiments.collect` writes them.
SHAPES = {"Idx": ((28, 28, 1), 10), "Digits": ((8, 8, 1), 10), "Npz": ((64, 64, 3), 0)}
DRAWN = 64  # images at a time
LIMIT = 60.0  # seconds of processor time for all programs of an experiment
PROGRAMS = {
    "init": "the first state",
    "absorb": "taking in without learning",
    "step": "a step",
    "sample": f"drawing {DRAWN} images",
}


def run(wanted: Any) -> results.Results:
    """Compiles one experiment after the other, once a round; `wanted` is a `benchmarking.Wanted`."""
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(wanted.rounds):
        for name in wanted.only or EXPERIMENTS:
            command = [sys.executable, "-m", "experiments.benchmarks.compile", f"experiment={name}", *wanted.overrides]
            taken = processes.last_line(command, "all")
            found.setdefault(name, []).append(taken)
            told = ", ".join(f"{program} {seconds:.1f}" for program, seconds in taken.items())
            results.say(f"round {number + 1} of {wanted.rounds}, {name}: {told} s")
    rows, targets = [], []
    for name, rounds in found.items():
        rows += [
            results.Row(name=f"{name}: {PROGRAMS[program]}", unit="s", values=tuple(each[program] for each in rounds))
            for program in rounds[0]
        ]
        whole = tuple(sum(each.values()) for each in rounds)
        targets.append(
            results.Target(name=f"{name}: all programs", values=whole, must="at most", limit=LIMIT, unit="s")
        )
    return results.Results(rows=rows, targets=targets)


def main(overrides: Sequence[str]) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    print(json.dumps(seconds(described(command_line.compose(*overrides)))))


def described(settings: command_line.Config) -> build.Run:
    """The run's objects; a source of images is no more than their shape."""
    recipe = settings["source"].get("data", {}).get("_target_", "").removeprefix("core.images.datasets.")
    if recipe not in SHAPES:
        return build.run(settings)
    image, classes = SHAPES[recipe]
    return generative_parts.described(settings, image=image, classes=classes)


def seconds(run: build.Run) -> dict[str, float]:
    """Processor time, user and system, of all threads, by program (of `PROGRAMS`, those that the learner has)."""
    learner, functions = run.learner, loop.programs(run.learner, run.source, run.mesh)
    batch = programs.batch(run)
    lowered: dict[str, Callable[[], list[jax.stages.Lowered]]] = {
        "init": lambda: [functions.init.lower(jax.random.key(0))]
    }
    if learner.warmup(run.source.spec):
        lowered["absorb"] = lambda: [functions.absorb.lower(functions.abstract, batch)]
    lowered["step"] = lambda: [functions.step.lower(functions.abstract, batch)]
    if hasattr(learner, "sample"):
        view = jax.eval_shape(learner.view, functions.abstract)
        seeds = jax.ShapeDtypeStruct((DRAWN,), jnp.uint32)
        lowered["sample"] = lambda: drawing.lowered(learner, view, seeds)
    taken = {}
    for name, lower in lowered.items():
        began = time.process_time()
        for program in lower():
            program.compile()
        taken[name] = time.process_time() - began
    return taken


if __name__ == "__main__":
    main(sys.argv[1:])
