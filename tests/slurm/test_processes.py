"""Jobs of several processes on a real Slurm, with a stand-in for the training: whose end counts, and for what."""

import sys
import time
from pathlib import Path

import pytest

from slurm import jobs, status
from tests.slurm.conftest import SIZE, Cluster, Run

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

# Trains until it is told to stop, and when the job starts again to the end.
TRAINING = """\
#!{python} -S
import os, pathlib, signal, sys, time
told = []
for number in signal.SIGUSR1, signal.SIGTERM:
    signal.signal(number, lambda *_: told.append(1))
rank, again = int(os.environ["SLURM_PROCID"]), os.environ.get("SLURM_RESTART_COUNT") == "1"
print("rank", rank, "of", os.environ["SLURM_NTASKS"], "on", os.environ["SLURMD_NODENAME"], flush=True)
print("GPUs", os.environ["CUDA_VISIBLE_DEVICES"], "in", os.environ["SLURM_STEP_NODELIST"], flush=True)
pathlib.Path("up%s" % rank).touch()
while not told and not again:
    time.sleep(0.05)
{end}
"""


def submit(cluster: Cluster, folder: Path, *, end: str) -> Run:
    """A job of four processes whose training ends with these lines."""
    folder.mkdir()
    program = folder / "training"
    program.write_text(TRAINING.format(python=sys.executable, end=end))
    program.chmod(0o755)
    launch = jobs.Launch(
        folder=folder,
        name="four",
        command="a test",
        cwd=str(folder),
        sweep=False,
        settings=jobs.Settings(nodes=2, tasks_per_node="gpus", gpus_per_node=2, python=str(program)),
        members=(jobs.Member(folder=".", arguments=("seed=1",)),),
    )
    script = jobs.prepare(launch, jobs.script(launch))
    jobs.note_submission(launch, [0], cluster.ask("sbatch", "--parsable", str(script)))
    run = Run(cluster, folder)
    run.wait(lambda: len(list(folder.glob("up*"))) == 4)
    return run


def test_all_stop_together_though_some_are_quicker_and_go_on_together(cluster: Cluster, tmp_path: Path):
    end = """
if again:
    sys.exit(print("finished at 9"))
time.sleep(rank == 0)
print("stopped at 5")
sys.exit(75)"""
    run = submit(cluster, tmp_path / "run", end=end)
    cluster.ask("scancel", "--signal=USR1", run.job)
    run.wait_for_state("COMPLETED")
    ends = [(line["event"], line["status"]) for line in run.attempts if line["event"] != "submitted"]
    assert ends == [("started", None), ("stopped", 75), ("started", None), ("done", 0)]
    for rank in range(4):
        said = (run.folder / f"slurm/{run.job}-rank{rank}.log").read_text().splitlines()
        here = [f"rank {rank} of 4 on 127.0.0.{rank // 2 + 1}", "GPUs 0,1 in 127.0.0.[1-2]"]
        assert said == [*here, "stopped at 5", *here, "finished at 9"]


def test_one_that_fails_fails_the_job_whatever_the_others_say(cluster: Cluster, tmp_path: Path):
    end = """
if rank == 3:
    raise KeyError("y")
time.sleep(0.5)
print("stopped at 5")
sys.exit(75)"""
    run = submit(cluster, tmp_path / "run", end=end)
    [last] = [process for process in run.processes("training") if process.environ()["SLURM_PROCID"] == "3"]
    last.terminate()  # Slurm tells the others, since one has failed
    run.wait_for_state("FAILED")
    assert (run.attempts[-1]["event"], run.attempts[-1]["status"]) == ("failed", 1)
    assert "stopped at 5" in (run.folder / f"slurm/{run.job}-rank0.log").read_text()
    [state] = status.look(jobs.load(run.folder), budget=lambda run: 100)
    assert state.log is not None and state.log.name == f"{run.job}-rank3.log"
    assert state.lines[-2:] == ("KeyError: 'y'", "srun: error: 127.0.0.2: task 3: Exited with exit code 1")


def test_two_nodes_train_one_run_stop_together_and_go_on(cluster: Cluster, tmp_path: Path):
    """The training itself: stopped by a signal it is put back, goes on in the same folder, and is done."""
    folder = tmp_path / "run"
    run = cluster.train(folder, "nodes=2", "source.shards=2", "learner.replay.shards=2", budget=4_000)
    run.wait_until_it_saves()
    cluster.ask("scancel", "--signal=USR1", run.job)
    run.wait_for_state("COMPLETED")
    assert run.events == ["started", "stopped", "started", "done"]
    run.check_rows()
    assert "finished at 4,000 frames" in (folder / f"slurm/{run.job}-rank0.log").read_text()
    assert "finished" not in (folder / f"slurm/{run.job}-rank1.log").read_text()  # once
    newest = max((folder / "checkpoints").glob("0*"))
    assert sorted(path.name for path in newest.glob("source/*")) == ["0.npz", "1.npz"]


def test_an_evaluation_is_left_at_a_signal_and_made_again(cluster: Cluster, tmp_path: Path):
    """Of two processes that play different games, and would for hours."""
    judged = ["evaluators=episodes", f"evaluators.episodes.every={50 * SIZE}", "evaluators.episodes.episodes=1000000"]
    run = cluster.train(tmp_path / "run", "nodes=2", "source.shards=2", "learner.replay.shards=2", *judged)
    for attempt in (1, 2):
        run.wait(lambda attempt=attempt: run.events.count("started") == attempt and run.newest == 50)
        time.sleep(10)  # into the evaluation
        began = time.monotonic()
        cluster.ask("scancel", "--signal=USR1", run.job)
        run.wait(lambda attempt=attempt: run.events.count("stopped") == attempt)
        assert time.monotonic() - began < 30  # with a checkpoint, and the end of two processes
        assert [line["checkpoint"] for line in run.attempts if line["event"] == "stopped"] == [f"{50:012d}"] * attempt
        assert run.said.count("evaluators.episodes: stopped") == attempt
    cluster.ask("scancel", run.job)
    run.check_rows()


def test_a_killed_process_ends_the_job(cluster: Cluster, tmp_path: Path):
    run = cluster.train(tmp_path / "run", "nodes=2", "source.shards=2", "learner.replay.shards=2")
    run.wait_until_it_saves()
    [second] = [process for process in run.processes("python") if process.environ()["SLURM_PROCID"] == "1"]
    second.kill()
    run.wait_for_state("FAILED")
    assert run.attempts[-1]["event"] == "failed" and run.saved
