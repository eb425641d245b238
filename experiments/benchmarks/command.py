"""One benchmark: what `experiments.benchmark` does with a composed config."""

import dataclasses
import importlib
from pathlib import Path
from typing import Literal

from core import ranges
from experiments.benchmarks import compare, compile, core, generative, gpu, processes, results
from experiments.config import build, command_line

MODELS = {
    "dqn": (),
    "generative": tuple(generative.MODELS),
    "core": tuple(core.ROWS),
    "compile": compile.EXPERIMENTS,
    "compare": tuple(compare.SIZES),
    "gpu": tuple(gpu.PARTS),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """`conf/benchmark.yaml` as an object."""

    suite: Literal["dqn", "generative", "core", "compile", "compare", "gpu"]
    only: tuple[str, ...] = ()  # of the suite's models; (): all of them
    rounds: ranges.PositiveInt = 5  # in each, everything is measured once
    seconds: ranges.PositiveFloat = 2.0  # for each part in a round; of `core`, for each learner on each layout
    run_seconds: ranges.PositiveFloat = 30.0  # for each whole training in a round, once learning has begun
    minutes: ranges.PositiveFloat = 8.0  # of suite=gpu, for everything
    small: bool | None = None  # of suite=gpu: small networks; None: where there is no accelerator
    out: str = "benchmark.json"
    peers: bool = False
    peers_folder: str | None = None  # of their virtual environment; None: a temporary one
    overrides: tuple[str, ...] = ()  # of what is trained, beside the suite's own

    def __post_init__(self):
        models = MODELS[self.suite]
        if self.suite == "gpu" and (self.overrides or self.peers):
            raise ValueError(
                f"{'overrides' if self.overrides else 'peers'}: suite=gpu takes none; see only, minutes, small"
            )
        if self.suite != "gpu" and (self.minutes != 8.0 or self.small is not None):
            raise ValueError(f"{'minutes' if self.small is None else 'small'}: only suite=gpu has it")
        for name in self.only:
            if name not in models:
                raise ValueError(f"only={name}: suite={self.suite} has {', '.join(models) or 'nothing to choose from'}")


def task(settings: command_line.Config, _: Path) -> None:
    """Runs the suite, prints its tables and writes the JSON."""
    wanted: Wanted = build.objects({**settings, "_target_": f"{__name__}.Wanted"})
    # A suite is a module with `run(wanted) -> Found`.
    found: results.Found = importlib.import_module(f"experiments.benchmarks.{wanted.suite}").run(wanted)
    machine = results.write(wanted, found)["machine"]
    print("\n".join(["", *(f"{name}: {value}" for name, value in machine.items())]))
    print("\n".join(f"'{name}' sets: {processes.shown(name) or 'nothing'}" for name in processes.KINDS))
    print(f"\n{found.table()}\n\nwritten: {wanted.out}")
