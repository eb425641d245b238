"""Whole runs of the loop for tests: a tiny DQN on a game, and a learner that only counts."""

import dataclasses
import functools
import io
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agents import acting, dqn, networks, td
from core import loop, mesh, network, optim, progress, replay, stopping, types, windows
from core.checkpoints import checkpoint, files
from tests import toys

GAMES, STEPS, SHARDS = 4, 4, 2  # 16 frames a learner step
WARMUP = 3  # learner steps


class Rows:
    """A tracker that remembers."""

    def __init__(self):
        self.rows: list[tuple[int, int, dict[str, float]]] = []  # step, examples, scalars
        self.seconds: list[float] = []  # of each row
        self.committed: list[int] = []

    def log(self, *, step: int, examples: int, seconds: float, scalars: Mapping[str, Any], report: Any = None) -> None:
        self.rows.append((step, examples, dict(scalars)))
        self.seconds.append(seconds)

    def commit(self, step: int) -> None:
        self.committed.append(step)

    def finish(self, status: str) -> None: ...

    def steps(self, name: str) -> list[int]:
        """The steps at which a metric was told."""
        return [step for step, _, scalars in self.rows if name in scalars]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """An evaluator that lets a test look at the state."""

    look: Callable[[int, Any], Mapping[str, float] | None]  # (step, state) -> scalars
    every: int = 1

    def prepare(self, learner: Any) -> None: ...

    def names(self, learner: Any, spec: Any) -> tuple[str, ...]:
        return ()

    def __call__(self, learner: Any, state: Any, key: jax.Array, *, stop: Any = None) -> types.Report:
        return types.Report(scalars=self.look(int(state.step), state) or {})


def dqn_learner(sizes: types.Sizes, **changes: Any) -> dqn.DQN:
    """Prioritised, 3-step, double; its ring of 6 rollouts wraps soon."""
    make = functools.partial(
        networks.QNetwork,
        torso=functools.partial(networks.MLP, widths=(8,)),
        head=functools.partial(networks.PlainHead, hidden=None),
    )
    settings: dict[str, Any] = {
        "network": network.Network(make=make, sizes=sizes),
        "optimizer": optim.optimizer(rule=optax.adam, learning_rate=1e-2, clip_norm=10.0),
        "replay": replay.Replay(
            capacity=96,
            shards=SHARDS,
            read=windows.Transitions(n_step=3),
            sampler=replay.Prioritized(anneal=20),
        ),
        "target": dqn.HardUpdate(period=3),
        "bootstrap": td.double_bootstrap,
        "batch": 8,
        "update_every": 8,
        "learning_starts": 16 * WARMUP,
    }
    return dqn.DQN(**(settings | changes))


def actor() -> acting.Actor:
    """Exploration falls through the whole run, so that a wrong count of frames shows."""
    exploration = optim.linear(start=1.0, end=0.0, frames=400)
    return acting.Actor(
        environments=toys.Counter(), envs=GAMES, steps=STEPS, shards=SHARDS, exploration=exploration, seed=0
    )


def play(folder: pathlib.Path, *, steps: int, **settings: Any) -> loop.Outcome:
    """Runs the DQN until `steps` learner steps are done, or goes on with what `folder` holds."""
    source = actor()
    learner = dqn_learner(source.sizes)
    source.attach(learner)
    try:
        return run(folder, learner=learner, source=source, budget=steps * source.examples_per_step, **settings)
    finally:
        source.close()


def run(
    folder: pathlib.Path,
    *,
    learner: Any,
    source: Any,
    budget: int,
    lag: int = 0,
    log_every: int = 1,
    checkpoint_every: int = 10**9,
    replay_every: int | None = None,
    watch: Any = None,
    every: int = 1,
    stop: stopping.Stop | None = None,
    tracker: Any = None,
    replay: bool = True,
    metric: str | None = None,
    **settings: Any,
) -> loop.Outcome:
    evaluators: Any = settings.pop("evaluators", {} if watch is None else {"watch": Watch(look=watch, every=every)})
    checkpoints = checkpoint.Checkpoints(folder, replay=replay, metric=metric, log=lambda line: None)
    start = loop.begin(
        learner=learner,
        source=source,
        placement=mesh.Placement(),
        seed=0,
        checkpoints=checkpoints,
        weights=settings.pop("weights", None),
    )
    return loop.run(
        start,
        schedule=loop.Schedule(
            budget=budget, log_every=log_every, checkpoint_every=checkpoint_every, replay_every=replay_every, lag=lag
        ),
        checkpoints=checkpoints,
        tracker=tracker or Rows(),
        bar=progress.Progress(budget, source.unit, stream=io.StringIO()),
        stop=stop or stopping.Stop(),
        evaluators=evaluators,
        **settings,
    )


def assert_same(left: Any, right: Any) -> None:
    """Every leaf, bit for bit."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=jax.tree_util.keystr(path))


def on_eight_devices(script: pathlib.Path, *arguments: str, optimized: bool = False) -> None:
    """Runs a script in a process of its own, since the number of simulated devices is fixed when JAX starts.

    Its programs are compiled with little care, which is what takes the time, unless `optimized`: to be looked at.
    """
    quick = "" if optimized else os.environ.get("XLA_FLAGS", "")
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{quick} --xla_force_host_platform_device_count=8",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0" if optimized else "1",
        "PYTHONPATH": str(pathlib.Path(__file__).parents[1]),
    }
    command = [sys.executable, "-W", "error", str(script), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


# ---- a learner that counts, and a source that writes down what it is asked ----


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class CountState(types.TrainState):
    seen: jax.Array  # [] float32, a hash of the batches so far and their order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counting:
    """A linear fit of batches [1, 2] by SGD; its view tells the state's step."""

    transformation: optax.GradientTransformation = dataclasses.field(default_factory=lambda: optax.sgd(0.1, 0.9))

    def warmup(self, spec: Any) -> int:
        return 0

    def init(self, key: jax.Array, spec: Any) -> CountState:
        params = {"weight": jnp.ones(2)}
        return CountState(
            step=jnp.zeros((), jnp.int32),
            key=key,
            params=params,
            aux={},
            opt_state=self.transformation.init(params),
            diverged=-jnp.ones((), jnp.int32),
            seen=jnp.zeros(()),
        )

    def absorb(self, state: CountState, batch: Any) -> CountState:
        return dataclasses.replace(state, step=state.step + 1)

    def step(self, state: CountState, batch: Any) -> tuple[CountState, types.Metrics]:
        loss_of = lambda params: jnp.mean((params["weight"] - batch[0]) ** 2)
        loss, gradient = jax.value_and_grad(loss_of)(state.params)
        params, opt_state, healthy, norm = optim.apply(
            self.transformation,
            loss=loss,
            gradient=gradient,
            params=state.params,
            opt_state=state.opt_state,
            healthy=state.diverged < 0,
        )
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            diverged=jnp.where(healthy | (state.diverged >= 0), state.diverged, state.step),
            seen=0.5 * state.seen + batch[0, 0],
        )
        return state, {"loss/fit": loss, "grad/norm": norm, "params/mean": jnp.mean(params["weight"])}

    def view(self, state: CountState) -> Any:
        return {"step": state.step}


class Recording:
    """Batch k is [[k, 0.1·k]], from `bad` on it is NaN; `calls` holds (k, step of the view that it was begun with)."""

    unit = "frames"
    data_axis = 0
    dispatch = 1
    protocol: Mapping[str, Any] = {}

    def __init__(self, examples_per_step: int = 10, *, bad: int | None = None):
        self.sizes: types.Sizes = {}
        self.examples_per_step = examples_per_step
        self.spec = jax.ShapeDtypeStruct((1, 2), np.float32)
        self.calls: list[tuple[int, int]] = []
        self._bad = bad
        self._begun: list[int] = []

    def attach(self, learner: Any) -> None: ...

    def start(self, step: int, view: Callable[[], Any]) -> None:
        self.calls.append((step, int(view()["step"])))
        self._begun.append(step)

    def next(self) -> np.ndarray:
        step = self._begun.pop(0)
        good = self._bad is None or step < self._bad
        return np.array([[step, 0.1 * step]] if good else [[np.nan, 0.0]], np.float32)

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        assert not self._begun, "a checkpoint first drains what was begun"
        return {}

    def load_state_dict(self, tree: Mapping[str, Any]) -> None:
        assert tree == {}

    def close(self) -> None: ...


def saved_state(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The state in the newest checkpoint of the run in `folder`, by path, without its key."""
    newest = max((folder / "checkpoints").glob("0*"))
    manifest = files.read_manifest(newest)
    shapes = {path: text.rstrip("]").split("[") for path, text in manifest.state.items() if path != "key"}
    abstract = {
        path: jax.ShapeDtypeStruct(tuple(map(int, filter(None, shape.split(",")))), dtype)
        for path, (dtype, shape) in shapes.items()
    }
    return jax.device_get(files.read_state(newest, manifest, abstract, partly=True))
