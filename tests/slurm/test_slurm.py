"""Runs on a real Slurm: how they begin, how they are ended from outside, and how they go on. `make test-all`."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import runs
from tests.slurm.conftest import EVERY, SIZE, Cluster, Run

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_a_run_that_is_done_is_not_started_again(cluster: Cluster, folder: Path):
    note = f"echo $CUDA_VISIBLE_DEVICES >{folder}/gpus"
    run = cluster.train(folder, "gpus_per_node=2", f'setup=["{note}"]', "name='my run'", budget=4_000)
    run.wait_for_state("COMPLETED")
    assert "JobName=my run\n" in cluster.ask("scontrol", "show", "job", run.job)
    assert run.events == ["started", "done"]
    assert "finished at 4,000 frames" in run.said
    assert (folder / "gpus").read_text() == "0,1\n"
    shown = cluster.launch(f"status={folder}")
    assert shown.returncode == 0 and "1 done" in shown.stdout and "4,000/4,000 frames (100%)" in shown.stdout
    assert "nothing to submit again" in cluster.launch(f"retry={folder}").stdout
    before = (folder / "metrics.jsonl").read_text()
    cluster.ask("scontrol", "requeue", run.job)
    run.wait(lambda: "this run is done; not started again" in run.said)
    run.wait_for_state("COMPLETED")
    assert run.events == ["started", "done"]
    assert (folder / "metrics.jsonl").read_text() == before


def test_at_its_time_limit_and_put_back_by_hand_a_run_saves_and_goes_on_and_when_cancelled_it_saves_and_ends(
    cluster: Cluster, folder: Path
):
    run = cluster.train(folder, "time=1:00", "stop_seconds=10")
    run.wait(lambda: run.events.count("started") == 2)
    stopped = run.first("stopped")
    assert stopped["status"] in (75, 138)  # Slurm is early, perhaps before we listen
    before = int(stopped["checkpoint"] or 0)
    assert run.saved >= before
    run.wait_until_it_saves(after=before)
    cluster.ask("scontrol", "requeue", run.job)
    run.wait(lambda: run.events == ["started", "stopped", "started", "terminated", "started"])
    run.check_stop(after=before)
    before = run.saved
    run.wait_until_it_saves(after=before)
    cluster.ask("scancel", run.job)
    run.wait_for_state("CANCELLED")
    run.wait(lambda: not run.processes("python"))
    assert run.events[4:] == ["started", "terminated"]
    run.check_stop(after=before)
    run.check_rows()
    assert "1 cancelled" in cluster.launch(f"status={folder}").stdout


def test_a_preempted_run_goes_on_as_the_same_run_of_wandb_whose_service_was_killed(cluster: Cluster, folder: Path):
    run = cluster.train(folder, "tracker=wandb")
    run.wait(lambda: list(folder.glob("wandb/offline-run-*/*.wandb")))
    run.wait(lambda: [process.kill() for process in run.processes("wandb-core")])
    run.wait(lambda: "W&B: " in run.said)
    run.wait_until_it_saves(after=run.saved)
    assert run.events == ["started"]
    urgent = cluster.ask(
        "sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"
    )
    run.wait(lambda: run.events.count("started") == 2)
    assert cluster.state(urgent) == "COMPLETED"
    # "terminated": the grace ended while it waited for W&B, for which there is time only once all is saved
    [stopped] = [line for line in run.attempts if line["event"] in ("stopped", "terminated")]
    run.wait_until_it_saves(after=int(stopped["checkpoint"]))
    refused = cluster.launch(f"resume={folder}", "cluster=mini", "budget=1e6")
    assert refused.returncode == 2 and "scancel it first" in refused.stderr
    cluster.ask("scancel", run.job)
    run.wait_for_state("CANCELLED")
    budget = (run.saved + 50) * SIZE
    resumed = cluster.launch(f"resume={folder}", "cluster=mini", f"budget={budget}")
    assert resumed.returncode == 0, resumed.stderr
    run.wait_for_state("COMPLETED")
    assert f"finished at {budget:,} frames" in run.said
    run.check_rows()
    [identity] = (folder / "wandb" / "run_id").read_text().split()
    parts = [path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")]
    assert len(parts) == 3 and set(parts) == {identity}
    assert run.mirrored == run.steps  # none is missing, none is there twice


@pytest.mark.timeout(1_200)  # six starts, one after the other
def test_stopped_five_times_a_generative_run_ends_with_the_very_numbers_of_one_that_was_not(
    cluster: Cluster, tmp_path: Path
):
    typed = ("experiment=demo/vae", "+debug=tiny", "cluster=mini", "tracker=none", "budget=200_000", "log_every=1_600")
    whole, parts = (Run(cluster, tmp_path / name) for name in ("whole", "parts"))
    for run in (whole, parts):
        launched = cluster.launch(*typed, f"hydra.run.dir={run.folder}")
        assert launched.returncode == 0, launched.stderr
    for stops in range(1, 6):
        parts.wait(lambda: parts.saved < parts.newest)  # it has learned since
        cluster.ask("scancel", "--signal=USR1", parts.job)
        parts.wait(lambda stops=stops: parts.events == ["started", "stopped"] * stops + ["started"])
    for run in (whole, parts):
        run.wait_for_state("COMPLETED")
    assert whole.events == ["started", "done"] and parts.events[-2:] == ["started", "done"]
    one, other = (runs.load(run.folder) for run in (whole, parts))
    assert one.examples == other.examples == 200_000
    jax.tree.map(np.testing.assert_array_equal, one.view, other.view)
    last = [json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1]) for run in (whole, parts)]
    assert last[0]["step"] == last[1]["step"] and last[0]["loss/total"] == last[1]["loss/total"]


def test_a_killed_run_has_failed_and_can_be_tried_again_until_its_folder_is_deleted(cluster: Cluster, folder: Path):
    run = cluster.train(folder)
    run.wait(lambda: run.processes("python"))
    cluster.ask("scancel", "--signal=USR1", run.job)  # before it listens: nothing is lost
    run.wait(lambda: run.events[:3] == ["started", "stopped", "started"])
    assert run.first("stopped")["status"] == 138
    run.wait_until_it_saves()
    cluster.ask("scancel", "--signal=KILL", f"{run.job}.0")
    run.wait_for_state("FAILED")
    assert (run.attempts[-1]["event"], run.attempts[-1]["status"]) == ("failed", 137)
    assert "ExitCode=137:0" in cluster.ask("scontrol", "show", "job", run.job)
    shown = cluster.launch(f"status={folder}")
    assert shown.returncode == 1 and "killed (SIGKILL: out of memory?)" in shown.stdout
    saved = run.saved
    assert saved % EVERY == 0
    assert cluster.launch(f"retry={folder}").returncode == 0
    run.wait_until_it_saves(after=saved)
    run.check_rows()
    job = run.job
    shutil.rmtree(folder.rename(folder.with_name("gone")))  # at once, or the run's own writes come between
    run.wait(lambda: cluster.state(job) == "FAILED")
    assert not (folder / "checkpoints").exists()


def test_of_a_sweep_only_what_failed_or_is_missing_is_tried_again(cluster: Cluster, tmp_path: Path):
    sweep, later = tmp_path / "sweep", tmp_path / "later"
    whole = cluster.train(
        sweep, f"hydra.sweep.dir={sweep}", "-m", f"init_from=null,{later},null", "parallel=2", budget=4_000
    )
    runs = [Run(cluster, sweep / str(number)) for number in range(3)]
    array = runs[0].job.partition("_")[0]

    def going() -> list[str]:
        states = cluster.ask("squeue", "--array", "--noheader", f"--jobs={array}", "--format=%T").split()
        assert states.count("RUNNING") <= 2
        return states

    whole.wait(lambda: not going())
    shown = cluster.launch(f"status={sweep}")
    assert shown.returncode == 1 and "1 failed" in shown.stdout
    assert [line.split()[2] for line in shown.stdout.splitlines() if " job " in line] == ["done", "failed", "done"]
    later.symlink_to(sweep / "0")  # what was missing
    shutil.rmtree(sweep / "2")
    again = cluster.launch(f"retry={sweep}")
    assert "2 runs of dqn/cartpole" in again.stdout, again
    for run in runs[1:]:
        run.wait_for_state("COMPLETED")
        assert run.events[-1] == "done"
    assert [run.events.count("started") for run in runs] == [1, 2, 1]
    assert cluster.launch(f"status={sweep}").returncode == 0


def test_a_sweep_beyond_slurms_longest_array_is_refused_before_its_runs_are_composed(cluster: Cluster, tmp_path: Path):
    [most] = [line.split()[-1] for line in cluster.ask("scontrol", "show", "config").splitlines() if "MaxArray" in line]
    values = f"seed=range(0,{int(most) + 1})"
    refused = cluster.launch("experiment=dqn/cartpole", f"hydra.sweep.dir={tmp_path / 'sweep'}", "-m", values)
    assert refused.returncode == 2 and not (tmp_path / "sweep").exists()
    assert f"{int(most) + 1} runs: an array of this Slurm has {most} at most (MaxArraySize)" in refused.stderr
    array = ["--array", f"0-{most}", "--output=/dev/null", "--wrap=true"]  # Slurm's own word on it
    asked = subprocess.run(["sbatch", *array], env=cluster.environment, capture_output=True, text=True, check=False)
    assert asked.returncode and "Invalid job array specification" in asked.stderr
    job = cluster.ask("sbatch", "--parsable", "--hold", "--array", f"0-{int(most) - 1}", *array[2:])
    cluster.ask("scancel", job)


def test_when_a_node_is_lost_its_run_goes_on_elsewhere_but_not_beside_itself(cluster: Cluster, folder: Path):
    run = cluster.train(folder)
    run.wait_until_it_saves()
    node = run.first("started")["node"]
    daemon = int((cluster.configuration.parent / f"run/slurmd-{node}.pid").read_text())
    os.kill(daemon, signal.SIGKILL)  # the node falls silent, while the training goes on
    run.wait_until_it_saves(after=run.saved)
    assert run.events == ["started"]
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=silent")  # as after SlurmdTimeout
    run.wait(lambda: run.events == ["started", "failed", "started"] and run.processes("flock"))
    [alone] = run.processes("python")
    alone.kill()
    saved = run.saved
    run.wait_until_it_saves(after=saved)
    assert run.attempts[-1]["node"] != node
    cluster.ask("slurmd", "-N", node, "-f", str(cluster.configuration))
    cluster.ask("scancel", "--signal=INT", run.job)  # a person's way to stop: saved, and not put back
    run.wait_for_state("FAILED")
    assert (run.attempts[-1]["event"], run.attempts[-1]["status"]) == ("failed", 130)
    run.check_stop(after=saved)
    run.check_rows()


def test_a_full_disk_fails_the_run_and_with_room_again_it_goes_on(cluster: Cluster, tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here: that takes root")
    try:
        run = cluster.train(small / "run")
        run.wait_until_it_saves()
        (small / "filler").write_bytes(b"x" * (os.statvfs(small).f_bavail * os.statvfs(small).f_bsize))
        run.wait_for_state("FAILED")
        saved = run.saved
        assert saved > 0
        assert "1 failed" in cluster.launch(f"status={small / 'run'}").stdout
        (small / "filler").unlink()
        assert cluster.launch(f"retry={small / 'run'}").returncode == 0
        run.wait_until_it_saves(after=saved)
        cluster.ask("scancel", run.job)
        run.wait(lambda: not run.processes("python"))
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)
