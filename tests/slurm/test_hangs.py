"""Processes on a real Slurm that fail or do not come: the job ends in time, and its logs name the process."""

import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from core import watchdog
from tests.slurm.conftest import Cluster, Run

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

LIMITS = ("environment.JAXCADE_STALL_SECONDS=4", "environment.JAXCADE_HEARTBEAT_SECONDS=10")
TWO = ("nodes=2", "source.shards=2", "learner.replay.shards=2")
# An interpreter whose main thread hangs for ever when it is told to, while its other threads live.
PYTHON = """\
#!{python}
import os, runpy, signal, sys, time
signal.signal(signal.SIGUSR2, lambda *_: time.sleep(10**6))
{first}
del sys.argv[1:3]  # -m experiments.train
runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
"""


def interpreter(folder: Path, *, first: str = "") -> str:
    """The setting that makes the job use it."""
    path = folder / "python-that-hangs"
    path.write_text(PYTHON.format(python=sys.executable, first=first))
    path.chmod(0o755)
    return f"python={path}"


def process(run: Run, rank: int) -> psutil.Process:
    [found] = [process for process in run.processes("python") if process.environ()["SLURM_PROCID"] == str(rank)]
    return found


def test_a_process_that_hangs_and_one_that_is_frozen_end_the_job_and_are_named(cluster: Cluster, tmp_path: Path):
    hangs = (interpreter(tmp_path), "environment.JAXCADE_TUNE=0")  # which would start the process anew
    run = cluster.train(tmp_path / "run", *TWO, *LIMITS, *hangs)
    run.wait_until_it_saves()
    process(run, 1).send_signal(signal.SIGUSR2)
    began = time.monotonic()
    run.wait_for_state("FAILED")
    assert time.monotonic() - began < 60
    assert (run.attempts[-1]["event"], run.attempts[-1]["status"]) == ("failed", watchdog.EXIT_STATUS)
    told = "jaxcade: process 1 hangs: process 0 has waited for it for 4 s"
    for rank in range(2):
        assert told in (run.folder / f"slurm/{run.job}-rank{rank}.log").read_text()
    assert "in <lambda>" in (run.folder / f"slurm/{run.job}-rank1.log").read_text()  # where it stands
    shown = cluster.launch(f"status={run.folder}")
    assert shown.returncode == 1 and told in shown.stdout
    saved = run.saved
    assert cluster.launch(f"retry={run.folder}", "environment.JAXCADE_STALL_SECONDS=600").returncode == 0
    run.wait_until_it_saves(after=saved)
    process(run, 0).send_signal(signal.SIGSTOP)
    began = time.monotonic()
    run.wait_for_state("FAILED")
    assert time.monotonic() - began < 60
    assert run.attempts[-1]["event"] == "failed"
    told = "jaxcade: process 0, which keeps them all together, has not answered"
    assert told in cluster.launch(f"status={run.folder}").stdout
    run.check_rows()


@pytest.mark.parametrize("rank", [0, 1])
def test_an_exception_in_one_process_ends_the_job_within_seconds_with_its_status(
    cluster: Cluster, tmp_path: Path, rank: int
):
    """The training itself, in which an exception is raised between two steps."""
    first = """
def fail(*_):
    raise KeyError("y")
signal.signal(signal.SIGUSR2, fail)"""
    run = cluster.train(tmp_path / "run", *TWO, interpreter(tmp_path, first=first), "environment.JAXCADE_TUNE=0")
    run.wait_until_it_saves()
    process(run, rank).send_signal(signal.SIGUSR2)
    began = time.monotonic()
    run.wait_for_state("FAILED")
    assert time.monotonic() - began < 45  # JAX would wait for ten minutes
    assert (run.attempts[-1]["event"], run.attempts[-1]["status"]) == ("failed", 1)
    other = (run.folder / f"slurm/{run.job}-rank{1 - rank}.log").read_text()
    assert f"jaxcade: process {rank} failed: KeyError: 'y'" in other or "Gloo" in other
    shown = cluster.launch(f"status={run.folder}")
    assert shown.returncode == 1 and "KeyError: 'y'" in shown.stdout and f"-rank{rank}.log" in shown.stdout
    run.check_rows()


def test_a_process_that_cannot_reach_the_first_one_fails_the_job_and_says_where_it_looked(
    cluster: Cluster, tmp_path: Path
):
    first = """
if os.environ["SLURM_PROCID"] == "1":
    os.environ |= {"JAX_COORDINATOR_ADDRESS": "127.0.0.2:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    os.environ |= {"JAXCADE_JOIN_SECONDS": "5"}  # before the first one says that somebody is missing"""
    lost = (interpreter(tmp_path, first=first), "environment.JAXCADE_TUNE=0")
    run = cluster.train(tmp_path / "run", *TWO, *lost)
    run.wait_for_state("FAILED")
    assert (run.attempts[-1]["event"], run.attempts[-1]["status"]) == ("failed", watchdog.EXIT_STATUS)
    shown = cluster.launch(f"status={run.folder}").stdout
    told = "process 1 has not met the others within 5 s (JAXCADE_JOIN_SECONDS): process 0 cannot be reached at"
    assert f"{told} 127.0.0.2:1 (" in shown and "task 1: Exited with exit code 69" in shown
