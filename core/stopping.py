"""A polite way out: signals ask for a stop, the loop finishes its step and saves before it goes."""

import signal
from types import FrameType
from typing import Self

# What the process exits with once it has saved. 75 (EX_TEMPFAIL) says "start me again".
EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGUSR1: 75}


class Stop:
    """A context in which SIGINT, SIGTERM and SIGUSR1 set `signal` instead of ending the process.

    A second SIGINT interrupts at once.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in EXIT_STATUS:
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_status(self) -> int:
        """0 where nobody asked to stop."""
        return 0 if self.signal is None else EXIT_STATUS[self.signal]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
