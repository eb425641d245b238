"""SIGKILL at twenty random instants: nothing is lost but the steps since the last checkpoint.

Importing JAX takes a second, so one process imports it (and starts no device), and forks a fresh child for each kill.
"""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.checkpoints import checkpoint

KILLS = 20


def make(step: int) -> dict[str, Any]:
    """A state whose every part tells its step."""
    state = {
        "params": {"w": np.full((16, 16), step, np.float32)},
        "diverged": np.int32(-1),
        "replay": {"frames": np.full((2, 64, 64), step % 251, np.uint8), "head": np.int32(step)},
    }
    return jax.tree.map(jnp.asarray, state)


def restore(checkpoints: checkpoint.Checkpoints) -> int:
    """The step that a run would go on from, after a look at every part of it."""
    restored = checkpoints.restore(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), make(0))
    )
    if restored is None:
        return 0
    for part, whole in zip(jax.tree.leaves(restored.state), jax.tree.leaves(make(restored.step)), strict=True):
        np.testing.assert_array_equal(part, whole)
    assert restored.source == {"step": restored.step}
    assert restored.extra == {"step": restored.step}
    return restored.step


@pytest.mark.long
def test_a_kill_at_any_instant_loses_only_what_came_after_the_last_checkpoint(tmp_path):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, str(tmp_path)]
    instants = random.Random(0)
    committed = {"latest": 0, "best": 0}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            for kill in range(KILLS):
                print("fork", file=server.stdin, flush=True)
                child = int(server.stdout.readline())
                if kill % 4:  # every fourth dies while it starts and restores
                    _note(server.stdout.readline(), committed)
                time.sleep(instants.uniform(0.0, 0.3))
                os.kill(child, signal.SIGKILL)
                while (line := server.stdout.readline()) != "dead\n":
                    _note(line, committed)
                _check(tmp_path, committed)
        finally:
            server.kill()
    assert committed["latest"] >= KILLS * 3 // 4  # each child that was let to save went on from the one before


def _note(line: str, committed: dict[str, int]) -> None:
    kind, step = line.split()  # an empty line: the child failed by itself
    committed[kind] = int(step)


def _check(folder: pathlib.Path, committed: dict[str, int]) -> None:
    """Anything damaged would be a warning, and warnings are errors here."""
    assert restore(checkpoint.Checkpoints(folder)) >= committed["latest"]
    if committed["best"]:
        shape = {"params": jax.eval_shape(lambda: make(0)["params"])}
        best = checkpoint.load(folder, shape, which="best")
        assert best.extra["value"] == best.step >= committed["best"]
        np.testing.assert_array_equal(best.tree["params"]["w"], make(best.step)["params"]["w"])


def _serve(folder: str) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=r".*fork\(\)")  # no thread of JAX runs here yet
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            _save_for_ever(folder)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("dead", flush=True)


def _save_for_ever(folder: str) -> None:
    checkpoints = checkpoint.Checkpoints(folder, log=lambda line: None)
    step = restore(checkpoints)
    while True:
        step += 1
        checkpoints.save(step, make(step), {"step": step}, extra={"step": step})
        os.write(1, f"latest {step}\n".encode())
        checkpoints.best(float(step), step, make(step))
        os.write(1, f"best {step}\n".encode())


if __name__ == "__main__":
    _serve(sys.argv[1])
