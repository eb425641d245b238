"""The two ends of a part's process: it tells what it found a line at a time, and is ended when its time is up."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import processes
from experiments.config import identity

FLAGS = "--xla_gpu_deterministic_ops=true --xla_gpu_exclude_nondeterministic_ops=true"
_SAID = 2000  # characters of what a failed process said, its end

Found = dict[str, Any]  # what a part tells of one thing it measured; `item` names it


def arguments(description: str, *names: str) -> argparse.ArgumentParser:
    """Every part's: which of its kinds (one of `names`), small or not, seconds of each measurement."""
    parser = argparse.ArgumentParser(description=description)
    if names:
        parser.add_argument("kind", choices=names)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=1.0)
    return parser


def plan(items: Sequence[str]) -> None:
    """Tells beforehand what will be told, so that what a limit cuts off is known by name."""
    print(json.dumps({"plan": list(items)}), flush=True)


def tell(item: str, **found: Any) -> None:
    print(json.dumps({"item": item, **found}), flush=True)


def failed(item: str, error: Exception) -> None:
    """One thing failed, and the next is measured."""
    tell(item, error=f"{type(error).__name__}: {error}"[:_SAID])


def environment(*, deterministic: bool = False) -> dict[str, str]:
    """A run's variables; what `PYTHONPATH` holds stays reachable, for carried packages lie there."""
    variables = processes.environment("all")
    paths = [str(identity.ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    platforms = variables.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms.split(","):
        variables["JAX_PLATFORMS"] = f"{platforms},cpu"  # beside which updates are compared
    if deterministic:
        variables["XLA_FLAGS"] = f"{variables.get('XLA_FLAGS', '')} {FLAGS}".strip()
    return variables


class Failed(RuntimeError):
    """The process ended by itself, with another status than 0."""


class OutOfTime(RuntimeError):
    """The process was ended at its limit."""


def run(command: Sequence[str], *, limit: float, heard: Callable[[Found], None], deterministic: bool = False) -> None:
    """Runs a part, handing each line of JSON that it tells to `heard` at once; other lines are ignored.

    Raises: Failed with the end of what it said, OutOfTime after `limit` seconds. Its own processes end with it.
    """
    with tempfile.TemporaryDirectory(prefix="jaxcade-gpu-") as folder:
        told, said = Path(folder) / "told", Path(folder) / "said"
        with open(told, "wb") as out, open(said, "wb") as errors:
            process = subprocess.Popen(
                command,
                env=environment(deterministic=deterministic) | {"TMPDIR": folder},  # what it leaves there goes, too
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                start_new_session=True,
            )
        try:
            _listen(process, told, time.monotonic() + limit, heard)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            words = said.read_text(errors="replace").strip()
            last = words.rpartition("\n")[2]
            raise Failed(f"ended with status {process.returncode}: {last}\n{words[-_SAID:]}")


def _listen(process: subprocess.Popen, told: Path, end: float, heard: Callable[[Found], None]) -> None:
    with open(told) as lines:
        rest = ""
        while True:
            over = process.poll() is not None
            rest += lines.read()
            *whole, rest = rest.split("\n")
            for line in whole:
                with contextlib.suppress(json.JSONDecodeError):
                    if isinstance(found := json.loads(line), dict):
                        heard(found)
            if over:
                return
            if time.monotonic() > end:
                raise OutOfTime
            time.sleep(0.05)


def module(name: str, *rest: str) -> list[str]:
    return [sys.executable, "-m", f"experiments.benchmarks.{name}", *rest]
