"""A run on the real emulator that was ended and goes on is the run that never stopped, to the last bit."""

import pathlib
import random
import signal
from typing import Any

import pytest

from agents import acting, atari
from core import loop, optim, stopping
from core.checkpoints import checkpoint, files
from tests import runs
from tests.experiments import going_on

STEPS, SIZE = runs.WARMUP + 9, 2 * 4 * 4  # frames a learner step
EXPERIMENTS = ["atari", "breakout", "nature", "pong", "road_runner"]


class At(stopping.Stop):
    """Asks to stop before step `step` of this attempt."""

    def __init__(self, step: int):
        super().__init__()
        self._left = step

    def asked(self) -> bool:
        self._left -= 1
        if self._left < 0:
            self.signal = signal.SIGTERM
        return super().asked()


def play(folder: pathlib.Path, recipe: atari.Atari, **settings: Any) -> loop.Outcome:
    exploration = optim.linear(start=1.0, end=0.0, frames=400)
    source = acting.Actor(environments=recipe, envs=2, steps=4, shards=2, exploration=exploration, seed=3)
    learner = runs.dqn_learner(source.sizes, learning_starts=8 * runs.WARMUP)
    source.attach(learner)
    settings |= {"log_every": 3 * SIZE, "checkpoint_every": 5 * SIZE}
    try:
        return runs.run(folder, learner=learner, source=source, budget=STEPS * SIZE, **settings)
    finally:
        source.close()


def saved_source(folder: pathlib.Path) -> Any:
    path = checkpoint.complete(folder)[-1]
    return files.read_source(path, files.read_manifest(path))


def untimed(rows: runs.Rows) -> list[tuple[int, dict[str, float]]]:
    return [(step, {name: x for name, x in row.items() if not name.startswith("time/")}) for step, _, row in rows.rows]


@pytest.mark.parametrize("game, sticky, lag", [("pong", 0.0, 1), ("breakout", 0.25, 0)])
def test_a_run_that_was_stopped_goes_on_bitwise(tmp_path: pathlib.Path, game: str, sticky: float, lag: int):
    """Twice, at random steps; games are cut after 15 steps, and seeded anew in every 20."""
    recipe = atari.Atari(
        game=game, sticky=sticky, max_frames=60, period=20, threads=1, full_actions=True
    )  # one network
    rows, broken, parts = runs.Rows(), runs.Rows(), tmp_path / "parts"
    whole = play(tmp_path / "whole", recipe, lag=lag, tracker=rows)
    assert int(whole.state.updates) == 9

    stops = sorted(random.sample(range(1, STEPS), 2))
    print(f"stopped at {stops}")
    for begin, end in zip([0, *stops], stops, strict=False):
        outcome = play(parts, recipe, lag=lag, tracker=broken, stop=At(end - begin))
        assert (outcome.step, outcome.finished) == (end, False)
    outcome = play(parts, recipe, lag=lag, tracker=broken)
    runs.assert_same(outcome.state, whole.state)
    assert untimed(broken) == untimed(rows) and len(rows.rows) == STEPS / 3
    one, other = saved_source(tmp_path / "whole"), saved_source(parts)
    assert (one["source"]["games"]["begun"] > 0).any(), "games were seeded anew"
    for tree in (one, other):
        tree["source"]["record"]["numbers"][2:] = 0  # seconds
    assert going_on.differences(one, other) == []


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_run_that_was_killed_goes_on_bitwise(experiment: str):
    """The command, killed by SIGKILL and by SIGTERM."""
    sticky = 0.25 * (EXPERIMENTS.index(experiment) % 2)
    tiny = ("+debug=tiny", "tracker=none", "log_every=32", "checkpoint.every=96", "source.environments.period=20")
    assert not going_on.main(2, f"experiment=dqn/{experiment}", *tiny, f"source.sticky={sticky}")
