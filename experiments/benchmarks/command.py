"""One benchmark: what `experiments.benchmark` does with a composed config."""

import dataclasses
import datetime
import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any, Literal, Protocol

from core import ranges
from experiments.benchmarks import compare, compile, core, generative, processes, results
from experiments.config import build, command_line

MODELS = {
    "dqn": (),
    "generative": tuple(generative.MODELS),
    "core": tuple(core.ROWS),
    "compile": compile.EXPERIMENTS,
    "compare": tuple(compare.SIZES),
}


class Found(Protocol):
    """What a suite found."""

    def content(self) -> dict[str, Any]: ...

    def table(self) -> str: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """`conf/benchmark.yaml` as an object."""

    suite: Literal["dqn", "generative", "core", "compile", "compare"]
    only: tuple[str, ...] = ()  # of the suite's models; (): all of them
    rounds: ranges.PositiveInt = 5  # in each, everything is measured once
    seconds: ranges.PositiveFloat = 2.0  # for each part in a round; of `core`, for each learner on each layout
    run_seconds: ranges.PositiveFloat = 30.0  # for each whole training in a round, once learning has begun
    out: str = "benchmark.json"
    peers: bool = False
    peers_folder: str | None = None  # of their virtual environment; None: a temporary one
    overrides: tuple[str, ...] = ()  # of what is trained, beside the suite's own

    def __post_init__(self):
        models = MODELS[self.suite]
        for name in self.only:
            if name not in models:
                raise ValueError(f"only={name}: suite={self.suite} has {', '.join(models) or 'nothing to choose from'}")


def task(settings: command_line.Config, _: Path) -> None:
    """Runs the suite, prints its tables and writes the JSON."""
    wanted: Wanted = build.objects({**settings, "_target_": f"{__name__}.Wanted"})
    began = datetime.datetime.now(datetime.UTC)
    # A suite is a module with `run(wanted) -> Found`.
    found: Found = importlib.import_module(f"experiments.benchmarks.{wanted.suite}").run(wanted)
    machine = results.machine()
    content = {
        "command": f"python -m experiments.benchmark {shlex.join(sys.argv[1:])}",
        "written": began.isoformat(timespec="seconds"),
        "machine": machine,
        "environments": {name: processes.shown(name) for name in processes.KINDS},
        "settings": dataclasses.asdict(wanted),
        **found.content(),
    }
    path = Path(wanted.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    print("\n".join(["", *(f"{name}: {value}" for name, value in machine.items())]))
    print("\n".join(f"'{name}' sets: {processes.shown(name) or 'nothing'}" for name in processes.KINDS))
    print(f"\n{found.table()}\n\nwritten: {path}")
