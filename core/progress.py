"""How far a run is, for a person: a bar on a terminal, spaced plain lines in a log file."""

import collections
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

import rich.console
import rich.progress

_FIRST_SECONDS = 1.0  # a log file shows a first line soon, so that one sees that it moves
_REDRAW_SECONDS = 0.5  # redrawing costs a few milliseconds, so that ten times a second would be felt
_WINDOW = 20  # the speed is that over the last so many redraws or lines


class Progress:
    """Done and total, speed, time left and a few metrics. Counts `unit` ("frames" or "images").

    `metrics` names those to show. `start` is where a resumed run goes on. Close it at the end: it is a context manager.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        every_seconds: float = 10.0,
        metrics: Sequence[str] = (),
        start: int = 0,
        stream: TextIO | None = None,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`terminal` forces a bar (True) or plain lines (False); None looks at `stream` (default: stdout)."""
        self._total, self._unit, self._names, self._clock = total, unit, tuple(metrics), clock
        self._start, self._examples, self._values = start, start, dict[str, float]()
        self._apart = 0.0  # seconds in which nothing was meant to be done: evaluations, checkpoints
        self._stream = stream or sys.stdout
        console = rich.console.Console(file=self._stream, force_terminal=terminal, highlight=False, markup=False)
        self._bar = _bar(console) if console.is_terminal and not console.is_dumb_terminal else None
        self._task = self._bar.add_task("", total=total, completed=start, text="") if self._bar else None
        self._every = _REDRAW_SECONDS if self._bar else every_seconds
        self._next = clock() + (0.0 if self._bar else min(_FIRST_SECONDS, every_seconds))
        self._points = collections.deque([(clock(), start)], maxlen=_WINDOW)  # (time without `_apart`, examples)
        self._dirty, self._closed = False, False
        if self._bar:
            self._bar.start()

    def update(self, examples: int, metrics: Mapping[str, float]) -> None:
        """`examples` done so far and the newest metrics. Cheap: most calls only look at the clock."""
        self._examples, self._values, self._dirty = examples, dict(metrics) if self._names else {}, True
        now = self._clock()
        if now >= self._next:
            self._next = now + self._every
            self._show(now)

    def aside(self, seconds: float) -> None:
        """Seconds outside training: excluded from the speed; the time left assumes that they recur at the same rate."""
        self._apart += seconds

    def message(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._bar and not self._closed:
            self._bar.console.print(text, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Shows the last state and gives the terminal back. A second call does nothing."""
        if self._closed:
            return
        if self._dirty:
            self._show(self._clock())
        if self._bar:
            self._bar.stop()
        self._closed = True

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self, now: float) -> None:
        text = self._text(now)
        self._points.append((now - self._apart, self._examples))
        self._dirty = False
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self._examples, text=text, refresh=True)
        else:
            print(text, file=self._stream, flush=True)

    def _text(self, now: float) -> str:
        began, base = self._points[0]
        speed = (self._examples - base) / max(now - self._apart - began, 1e-9)
        parts = [f"{self._examples:,}/{self._total:,} {self._unit} ({self._examples / max(self._total, 1):.0%})"]
        if speed > 0:
            each = 1 / speed + self._apart / (self._examples - self._start)
            left = max(self._total - self._examples, 0) * each
            parts += [f"{speed:,.0f} {self._unit}/s" if speed >= 10 else f"{speed:.2f} {self._unit}/s"]
            parts += [f"{_duration(left)} left"]
        known = [name for name in self._names if name in self._values]
        return "  ".join(parts + [f"{name} {self._values[name]:.4g}" for name in known])


def _bar(console: rich.console.Console) -> rich.progress.Progress:
    """Without a redrawing thread of its own: it would take its share of two cores."""
    return rich.progress.Progress(
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TextColumn("{task.fields[text]}", markup=False),
        console=console,
        auto_refresh=False,
    )


def _duration(seconds: float) -> str:
    """125 -> 2:05, 7325 -> 2:02:05, from a hundred days on as days."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    if hour >= 100 * 24:
        return f"{hour // 24} days"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
