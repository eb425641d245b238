"""A polite way out: signals ask for a stop, the loop finishes its step and saves before it goes."""

import os
import signal
from types import FrameType
from typing import Self

from core import distributed

# What the process exits with once it has saved. 75 (EX_TEMPFAIL) says "start me again".
EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGUSR1: 75}


class Stop:
    """A context in which SIGINT, SIGTERM and SIGUSR1 set `signal` instead of ending the process.

    A second SIGINT interrupts at once. Of several processes all stop, before the same step, when one is asked to; JAX
    then listens to SIGTERM itself, so enter the context once they have joined (`distributed.start`).
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._shared = distributed.several()
        self._agreed = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in EXIT_STATUS.keys() - ({signal.SIGTERM} if self._shared else set()):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def before(self, step: int) -> bool:
        """Whether to stop before this step. All processes have to ask at every step."""
        if self._shared:
            self._agreed = self._agreed or distributed.asked_to_stop(step)
            return self._agreed
        return self.signal is not None

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
        if self._shared:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX tells the other processes
