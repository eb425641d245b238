"""Ends a run in which one process fails or never reaches the next collective, and names that process.

JAX's own heartbeat ends the others of a process that is frozen or gone. It does not notice one that lives and does not
come (in a call of its file system, say, or of its environments), for which they would wait in their collective for ever
(jax-ml/jax#38503). So each process counts the points that all of them pass, and tells the coordination service, which
process 0 keeps, how far it is.
"""

import atexit
import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
from jax._src import distributed  # the coordination service has no public name

EXIT_STATUS = os.EX_UNAVAILABLE  # another process failed, or was waited for in vain
LISTEN = 0.5  # seconds between two looks whether another process has failed
_WORDS = "jaxcade/watchdog"
_FAILED = "jaxcade/failed"

_points = 0


def passed() -> None:
    """Counts a point that all processes pass, in one order, often enough that they wait for each other in between."""
    global _points
    _points += 1


def all_fail(seconds: float) -> bool:
    """Waits up to `seconds` for every process to fail too; True if all did. For one failure in a process's life."""
    client: Any = distributed.global_state.client
    try:
        client.wait_at_barrier(f"{_FAILED}/all", timeout_in_ms=int(1000 * seconds))
    except jax.errors.JaxRuntimeError:
        return False
    return True


def tell_failure(reason: str) -> None:
    """The others end with `EXIT_STATUS`, and say this. Returns once they have heard: their service is process 0's."""
    client: Any = distributed.global_state.client
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another has told before, or process 0 is gone
        client.key_value_set(_FAILED, f"process {distributed.global_state.process_id} failed: {reason}")
    if not distributed.global_state.process_id:
        time.sleep(4 * LISTEN)


@contextlib.contextmanager
def joining(seconds: float) -> Iterator[None]:
    """Ends the process where joining the others takes longer, and says where it looked and what is wrong there."""
    timer = threading.Timer(seconds, _end_alone, [seconds])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def start(*, stall: float, every: float, collectives: str) -> None:
    """From now on listens for a failure of another process, and looks, every so many seconds, whether one hangs.

    It hangs where this process has waited for it for `stall` seconds, in functions of the file `collectives` or in a
    computation. Then every process dumps its stack and exits, within 6 x `every` seconds.
    """
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(over, stall, every, collectives), name="watchdog", daemon=True)
    thread.start()
    atexit.register(lambda: (over.set(), thread.join(timeout=2 * every)))  # before JAX parts from the others


def _watch(over: threading.Event, stall: float, every: float, collectives: str) -> None:
    client: Any = distributed.global_state.client
    me = distributed.global_state.process_id
    here, still = None, 0.0
    client.key_value_set(f"{_WORDS}/{me}", "0 0")
    while not over.is_set():
        if (failure := _listen(client, over, every)) is not None:
            if failure.startswith(f"process {me} "):
                return  # this one is about to end, with a status of its own
            _say(failure)
            if not me:
                time.sleep(4 * LISTEN)  # while its service lives the others can end with a status of their own
            os._exit(EXIT_STATUS)
        if over.is_set():
            return
        before, here = here, (_points, *_stack())
        still = still + every if here == before else 0.0
        mine = (_points, int(any(code.co_filename == collectives for code, _ in here[1:])))
        try:
            # Asked with a limit: where process 0 is frozen the other calls would not return.
            client.blocking_key_value_get(f"{_WORDS}/0", int(1000 * every))
            client.key_value_set(f"{_WORDS}/{me}", f"{mine[0]} {mine[1]}", allow_overwrite=True)
            told = dict(client.key_value_dir_get(_WORDS))
            verdict = told.pop(f"{_WORDS}/verdict", None)
            words = {int(key.rpartition("/")[2]): tuple(map(int, word.split())) for key, word in told.items()}
            last = min(words, key=lambda process: (words[process], process))
            if verdict is None and still > stall + every and words[last] < mine:  # words are at most `every` old
                verdict = f"process {last} hangs: process {me} has waited for it for {stall:g} s"
                client.key_value_set(f"{_WORDS}/verdict", verdict, allow_overwrite=True)
        except jax.errors.JaxRuntimeError:
            _say(f"process 0, which keeps them all together, has not answered for {every:g} s")
            continue
        if verdict is not None:
            faulthandler.dump_traceback()  # which looks into no file: their system may be what hangs
            _say(f"{verdict} (JAXCADE_STALL_SECONDS); above is where process {me} stands")
            over.wait((2 if me else 3) * every)  # until the others have said so too; their service ends last
            os._exit(EXIT_STATUS)


def _listen(client: Any, over: threading.Event, seconds: float) -> str | None:
    """Waits so long, or until it is over, for word of a failure."""
    until = time.monotonic() + seconds
    while not over.is_set() and (left := until - time.monotonic()) > 0:
        try:
            return client.blocking_key_value_get(_FAILED, int(1000 * min(LISTEN, left)) + 1)
        except jax.errors.JaxRuntimeError:  # none, or process 0 does not answer: told below
            over.wait(min(0.01, left))
    return None


def _stack() -> list[tuple[Any, int]]:
    """Where the main thread is: code and instruction, the innermost first."""
    frame: FrameType | None = sys._current_frames()[threading.main_thread().ident or 0]
    stack = []
    while frame is not None:
        stack.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return stack


def _end_alone(seconds: float) -> None:
    state = distributed.global_state
    host, _, port = (state.coordinator_address or "").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        what = f"process 0 answers at {host}:{port}, so others of the {state.num_processes} are missing: see their logs"
    except (OSError, ValueError) as error:
        remedy = "does process 0 live, and may the nodes use this port? JAX_COORDINATOR_PORT sets another"
        what = f"process 0 cannot be reached at {host}:{port} ({error}): {remedy}"
    _say(f"process {state.process_id} has not met the others within {seconds:g} s (JAXCADE_JOIN_SECONDS): {what}")
    os._exit(EXIT_STATUS)


def _say(line: str) -> None:
    print(f"jaxcade: {line}", file=sys.stderr, flush=True)
