"""Kills a real training at random steps, goes on with it, and compares it with one that never stopped, bit for bit.

    python -m tests.experiments.going_on 20 experiment=dqn/pong +debug=tiny source.sticky=0.25

By turns by SIGKILL and by SIGTERM. Prints a line for each run; ends with status 1 where one differs.
"""

import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

from core.checkpoints import tree_files
from tests import runs


def main(times: int, *arguments: str) -> int:
    """How many of `times` runs differ from the one that never stopped."""
    with tempfile.TemporaryDirectory() as place:
        whole, differing = pathlib.Path(place) / "whole", 0
        _train(whole, *arguments)
        expected = saved(whole)
        for number in range(times):
            folder = pathlib.Path(place) / f"run{number}"
            step, asked = random.randrange(1, expected["step"]), signal.SIGTERM if number % 2 else signal.SIGKILL
            _interrupted(folder, step, asked, *arguments)
            wrong = differences(expected, saved(folder))
            differing += bool(wrong)
            verdict = f"DIFFERS in {', '.join(wrong)}" if wrong else "the same to the last bit"
            print(f"{number + 1}/{times}: {asked.name} after step {step} of {expected['step']}: {verdict}", flush=True)
    return differing


def saved(folder: pathlib.Path) -> dict[str, Any]:
    """All that a finished run has learned, remembers and has told, but how long it took."""
    newest = max((folder / "checkpoints").glob("0*"))
    source = tree_files.load(newest / "source" / "0.npz")
    record = source["source"].pop("record")
    return {
        "step": int(newest.name),
        "weights": runs.saved_state(folder),
        "memory": {
            path.relative_to(newest).as_posix(): path.read_bytes()
            for path in sorted((newest / "replay").rglob("*"))
            if path.is_file()
        },
        "games": source | {"record": (record["episodes"], record["numbers"][:2])},  # without its seconds
        "metrics": [
            {name: value for name, value in json.loads(line).items() if name != "seconds" and name[:5] != "time/"}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ],
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The parts that are not the same to the last bit."""
    wrong = []
    for part in one:
        left, right = jax.tree.flatten(one[part]), jax.tree.flatten(other[part])
        if left[1] != right[1] or not all(map(np.array_equal, left[0], right[0])):
            wrong.append(part)
    return wrong


def _interrupted(folder: pathlib.Path, step: int, asked: signal.Signals, *arguments: str) -> None:
    """Ends a training once it has told of `step`, and lets it finish."""
    with subprocess.Popen(_command(folder, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while _step(folder) < step and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(asked)
        output = process.communicate()[0].decode()
    if process.returncode not in (-asked, 75, 0):  # 0: it was done first
        raise RuntimeError(output)
    _train(folder, *arguments)


def _step(folder: pathlib.Path) -> int:
    lines = (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").exists() else []
    return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("}") else 0


def _train(folder: pathlib.Path, *arguments: str) -> None:
    subprocess.run(_command(folder, *arguments), check=True, stdout=subprocess.DEVNULL)


def _command(folder: pathlib.Path, *arguments: str) -> list[str]:
    what = [f"resume={folder}"] if (folder / "config.yaml").exists() else [*arguments, f"hydra.run.dir={folder}"]
    return [sys.executable, "-m", "experiments.train", *what]


if __name__ == "__main__":
    sys.exit(1 if main(int(sys.argv[1]), "tracker=none", *sys.argv[2:]) else 0)
