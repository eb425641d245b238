"""Launching, without a Slurm: what is typed, the script and how it ends, what Slurm is asked, the runs' states."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from experiments import launch as launching_command
from experiments.config import build, command_line, saved
from experiments.launching import command, sweep
from slurm import jobs, scheduler, status

TINY = ("experiment=dqn/cartpole", "+debug=tiny")
SINFO = """\
gpu*|up|12:00:00|2|64|gpu:a100:8(S:0-1)|a100,nvlink
gpu*|up|12:00:00|6|32+|gpu:4|(null)
cpu|up|infinite|10|128|(null)|(null)
old|down|infinite|10|128|(null)|(null)
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


class Slurm:
    """Programs that answer as they are told, and write down how they were called."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.answer("sinfo", SINFO)
        self.answer("scontrol", "MaxArraySize            = 1001\nMaxBatchRequeue         = 5\n")
        self.answer("squeue", "")
        self.answer("sbatch", "12\n")

    def answer(self, program: str, text: str, *, status: int = 0) -> None:
        path = self.folder / program
        (self.folder / f"{program}.txt").write_text(text)
        record = f'printf "%s\\n" "${{0##*/}} $*" >>{self.folder}/calls'
        out = f"cat {self.folder}/{program}.txt {'>&2' if status else ''}"
        path.write_text(f"#!/bin/bash\n{record}\n{out}\nexit {status}\n")
        path.chmod(0o755)

    def script(self, program: str, text: str) -> None:
        path = self.folder / program
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def calls(self, program: str) -> list[str]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.partition(" ")[2] for line in lines if line.split(" ")[0] == program]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}")
    return Slurm(tmp_path / "programs")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Runs a command line of experiments.launch; (exit status, what it printed, what it complained)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["launch", *arguments])
        status = 0
        try:
            launching_command.main()
        except SystemExit as left:
            status = int(left.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def launch(folder: Path, *arguments: Sequence[str], changes: Sequence[str] = (), **settings: Any) -> jobs.Launch:
    """One run for each sequence of arguments."""
    sweep = len(arguments) > 1
    members = tuple(
        jobs.Member(
            folder=str(number) if sweep else ".", arguments=tuple(each), changes=tuple(changes), label=" ".join(each)
        )
        for number, each in enumerate(arguments)
    )
    return jobs.Launch(
        folder=folder,
        name="dqn/pong",
        command="python -m experiments.launch experiment=dqn/pong",
        cwd="/",
        sweep=sweep,
        settings=jobs.Settings(**settings),
        members=members,
    )


# What is typed


def test_what_is_slurms_and_what_the_trainings():
    typed = command.split(
        [
            "experiment=dqn/pong",
            "nodes=2",
            "-m",
            "seed=0,1",
            "+environment.A=1",
            "hydra.searchpath=[file:///x]",
            "time=1:00:00",
        ]
    )
    assert typed.sweep
    assert typed.own == ["hydra.searchpath=[file:///x]", "nodes=2", "++environment.A=1", "time=1:00:00"]
    assert typed.training == ["experiment=dqn/pong", "seed=0,1", "hydra.searchpath=[file:///x]"]


@pytest.mark.parametrize(
    "typed, message",
    [
        (["bugdet=3"], "bugdet: no such key; did you mean budget?"),
        (["partion=gpu"], "partion: no such key; did you mean partition?"),
        (["learner.batch=many"], "learner.batch=many: should be a valid integer, not text"),
        (["learner.batch=0"], "learner.batch=0: must be at least 1"),
        (["cluster=there"], "cluster=there: no such choice; what there is: mini, plain"),
        (["nodes=0"], "nodes=0: must be at least 1"),
        (["nodes=1,2"], "nodes=1,2: one value for all runs of a launch"),
        (["seed=0,1"], "seed=0,1: several values want -m"),
        (["time=90"], "time=90: should be a valid string"),
        (["time=1h"], "time=1h: must be like 12:00:00 (hours)"),
        (["time=2:00", "stop_seconds=120"], "time=2:00: must be more than stop_seconds=120"),
        (["time=1-0"], "time=1-0: partition gpu allows 12:00:00 at most"),
        (["partition=gpuu"], "partition=gpuu: no such partition; did you mean gpu?"),
        (["partition=old"], "partition=old: no such partition; what there is: cpu, gpu"),
        (["partition=cpu", "gpus_per_node=1"], "gpus_per_node=1: partition cpu has 0 at most"),
        (["gpus_per_node=9"], "gpus_per_node=9: partition gpu has 8 at most"),
        (["constraint=nvlnk"], "constraint=nvlnk: no node of partition gpu has it; did you mean nvlink?"),
        (["tasks_per_node=gpus"], "tasks_per_node=gpus: gpus_per_node must say how many"),
        (["tasks_per_node=4", "cpus_per_task=17"], "cpus_per_task=17: partition gpu has 16 at most for each of 4 proc"),
        (["-m", "seed=range(0,1002)"], "1002 runs: an array of this Slurm has 1001 at most (MaxArraySize); several"),
        (["gpu_memory=0"], "gpu_memory=0: must be greater than 0, or null"),
        (["environment.a-b=2"], "environment=a-b: is no name of a variable"),
        (["resume=nowhere"], "nowhere: no run here"),
        (["status=nowhere"], "status=nowhere: nothing was launched here"),
        (["retry=nowhere", "seed=3"], "seed: a run keeps its settings"),
        (["init_from=/", "hydra.run.dir='a b'"], "a b: ' ' is in the way of Hydra or Slurm"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_nothing_is_submitted(start, slurm: Slurm, typed: list[str], message: str):
    status, _, told = (
        start(*TINY, *typed) if typed[0].partition("=")[0] not in ("status", "retry", "resume") else start(*typed)
    )
    assert (status, message in told.splitlines()[-1], len(told.splitlines())) == (2, True, 1), told
    assert slurm.calls("sbatch") == []
    assert not Path("runs").exists()


def test_data_are_opened_as_the_run_will(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there.npz").touch()
    typed = ("experiment=vae/fashion_mnist", "source=npz")
    sweep.check(command_line.compose(*typed, "source.path='~/there.npz'"))
    with pytest.raises(build.ConfigError, match=r"^source\.path=~/gone\.npz: cannot be read here: No such file"):
        sweep.check(command_line.compose(*typed, "source.path='~/gone.npz'"))


def test_what_the_gpus_have_no_room_for_is_refused(start, slurm: Slurm):
    large = ("gpus_per_node=1", "nodes=2", "learner.replay.capacity=1e9", "source.shards=2", "learner.replay.shards=2")
    status, _, told = start(*TINY, *large, "gpu_memory=13.5", "-m", "seed=0,1")
    assert status == 2 and told == (
        "gpu_memory=13.5: the state alone needs 14.00 GB on each of 2 GPUs; "
        "a smaller learner.replay.capacity or network, or more GPUs, would fit\n"
    )
    status, _, told = start(*TINY, "gpus_per_node=3", "gpu_memory=80")
    assert status == 2 and told.startswith("on 3 GPUs: replay/observation: 1 rows do not divide over the 3 devices")
    assert slurm.calls("sbatch") == []
    assert start(*TINY, *large, "gpu_memory=14.5")[0] == start(*TINY, *large)[0] == 0
    assert len(slurm.calls("sbatch")) == 2


def test_without_a_slurm_the_script_can_still_be_seen(start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    status, _, told = start(*TINY)
    assert status == 2 and told.startswith(
        "sinfo: not found; this is no machine of a Slurm cluster; dry_run=true shows"
    )
    status, shown, _ = start(*TINY, "nodes=2", "gpus_per_node=8", "dry_run=true", "time=1-0")
    assert status == 0 and shown.startswith("#!/bin/bash\n")
    for line in (
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=8",
        "--time=1-0",
        "--requeue",
        "--signal=USR1@180",
    ):
        assert f"#SBATCH {line}\n" in shown
    shown = start(*TINY, "nodes=2", "gpus_per_node=8", "tasks_per_node=gpus", "dry_run=true")[1]
    assert "#SBATCH --ntasks-per-node=8\n" in shown
    assert list(Path.cwd().iterdir()) == []


# The script


def bash(*lines: str, **environment: str) -> str:
    return subprocess.run(
        ["bash", "-c", "\n".join(lines)], env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout


def test_odd_values_reach_the_training_as_they_were_typed(tmp_path: Path):
    odd = ("a='b \"c\" $HOME'", "d=[1,2]", "e=`id`;\\", "f='*'")
    text = jobs.script(launch(tmp_path, odd, environment={"NAME": "$HOME 'x'"}, setup=("export LATER=$NAME!",)))
    line = next(line for line in text.splitlines() if line.startswith("folder="))
    assert bash(line, "printf '%s\\n' \"${arguments[@]}\"").splitlines() == list(odd)
    exports = [line for line in text.splitlines() if line.startswith("export ")]
    assert bash(*exports, 'echo "$LATER"') == "$HOME 'x'!\n"


def test_every_run_of_a_sweep_has_its_folder_and_arguments(tmp_path: Path):
    text = jobs.script(launch(tmp_path, ["seed=0"], ["seed=1"], ["seed=2"], parallel=2), [0, 2])
    assert "#SBATCH --array=0,2%2\n" in text
    assert f"#SBATCH --output={tmp_path}/%a/slurm/%A_%a.log\n" in text
    case = text[text.index("case $SLURM_ARRAY") : text.index("esac") + 4]
    assert bash(case, 'echo "$folder ${arguments[*]}"', SLURM_ARRAY_TASK_ID="2") == f"{tmp_path}/2 seed=2\n"


def test_a_site_decides_what_happens_before_the_training(tmp_path: Path):
    settings: dict[str, Any] = {
        "modules": ("cuda/13",),
        "scratch": "/scratch/me",
        "python": "/opt/python",
        "container": "image.sif",
        "cpus_per_task": 8,
        "options": ("--exclusive",),
    }
    text = jobs.script(dataclasses.replace(launch(tmp_path, ["seed=0"], **settings), name="my run"))
    for line in (
        "#SBATCH --job-name='my run'",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --exclusive",
        "module load cuda/13",
        "export XDG_CACHE_HOME=/scratch/me/cache",
        "python=(apptainer exec --nv image.sif /opt/python)",
    ):
        assert f"\n{line}\n" in text
    assert "gpus" not in text.split("\n\n")[0]


class Job:
    """The script run by bash, as Slurm would run it: `srun` and the training are stand-ins."""

    def __init__(self, slurm: Slurm, launched: jobs.Launch):
        self.slurm, self.run = slurm, launched.folder
        launched = dataclasses.replace(launched, settings=jobs.Settings(python=f"{slurm.folder}/training"))
        self.path = jobs.prepare(launched, jobs.script(launched))
        # Slurm puts the job back and ends the script by TERM.
        slurm.script("scontrol", f'echo "scontrol $*" >>{slurm.folder}/calls; kill $PPID')
        task = 'while [[ $1 != bash ]]; do shift; done; SLURM_PROCID=0 "$@"'
        slurm.script("srun", f"{task} >>{self.run}/slurm/$SLURM_JOB_ID-rank0.log")

    def __call__(self, status: int, *, checkpoint: int | None = None, job: str = "7", last: str | None = None) -> int:
        """Runs it to the end of a training that leaves with `status`; how the script leaves."""
        save = f"mkdir -p {self.run}/checkpoints/{checkpoint:012d}" if checkpoint is not None else ""
        say = f"echo {last or {0: 'finished at 9 frames', 75: 'stopped at 9 frames'}.get(status, 'no more')}"
        self.slurm.script("training", f'echo "training $*" >>{self.slurm.folder}/calls\n{save}\n{say}\nexit {status}')
        environment = os.environ | {"SLURM_JOB_ID": job, "SLURMD_NODENAME": "n1"}
        return subprocess.run(["bash", self.path], env=environment, check=False, stdout=subprocess.DEVNULL).returncode

    def events(self) -> list[tuple[str, int | None, str]]:
        lines = (self.run / "slurm" / "attempts.jsonl").read_text().splitlines()
        return [(line["event"], line["status"], line["checkpoint"]) for line in map(json.loads, lines)]


@pytest.fixture
def job(slurm: Slurm, tmp_path: Path) -> Job:
    return Job(slurm, launch(tmp_path / "run", ["hydra.run.dir=x", "seed=1"]))


def test_a_run_that_is_done_is_not_started_again(job: Job):
    assert job(0, checkpoint=40) == 0
    [call] = job.slurm.calls("training")
    assert call == "-m experiments.train hydra.run.dir=x seed=1"
    assert job.events() == [("started", None, ""), ("done", 0, "000000000040")]
    assert job(1) == 0
    assert len(job.slurm.calls("training")) == 1
    assert job(0, job="8") == 0  # one that a person submits
    assert len(job.slurm.calls("training")) == 2


@pytest.mark.parametrize("status", [75, 138, 143])
def test_a_run_that_was_stopped_is_put_back_and_goes_on(job: Job, status: int):
    assert job(status, checkpoint=3) == -15
    assert job.slurm.calls("scontrol") == ["requeue 7"]
    (job.run / "config.yaml").touch()
    assert job(0) == 0
    assert job.slurm.calls("training")[1] == f"-m experiments.train resume={job.run}"
    assert [event for event, *_ in job.events()] == ["started", "stopped", "started", "done"]


def test_a_run_that_gets_nowhere_is_not_started_for_ever(job: Job):
    assert [job(75, checkpoint=5), job(75), job(75)] == [-15, -15, 75]
    assert job.events()[-1] == ("failed", 75, "000000000005")
    assert job(75, job="8") == -15  # a person tries again


@pytest.mark.parametrize("status", [1, 2, 130, 137])
def test_a_run_that_fails_fails_the_job(job: Job, status: int):
    assert job(status) == status
    assert job.slurm.calls("scontrol") == []
    assert job.events()[-1] == ("failed", status, "")


def test_the_process_that_fails_first_decides_though_others_are_ended_before_they_listen(job: Job):
    srun = job.slurm.folder / "srun"
    srun.write_text(f"{srun.read_text()}exit 143\n")  # the highest status, of one that Slurm has ended since
    assert job(69) == 69
    assert job.slurm.calls("scontrol") == []
    assert job.events()[-1] == ("failed", 69, "")
    assert job(143, checkpoint=1) == -15  # all were told to stop
    assert list((job.run / "slurm").glob("failed*")) == []


def test_a_job_that_cannot_be_put_back_fails(job: Job):
    job.slurm.script("scontrol", "exit 1")
    assert job(75, checkpoint=1) == 75
    assert [event for event, *_ in job.events()] == ["started", "stopped", "failed"]


def test_an_end_without_the_trainings_last_line_is_a_failure(job: Job):
    assert job(75) == -15
    assert job(0, last="step 9") == 1  # srun says 0 where its node was lost, and "stopped" was the attempt before
    assert job.events()[-1] == ("failed", 1, "")


def test_a_process_that_is_still_at_work_is_waited_for(job: Job):
    hold = ["flock", str(job.run / "slurm/lock0"), "-c", f"sleep 1; touch {job.run}/over"]
    with subprocess.Popen(hold):
        while subprocess.run(["flock", "--nonblock", hold[1], "true"], check=False).returncode == 0:
            time.sleep(0.01)
        assert job(0) == 0
        assert (job.run / "over").exists()


def test_a_resumed_run_keeps_its_changes(slurm: Slurm, tmp_path: Path):
    run = tmp_path / "run"
    job = Job(slurm, launch(run, [f"resume={run}", "budget=9"], changes=["budget=9"]))
    (run / "config.yaml").touch()
    assert job(0) == 0
    assert slurm.calls("training")[0] == f"-m experiments.train resume={run} budget=9"


# Submitting


def test_a_launch_writes_submits_and_says_what_to_do(start, slurm: Slurm):
    status, said, told = start(*TINY, "seed=3", "partition=gpu", "time=2:00:00", "hydra.run.dir=mine")
    assert (status, told) == (0, "")
    script = Path("mine/slurm/job.sh")
    assert slurm.calls("sbatch") == [f"--parsable {script.absolute()}"]
    text = script.read_text()
    assert text.splitlines()[1].startswith("# python -m experiments.launch experiment=dqn/cartpole +debug=tiny seed=3 ")
    assert "#SBATCH --job-name=dqn/cartpole\n#SBATCH --chdir=" in text
    assert f"arguments=(hydra.run.dir={Path('mine').absolute()} experiment=dqn/cartpole +debug=tiny seed=3)" in text
    for part in (
        "job 12: dqn/cartpole in mine\n",
        "status=mine",
        "mine/slurm/12-rank0.log",
        "scancel 12",
        "retry=mine",
    ):
        assert part in said
    status, _, told = start(*TINY, "hydra.run.dir=mine")
    assert status == 2 and "mine: holds slurm already; resume=" in told


def test_by_itself_the_folder_is_that_of_a_training(start, slurm: Slurm):
    start(*TINY, f"scratch={Path.cwd()}/scratch")
    [script] = Path("scratch").rglob("job.sh")
    assert script.relative_to(Path.cwd() if script.is_absolute() else ".").match(
        "scratch/runs/dqn/cartpole/*/slurm/job.sh"
    )


def test_a_sweep_is_one_array_with_a_folder_a_run(start, slurm: Slurm):
    status, said, _ = start(*TINY, "-m", "seed=0,1", "learner=dqn,double_dqn", "parallel=2", "hydra.sweep.dir=sweep")
    assert status == 0 and "job 12: 4 runs of dqn/cartpole in sweep" in said
    assert len(slurm.calls("sbatch")) == 1
    text = Path("sweep/slurm/job.sh").read_text()
    assert "#SBATCH --array=0,1,2,3%2\n" in text
    assert "learner=double_dqn) ;;" in next(line for line in text.splitlines() if line.startswith("  3) "))
    assert sorted(path.parent.name for path in Path("sweep").glob("*/slurm")) == ["0", "1", "2", "3"]
    shown = start("status=sweep")[1].splitlines()
    assert "seed=1 learner=dqn" in shown[3]


def test_what_slurm_refuses_is_told_and_can_be_submitted_again(start, slurm: Slurm):
    slurm.answer("sbatch", "sbatch: error: invalid account\n", status=1)
    status, _, told = start(*TINY, "hydra.run.dir=mine", "account=none")
    assert status == 2 and told.startswith("sbatch: error: invalid account; retry=mine submits it again")
    slurm.answer("sbatch", "13\n")
    assert "missing" in start("status=mine")[1]
    assert start("retry=mine", "account=ours")[0] == 0
    text = Path("mine/slurm/job.sh").read_text()
    assert "--account=ours\n" in text and "seed" not in text


def test_slurm_is_asked_without_the_variables_of_a_job_around(start, slurm: Slurm, monkeypatch: pytest.MonkeyPatch):
    slurm.script("sbatch", f"env >{slurm.folder}/env; echo 12")
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURM_CONF"):
        monkeypatch.setenv(name, "3")
    start(*TINY)
    seen = dict(line.split("=", 1) for line in (slurm.folder / "env").read_text().splitlines() if "=" in line)
    assert not {"SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "HYDRA_FULL_ERROR"} & seen.keys()
    assert seen["SLURM_CONF"] == "3"


def test_a_run_can_be_gone_on_with(start, slurm: Slurm):
    folder = Path("mine")
    saved.save(folder, command_line.compose(*TINY))
    assert start("resume=mine", "budget=5000", "tracker=none")[0] == 0
    assert f"arguments=(resume={folder.absolute()} budget=5000 tracker=none)" in (folder / "slurm/job.sh").read_text()
    assert start("resume=mine", "learner.batch=64")[2].startswith("learner.batch: stays as the run began with it")
    slurm.answer("squeue", "12|N/A|12|RUNNING|None|0|\n")
    assert "job 12 is running there; scancel it first" in start("resume=mine")[2]
    assert start("-m", "resume=mine,mine")[2].startswith("resume: goes on with one run")


def test_data_that_cannot_be_read_are_told_before(start, slurm: Slurm):
    told = start(*TINY, "+source.folder=/no/such/data")[2]
    assert told.startswith("source.folder")


# States


class Runs:
    """A launch of four runs whose states a test writes."""

    def __init__(self, folder: Path, slurm: Slurm):
        self.launch = launch(folder, *[[f"seed={n}"] for n in range(4)])
        jobs.prepare(self.launch, jobs.script(self.launch))
        jobs.note_submission(self.launch, range(4), "9")
        self.slurm = slurm

    def event(self, number: int, event: str, *, job: str | None = None, status: int | None = None) -> None:
        line = {"event": event, "job": job or f"9_{number}", "restart": 0, "status": status, "node": "n1"}
        with (self.launch.folder / str(number) / "slurm/attempts.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def queue(self, *lines: str) -> None:
        self.slurm.answer("squeue", "".join(f"{line}\n" for line in lines))

    def states(self) -> list[status.State]:
        return command.look(self.launch)


@pytest.fixture
def runs(tmp_path: Path, slurm: Slurm) -> Runs:
    return Runs(tmp_path / "sweep", slurm)


def test_every_run_is_shown_as_it_is(runs: Runs, start):
    runs.queue("9|0|9|PENDING|Resources|1|", "9|1|10|RUNNING|None|0|", "9|2|11|COMPLETED|None|0|", "9|3|12|FAILED|x|0|")
    for number in (1, 2, 3):
        runs.event(number, "started")
    runs.event(2, "done", status=0)
    runs.event(3, "failed", status=1)
    folder = runs.launch.folder
    (folder / "3/slurm/9_3.log").write_text("srun: error\njob 9_3: not started again\n")
    (folder / "3/slurm/9_3-rank0.log").write_text(
        "starting\nTraceback (most recent call last):\n  File x\nKeyError: 'y'\n\n"
    )
    saved.save(folder / "1", command_line.compose(*TINY, "budget=2000"))
    rows = [
        {"step": 10, "frames": 80, "seconds": 2.0, "time/frames_per_second": 64.0},
        {"step": 20, "frames": 160, "x": 1},
    ]
    (folder / "1/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"torn')
    status, said, _ = start("status=sweep")
    assert (status, said.splitlines()) == (
        command.EXIT_FAILED,
        [
            "dqn/pong in sweep: 1 pending, 1 running, 1 done, 1 failed",
            "    0  seed=0  pending    job 9_0  (Resources, restarts: 1)",
            "    1  seed=1  running    job 9_1  on n1  160/2,000 frames (8%)  64 frames/s  00:00:28 left",
            "    2  seed=2  done       job 9_2",
            "    3  seed=3  failed     job 9_3  exit status 1",
            "         | starting",
            "         | Traceback (most recent call last):",
            "         |   File x",
            "         | KeyError: 'y'",
            "         | job 9_3: not started again",
            "         `- sweep/3/slurm/9_3-rank0.log",
        ],
    )


@pytest.mark.parametrize(
    "events, queued, state, detail",
    [
        ([], None, status.FAILED, "ended without a word: killed, or its node was lost"),
        (["started"], "CANCELLED", status.CANCELLED, ""),
        (["started"], "TIMEOUT", status.FAILED, "TIMEOUT"),
        (["started"], "NODE_FAIL", status.FAILED, "NODE_FAIL"),
        (["started", "terminated"], None, status.FAILED, "ended from outside: cancelled, or out of time"),
        (["started", "terminated"], "PENDING", status.PENDING, "(None)"),
        (["started", "stopped"], "COMPLETING", status.RUNNING, "on n1"),
        (["started", "failed"], "COMPLETING", status.FAILED, "exit status None"),
        ([], "RUNNING", status.RUNNING, ""),
        (["started"], "COMPLETED", status.DONE, ""),  # a full disk
    ],
)
def test_how_a_run_ended(runs: Runs, events: list[str], queued: str | None, state: str, detail: str):
    for event in events:
        runs.event(0, event)
    runs.queue(*([f"9|0|9|{queued}|None|0|"] if queued else []))
    assert [(s.state, s.detail) for s in runs.states()[:1]] == [(state, detail)]


def test_of_several_processes_the_one_that_failed_first_is_heard(runs: Runs):
    logs = runs.launch.folder / "0/slurm"
    failed = "srun: error: n1: task 0: Exited with exit code 137"
    before = "srun: error: n2: task 1: User defined signal 1\nslurmstepd-n1: error: *** JOB 9 ON n1 CANCELLED AT ***\n"
    (logs / "9_0.log").write_text(f"{before}{failed}\nsrun: error: n2: task 1: Aborted\n")
    (logs / "9_0-rank0.log").write_text("step\nKilled\n")
    (logs / "9_0-rank1.log").write_text("Traceback (most recent call last):\nConnection reset by peer\n")
    runs.event(0, "failed", status=137)
    [state, *_] = runs.states()
    assert state.lines == ("step", "Killed", failed)
    assert state.log == logs / "9_0-rank0.log"


def test_an_old_jobs_end_is_not_the_new_jobs(runs: Runs):
    runs.event(0, "failed", status=1)
    runs.event(1, "started", job="10_1")  # before its submission is written down
    jobs.note_submission(runs.launch, [0, 1], "10")
    runs.queue("10|0|10|PENDING|None|0|", "10|1|11|RUNNING|None|0|")
    assert [(s.state, s.job) for s in runs.states()[:2]] == [(status.PENDING, "10_0"), (status.RUNNING, "10_1")]


def test_a_run_whose_node_was_lost_is_running_again_before_it_says_so(runs: Runs):
    runs.event(0, "failed", status=1)
    runs.queue("9|0|9|RUNNING|None|1|")
    assert [(s.state, s.detail) for s in runs.states()[:1]] == [(status.RUNNING, "restarts: 1")]


def test_slurm_is_asked_for_the_launches_jobs_alone(runs: Runs):
    runs.states()
    assert "--jobs=9 " in runs.slurm.calls("squeue")[0]
    runs.slurm.answer("squeue", "slurm_load_jobs error: Invalid job id specified\n", status=1)
    assert [state.state for state in runs.states()] == [status.FAILED] * 4  # it has forgotten them


def test_without_an_answer_of_slurms_only_ends_are_known(runs: Runs):
    runs.event(0, "done", status=0)
    runs.event(1, "started")
    runs.slurm.answer("squeue", "squeue: error: no\n", status=1)
    assert [state.state for state in runs.states()[:2]] == [status.DONE, status.UNKNOWN]


def test_only_what_failed_or_is_missing_is_submitted_again(runs: Runs, start):
    runs.queue("9|0|9|RUNNING|None|0|")
    runs.event(1, "done", status=0)
    runs.event(2, "failed", status=137)
    (runs.launch.folder / "3/slurm/attempts.jsonl").unlink()
    assert "killed (SIGKILL" in start("status=sweep")[1]
    status, said, _ = start("retry=sweep", "time=3:00:00", "parallel=1")
    assert status == 0 and "job 12: 2 runs of dqn/pong in sweep" in said
    text = (runs.launch.folder / "slurm/job.sh").read_text()
    assert "#SBATCH --array=2,3%1\n" in text and "--time=3:00:00\n" in text
    runs.queue("9|0|9|RUNNING|None|0|", "12|2|13|PENDING|None|0|", "12|3|14|PENDING|None|0|")
    assert "nothing to submit again" in start("retry=sweep")[1]
    assert len(runs.slurm.calls("sbatch")) == 1


def test_settings_typed_beside_a_retry_join_those_of_the_launch(runs: Runs, start):
    settings = jobs.Settings(nodes=1, time="2:00:00", account="ours", environment={"A": "1", "B": "2"})
    jobs.prepare(dataclasses.replace(runs.launch, settings=settings), "")
    assert start("retry=sweep", "time=2:00")[2].startswith("time=2:00: must be more than stop_seconds=180")
    assert start("retry=sweep", "environment.B=3", "stop_seconds=60")[0] == 0
    text = (runs.launch.folder / "slurm/job.sh").read_text()
    for line in ("#SBATCH --signal=USR1@60", "#SBATCH --time=2:00:00", "#SBATCH --account=ours"):
        assert f"\n{line}\n" in text
    assert "export A=1\nexport B=3\n" in text
    for number in range(4):
        (runs.launch.folder / str(number) / "slurm/attempts.jsonl").unlink()
    assert start("retry=sweep", "cluster=mini")[0] == 2  # no partition main
    assert start("retry=sweep", "cluster=mini", "partition=gpu")[0] == 0
    text = (runs.launch.folder / "slurm/job.sh").read_text()
    assert "#SBATCH --signal=USR1@30\n" in text and "account" not in text and "export A" not in text


def test_a_run_of_a_sweep_is_answered_with_its_sweep(runs: Runs, start):
    assert start("status=sweep/1")[2].endswith("it is one run of status=sweep\n")


# Slurm's ways of writing


@pytest.mark.parametrize(
    "limit, seconds",
    [("12:00:00", 43_200), ("30:00", 1_800), ("2-0", 172_800), ("1-12:30", 131_400), ("1-0:0:1", 86_401)],
)
def test_time_limits(limit: str, seconds: int):
    assert scheduler.seconds(limit) == seconds
    assert scheduler.seconds(scheduler.shown(seconds)) == seconds


@pytest.mark.parametrize("limit", ["30", "1h", "1:2:3:4", "-1", "1-", "", "1-2:3:4:5"])
def test_what_is_no_time_limit(limit: str):
    with pytest.raises(ValueError, match="must be like"):
        scheduler.seconds(limit)


def test_partitions(slurm: Slurm):
    gpu, cpu = scheduler.partitions().values()
    assert (gpu.name, gpu.is_default, gpu.seconds, gpu.nodes, gpu.cpus, gpu.gpus) == ("gpu", True, 43_200, 8, 64, 8)
    assert (cpu.is_default, cpu.seconds, cpu.gpus) == (False, float("inf"), 0)
    assert gpu.features == {"a100", "nvlink"}
