"""Benchmarks measure in processes of their own, so that each has the environment and the memory it is judged by."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform as python_platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from core import platform, record
from experiments.benchmarks import timing
from experiments.config import identity

Kind = Literal["nothing", "malloc", "flag", "all"]
KINDS: tuple[Kind, ...] = ("nothing", "malloc", "flag", "all")
PATIENCE = 900.0  # seconds until a process that says nothing counts as stuck


def environment(kind: Kind) -> dict[str, str]:
    """This process's variables with nothing, a part or all of what `core.platform.tune` sets.

    Beside an accelerator, where it sets nothing, all kinds are alike.
    """
    own = {**platform.MALLOC, "XLA_FLAGS": "", "LD_PRELOAD": "", "JAXCADE_TUNED": "", "PYTHONPATH": ""}
    bare = {name: value for name, value in os.environ.items() if name not in own}
    bare |= {"JAXCADE_TUNE": "0", "PYTHONPATH": str(identity.ROOT)}
    return bare | shown(kind)


def shown(kind: Kind) -> dict[str, str]:
    """The variables that make the difference."""
    if platform.has_accelerator(os.environ) or kind == "nothing":
        return {}
    glibc = python_platform.libc_ver()[0] == "glibc"
    settings = platform.missing_settings({}, jaxlib=importlib.metadata.version("jaxlib"), glibc=glibc)
    wanted = {"malloc": set(platform.MALLOC), "flag": {"XLA_FLAGS"}, "all": {*platform.MALLOC, "XLA_FLAGS"}}[kind]
    return {name: value for name, value in settings.items() if name in wanted}


class Parts:
    """A process that measures parts when asked (`timing.serve`); it sleeps meanwhile."""

    def __init__(self, command: Sequence[str], kind: Kind):
        self._process = subprocess.Popen(
            command, env=environment(kind), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self.facts: dict[str, Any] = self._answer()
        except BaseException:
            self.close()
            raise

    def seconds(self, name: str, seconds: float) -> float:
        """Median seconds of one call of the part."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds} {name}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with status {self._process.wait()}; its errors are above")
        return json.loads(line)


@contextlib.contextmanager
def parts(command: Sequence[str], kind: Kind) -> Iterator[Parts]:
    process = Parts(command, kind)
    try:
        yield process
    finally:
        process.close()


def last_line(command: Sequence[str], kind: Kind) -> Any:
    """Runs a command to its end and reads its last line as JSON.

    Raises: RuntimeError with the end of what it said.
    """
    done = subprocess.run(
        command, env=environment(kind), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def group(command: Sequence[str], kind: Kind, *, processes: int = 1, devices: int = 1) -> Any:
    """Runs a command in processes that join each other, each with simulated devices; the first one's last line as JSON.

    Raises: RuntimeError with the end of what a process said that failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    variables = environment(kind) | {"JAX_PLATFORMS": "cpu"}
    variables["XLA_FLAGS"] = f"{variables.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    if processes > 1:
        variables |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
    started = []
    with contextlib.ExitStack() as stack:
        for index in range(processes):
            said = stack.enter_context(tempfile.TemporaryFile("w+"))
            own = variables | ({"JAX_PROCESS_ID": str(index)} if processes > 1 else {})
            process = subprocess.Popen(
                command, env=own, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True
            )
            started.append((stack.enter_context(process), said))
            stack.callback(process.kill)
        told = [process.communicate(timeout=PATIENCE)[0] for process, _ in started]
        for index, (process, said) in enumerate(started):
            if process.returncode:
                said.seek(0)
                who = f"{' '.join(command)} (process {index} of {processes}, {devices} devices each)"
                raise RuntimeError(f"{who} ended with status {process.returncode}:\n{said.read()[-2000:]}")
    return json.loads(told[0].splitlines()[-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    examples_per_second: float  # while it learned
    peak_bytes: int  # of the whole process, from its start to its end
    rows: Sequence[Mapping[str, Any]]  # of metrics.jsonl


def train(
    folder: Path,
    overrides: Sequence[str],
    kind: Kind,
    *,
    learns: str,
    seconds: float | None = None,
    cache: Path | None = None,
) -> Trained:
    """`experiments.train`, as a user runs it, in `folder`; it counts as learning once rows have the metric `learns`.

    With `seconds`, it is asked to stop after so long (it then writes a checkpoint); else it runs to its end. With
    `cache`, an empty folder, everything is compiled anew.

    Raises: RuntimeError with the end of what it said.
    """
    command = [sys.executable, "-m", "experiments.train", *overrides, f"hydra.run.dir={folder}"]
    variables = environment(kind) | ({} if cache is None else {"XDG_CACHE_HOME": str(cache)})
    said = folder.with_suffix(".log")
    with open(said, "w") as log:
        process = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    stopped = False
    began = time.monotonic()
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        learned = [row for row in _rows(folder) if learns in row]
        enough = seconds is not None and learned and learned[-1]["seconds"] - learned[0]["seconds"] >= seconds
        if enough and not stopped:
            process.send_signal(signal.SIGTERM)
            stopped = True
        if time.monotonic() - began > PATIENCE + (seconds or 0.0):
            process.kill()
        time.sleep(0.1)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ((75,) if stopped else (0,)):
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}:\n{said.read_text()[-2000:]}")
    rows = _rows(folder)
    return Trained(
        examples_per_second=speed([row for row in rows if learns in row]),
        peak_bytes=timing.peak_bytes(used.ru_maxrss),
        rows=rows,
    )


def speed(rows: Sequence[Mapping[str, Any]]) -> float:
    """Examples a second between the first and the last of these rows; NaN where there are not two."""
    if len(rows) < 2:
        return float("nan")
    first, last = rows[0], rows[-1]
    unit = next(name for name in ("frames", "images") if name in first)
    return (last[unit] - first[unit]) / (last["seconds"] - first["seconds"])


def _rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return [row for row, _ in record.read(path)] if path.exists() else []
