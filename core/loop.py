"""The one loop: batches from a source, steps of a learner, and at intervals a log, an evaluation, a checkpoint.

With `lag=0` batch k is acted with the weights of state k; with `lag=1`, of state k-1, so that the environments and
the accelerator work at the same time and the weights that acted are still exactly known.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from core import journal, mesh, profiling, progress, ranges, stopping, tracking, types
from core.checkpoints import checkpoint
from core.journal import Diverged

__all__ = ["Diverged", "Outcome", "Refused", "Schedule", "Start", "begin", "programs", "run"]

_MANY_ARRAYS = 600  # in a state: a U-Net of as many layers is compiled for a minute
# How often a whole run writes a replay of more bytes than this: Nature's of 7 GB takes half a minute each time.
_MOST_MEMORIES, _LARGE = 40, 100_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how often, in frames or images (whatever the source counts)."""

    budget: ranges.PositiveInt
    log_every: ranges.PositiveInt
    checkpoint_every: ranges.PositiveInt
    replay_every: ranges.PositiveInt | None = None  # None: see `memory_every`
    lag: int = 1

    def __post_init__(self):
        ranges.check(self)
        if self.lag not in (0, 1):
            raise ValueError(f"lag={self.lag}: must be 0 (act with the newest weights) or 1 (act while learning)")

    def memory_every(self, abstract: Any) -> int:
        """Frames between two checkpoints with the replay of a state of these shapes: `replay_every`.

        By itself every checkpoint has it; a large one every k-th, so that it is written about 40 times.
        """
        if self.replay_every is not None:
            return self.replay_every
        large = checkpoint.replay_bytes(abstract) > _LARGE
        return self.checkpoint_every * (-(-self.budget // (_MOST_MEMORIES * self.checkpoint_every)) if large else 1)

    def told(self, abstract: Any, unit: str) -> str | None:
        """What the checkpoints of a state of these shapes will take by the end, or None where it has no replay."""
        light, memory = checkpoint.expected_bytes(abstract)
        if not memory:
            return None
        every = self.memory_every(abstract)
        whole = -(-self.budget // every) + (every > self.checkpoint_every)  # the first checkpoint has it, too
        others = max(-(-self.budget // self.checkpoint_every) - whole, 0)
        size = checkpoint.readable
        raw, total = checkpoint.replay_bytes(abstract), (others + whole) * light + whole * memory
        return (
            f"checkpoints: {size(light)} every {self.checkpoint_every:,} {unit}; with the replay every "
            f"{every:,}, {whole} times: {size(raw)}, compressed usually less than {size(memory)}; "
            f"about {size(total)} written by the end"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    step: int
    examples: int
    finished: bool  # False: stopped before its budget, or in an evaluation that was due then
    scalars: Mapping[str, float]  # the newest value of every metric
    state: Any


class Refused(ValueError):
    """The settings do not fit each other, the devices or their memory; nothing has been started."""


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
    pending: tuple[str, ...] = ()  # evaluations of this very state that a stop has cut short
    window: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # name -> [W] metrics since the last row


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
        pending=tuple(restored.extra.get("pending", ())),  # earlier versions had none
        window=(restored.source or {}).get("window", {}),  # as of the pending
    )


def run(
    start: Start,
    *,
    schedule: Schedule,
    checkpoints: checkpoint.Checkpoints,
    tracker: tracking.Tracker,
    bar: progress.Progress,
    stop: stopping.Stop,
    evaluators: Mapping[str, types.Evaluator] | None = None,
    profiler: profiling.Profiler | None = None,
) -> Outcome:
    """Trains until the budget is spent or `stop` says so. Raises `Diverged`, with nothing saved since."""
    source, functions, evaluators = start.source, start.functions, evaluators or {}
    state, step, held = start.state, start.step, start.held
    total, replay_every = -(-schedule.budget // source.examples_per_step), schedule.checkpoint_every
    if checkpoints.memory(functions.abstract):
        replay_every = schedule.memory_every(functions.abstract)
    book = journal.Journal(start, tracker=tracker, bar=bar, checkpoints=checkpoints, stop=stop)

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
        source.start(step, functools.partial(functions.view, state))
    saved = (step, start.pending, True) if held is not None else None  # with its replay
    pending = book.evaluate({name: evaluators[name] for name in start.pending if name in evaluators}, state)
    if start.pending and not pending:
        held, saved = book.save(state, held), (step, pending, True)  # they are not pending any more
    while step < total and not pending and not stop.asked():
        batch = functions.globalize(source.next() if held is None else held)
        held = None
        if schedule.lag:
            source.start(step + 1, functools.partial(functions.view, state))
        if step < start.learning_from:
            state = functions.absorb(state, batch)
        else:
            state, metrics = functions.step(state, batch)
            book.add(metrics)
        step += 1
        if not schedule.lag:
            source.start(step, functools.partial(functions.view, state))
        if profiler is not None:
            profiler.step(state, learning=step > start.learning_from)

        book.advance(step)
        if due(schedule.log_every):
            book.log(state)
        pending = book.evaluate({name: each for name, each in evaluators.items() if due(each.every)}, state)
        whole = due(replay_every)
        if (whole or due(schedule.checkpoint_every)) and not pending:
            held, saved = book.save(state, held, replay=whole), (step, pending, whole)
    if saved != (step, pending, True):
        book.save(state, held, pending)
    return Outcome(
        step=step,
        examples=step * source.examples_per_step,
        finished=step >= total and not pending,
        scalars=book.newest,
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
    # LLVM's second level takes half of the time in which a U-Net is compiled, and its step is no faster for it. What
    # runs once is never worth it.
    quick = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    large = len(jax.tree.leaves(abstract)) > _MANY_ARRAYS
    copy = jax.jit(lambda state: jax.tree.map(jnp.copy, learner.view(state)), out_shardings=everywhere)
    return _Functions(
        init=jax.jit(lambda key: learner.init(key, source.spec), out_shardings=shardings, compiler_options=quick),
        absorb=jax.jit(learner.absorb, donate_argnums=0, out_shardings=shardings),
        step=jax.jit(
            _several(learner.step, source.dispatch),
            donate_argnums=0,
            out_shardings=(shardings, everywhere),
            compiler_options=quick if large else None,
        ),
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
