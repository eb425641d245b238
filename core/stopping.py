"""Stopping a run cleanly: a signal only asks, the loop stops before its next step and an evaluation at once."""

import os
import signal
import sys
from types import FrameType
from typing import Self

from core import distributed, watchdog

# What the process exits with once it has saved. 75 (EX_TEMPFAIL) says "start me again".
EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGUSR1: 75}


class Stopped(Exception):
    """A stop was asked for in the middle of an evaluation, which is abandoned."""


class Stop:
    """A context in which SIGINT, SIGTERM and SIGUSR1 set `signal` instead of ending the process.

    Before the first call of `asked` there is nothing to save: the process ends at once, with the signal's status. A
    second SIGINT interrupts at once. Of several processes all stop, at the same call of `asked`, when one is asked to;
    JAX then listens to SIGTERM itself, so enter the context once they have joined (`distributed.start`).
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._shared = distributed.several()
        self._agreed = False
        self._calls = 0  # of `asked`
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in EXIT_STATUS.keys() - ({signal.SIGTERM} if self._shared else set()):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def asked(self) -> bool:
        """Whether to stop now. All processes call this equally often, in the same order with all else they share."""
        watchdog.passed()
        self._calls += 1
        if self._shared:
            self._agreed = self._agreed or distributed.asked_to_stop(self._calls)
            return self._agreed
        return self.signal is not None

    def check(self) -> None:
        """Raises `Stopped` where a stop is asked for; called as `asked`."""
        if self.asked():
            raise Stopped

    @property
    def exit_status(self) -> int:
        """0 where nobody asked to stop."""
        if self.signal is None:
            return EXIT_STATUS[signal.SIGTERM] if self._agreed else 0
        return EXIT_STATUS[self.signal]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if not self._calls and not self._shared:
            sys.exit(self.exit_status)
        if self._shared:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX tells the other processes
