"""Rows of many runs at once: in processes beside this one where there is much to read."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from concurrent.futures import process
from multiprocessing import connection

from experiments.comparing.runs import cache, rows

LITTLE = 64 << 20  # bytes that are read sooner than processes start

Found = rows.Rows | Exception


def each(jobs: Mapping[int, cache.Job]) -> Iterator[tuple[int, Found]]:
    """The rows of each job under its number, as they come; or why there are none."""
    sizes = {number: _size(job) for number, job in jobs.items()}
    workers = min(cores(), len(jobs))
    if sum(sizes.values()) < LITTLE or workers < 2:
        for number, job in jobs.items():
            yield number, _read(job)
        return
    left = {number: jobs[number] for number in sorted(jobs, key=lambda number: -sizes[number])}
    try:
        yield from _together(left, workers)
    except process.BrokenProcessPool:
        while left:
            yield from _in_turn(left)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _together(left: dict[int, cache.Job], count: int) -> Iterator[tuple[int, Found]]:
    """Takes from `left` what it has read."""
    workers = pool(count)
    try:
        asked = {workers.submit(_read, job): number for number, job in left.items()}
        for future in futures.as_completed(asked):
            number = asked.pop(future)  # and with it the rows
            found = future.result()
            del left[number]
            yield number, found
    finally:
        workers.shutdown(cancel_futures=True)


def _in_turn(left: dict[int, cache.Job]) -> Iterator[tuple[int, Found]]:
    """Likewise, one at a time, up to the one that ends its process."""
    with pool(1) as worker:
        for number in [*left]:
            job = left.pop(number)
            try:
                yield number, worker.submit(_read, job).result()
            except process.BrokenProcessPool:
                yield number, RuntimeError("the process that read it was killed (out of memory?)")
                return


def pool(workers: int) -> process.ProcessPoolExecutor:
    # Processes of their own start: JAX and others in this one have threads, which a fork would lose.
    return process.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _read(job: cache.Job) -> Found:
    try:
        return cache.read(job)
    except Exception as error:
        return error


def _size(job: cache.Job) -> int:
    try:
        return (job.folder / "metrics.jsonl").stat().st_size
    except OSError:
        return 0
