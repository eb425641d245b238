"""A Slurm for each process of the tests (`slurm/cluster.py`), and launches on it."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from experiments.config import command_line

ROOT = command_line.CONF.parent
SCRIPT = ROOT / "slurm" / "cluster.py"
PATIENCE = 300.0  # seconds for anything to happen, on a machine that has more to do
SIZE = 8  # frames a step of the runs here
EVERY = 100  # steps between checkpoints
ENDLESS = 10**9


class Cluster:
    """What the tests do with a Slurm; `environment` is that of its users."""

    def __init__(self, configuration: Path, programs: Path):
        self.configuration = configuration
        self.environment = os.environ | {
            "SLURM_CONF": str(configuration),
            "XDG_CACHE_HOME": str(programs),  # of compiled programs
            "PYTHONPATH": str(ROOT),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }

    def ask(self, *command: str) -> str:
        """What a command of Slurm's prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def launch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m experiments.launch ...`, which returns at once."""
        command = [sys.executable, "-W", "error", "-m", "experiments.launch", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)

    def train(self, folder: Path, *arguments: str, budget: int = ENDLESS) -> "Run":
        """Launches CartPole, shrunk, and without judges and W&B unless they are asked for."""
        quick = [
            "experiment=dqn/cartpole",
            "+debug=tiny",
            f"budget={budget}",
            f"log_every={SIZE * 10}",
        ]
        quick += [f"checkpoint.every={SIZE * EVERY}", "cluster=mini"]
        for group in ("tracker", "evaluators"):
            quick += [] if any(argument.startswith(group) for argument in arguments) else [f"{group}=none"]
        quick += [] if "-m" in arguments else [f"hydra.run.dir={folder}"]
        launched = self.launch(*quick, *arguments)
        assert launched.returncode == 0, launched.stderr
        return Run(self, folder)

    def state(self, job: str) -> str:
        """As Slurm calls it."""
        return self.ask("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")


class Run:
    """One run and the files that it leaves behind."""

    def __init__(self, cluster: Cluster, folder: Path):
        self.cluster, self.folder = cluster, folder

    @property
    def attempts(self) -> list[dict[str, Any]]:
        path = self.folder / "slurm" / "attempts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.attempts if line["event"] != "submitted"]

    def first(self, event: str) -> dict[str, Any]:
        """Its line of this kind."""
        return next(line for line in self.attempts if line["event"] == event)

    @property
    def job(self) -> str:
        return [line["job"] for line in self.attempts if line["event"] == "submitted"][-1]

    @property
    def saved(self) -> int:
        """The step of the newest checkpoint, 0 without one."""
        return max((int(path.name) for path in (self.folder / "checkpoints").glob("[0-9]*")), default=0)

    @property
    def steps(self) -> list[int]:
        """Of the rows."""
        return [json.loads(line)["step"] for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def newest(self) -> int:
        """The step of the last row, 0 without one."""
        return self.steps[-1] if (self.folder / "metrics.jsonl").exists() and self.steps else 0

    @property
    def mirrored(self) -> list[int]:
        """Of the rows that W&B has, attempt by attempt."""
        found = []
        for log in sorted(self.folder.glob("wandb/offline-run-*/*.wandb")):
            command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
            shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            rows = [json.loads(line)["history"] for line in shown.splitlines() if '"type":"history"' in line]
            found += [int(row["item"]["_step"]) for row in rows]
        return found

    @property
    def said(self) -> str:
        """All that its jobs and processes have written."""
        return "\n".join(path.read_text() for path in sorted((self.folder / "slurm").glob("*.log")))

    def wait(self, done: Callable[[], Any]) -> None:
        limit = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > limit:
                queue = self.cluster.ask("squeue", "--states=all")
                pytest.fail(f"not within {PATIENCE:g} s: {self.events}\n{queue}\n{self.said}")
            time.sleep(0.1)

    def wait_until_it_saves(self, after: int = 0) -> None:
        """A checkpoint later than this step."""
        self.wait(lambda: self.saved > after)

    def wait_for_state(self, state: str) -> None:
        self.wait(lambda: self.cluster.state(self.job) == state)

    def check_stop(self, after: int) -> None:
        """It saved where it stopped, later than `after`; a row is due every ten steps, and a stop writes none."""
        assert self.saved > after
        assert self.steps[-1] == self.saved // 10 * 10

    def check_rows(self) -> None:
        """None is missing, none is there twice."""
        steps = self.steps
        assert steps == sorted(set(steps))
        assert set(range(10, steps[-1], 10)) <= set(steps)

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of its job that are called so. Another test's Slurm may have a job of the same number."""
        own = {"SLURM_JOB_ID": self.job, "SLURM_CONF": str(self.cluster.configuration)}
        found = []
        for number in psutil.pids():  # not `process_iter`, which keeps the name of whoever had the number before
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(number)
                if process.name().startswith(name) and own.items() <= process.environ().items():
                    found.append(process)
        return found


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    checked = subprocess.run([sys.executable, SCRIPT, "check"], capture_output=True, text=True, check=False)
    if checked.returncode:
        pytest.skip(f"no Slurm: {checked.stderr.strip()}")
    # Not pytest's own folder: a socket's path has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="slurm-") as parent:
        folder = ["--folder", f"{parent}/cluster"]
        command = [sys.executable, SCRIPT, "start", *folder]
        started = subprocess.run(command, capture_output=True, text=True, check=False)
        assert started.returncode == 0, started.stderr
        try:
            path = started.stdout.strip().removeprefix("export SLURM_CONF=")
            yield Cluster(Path(path), tmp_path_factory.mktemp("programs"))
        finally:
            subprocess.run([sys.executable, SCRIPT, "stop", *folder], check=False)


@pytest.fixture(autouse=True)
def _no_job_is_left(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.ask("scancel", "--me")
