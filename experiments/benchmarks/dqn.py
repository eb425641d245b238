"""The suite `dqn`: Pong in Nature's setting, its parts each on its own, whole runs, and others' DQNs beside them.

The setting: batches of 32, one update every 4 environment steps, 100,000 transitions of replay, 8 games, Adam.
"""

import contextlib
import functools
import itertools
import math
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import peers, processes, results

SETTING = (
    "experiment=dqn/nature",
    "source.game=pong",
    "source.envs=8",
    "optimizer=adam",
    "learner.replay.capacity=100_000",
    "learner.learning_starts=1_600",
    "source.exploration.start=0.1",  # as for the others, some of whom do not ask the network when they explore
)
TIMED = ("log_every=2_560", "evaluators=none")
WHOLE = ("budget=16_000", "log_every=2_560", "evaluators.episodes.every=16_000", "evaluators.episodes.max_frames=2_000")
BATCHES = (32, 256)
LEARNS = "loss/td"  # a row of metrics has it once learning has begun

Values = Mapping[str, list[float]]  # by round


def run(wanted: Any) -> results.Results:
    """Measures everything once a round, the contestants in turn; `wanted` is a `benchmarking.Wanted`."""
    setting = (*SETTING, *wanted.overrides)
    values: dict[str, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jaxcade-benchmark-")))
        python = peers.python(wanted.peers_folder, "dqn", stack) if wanted.peers else None
        measured, facts = _parts(stack, setting, python)
        trained = _trainings(folder, setting, wanted.run_seconds, facts["frames_per_step"], python)
        for number in range(wanted.rounds):
            results.say(f"round {number + 1} of {wanted.rounds}: parts")
            for name, measure in measured.items():
                values[name].append(measure(wanted.seconds))
            for name, train in list(trained.items()):
                results.say(f"round {number + 1} of {wanted.rounds}: {name}")
                speed = train()
                if math.isnan(speed):  # it failed, and said so
                    del trained[name]
                    values.pop(name, None)
                else:
                    values[name].append(speed)
        results.say("memory of a whole run, compiled anew")
        whole = processes.train(folder / "whole", (*setting, *WHOLE), "all", learns=LEARNS, cache=folder / "cache")
    values["peak memory"].append(whole.peak_bytes / 1e9)
    values["transition"].append(facts["transition_bytes"])
    values["sum of parts"] = _sum(values, facts["update_every"])
    return results.Results(rows=_rows(values), targets=_targets(values))


def _parts(
    stack: contextlib.ExitStack, setting: Sequence[str], python: Path | None
) -> tuple[dict[str, Callable[[float], float]], Mapping[str, Any]]:
    """Functions of the seconds to measure for, giving seconds for one environment step or update; and facts."""
    batches = [str(batch) for batch in BATCHES]
    module = [sys.executable, "-m", "experiments.benchmarks.dqn_parts", "--batches", *batches]
    ours = stack.enter_context(processes.parts([*module, "--convolutions", "ours", *setting], "all"))
    plain = stack.enter_context(processes.parts([*module, "--convolutions", "library", *setting], "nothing"))
    bind = lambda process, name: lambda seconds: process.seconds(name, seconds)
    measured = {name: bind(ours, name) for name in ours.facts["parts"]}
    measured |= {f"plain single {batch}": bind(plain, f"single {batch}") for batch in batches}
    if python is not None:
        torch = stack.enter_context(processes.parts(peers.torch_update(python, BATCHES), "malloc"))
        measured |= {f"torch {batch}": bind(torch, f"single {batch}") for batch in batches}
    return measured, ours.facts


def _trainings(
    folder: Path, setting: Sequence[str], seconds: float, frames_per_step: int, python: Path | None
) -> dict[str, Callable[[], float]]:
    """Functions that train for a while and give environment steps a second."""
    numbers = itertools.count()

    def ours(kind: processes.Kind) -> Callable[[], float]:
        def train() -> float:
            run = folder / f"run{next(numbers)}"
            found = processes.train(run, (*setting, *TIMED), kind, seconds=seconds, learns=LEARNS)
            shutil.rmtree(run)  # with its replay
            return found.examples_per_second / frames_per_step

        return train

    trained = {"jaxcade": ours("all")}
    if python is not None:
        # The flag is ours, and malloc is everybody's.
        trained["jaxcade, malloc as it is"] = ours("flag")
        for name in peers.DQNS:
            trained[name] = functools.partial(peers.train, python, name, "malloc", seconds=seconds)
            trained[f"{name}, malloc as it is"] = functools.partial(
                peers.train, python, name, "nothing", seconds=seconds
            )
    return trained


def _sum(values: Values, update_every: int) -> list[float]:
    """Seconds an environment step if its parts took turns, each in its fastest form."""
    updates = [min(pair) for pair in zip(values["single 32"], values["scan 32"], strict=True)]
    acted = zip(values["environment"], values["act"], values["insert"], values["sample"], updates, strict=True)
    return [
        environment + act + insert + (sample + update) / update_every
        for environment, act, insert, sample, update in acted
    ]


def _rows(values: Values) -> list[results.Row]:
    def row(name: str, unit: str, key: str, scale: float = 1.0) -> results.Row:
        return results.Row(name=name, unit=unit, values=tuple(scale * value for value in values[key]))

    rows = [
        results.Row(
            name="environments alone",
            unit="environment steps/s",
            values=tuple(1 / value for value in values["environment"]),
        ),
        row("acting", "µs an environment step", "act", 1e6),
        row("insert", "µs an environment step", "insert", 1e6),
        row("sample of 32", "ms", "sample", 1e3),
        row("prioritised draw of 32 from 1,000,000", "ms", "draw", 1e3),
        row("learner's whole step", "µs an environment step", "step", 1e6),
    ]
    updates = (("plain single", "library's convolutions, one a call, nothing set"), ("single", "ours, one a call"))
    for key, name in (*updates, ("scan", "ours, in a scan as it is trained"), ("torch", "torch, channels last")):
        for batch in (batch for batch in BATCHES if f"{key} {batch}" in values):
            rows.append(row(f"update of {batch}: {name}", "ms", f"{key} {batch}", 1e3))
    rows.append(row("sum of the bare parts", "µs an environment step", "sum of parts", 1e6))
    rows += [row(f"end to end: {key}", "environment steps/s", key) for key in _contestants(values)]
    return [
        *rows,
        row("peak memory, evaluation and checkpoint included", "GB", "peak memory"),
        row("a transition", "bytes", "transition"),
    ]


def _targets(values: Values) -> list[results.Target]:
    """What the figures must reach."""
    target, ratios = results.Target, results.ratios
    end_to_end = ratios([1 / speed for speed in values["jaxcade"]], values["sum of parts"])
    update = {batch: ratios(values[f"scan {batch}"], values[f"plain single {batch}"]) for batch in BATCHES}
    targets = [
        target(name="end to end / sum of its parts", values=end_to_end, must="at most", limit=1.15),
        target(name="update of 32 / plain", values=update[32], must="at most", limit=0.55, aim=0.4),
        target(name="update of 256 / plain", values=update[256], must="at most", limit=0.45, aim=0.3),
        target(
            name="prioritised draw",
            values=tuple(1e3 * seconds for seconds in values["draw"]),
            must="at most",
            limit=0.5,
            unit="ms",
        ),
        target(name="peak memory", values=tuple(values["peak memory"]), must="at most", limit=1.5, unit="GB"),
        target(name="a transition", values=tuple(values["transition"]), must="at most", limit=7_200, unit="bytes"),
    ]
    if "torch 32" in values:
        beside_torch = ratios(values["scan 32"], values["torch 32"])
        targets.append(target(name="update of 32 / torch's", values=beside_torch, must="at most", limit=1.0))
    for suffix in ("", ", malloc as it is"):
        others = [values[name + suffix] for name in peers.DQNS if name + suffix in values]
        if others:
            times = ratios(values["jaxcade" + suffix], map(max, zip(*others, strict=True)))
            name = f"end to end / best of the others{suffix}"
            targets.append(target(name=name, values=times, must="at least", limit=1.8, aim=2.3))
    return targets


def _contestants(values: Values) -> list[str]:
    return [key for key in values if key.split(",")[0] in ("jaxcade", *peers.DQNS)]
