"""The measuring side of a benchmark's process. The standard library only: foreign environments import it, too.

A process that measures parts writes `{"parts": <names>, ...}` as one line of JSON once all have run twice (and are
compiled), then answers each line `<seconds> <name>` with the median seconds of what the part counts.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

LEAST_CALLS = 3

Part = Callable[[], int]  # does its work to the end and says how many it did: environment steps, updates


def serve(
    parts: Mapping[str, Part],
    facts: Mapping[str, Any] | None = None,
    *,
    asked: TextIO = sys.stdin,
    told: TextIO = sys.stdout,
) -> None:
    """Measures `parts` until nothing more is asked; `facts` are told at once."""
    for part in parts.values():
        part()
        part()
    print(json.dumps({"parts": list(parts), **(facts or {})}), file=told, flush=True)
    for line in asked:
        seconds, name = line.split(maxsplit=1)
        print(json.dumps(median_seconds(parts[name.strip()], float(seconds))), file=told, flush=True)


def median_seconds(part: Part, seconds: float, *, calls: int = LEAST_CALLS) -> float:
    """For one of what the part counts, calling it for so long and so often at least; with 0 seconds, just so often."""
    taken = []
    end = time.perf_counter() + seconds
    while len(taken) < calls or time.perf_counter() < end:
        began = time.perf_counter()
        count = part()
        taken.append((time.perf_counter() - began) / count)
    return statistics.median(taken)


class Stopwatch:
    """Counts environment steps for `seconds`, once `after` of them are over."""

    def __init__(self, *, seconds: float, after: int):
        self._seconds, self._after = seconds, after
        self._steps, self._began, self._ended = 0, 0.0, 0.0

    def step(self) -> bool:
        """One more environment step; False when the time is up."""
        self._steps += 1
        if self._steps <= self._after:
            self._began = time.perf_counter()
            return True
        self._ended = time.perf_counter()
        return self._ended - self._began < self._seconds

    def tell(self) -> None:
        """The last line of a process that measures a whole training."""
        counted = self._steps - self._after
        speed = counted / (self._ended - self._began)
        memory = peak_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print(json.dumps({"steps_per_second": speed, "peak_bytes": memory}), flush=True)


def peak_bytes(ru_maxrss: int) -> int:
    return ru_maxrss if sys.platform == "darwin" else 1024 * ru_maxrss
