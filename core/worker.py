"""One thread beside the main one."""

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Any


class Worker:
    """One daemon thread doing jobs in order. Unlike an executor's, it cannot hold up the end of the process."""

    def __init__(self, name: str):
        self.stopping = threading.Event()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable, *args: Any) -> concurrent.futures.Future:
        future = concurrent.futures.Future()
        if self.stopping.is_set():
            raise RuntimeError(f"the {self._thread.name} was closed: make another")

        def job():
            try:
                future.set_result(function(*args))
            except BaseException as error:  # the one who waits for it decides
                future.set_exception(error)

        self._jobs.put(job)
        return future

    def close(self, timeout: float) -> bool:
        """Lets jobs see `stopping`, and says whether the thread ended within `timeout` seconds."""
        self.stopping.set()
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
