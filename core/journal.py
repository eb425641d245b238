"""Logging, timing, evaluations and checkpoints of one run."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from core import progress, stopping, tracking, types, watchdog
from core.checkpoints import checkpoint

if TYPE_CHECKING:
    from core import loop


class Diverged(RuntimeError):
    """A loss or a gradient was not finite."""


class Journal:
    """What the loop tells about a run; every method takes the state of the step that `advance` was told last."""

    def __init__(
        self,
        start: "loop.Start",
        *,
        tracker: tracking.Tracker,
        bar: progress.Progress,
        checkpoints: checkpoint.Checkpoints,
        stop: stopping.Stop,
    ):
        self.newest: dict[str, float] = {}  # of every metric
        self._start, self._source = start, start.source
        self._tracker, self._bar, self._checkpoints, self._stop = tracker, bar, checkpoints, stop
        self._step = self._logged = start.step
        lengths = [len(values) for values in start.window.values()]
        self._window: list[Mapping[str, Any]] = [
            {name: values[index] for name, values in start.window.items()} for index in range(max(lengths, default=0))
        ]
        self._began = self._busy = time.monotonic()  # `_busy` moves on by what logs, evaluations and checkpoints take
        self._saving: float | None = None  # seconds of the checkpoints since the last log

    def add(self, metrics: types.Metrics) -> None:
        """Metrics of a learner step, still on the device."""
        # One step in flight: donated state stays single, and simulated CPU devices never pile up collectives.
        if self._window:
            jax.block_until_ready(self._window[-1])
        self._window.append(metrics)

    def advance(self, step: int) -> None:
        watchdog.passed()
        self._step = step
        self._bar.update(self._examples, self.newest)

    def log(self, state: Any) -> None:
        """One row: the window's means, what the source saw, the speed. Raises `Diverged`."""
        if self._step == self._logged:
            return
        self._refuse_divergence(state)
        now, unit = time.monotonic(), self._source.unit
        since = lambda step: (self._step - step) * self._source.examples_per_step
        scalars = {
            **{name: float(np.mean(values)) for name, values in self._means().items()},
            **self._source.metrics(),
            f"time/{unit}_per_second": since(self._logged) / max(now - self._busy, 1e-9),
            # Of this attempt, with compiling, evaluations and checkpoints.
            f"time/{unit}_per_second_overall": since(self._start.step) / max(now - self._began, 1e-9),
            **({} if self._saving is None else {"time/checkpoint_seconds": self._saving}),
        }
        self._write(scalars)
        self._window, self._logged, self._saving = [], self._step, None
        self._busy = time.monotonic()

    def evaluate(self, evaluators: Mapping[str, types.Evaluator], state: Any) -> tuple[str, ...]:
        """Asks each evaluator, writes what it says and keeps the best state so far.

        Returns the names of those that have not judged because a stop was asked for meanwhile.
        """
        if evaluators:
            self._refuse_divergence(state)
        names = tuple(evaluators)
        for index, name in enumerate(names):
            before = time.monotonic()
            try:
                self._evaluate(evaluators[name], state, before)
            except stopping.Stopped:
                self._bar.message(f"evaluators.{name}: stopped; the resumed run makes this evaluation again")
                return names[index:]
            finally:
                self._aside(time.monotonic() - before)
        return ()

    def save(self, state: Any, held: Any, pending: tuple[str, ...] = (), *, replay: bool = True) -> Any:
        """Writes a checkpoint; returns the batch that had been begun, which the loop goes on with.

        `held` is that batch where the loop has it already, `pending` are evaluations of this state yet to be made.
        Without its `replay` a checkpoint serves evaluations and other runs.
        """
        self._refuse_divergence(state)
        before = time.monotonic()
        held = self._source.next() if held is None else held
        saved = self._checkpoints.save(
            self._step,
            state,
            {
                "source": self._source.state_dict(),
                "held": jax.tree.leaves(held),
                "window": {name: np.array(values) for name, values in self._means().items()},
            },
            extra={
                "seconds": self._seconds(),
                "learning_from": self._start.learning_from,
                "pending": list(pending),
            },
            replay=replay,
        )
        if saved.resumable:
            self._tracker.commit(self._step)
        took = time.monotonic() - before
        self._saving = (self._saving or 0.0) + took
        self._aside(took)
        return held

    @property
    def _examples(self) -> int:
        return self._step * self._source.examples_per_step

    def _means(self) -> dict[str, list[Any]]:
        """Of each metric, the means of the steps since the last row."""
        window = jax.device_get(self._window)
        return {name: [np.mean(metrics[name]) for metrics in window] for name in (window or [{}])[0]}

    def _evaluate(self, evaluator: types.Evaluator, state: Any, before: float) -> None:
        key = jax.random.fold_in(jax.random.key(self._start.seed), self._step)
        report = evaluator(self._start.learner, state, key, stop=self._stop.check)
        self._write({**report.scalars, "time/evaluation_seconds": time.monotonic() - before}, report)
        metric = self._checkpoints.metric
        if metric is not None and metric in report.scalars:
            self._checkpoints.best(report.scalars[metric], self._step, state)

    def _aside(self, seconds: float) -> None:
        """Time that did not train."""
        self._busy += seconds
        self._bar.aside(seconds)

    def _write(self, scalars: Mapping[str, float], report: types.Report | None = None) -> None:
        self.newest.update(scalars)
        self._tracker.log(
            step=self._step, examples=self._examples, seconds=self._seconds(), scalars=scalars, report=report
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._began + self._start.seconds

    def _refuse_divergence(self, state: Any) -> None:
        step = int(state.diverged)
        if step < 0:
            return
        step //= self._source.dispatch
        names = {name for metrics in self._window for name in metrics if not np.all(np.isfinite(metrics[name]))}
        raise Diverged(
            f"step {step}: {', '.join(sorted(names)) or 'the loss or its gradient'} was not finite and nothing has "
            f"been learned since; the last good checkpoint is {self._checkpoints.latest() or 'none'}. "
            "Try a smaller optimizer.learning_rate, or optimizer.clip_norm=10"
        )
