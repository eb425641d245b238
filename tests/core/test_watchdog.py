"""Two real processes, of which one does not come: both end soon, and say which."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from core import watchdog
from experiments.config import command_line

LIMITS = {"JAXCADE_STALL_SECONDS": "4", "JAXCADE_HEARTBEAT_SECONDS": "8", "JAXCADE_JOIN_SECONDS": "60"}
MEETING = """
import os, sys, time
import jax, numpy as np
from jax.experimental import multihost_utils
from core import distributed, mesh

distributed.start()
me = jax.process_index()
spread = mesh.globalize(np.ones(1), mesh.Placement().mesh())
distributed.gather("both are here")
print("here", flush=True)
"""


@contextlib.contextmanager
def processes(code: str, *indices: int, port: int | None = None, **changes: str) -> Iterator[list[subprocess.Popen]]:
    """Those with these indices, of two."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{port or free.getsockname()[1]}"
    several = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu"}
    with contextlib.ExitStack() as stack:
        started = []
        for index in indices:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", MEETING + code],
                cwd=command_line.CONF.parent,
                env=os.environ | LIMITS | several | changes | {"JAX_PROCESS_ID": str(index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            started.append(stack.enter_context(process))
            stack.callback(process.kill)
        yield started


def said_by(started: list[subprocess.Popen], *, status: int) -> list[str]:
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [status] * len(started), "\n".join(said)
    return said


@pytest.mark.long
@pytest.mark.parametrize(
    "code, hung",
    [
        # It does not come to a computation, nor to where both wait in a library's function (Orbax's, in a save).
        ("time.sleep(999 * me); jax.block_until_ready(mesh.localize(spread))", 1),
        ("time.sleep(999 * (me == 0)); multihost_utils.sync_global_devices('saved')", 0),
    ],
)
def test_one_that_lives_and_does_not_come_is_named_by_both(code: str, hung: int):
    with processes(code, 0, 1) as both:
        said = said_by(both, status=watchdog.EXIT_STATUS)
    for index, text in enumerate(said):
        told = f"process {hung} hangs: process {1 - hung} has waited for it for 4 s (JAXCADE_STALL_SECONDS)"
        assert f"jaxcade: {told}; above is where process {index} stands\n" in text
        assert 'File "<string>", line 12 in <module>' in text  # where each stands


@pytest.mark.long
def test_what_all_do_may_take_long():
    with processes("time.sleep(9); distributed.gather(1)", 0, 1) as both:
        said_by(both, status=0)


@pytest.mark.long
@pytest.mark.parametrize(
    "frozen, told",
    [(0, "process 0, which keeps them all together, has not answered"), (1, "(stopped sending heartbeats):\n1\n")],
)
def test_one_that_is_frozen_is_named_by_the_other(frozen: int, told: str):
    with processes("distributed.gather(time.sleep(99))", 0, 1, JAXCADE_STALL_SECONDS="60") as both:
        for process in both:
            assert process.stdout is not None and "here\n" in process.stdout
        both[frozen].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert told in said_by([both[1 - frozen]], status=-signal.SIGABRT)[0]
        assert time.monotonic() - began < 60


def test_who_cannot_reach_the_first_process_says_where_it_looked():
    with processes("", 1, port=1, JAXCADE_JOIN_SECONDS="2") as alone:
        [said] = said_by(alone, status=watchdog.EXIT_STATUS)
    assert "process 1 has not met the others within 2 s (JAXCADE_JOIN_SECONDS): process 0 cannot be reached at " in said
    assert "127.0.0.1:1 ([Errno 111] Connection refused)" in said and "JAX_COORDINATOR_PORT" in said


def test_the_first_process_says_that_others_are_missing():
    with processes("", 0, JAXCADE_JOIN_SECONDS="2") as alone:
        [said] = said_by(alone, status=watchdog.EXIT_STATUS)
    assert "process 0 has not met the others within 2 s" in said and "others of the 2 are missing" in said


def test_a_limit_that_is_none_is_refused():
    with processes("", 0, JAXCADE_STALL_SECONDS="10m") as alone:
        [said] = said_by(alone, status=1)
    assert "JAXCADE_STALL_SECONDS=10m: must be a whole number of seconds" in said
