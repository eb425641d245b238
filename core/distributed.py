"""Several processes that are one run: how they find each other, agree, and fail together.

Every process runs the same program over the same global arrays. Inside a learner's step XLA moves what has to be
moved; what is here crosses the network besides, at logs and checkpoints. With one process all of it does nothing.
"""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from core import watchdog

# In seconds; JAXCADE_JOIN_SECONDS, JAXCADE_HEARTBEAT_SECONDS and JAXCADE_STALL_SECONDS set others.
PATIENCE = 180  # the processes wait for each other at the start
HEARTBEAT = 60  # without a sign of life a process is given up, and the run with it
STALL = 600  # they wait for one that lives, wherever else that may be

# What tells where the others are.
_NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_NAMES += ("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")


class Elsewhere(RuntimeError):
    """Another process of this run failed."""


def start(environ: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of this run, where there are any; call it before a device is used.

    Under `srun` with several tasks Slurm says who they are. With any other launcher set JAX_COORDINATOR_ADDRESS (host
    and port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID in each. A process that does not meet the others, then
    or later (`core.watchdog`), ends with `watchdog.EXIT_STATUS`. Raises ValueError for a limit that is none.
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


def asked_to_stop(step: int) -> bool:
    """Whether any process got a SIGTERM, told to all before the same step. All of them have to ask at every step."""
    return multihost_utils.reached_preemption_sync_point(step)


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
    """What fails in one process within it fails in all: there with its own error, elsewhere with `Elsewhere`."""
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
    """What `jax.distributed.initialize` has to be told; None for a single process."""
    if address := environ.get("JAX_COORDINATOR_ADDRESS"):
        count, index = int(environ["JAX_NUM_PROCESSES"]), int(environ["JAX_PROCESS_ID"])
        return {
            "coordinator_address": address,
            "num_processes": count,
            "process_id": index,
            "cluster_detection_method": "deactivate",
        }
    if "SLURM_STEP_NODELIST" not in environ or int(environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return None
    # JAX by itself takes the one GPU whose number is the task's, although a task alone on its node has all of them.
    visible = [device for device in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
    alone = environ.get("SLURM_STEP_TASKS_PER_NODE", "1").partition("(")[0] == "1"
    return {"local_device_ids": list(range(len(visible)))} if visible and (alone or len(visible) == 1) else {}
