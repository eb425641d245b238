"""Several processes that are one run: how they find each other, agree, and fail together.

Every process runs the same program over the same global arrays. Inside a learner's step XLA moves what has to be
moved; what is here crosses the network besides, at logs and checkpoints. With one process all of it does nothing.
"""

import contextlib
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from core import watchdog

# In seconds; JAXCADE_JOIN_SECONDS, JAXCADE_HEARTBEAT_SECONDS and JAXCADE_STALL_SECONDS set others.
PATIENCE = 180  # the processes wait for each other at the start
TOGETHER = 5  # between the failures of all processes, where they fail alike
HEARTBEAT = 60  # without a sign of life a process is given up, and the run with it
STALL = 600  # they wait for one that lives, wherever else that may be

# What tells where the others are.
_JAX = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_NAMES = (*_JAX, "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")


class Elsewhere(RuntimeError):
    """Another process of this run failed."""


def start(environ: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of this run, where there are any; call it before a device is used.

    Under `srun` with several tasks Slurm says who they are. With any other launcher set JAX_COORDINATOR_ADDRESS (host
    and port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID in each. A process that does not meet the others, then
    or later (`core.watchdog`), ends with `watchdog.EXIT_STATUS`. Raises ValueError for a variable that cannot be.
    """
    settings = _settings(environ)
    if settings is None or jax.distributed.is_initialized():
        return
    limits = {"JOIN": PATIENCE, "HEARTBEAT": HEARTBEAT, "STALL": STALL}
    join, heartbeat, stall = (_seconds(environ, f"JAXCADE_{name}_SECONDS", value) for name, value in limits.items())
    here = {name: value for name, value in environ.items() if name in _NAMES}
    print(f"jaxcade: joining the run's other processes, within {join} s: {here}", file=sys.stderr, flush=True)
    with watchdog.joining(join):
        jax.distributed.initialize(
            **settings,
            initialization_timeout=2 * join,  # JAX would say neither who nor where
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=stall,
        )
    watchdog.start(stall=stall, every=min(heartbeat, stall) / 10, collectives=multihost_utils.__file__)


@contextlib.contextmanager
def ending_together(*, refusal: type[Exception]) -> Iterator[None]:
    """A run in which no process is left waiting for one that has failed.

    If all processes raise, each ends as it would alone. If some do, these end within seconds with status 1 and a
    traceback (2 and a line for a `refusal`), and the others with `watchdog.EXIT_STATUS`.
    """
    try:
        yield
    except BaseException as error:
        if not several() or watchdog.all_fail(TOGETHER):
            raise
        status = 2 if isinstance(error, refusal) else 1
        print(error if status == 2 else traceback.format_exc(), file=sys.stderr)
        watchdog.tell_failure(f"{type(error).__name__}: {error}")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # at a regular end JAX would wait for the others


def several() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized()


def primary() -> bool:
    """Whether this process writes what is written once: metrics, config, pictures."""
    return jax.process_index() == 0


@functools.cache
def say(line: str) -> None:
    """Prints a line once in a process's life, however often it is said, and in the first process alone."""
    if primary():
        print(line, flush=True)


def asked_to_stop(call: int) -> bool:
    """Whether any process got a SIGTERM, told to all at the same call. All of them count their calls from 1."""
    return multihost_utils.reached_preemption_sync_point(call)


def gather(value: Any) -> list[Any]:
    """What each process gives, by process, to all: plain values that JSON holds. All of them have to call it."""
    if jax.process_count() == 1:
        return [value]
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(content.size))
    padded = np.zeros(1 << int(max(sizes) - 1).bit_length(), np.uint8)  # few sizes: each is compiled for
    padded[: content.size] = content
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def decided(choose: Callable[[], Any]) -> Any:
    """What `choose()` returns in the first process: a plain value that JSON holds. All of them have to call it.

    For decisions that rest on a shared disk, of which processes may see different states. If it raises, all raise: the
    others `Elsewhere`.
    """
    value = None
    with together():
        if primary():
            value = choose()
    return gather(value)[0]


def total(values: np.ndarray) -> np.ndarray:
    """The sum over all processes, float64. All of them have to call it."""
    return np.sum(gather(np.asarray(values, np.float64).tolist()), axis=0)


def share(count: int) -> np.ndarray:
    """Which of `count` rows this process computes; as many as every other, the last row more than once if need be."""
    each = -(-count // jax.process_count())
    return np.minimum(np.arange(each) + jax.process_index() * each, count - 1)


def join(rows: np.ndarray, count: int) -> np.ndarray:
    """All `count` rows, of what each process has of its `share`. All of them have to call it."""
    if jax.process_count() == 1:
        return rows
    return multihost_utils.process_allgather(rows).reshape(-1, *rows.shape[1:])[:count]


@contextlib.contextmanager
def together() -> Iterator[None]:
    """If one process raises in this block, all raise: it its own error, the others `Elsewhere`."""
    problem: Exception | None = None
    try:
        yield
    except Exception as error:
        problem = error
    if jax.process_count() > 1:
        told = gather(None if problem is None else f"{type(problem).__name__}: {problem}")
        if problem is None and (failed := [i for i, text in enumerate(told) if text is not None]):
            raise Elsewhere(f"process {failed[0]}: {told[failed[0]]}")
    if problem is not None:
        raise problem


def _seconds(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{name}={value}: must be a whole number of seconds, at least 1")
    return int(value)


def _settings(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """What `jax.distributed.initialize` has to be told; None for a single process.

    Raises ValueError where the environment tells half of it, or what are no numbers.
    """
    given = {name: environ[name] for name in _JAX if environ.get(name)}
    if given:
        return _launched(given)
    if not environ.get("SLURM_STEP_NODELIST") or _number(environ, "SLURM_STEP_NUM_TASKS", least=1, default=1) == 1:
        return None
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"):  # which JAX reads
        if not environ.get(name):
            raise ValueError(f"{name}: missing beside SLURM_STEP_NODELIST; start the processes with srun")
        _number(environ, name, least=0)
    # JAX by itself takes the one GPU whose number is the task's, although a task alone on its node has all of them.
    visible = [device for device in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
    alone = environ.get("SLURM_STEP_TASKS_PER_NODE", "1").partition("(")[0] == "1"
    return {"local_device_ids": list(range(len(visible)))} if visible and (alone or len(visible) == 1) else {}


def _launched(given: Mapping[str, str]) -> dict[str, Any]:
    """What another launcher than Slurm's has to say, checked."""
    address, count, index = _JAX
    if missing := [name for name in _JAX if name not in given]:
        told = ", ".join(f"{name}={value}" for name, value in given.items())
        remedy = f"set all three of {', '.join(_JAX)}, or none for one process"
        raise ValueError(f"{missing[0]}: missing beside {told}; {remedy}")
    _, colon, port = given[address].rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"{address}={given[address]}: must be the host and port of process 0, as in node1:1234")
    processes = _number(given, count, least=1)
    process = _number(given, index, least=0)
    if process >= processes:
        raise ValueError(f"{index}={process}: must be less than {count}={processes}, counted from 0")
    return {
        "coordinator_address": given[address],
        "num_processes": processes,
        "process_id": process,
        "cluster_detection_method": "deactivate",
    }


def _number(environ: Mapping[str, str], name: str, *, least: int, default: int | None = None) -> int:
    value = environ.get(name) or str(default)
    if not (value.isascii() and value.isdecimal()) or int(value) < least:
        raise ValueError(f"{name}={value}: must be a whole number, at least {least}")
    return int(value)
