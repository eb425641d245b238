"""The suite `core`: a DQN and a diffusion model over several devices and processes of this machine.

What is added to a machine here is no hardware: simulated devices and processes share its cores, and one device uses
them all already. So the ideal is that n times the rows take n times as long (weak scaling) and the same rows as long as
before (strong scaling), and what is missing is the price of having divided the work. On accelerators the ideal is
another: docs/scaling.md.
"""

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from core import platform
from experiments.benchmarks import processes, results

LAYOUTS = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (4, 1))  # processes, devices in each
ROWS = {"dqn": 32, "dit": 16}  # of a batch: on each device (weak scaling) or on all together (strong)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaled:
    """One learner over the devices at hand. Seconds are one step's, by round, of the slowest process."""

    model: str
    scaling: str  # weak: the same rows on each device; strong: the same rows on all together
    devices: int
    processes: int
    batch: int
    parameter_bytes: int
    flops: float  # a device and step, as are the others of `programs.Facts`
    kernels: int
    all_reduces: int
    reduced_bytes: int
    other_bytes: int
    state_bytes: int
    step: Sequence[float]
    alone: Sequence[float] = ()  # with nothing crossing; () on one device
    all_reduce: Sequence[float] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Of all layouts, the one with a single device first."""

    scaled: Sequence[Scaled]

    def content(self) -> dict[str, Any]:
        """As it goes to JSON."""
        rows = [
            {
                **dataclasses.asdict(one),
                "median": statistics.median(one.step),
                "of_ideal": statistics.median(self.of_ideal(one)),
                "communication": statistics.median(communication(one)),
            }
            for one in self.scaled
        ]
        return {"cores": platform.cores(), "simulated": True, "rows": rows}

    def table(self) -> str:
        names = ("", "scaling", "processes x devices", "batch", "step, ms", "of ideal", "communication")
        names += (
            "nothing crosses, ms",
            "all-reduce alone, ms",
            "all-reduced, MB",
            "GFLOP a device",
            "state a device, MB",
        )
        lines = [results.aligned([names, *map(self._line, self.scaled)])]
        lines.append(
            f"Devices and processes are simulated on {platform.cores()} cores; a single device uses them all, too.\n"
            "Of ideal: n times the batch in n times the time (weak), the same batch in the same time (strong).\n"
            "Communication: the share of the step that is gone where nothing crosses and each device trains by itself."
        )
        return "\n\n".join(lines)

    def of_ideal(self, one: Scaled) -> tuple[float, ...]:
        """The time on one device, for as many rows, over the time taken; by round."""
        single = next(base for base in self.scaled if base.model == one.model and base.devices == 1)
        return results.ratios([seconds * one.batch / single.batch for seconds in single.step], one.step)

    def _line(self, one: Scaled) -> tuple[str, ...]:
        several = one.devices > 1
        return (
            one.model,
            one.scaling if several else "",
            f"{one.processes} x {one.devices // one.processes}",
            str(one.batch),
            _spread([1e3 * seconds for seconds in one.step]),
            _percent(self.of_ideal(one)) if several else "",
            _percent(communication(one)) if several else "",
            _spread([1e3 * seconds for seconds in one.alone]),
            _spread([1e3 * seconds for seconds in one.all_reduce]),
            results.number(one.reduced_bytes / 1e6),
            results.number(one.flops / 1e9),
            results.number(one.state_bytes / 1e6),
        )


def run(wanted: Any) -> Found:
    """Measures one layout after the other; `wanted` is a `benchmarking.Wanted`."""
    command = [sys.executable, "-m", "experiments.benchmarks.core_parts", "--models", *(wanted.only or ROWS)]
    command += ["--rounds", str(wanted.rounds), "--seconds", str(wanted.seconds), *wanted.overrides]
    scaled = []
    for count, devices in LAYOUTS:
        results.say(f"{count} processes with {devices} simulated devices each, on {platform.cores()} cores")
        found = [Scaled(**one) for one in processes.group(command, "all", processes=count, devices=devices)]
        for one in found:
            results.say(f"  {one.model}, {one.scaling}: {results.number(1e3 * statistics.median(one.step))} ms a step")
        scaled += found
    return Found(scaled=scaled)


def communication(one: Scaled) -> tuple[float, ...]:
    """The share of a step that is gone where nothing crosses, by round; 0 on one device."""
    if one.devices == 1:
        return (0.0,) * len(one.step)
    return tuple(1 - bare / whole for bare, whole in zip(one.alone, one.step, strict=True))


def _spread(values: Sequence[float]) -> str:
    """Median, and lowest to highest."""
    if not values:
        return ""
    low, high = results.number(min(values)), results.number(max(values))
    return f"{results.number(statistics.median(values))} ({low} - {high})"


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * statistics.median(shares):.0f} %"
