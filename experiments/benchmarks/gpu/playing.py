"""A DQN that plays Pong and learns, by the very loop of a run: a process of the suite `gpu`.

    python -m experiments.benchmarks.gpu.playing [--small] [--seconds 15]

Nature's setting with 8 games and with 64, a replay of a million. Who waits is told by shares of the time: the actor's
are the loop's own metrics (`time/act_seconds`, `time/environment_seconds`), the device's are what its two programs take
alone times how often they ran.
"""

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from core import mesh, platform, record, stopping
from experiments import training
from experiments.benchmarks import dqn, dqn_parts, processes, timing
from experiments.benchmarks.gpu import children, speed
from experiments.config import build, command_line

GAMES = (8, 64)
RUN = ("evaluators=none", "tracker=none", "checkpoint.metric=null", "checkpoint.replay=false", "log_every=2_560")
FULL = ("learner.replay.capacity=1_000_000", "learner.learning_starts=8_000")
SMALL = (
    "learner.replay.capacity=2_048",
    "learner.learning_starts=64",
    "log_every=256",
    "network.make.torso.width=8",
    "network.make.head.hidden=32",
)


def main() -> None:
    given = children.arguments("a DQN that plays and learns").parse_args()
    games = GAMES[: 1 if given.small else None]
    children.plan([f"pong, {count} games" for count in games])
    platform.cache()
    for count in games:
        try:
            overrides = (*dqn.SETTING, *RUN, *(SMALL if given.small else FULL), f"source.envs={count}")
            children.tell(f"pong, {count} games", **played(overrides, games=count, seconds=given.seconds))
        except Exception as error:  # the other number of games may do
            children.failed(f"pong, {count} games", error)


def played(overrides: Sequence[str], *, games: int, seconds: float) -> dict[str, Any]:
    """Speed, memory and who waited, of a run that is stopped once it has learned for so long."""
    settings = command_line.compose(*overrides)
    with tempfile.TemporaryDirectory(prefix="jaxcade-gpu-") as folder, stopping.Stop() as stop:
        with stopped_after(Path(folder), seconds), contextlib.redirect_stdout(None):
            outcome = training.train(settings, Path(folder), stop=stop)
        rows = [row for row in _rows(Path(folder)) if dqn.LEARNS in row]
    places = jax.tree.map(lambda leaf: leaf.sharding, outcome.state)
    memory = speed.memory() | {"state_bytes": mesh.state_bytes(outcome.state, places)}
    frames = processes.speed(rows)
    del outcome, places
    alone = parts_alone(settings, seconds=min(1.0, seconds))
    # log rows' means, the first one left out: something may have compiled in it
    mean = lambda name: sum(row[name] for row in rows[1:]) / max(len(rows) - 1, 1)
    per_second = frames / alone.pop("frames_per_step")
    vectors = per_second / games
    acting, stepping = mean("time/act_seconds") * vectors, mean("time/environment_seconds") * vectors
    learning, choosing = alone["learner_step_seconds"] * per_second, alone["act_seconds"] * per_second
    return {
        "frames_per_second": frames,
        "environment_steps_per_second": per_second,
        "actor_share": {"acting": acting, "environments": stepping, "waiting": 1 - acting - stepping},
        "device_share": "not available: this CPU plays the games, too"
        if jax.default_backend() == "cpu"
        else {"learning": learning, "acting": choosing, "idle": 1 - learning - choosing},
        "alone_per_environment_step": alone,
        **memory,
    }


@contextlib.contextmanager
def stopped_after(folder: Path, seconds: float):
    """Asks this process's run in `folder` to stop once it has learned for `seconds`."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            rows = [row for row in _rows(folder) if dqn.LEARNS in row]
            if len(rows) > 2 and rows[-1]["seconds"] - rows[0]["seconds"] >= seconds:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def parts_alone(settings: command_line.Config, *, seconds: float) -> dict[str, float]:
    """Seconds an environment step of the learner's step and of acting, each by itself."""
    run = build.run(settings)
    try:
        run.source.attach(run.learner)
        recipe = build.objects(settings["source"]["environments"], "source.environments")
        parts = {
            "learner_step_seconds": dqn_parts.remembering(run)["step"],
            "act_seconds": dqn_parts.acting(run, recipe.make(settings["source"]["envs"]))["act"],
        }
        for part in parts.values():
            part()
        found = {name: timing.median_seconds(part, seconds) for name, part in parts.items()}
        return found | {"frames_per_step": run.source.examples_per_step / run.source.spec.action.size}
    finally:
        run.source.close()


def _rows(folder: Path) -> list[Mapping[str, Any]]:
    path = folder / "metrics.jsonl"
    return [row for row, _ in record.read(path)] if path.exists() else []


if __name__ == "__main__":
    main()
