"""A run made twice, and one that was left and gone on with, to the bit: a process of the suite `gpu`.

    python -m experiments.benchmarks.gpu.bitwise dit|dqn [--small]

With XLA's deterministic flags three processes train: a whole run, the same again, and one that goes on from the first
one's checkpoint in its middle. Each compiles anew, since compiling may differ, too.
"""

import argparse
import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from core import record, stopping
from core.checkpoints import checkpoint
from experiments import training
from experiments.benchmarks.gpu import children
from experiments.config import command_line

# Budgets of 2 n steps, with a checkpoint every n.
RUNS = {
    "dit": (
        *("experiment=diffusion/fashion_mnist", "source=npz", "source.batch=128", "source.dispatch=1"),
        "optimizer.schedule.warmup=0",
    ),
    "dqn": (
        *("experiment=dqn/nature", "source.game=pong", "optimizer=adam", "learner.learning_starts=1_024"),
        "learner.replay.capacity=8_192",
    ),
}
LENGTHS = {
    "dit": ("budget=12_800", "checkpoint.every=6_400", "log_every=3_200"),
    "dqn": ("budget=16_384", "checkpoint.every=8_192", "log_every=4_096"),
}
SMALL = {
    "dit": (
        *("source.batch=16", "network.make.width=32", "network.make.depth=1"),
        *("budget=128", "checkpoint.every=64", "log_every=32"),
    ),
    "dqn": (
        *("network.make.torso.width=4", "network.make.head.hidden=16", "learner.replay.capacity=1_024"),
        *("learner.learning_starts=64", "budget=2_048", "checkpoint.every=1_024", "log_every=512"),
    ),
}
_QUIET = ("evaluators=none", "tracker=none", "checkpoint.metric=null")


def main() -> None:
    parser = children.arguments("runs that are the same to the bit", *RUNS)
    parser.add_argument("--one", type=Path, help="trains in this folder and tells a digest", default=None)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    if given.one is not None:
        with contextlib.redirect_stdout(sys.stderr):
            told = trained(given.one, settings(given, given.one.parent), resume=given.resume)
        print(json.dumps(told), flush=True)
        return
    children.plan([f"{given.kind} run again", f"{given.kind} gone on with"])
    with tempfile.TemporaryDirectory(prefix="jaxcade-gpu-") as folder:
        compared(given, Path(folder))


def compared(given: argparse.Namespace, folder: Path) -> None:
    if given.kind == "dit":
        random = np.random.default_rng(0)
        image, label = random.integers(256, size=(1024, 28, 28, 1), dtype=np.uint8), random.integers(10, size=1024)
        np.savez(folder / "images.npz", image=image, label=label.astype(np.int32))
    whole = _one(given, folder / "whole")
    shutil.copytree(folder / "whole", folder / "left")
    again = _one(given, folder / "again")
    children.tell(f"{given.kind} run again", **verdict(whole, again))
    *earlier, last = checkpoint.complete(folder / "left" / "checkpoints")
    if not earlier:
        raise RuntimeError("the run kept no checkpoint in its middle")
    shutil.rmtree(last)
    children.tell(f"{given.kind} gone on with", **verdict(whole, _one(given, folder / "left", resume=True)))


def verdict(right: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Whether two runs ended alike, and in what they differ if not."""
    differing = [name for name in right["state"] if right["state"][name] != found["state"][name]]
    return {
        "bitwise": not differing and right["metrics"] == found["metrics"],
        "differing": differing,
        "metrics_equal": right["metrics"] == found["metrics"],
        "steps": found["steps"],
    }


def settings(given: argparse.Namespace, data: Path) -> command_line.Config:
    overrides = (*RUNS[given.kind], *_QUIET, *LENGTHS[given.kind], *(SMALL[given.kind] if given.small else ()))
    if given.kind == "dit":
        overrides = (*overrides, f"source.path='{data / 'images.npz'}'")
    return command_line.compose(*overrides)


def trained(folder: Path, composed: command_line.Config, *, resume: bool) -> dict[str, Any]:
    """A run to its end; digests of each part of its state, and of its metrics but for times."""
    with stopping.Stop() as stop:
        outcome = training.train({**composed, "resume": str(folder) if resume else None}, folder, stop=stop)
    rows = [
        {name: value for name, value in row.items() if name != "seconds" and not name.startswith("time/")}
        for row, _ in record.read(folder / "metrics.jsonl")
    ]
    return {
        "steps": outcome.step,
        "state": {name: digest(part) for name, part in vars(outcome.state).items()},
        "metrics": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
    }


def digest(tree: Any) -> str:
    """Of all bytes of a tree of arrays."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        plain = jax.random.key_data(leaf) if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        found.update(np.ascontiguousarray(plain).tobytes())
    return found.hexdigest()


def _one(given: argparse.Namespace, folder: Path, *, resume: bool = False) -> dict[str, Any]:
    """One training, in a process of its own that compiles anew."""
    command = children.module("gpu.bitwise", given.kind, "--one", str(folder))
    command += ["--small"] * given.small + ["--resume"] * resume
    variables = children.environment(deterministic=True)
    variables["XDG_CACHE_HOME"] = str(folder.with_name(f"programs-{folder.name}"))
    done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"a training ended with status {done.returncode}: {done.stderr.strip()[-1500:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
