"""Which parts the suite `gpu` has, in order of worth, and how they share its time."""

import contextlib
import dataclasses
import importlib.util
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from core import platform
from experiments.benchmarks import results
from experiments.benchmarks.gpu import children

Status = Literal["running", "done", "failed", "out of time", "left out", "not available"]
STARTING = 5.0  # seconds less than which no process is worth starting
PATIENCE = 3.0  # times its limit may a part take where it only tries the suite, beside other jobs say


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A process that measures. It begins where its estimate fits into what is left, and ends at its limit."""

    shows: str
    command: Callable[[bool], Sequence[str]]  # of whether it shall be small
    estimate: float  # seconds
    limit: float
    needs: tuple[str, ...] = ()  # modules that may be missing
    deterministic: bool = False


def _ours(name: str, *rest: str, seconds: float = 1.0) -> Callable[[bool], list[str]]:
    def command(small: bool) -> list[str]:
        sized = ["--small", "--seconds", "0.2"] if small else ["--seconds", str(seconds)]
        return children.module(f"gpu.{name}", *rest, *sized)

    return command


def _torch(kind: str, batches: Sequence[int], small: int, *computes: str) -> Callable[[bool], list[str]]:
    def command(small_: bool) -> list[str]:
        sized = [str(small), "--seconds", "0.2"] if small_ else [*map(str, batches), "--seconds", "1"]
        return children.module("foreign.torch_gpu", kind, *sized, "--compute", *(["float32"] if small_ else computes))

    return command


# In order of worth. Estimates are guesses for an H100 beside 16 cores until one has been measured.
PARTS: dict[str, Part] = {
    "machine": Part(shows="the device and its software", command=_ours("machine"), estimate=15, limit=60),
    "equal": Part(
        shows="updates equal to the CPU's, donation", command=_ours("equal", "first"), estimate=80, limit=150
    ),
    "dqn": Part(shows="update times of a DQN", command=_ours("speed", "dqn"), estimate=50, limit=90),
    "playing": Part(
        shows="frames/s with learning, memory, idle shares",
        command=_ours("playing", seconds=12.0),
        estimate=65,
        limit=100,
    ),
    "dit": Part(shows="update times of a DiT", command=_ours("speed", "dit"), estimate=40, limit=80),
    "bitwise": Part(
        shows="a rerun and a resume to the bit: a DiT", command=_ours("bitwise", "dit"), estimate=75, limit=120
    ),
    "deterministic": Part(
        shows="what deterministic flags cost a DQN's update",
        command=_ours("speed", "dqn", "--only", "dqn 32 float32"),
        estimate=20,
        limit=60,
        deterministic=True,
    ),
    "torch_dit": Part(
        shows="PyTorch's DiT",
        command=_torch("dit", (128, 1024), 16, "bfloat16"),
        estimate=35,
        limit=80,
        needs=("torch",),
    ),
    "unet": Part(shows="update times of a U-Net", command=_ours("speed", "unet"), estimate=60, limit=110),
    "torch_unet": Part(
        shows="PyTorch's U-Net (diffusers)",
        command=_torch("unet", (64, 512), 4, "bfloat16"),
        estimate=60,
        limit=110,
        needs=("torch", "diffusers"),
    ),
    "torch_dqn": Part(
        shows="PyTorch's update of a DQN",
        command=_torch("dqn", (32, 256, 2048), 32, "float32", "bfloat16"),
        estimate=35,
        limit=80,
        needs=("torch",),
    ),
    "bitwise_dqn": Part(
        shows="a rerun and a resume to the bit: a DQN on Pong",
        command=_ours("bitwise", "dqn"),
        estimate=75,
        limit=140,
    ),
    "equal_rest": Part(shows="updates of the other learners", command=_ours("equal", "rest"), estimate=100, limit=180),
}


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What became of a part."""

    name: str
    shows: str
    status: Status
    reason: str = ""  # where it is not done
    seconds: float = 0.0
    plan: list[str] = dataclasses.field(default_factory=list)
    found: list[children.Found] = dataclasses.field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """What it meant to measure and did not come to, or what failed in it."""
        told = {each["item"] for each in self.found if "error" not in each}
        return [item for item in self.plan if item not in told]


@dataclasses.dataclass(kw_only=True)
class Found:
    minutes: float
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)

    def content(self) -> dict[str, Any]:
        """As it goes to JSON; `left_out` has a line for everything that was not measured."""
        parts = [{**dataclasses.asdict(each), "missing": each.missing} for each in self.outcomes]
        return {"minutes": self.minutes, "parts": parts, "summary": summary(self.outcomes), "left_out": self.left_out()}

    def left_out(self) -> list[str]:
        lines = []
        for each in self.outcomes:
            if each.status != "done":
                lines.append(f"{each.name}: {each.status}: {each.reason}")
            failed = {found["item"]: found["error"] for found in each.found if "error" in found}
            lines += [f"{each.name}: {item}: {failed.get(item, 'not reached')}" for item in each.missing]
        return lines

    def table(self) -> str:
        rows = [(each.name, each.status, results.number(each.seconds), each.shows) for each in self.outcomes]
        tables = [results.aligned([("part", "", "seconds", "what it shows"), *rows])]
        figures = [(item["item"], _figures(item)) for each in self.outcomes for item in each.found]
        if figures:
            tables.append(results.aligned([("measured", ""), *figures]))
        if lines := [f"{name}: {value}" for name, value in summary(self.outcomes).items()]:
            tables.append("\n".join(lines))
        if lines := self.left_out():
            tables.append("\n".join(["left out:", *(f"  {line.splitlines()[0]}" for line in lines)]))
        return "\n\n".join(tables)


def run(wanted: Any) -> Found:
    """Measures part after part until the time is over, and writes the JSON after everything that is found.

    `wanted` is a `command.Wanted`. A part that fails is recorded, and the next one begins.
    """
    found, end = Found(minutes=wanted.minutes), time.monotonic() + 60 * wanted.minutes
    small = wanted.small if wanted.small is not None else not platform.has_accelerator(os.environ)
    with _ending():
        for name in wanted.only or PARTS:
            measured = one(name, PARTS[name], small, end, found, keep=lambda: results.write(wanted, found))
            results.say(": ".join(filter(None, (name, measured.status, measured.reason.partition("\n")[0]))))
            if wanted.small is None and any(each.get("platform") == "cpu" for each in measured.found):
                small = True  # there is a GPU, and JAX does not find it
    return found


def one(name: str, part: Part, small: bool, end: float, found: Found, *, keep: Callable[[], Any]) -> Outcome:
    """Runs one part, as far as there is time, and adds what became of it to `found`."""
    outcome = Outcome(name=name, shows=part.shows, status="left out")
    found.outcomes.append(outcome)
    left, needed = end - time.monotonic(), STARTING if small else part.estimate
    if missing := [name for name in part.needs if importlib.util.find_spec(name) is None]:
        outcome.status, outcome.reason = "not available", f"no module named {' and '.join(missing)} here"
    elif left < needed:
        told = f"takes about {needed:.0f} s, and {max(left, 0):.0f} s were left"
        outcome.reason = f"{told}; only=[{name}] measures it alone"
    else:
        results.say(f"{name}: {part.shows}; {left:.0f} s left")
        limit = part.limit * (PATIENCE if small else 1.0)
        _measure(outcome, part, small, min(limit, left), keep)
    keep()
    return outcome


def _measure(outcome: Outcome, part: Part, small: bool, limit: float, keep: Callable[[], Any]) -> None:
    began = time.monotonic()

    def heard(told: children.Found) -> None:
        if "plan" in told:
            outcome.plan = told["plan"]
        elif "item" in told:
            outcome.found.append(told)
            results.say(f"  {told['item']}: {_figures(told)}")
        outcome.seconds = time.monotonic() - began
        keep()

    try:
        outcome.status = "running"
        children.run(part.command(small), limit=limit, heard=heard, deterministic=part.deterministic)
        outcome.status, outcome.reason = "done", ""
        if outcome.found and all("error" in each for each in outcome.found):
            outcome.status, outcome.reason = "failed", "nothing in it could be measured"
    except children.OutOfTime:
        outcome.status, outcome.reason = "out of time", f"ended after {limit:.0f} s, its limit or what was left"
    except (children.Failed, OSError) as error:
        outcome.status, outcome.reason = "failed", str(error)
    except BaseException:
        outcome.status, outcome.reason = "failed", "the suite was ended meanwhile"
        keep()
        raise
    outcome.seconds = time.monotonic() - began


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What takes two parts to tell, and whether all updates were equal."""
    by_part = {o.name: {each["item"]: each for each in o.found if "error" not in each} for o in outcomes}
    items = {item: each for part, own in by_part.items() if part != "deterministic" for item, each in own.items()}
    told: dict[str, Any] = {}
    if updates := [each for each in items.values() if "equal" in each]:
        told["updates equal to the CPU's"] = f"{sum(each['equal'] for each in updates)} of {len(updates)}"
        told["states donated"] = f"{sum(each['donated'] for each in updates)} of {len(updates)}"
    plain, flagged = (by_part.get(part, {}).get("dqn 32 float32") for part in ("dqn", "deterministic"))
    if plain and flagged:
        told["deterministic flags: times a DQN's update of 32"] = flagged["milliseconds"] / plain["milliseconds"]
    for name, item in items.items():
        if (peer := items.get(f"torch {name}")) and "milliseconds" in item:
            told[f"{name}: times PyTorch's"] = item["milliseconds"] / peer["milliseconds"]
    return told


def _figures(item: Mapping[str, Any]) -> str:
    """An item in a line, its numbers short."""
    return ", ".join(f"{name} {_short(value)}" for name, value in item.items() if name != "item")


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({_figures(value)})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).splitlines()[0] if str(value) else ""
    return results.number(value) if isinstance(value, int) or 1e-2 <= abs(value) < 1e6 else f"{value:.3g}"


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """SIGTERM ends the suite as an interrupt does: the part's process ends too, and the JSON has what was found."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
