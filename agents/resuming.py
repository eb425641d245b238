"""Games that go on where a checkpoint left them: a game is a seed and the actions since, which are played again.

No emulator's vector can be copied, but a game that was seeded and all that follow it (automatic resets, no-ops, sticky
actions) are a function of that seed and of the actions. So the actions are written down, and going on plays them.
Seeding anew keeps them short; as it takes longer than an ordinary reset, most games just follow the one before.
"""

import io
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from agents import environments
from core import distributed, progress, watchdog

ROUND = 0.5  # seconds of play between two meetings of the processes


class Resumable:
    """Plays `games`, and can say how they came to where they stand.

    A game is seeded anew, by (seed of the reset, environment, step), where it is its environment's first to begin in a
    new period of `games.period` steps. So all environments are seeded at about the same time, and what is played again
    is at most a period and the game that lasts into the next one: a byte for each environment and step.
    """

    def __init__(self, games: environments.Environments):
        self._games = games
        self._kind = np.min_scalar_type(games.actions - 1)  # bytes for up to 256 actions
        self._seed = self._time = 0  # of the reset; steps since
        self._begun = np.zeros(games.count, np.int64)  # [N] when each environment was last seeded
        self._actions = bytearray()  # [time - min(begun), N]
        self._over = np.zeros(games.count, bool)

    def reset(self, seed: int) -> np.ndarray:
        """As `Environments.reset`."""
        self._seed, self._time, self._actions = seed, 0, bytearray()
        self._begun, self._over = np.zeros(self._games.count, np.int64), np.zeros(self._games.count, bool)
        return self._games.reset(seed)

    def step(self, action: np.ndarray) -> environments.Step:
        """As `Environments.step`."""
        step = self._games.step(action)
        self._actions += np.asarray(action).astype(self._kind).tobytes()
        self._time += 1
        opened, self._over = self._over, step.over
        if opened.any():
            due = opened & (self._time // self._games.period > self._begun // self._games.period)
            if due.any():
                before = self._begun.min()
                self._begun = np.where(due, self._time, self._begun)
                step = step._replace(observation=self._games.reseed(due, self._seeds()))
                del self._actions[: (self._begun.min() - before) * self._games.count * self._kind.itemsize]
        return step

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` plays again."""
        return {
            "seed": self._seed,
            "time": self._time,
            "begun": self._begun,
            "over": self._over,
            "actions": np.frombuffer(bytes(self._actions), self._kind).reshape(-1, self._games.count),  # [T, N]
            "environment": self._games.protocol()["environment"],
        }

    def load_state_dict(self, tree: Mapping[str, Any], observation: np.ndarray) -> bool:
        """Plays the games up to where they stood, which takes the emulator's time for it; says so, and how far it is.

        False where they do not show `observation` [N, K, *frame] then, for which a line gives the reason: reset them.
        All processes call it.
        """
        problem = None
        if tree["actions"].shape[1] != self._games.count:
            problem = f"{tree['actions'].shape[1]} games were saved, and there are {self._games.count} now"
        elif not np.array_equal(self._play(tree), observation):
            problem = "the games, played again, do not come to the saved screens"
            then, now = tree["environment"], self._games.protocol()["environment"]
            problem += f": they were of {then}, and this is {now}; the former would go on with them" * (then != now)
        told = [text for text in distributed.gather(problem) if text]
        if told:
            distributed.say(told[0])
        return problem is None

    def _play(self, tree: Mapping[str, Any]) -> np.ndarray:
        """[N, K, *frame] after the actions of `tree`. What precedes an environment's seeding plays some other game."""
        actions = tree["actions"]
        self._seed, self._time, self._begun = int(tree["seed"]), int(tree["time"]), np.array(tree["begun"])
        self._actions, self._kind, self._over = bytearray(actions.tobytes()), actions.dtype, np.array(tree["over"])
        seeds, seeded_after = self._seeds(), self._begun - (self._time - len(actions))  # [N] rows
        fresh, bar, row = self._begun > 0, None, 0
        began = time.monotonic()
        observation = self._games.reset(self._seed)
        if (due := fresh & (seeded_after == 0)).any():
            observation = self._games.reseed(due, seeds)
        seeding = time.monotonic() - began
        try:
            while True:
                watchdog.passed()
                began = time.monotonic()
                while row < len(actions) and time.monotonic() < began + ROUND:
                    observation = self._games.step(actions[row]).observation
                    row += 1
                    if (due := fresh & (seeded_after == row)).any():
                        observation = self._games.reseed(due, seeds)
                if bar is None:
                    each = (time.monotonic() - began) / max(row, 1)
                    left = seeding * float(np.mean(seeded_after > row)) + each * (len(actions) - row)
                    bar = _shown(actions.size * self._games.frames_per_step, row / max(len(actions), 1), left)
                else:
                    bar.update(row * self._games.count * self._games.frames_per_step, {})
                if not any(distributed.gather(row < len(actions))):
                    return observation
        finally:
            if bar is not None:
                bar.close()

    def _seeds(self) -> np.ndarray:
        """[N] int64 below 2^30, of the games that began at `_begun`."""
        sequences = [np.random.SeedSequence((self._seed, env, int(at))) for env, at in enumerate(self._begun)]
        return np.array([int(sequence.generate_state(1)[0]) % 2**30 for sequence in sequences], np.int64)


def _shown(frames: int, share: float, seconds: float) -> progress.Progress:
    """Says how many frames are played and how many seconds that takes yet, and shows how far it is."""
    stream = None if distributed.primary() else io.StringIO()
    bar = progress.Progress(frames, "frames", start=round(share * frames), stream=stream)
    about = f"about {math.ceil(seconds):,} s" if share < 1 else "done"
    bar.message(f"the games in flight are played again up to the checkpoint: {frames:,} frames, {about}")
    return bar
