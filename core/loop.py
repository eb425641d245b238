"""The one loop: batches from a source, steps of a learner, and at intervals a log, an evaluation, a checkpoint.

With `lag=0` batch k is acted with the weights of state k; with `lag=1`, of state k-1, so that the environments and
the accelerator work at the same time and the weights that acted are still exactly known.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from core import checkpoint, mesh, profiling, progress, stopping, tracking, types, watchdog


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how often, in frames or images (whatever the source counts)."""

    budget: int
    log_every: int
    checkpoint_every: int
    lag: int = 1

    def __post_init__(self):
        for name in ("budget", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.lag not in (0, 1):
            raise ValueError(f"lag={self.lag}: must be 0 (act with the newest weights) or 1 (act while learning)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    step: int
    examples: int
    finished: bool  # False: stopped before its budget
    scalars: Mapping[str, float]  # the newest value of every metric
    state: Any


class Refused(ValueError):
    """The settings do not fit each other, the devices or their memory; nothing has been started."""


class Diverged(RuntimeError):
    """A loss or a gradient was not finite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """A run about to go on: what is compiled and where it stands."""

    learner: Any
    source: Any
    functions: "_Functions"
    seed: int
    state: Any
    learning_from: int  # steps before this one only take data in
    step: int = 0
    held: Any = None  # a batch that was begun before the checkpoint
    seconds: float = 0.0  # that earlier attempts took


def begin(
    *,
    learner: Any,
    source: Any,
    placement: mesh.Placement,
    seed: int,
    checkpoints: checkpoint.Checkpoints,
    weights: Callable[[Any], Any] | None = None,
) -> Start:
    """Places the state: the newest whole checkpoint's, or a fresh one.

    `weights` reads another run's parameters (`init_from`), given their shapes; a checkpoint of this run goes first.

    Raises:
      Refused: the network does not fit the data, or the state does not fit the devices or divide over them.
    """
    try:
        functions = programs(learner, source, placement)
    except ValueError as error:
        raise Refused(str(error)) from error
    key = jax.random.key(seed)
    given = {"learner": learner, "source": source, "functions": functions, "seed": seed}
    warmup = learner.warmup(source.spec)
    restored = checkpoints.restore(functions.abstract, replay=lambda: functions.init(key).replay)
    if restored is None:
        state = functions.init(key)
        state = state if weights is None else _adopt(state, functions.abstract, weights)
        return Start(**given, state=state, learning_from=warmup)
    held = None
    # Else of another number of processes, or for an empty memory, in which a batch from the middle of games would lack
    # the frames before it: the source begins its next batch anew.
    if restored.source is not None and restored.replay_restored:
        source.load_state_dict(restored.source["source"])
        held = restored.source["held"]
    return Start(
        **given,
        state=restored.state,
        step=restored.step,
        held=None if held is None else jax.tree.unflatten(jax.tree.structure(source.spec), held),
        # Without its replay a run acts until the memory is warm again.
        learning_from=restored.extra["learning_from"] if restored.replay_restored else restored.step + warmup,
        seconds=restored.extra["seconds"],
    )


def run(
    start: Start,
    *,
    schedule: Schedule,
    checkpoints: checkpoint.Checkpoints,
    tracker: tracking.Tracker,
    bar: progress.Progress,
    stop: stopping.Stop,
    evaluators: Sequence[types.Evaluator] = (),
    profiler: profiling.Profiler | None = None,
) -> Outcome:
    """Trains until the budget is spent or `stop` says so. Raises `Diverged`, with nothing saved since."""
    source, functions = start.source, start.functions
    state, step, held = start.state, start.step, start.held
    total = -(-schedule.budget // source.examples_per_step)
    journal = _Journal(start, tracker, bar, checkpoints)

    def due(every: int) -> bool:
        """Whether the last step crossed a multiple of `every`, or was the last of all."""
        done, size = step * source.examples_per_step, source.examples_per_step
        return done // every > (done - size) // every or step == total

    if step < total <= start.learning_from:
        begins = start.learning_from * source.examples_per_step
        bar.message(
            f"budget={schedule.budget}: no update will be made, as learning begins after {begins} {source.unit}; set a "
            "larger budget or a smaller learner.learning_starts"
        )
    if held is None:
        source.start(functions.view(state), step)
    saved = step if held is not None else -1
    while step < total and not stop.before(step):
        batch = functions.globalize(source.next() if held is None else held)
        held = None
        watchdog.passed()
        if schedule.lag:
            source.start(functions.view(state), step + 1)
        if step < start.learning_from:
            state = functions.absorb(state, batch)
        else:
            state, metrics = functions.step(state, batch)
            journal.add(metrics)
        step += 1
        if not schedule.lag:
            source.start(functions.view(state), step)
        if profiler is not None:
            profiler.step(state, learning=step > start.learning_from)

        journal.advance(step)
        if due(schedule.log_every):
            journal.log(state)
        for evaluator in evaluators:
            if due(evaluator.every):
                journal.evaluate(evaluator, state)
        if due(schedule.checkpoint_every):
            held, saved = journal.save(state), step
    if saved != step:
        journal.log(state)
        journal.save(state)
    return Outcome(
        step=step,
        examples=step * source.examples_per_step,
        finished=step >= total,
        scalars=journal.newest,
        state=state,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Functions:
    """A learner, compiled and placed."""

    init: Any
    absorb: Any
    step: Any
    view: Any
    globalize: Any
    abstract: Any  # the state's shapes, dtypes and shardings


def programs(learner: Any, source: Any, placement: mesh.Placement) -> _Functions:
    """What the loop calls, laid out over the devices. Raises ValueError where that cannot be."""
    devices = placement.mesh()
    abstract = jax.eval_shape(learner.init, jax.random.key(0), source.spec)
    shardings = placement.shardings(abstract, devices)
    mesh.check_batch(source.spec, devices, axis=source.data_axis)
    mesh.check_memory(
        abstract, shardings, hint="a smaller learner.replay.capacity or network, or more devices, would fit"
    )
    everywhere = NamedSharding(devices, PartitionSpec())
    copy = jax.jit(lambda state: jax.tree.map(jnp.copy, learner.view(state)), out_shardings=everywhere)
    return _Functions(
        init=jax.jit(lambda key: learner.init(key, source.spec), out_shardings=shardings),
        absorb=jax.jit(learner.absorb, donate_argnums=0, out_shardings=shardings),
        step=jax.jit(_several(learner.step, source.dispatch), donate_argnums=0, out_shardings=(shardings, everywhere)),
        view=lambda state: mesh.localize(copy(state)),  # a copy, since the state is donated while the view acts
        globalize=lambda batch: mesh.globalize(batch, devices, axis=source.data_axis + (source.dispatch > 1)),
        abstract=jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract, shardings
        ),
    )


def _several(step: Any, dispatch: int) -> Any:
    """`step` over a batch's leading axis in one call of the device; its metrics are means."""
    if dispatch == 1:
        return step

    def steps(state: Any, batches: Any) -> tuple[Any, types.Metrics]:
        state, metrics = jax.lax.scan(step, state, batches, length=dispatch)
        return state, jax.tree.map(lambda values: jnp.mean(values, axis=0), metrics)

    return steps


def _adopt(state: Any, abstract: Any, weights: Callable[[Any], Any]) -> Any:
    """`state` with another run's parameters (online, target, averaged); everything else starts anew."""
    names = [field.name for field in dataclasses.fields(state)]
    names = [name for name in names if name in ("params", "aux") or name.endswith("_params")]
    return dataclasses.replace(state, **weights({name: getattr(abstract, name) for name in names}))


class _Journal:
    """Keeps the books of one run: metrics since the last log, time spent, what goes to the tracker."""

    def __init__(
        self, start: Start, tracker: tracking.Tracker, bar: progress.Progress, checkpoints: checkpoint.Checkpoints
    ):
        self.newest: dict[str, float] = {}
        self._start, self._source = start, start.source
        self._tracker, self._bar, self._checkpoints = tracker, bar, checkpoints
        self._step = self._logged = start.step
        self._window: list[types.Metrics] = []
        self._began = time.monotonic() - start.seconds
        self._busy = time.monotonic()  # moved on by the time that logs, evaluations and checkpoints take

    def add(self, metrics: types.Metrics) -> None:
        # One step in flight: donated state stays single, and simulated CPU devices never pile up collectives.
        if self._window:
            jax.block_until_ready(self._window[-1])
        self._window.append(metrics)

    def advance(self, step: int) -> None:
        watchdog.passed()
        self._step = step
        self._bar.update(step * self._source.examples_per_step, self.newest)

    def log(self, state: Any) -> None:
        """One row: the window's means, what the source saw, the speed. Raises `Diverged`."""
        if self._step == self._logged:
            return
        self._refuse_divergence(state)
        window = jax.device_get(self._window)
        elapsed = time.monotonic() - self._busy
        examples = (self._step - self._logged) * self._source.examples_per_step
        scalars = {
            **{name: float(np.mean([np.mean(metrics[name]) for metrics in window])) for name in (window or [{}])[0]},
            **self._source.metrics(),
            f"time/{self._source.unit}_per_second": examples / max(elapsed, 1e-9),
        }
        self._write(scalars)
        self._window, self._logged = [], self._step
        self._busy = time.monotonic()

    def evaluate(self, evaluator: types.Evaluator, state: Any) -> None:
        """Asks an evaluator and writes what it says; the best state so far is kept."""
        self._refuse_divergence(state)
        before = time.monotonic()
        key = jax.random.fold_in(jax.random.key(self._start.seed), self._step)
        report = evaluator(self._start.learner, state, key)
        self._write(report.scalars, report)
        metric = self._checkpoints.metric
        if metric is not None and metric in report.scalars:
            self._checkpoints.best(report.scalars[metric], self._step, state)
        self._busy += time.monotonic() - before

    def save(self, state: Any) -> Any:
        """Writes a checkpoint; returns the batch that had been begun, which the loop goes on with."""
        self._refuse_divergence(state)
        before = time.monotonic()
        held = self._source.next()
        self._checkpoints.save(
            self._step,
            state,
            {"source": self._source.state_dict(), "held": jax.tree.leaves(held)},
            extra={"seconds": self._seconds(), "learning_from": self._start.learning_from},
        )
        self._tracker.commit(self._step)
        self._busy += time.monotonic() - before
        return held

    def _write(self, scalars: Mapping[str, float], report: types.Report | None = None) -> None:
        self.newest.update(scalars)
        self._tracker.log(
            step=self._step,
            examples=self._step * self._source.examples_per_step,
            seconds=self._seconds(),
            scalars=scalars,
            report=report,
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._began

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
