"""Real processes, ended from outside: by signals that ask, and by one that does not."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from core.checkpoints import checkpoint
from experiments.config import command_line

SIZE, WARMUP, UPDATES = 8, 2, 4  # frames a step; steps that only take data in; updates in each of the others
EVERY = 40  # steps between checkpoints
ENDLESS = 10**9


class Trainer:
    """A training process of its own; a context, so that none is left behind."""

    def __init__(self, folder: Path, cache: Path, *arguments: str):
        self.folder = folder
        resume = (folder / "config.yaml").exists()
        what = [f"resume={folder}"] if resume else ["experiment=dqn/cartpole", "+debug=tiny", f"hydra.run.dir={folder}"]
        if not resume:
            what += ["evaluators=none", f"checkpoint.every={EVERY * SIZE}", f"log_every={5 * SIZE}", "tracker=none"]
        root = command_line.CONF.parent
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "experiments.train", *what, *arguments],
            cwd=root,
            env=os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_for(self, checkpoints_after: int) -> None:
        """Until a checkpoint later than this step is there."""
        limit = time.monotonic() + 120
        while newest(self.folder) <= checkpoints_after:
            assert self._process.poll() is None, self._process.communicate()[0]
            assert time.monotonic() < limit, "no checkpoint within two minutes"
            time.sleep(0.02)

    def end(self, number: signal.Signals | None = None) -> tuple[int, str]:
        """Sends a signal, if one is given; (exit status, output)."""
        if number is not None:
            self._process.send_signal(number)
        output, _ = self._process.communicate(timeout=120)
        return self._process.returncode, output


def newest(folder: Path) -> int:
    """The step of the newest checkpoint, 0 without one. What is being written or removed has other names."""
    return max((int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def check(folder: Path) -> None:
    """The newest checkpoint is whole, and its counters are those of a run that never stopped."""
    number = jax.ShapeDtypeStruct((), np.int32)
    loaded = checkpoint.load(folder / "checkpoints", {"step": number, "updates": number, "diverged": number})
    step, updates = int(loaded.tree["step"]), int(loaded.tree["updates"])
    assert step == loaded.step == newest(folder)
    assert (updates, int(loaded.tree["diverged"])) == (UPDATES * (step - WARMUP), -1)


def check_rows(folder: Path, last: int, *, finished: bool = True) -> None:
    """A row every 5 steps and where the budget ends; none for what a stop cut short, which the next attempt's holds."""
    steps = [row["step"] for row in rows(folder)]
    assert steps == sorted({*range(5, last + 1, 5), *([last] if finished else [])})
    assert all(row["frames"] == row["step"] * SIZE for row in rows(folder))
    seconds = [row["seconds"] for row in rows(folder)]
    assert seconds == sorted(seconds)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_that_is_asked_to_stop_saves_leaves_with_a_status_and_goes_on(tmp_path: Path, programs: Path):
    folder = tmp_path / "run"
    step = 0
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)):
        with Trainer(folder, programs, f"budget={ENDLESS}") as trainer:
            trainer.wait_for(checkpoints_after=step)
            time.sleep(0.1)  # somewhere between two checkpoints
            returned, output = trainer.end(number)
        assert returned == status, output
        assert "Traceback" not in output
        stopped = re.findall(r"^stopped at ([\d,]+) frames", output, re.MULTILINE)
        step = int(stopped[0].replace(",", "")) // SIZE
        assert newest(folder) == step
        check(folder)
        check_rows(folder, last=step, finished=False)
    with Trainer(folder, programs, f"budget={(step + 7) * SIZE}") as trainer:
        returned, output = trainer.end()
    assert returned == 0, output
    assert f"finished at {(step + 7) * SIZE:,} frames" in output
    assert newest(folder) == step + 7
    check(folder)
    check_rows(folder, last=step + 7)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_killed_run_loses_nothing_but_the_steps_since_its_last_checkpoint(tmp_path: Path, programs: Path):
    folder, instants = tmp_path / "run", random.Random(0)
    step = 0
    for _ in range(3):
        with Trainer(folder, programs, f"budget={ENDLESS}") as trainer:
            trainer.wait_for(checkpoints_after=step)
            time.sleep(instants.uniform(0.0, 0.5))
            seen = newest(folder)
            assert trainer.end(signal.SIGKILL)[0] == -signal.SIGKILL
        step = newest(folder)
        assert step >= seen and step % EVERY == 0
        check(folder)
    with Trainer(folder, programs, f"budget={(step + 7) * SIZE}") as trainer:
        returned, output = trainer.end()
    assert returned == 0, output
    check(folder)
    check_rows(folder, last=step + 7)
