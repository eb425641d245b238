"""Runs of two real processes on this machine: they make what one process makes, and stop, save and fail together."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from core import distributed
from experiments.config import command_line
from tests import runs

ROOT = command_line.CONF.parent
IMAGES = ("experiment=demo/vae", "+debug=tiny", "evaluators=none", "tracker=none")
IMAGES += ("network.make.encoder.widths=[64]", "network.make.decoder.widths=[64]")  # some large enough to be laid out
GAMES = ("experiment=dqn/cartpole", "+debug=tiny", "tracker=none", "evaluators.episodes.episodes=3")
GAMES += ("source.shards=2", "learner.replay.shards=2")
SPOKEN = """
import sys
import jax, numpy as np
from core import distributed

distributed.start()
me = jax.process_index()
assert distributed.several() and distributed.primary() == (me == 0)
assert distributed.gather({"me": me}) == [{"me": 0}, {"me": 1}]
assert distributed.total(np.array([1.5, me])).tolist() == [3.0, 1.0]
assert distributed.share(5).tolist() == ([0, 1, 2] if me == 0 else [3, 4, 4])
rows = np.arange(10, dtype=np.uint8).reshape(5, 2)
assert np.array_equal(distributed.join(rows[distributed.share(5)], 5), rows)
try:
    with distributed.together():
        if me:
            raise OSError("no space")
except (OSError, distributed.Elsewhere) as error:
    print(f"{type(error).__name__}: {error}")
"""


FAILING = """
import sys, time
import jax
from jax.experimental import multihost_utils
from core import distributed

class Refusal(Exception): ...

distributed.start()
with distributed.ending_together(refusal=Refusal):
    {lines}
"""


def run(
    *arguments: str, processes: int = 1, devices: int = 1, status: int | list[int] = 0, ask: int | None = None
) -> list[str]:
    """What each process says; `ask` gets a SIGUSR1 once the run has saved something."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAXCADE_TUNE": "0", "JAX_PLATFORMS": "cpu"}
    every = []
    for index in range(processes):
        several = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(index),
        }
        every.append(
            subprocess.Popen(
                [sys.executable, "-W", "error", *arguments],
                cwd=ROOT,
                env=environment | (several if processes > 1 else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        if ask is not None:
            folder = Path(next(a for a in arguments if a.startswith("hydra.run.dir=")).partition("=")[2])
            while not list(folder.glob("checkpoints/0*")) and every[ask].poll() is None:
                time.sleep(0.1)
            every[ask].send_signal(signal.SIGUSR1)
        said = [process.communicate(timeout=240)[0] for process in every]
    finally:
        for process in every:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    wanted = [status] * processes if isinstance(status, int) else status
    assert [process.returncode for process in every] == wanted, "\n".join(said)
    return said


def train(*arguments: str, **settings) -> list[str]:
    return run("-m", "experiments.train", *arguments, **settings)


def axes(folder: Path) -> dict[str, list[str | None]]:
    """Over which axes of the mesh the newest checkpoint's arrays lay, by path, as Orbax notes it."""
    noted = json.loads((max((folder / "checkpoints").glob("0*")) / "state" / "_sharding").read_text())
    return {base64.b64decode(path).decode(): json.loads(text)["partition_spec"] for path, text in noted.items()}


def test_they_speak_with_each_other():
    first, second = run("-c", SPOKEN, processes=2)
    assert "Elsewhere: process 1: OSError: no space" in first
    assert "OSError: no space" in second and "Elsewhere" not in second


@pytest.mark.parametrize(
    "lines, status, told",
    [
        ("if jax.process_index(): raise KeyError('y')", [69, 1], ["jaxcade: process 1 failed: KeyError: 'y'", "KeyE"]),
        ("if not jax.process_index(): raise KeyError('y')", [1, 69], ["KeyError: 'y'", "process 0 failed: KeyError"]),
        (
            "if jax.process_index(): raise Refusal('a=3: no')",
            [69, 2],
            ["process 1 failed: Refusal: a=3: no", "a=3: no"],
        ),
        ("raise KeyError(jax.process_index())", [1, 1], ["KeyError: 0", "KeyError: 1"]),  # each with its own
    ],
    ids=["the second", "the first", "a refusal", "all"],
)
def test_where_one_fails_none_is_left_waiting(lines: str, status: list[int], told: list[str]):
    began = time.monotonic()
    waiting = "; multihost_utils.process_allgather(jax.numpy.ones(1))"
    body = f"{lines}\n    {waiting.removeprefix('; ')}"
    said = run("-c", FAILING.format(lines=body), processes=2, status=status)
    assert time.monotonic() - began < 60  # starting two processes included; JAX's own limits are longer
    for text, wanted in zip(said, told, strict=True):
        assert wanted in text


def test_the_first_process_says_which_checkpoints_there_are(tmp_path: Path):
    run("-m", "tests.core.checkpoints.stale_listing", str(tmp_path), processes=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process with two devices, from the first image to the last."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(*IMAGES, f"hydra.run.dir={folder}", devices=2)
    return folder


@pytest.mark.long
def test_two_processes_and_then_one_make_what_one_makes(whole: Path, tmp_path: Path):
    """The same images, to the last bit of the weights, the optimiser's moments and the averages."""
    parts = tmp_path / "parts"
    said = train(*IMAGES, f"hydra.run.dir={parts}", "budget=320", processes=2)
    assert "finished at 320 images" in said[0] and "finished" not in said[1]  # once
    train(f"resume={parts}", "budget=640", devices=2)
    jax.tree.map(np.testing.assert_array_equal, runs.saved_state(parts), runs.saved_state(whole))
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (parts, whole)]
    assert [row["loss/total"] for row in rows[0]] == [row["loss/total"] for row in rows[1]]


@pytest.mark.long
def test_what_they_draw_and_judge_is_what_one_does(tmp_path: Path):
    """Samples, held-out images and the distances to real ones; the last batch of each is not full."""
    judged = ("experiment=vae/fashion_mnist", "+debug=tiny", "tracker=none", "budget=16", "log_every=16")
    judged += ("evaluators.samples.count=5", "evaluators.held_out.images=21", "evaluators.held_out.batch=6")
    judged += ("evaluators.quality.count=101", "evaluators.quality.batch=20", "evaluators.quality.every=16")
    judged += ("evaluators.samples.every=16", "evaluators.held_out.every=16")
    found = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        train(*judged, f"hydra.run.dir={folder}", processes=processes, devices=2 // processes)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        figures = {name: value for row in rows for name, value in row.items() if name.startswith("eval/")}
        found.append((figures, (folder / "media" / "samples-16.png").read_bytes()))
    assert {"eval/fid", "eval/elbo"} <= found[0][0].keys()
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5) and found[1][1] == found[0][1]


@pytest.mark.long
def test_weights_laid_over_the_processes_are_learned_alike(whole: Path, tmp_path: Path):
    folder = tmp_path / "run"
    train(*IMAGES, f"hydra.run.dir={folder}", "mesh=fsdp", processes=2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        runs.saved_state(folder),
        runs.saved_state(whole),
    )
    writers = {path.name for path in max((folder / "checkpoints").glob("0*")).glob("state/ocdbt.process_*")}
    assert writers == {"ocdbt.process_0", "ocdbt.process_1"}  # each has written what it holds


@pytest.mark.long
def test_rules_of_ones_own_lay_kernels_over_a_second_axis(whole: Path, tmp_path: Path):
    """Four devices, 2 x 2, the first of two dense layers by columns, the second by rows: the same is learned."""
    rules = 'mesh.rules=[["dense0/kernel$",[null,model]],["dense1/kernel$",[model]]]'
    folder = tmp_path / "run"
    train(*IMAGES, f"hydra.run.dir={folder}", "mesh=data_model", rules, devices=4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        runs.saved_state(folder),
        runs.saved_state(whole),
    )
    placed = axes(folder)
    kernels = {path: found for path, found in placed.items() if path.endswith("kernel")}
    assert len(kernels) == 3 * 4  # parameters and two moments
    assert all(found == ([None, "model"] if "dense0" in path else ["model"]) for path, found in kernels.items())
    assert not any(axis for path, found in placed.items() if path not in kernels for axis in found)


@pytest.mark.long
def test_between_two_processes_go_gradients_and_a_few_scalars(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # it is compiling that takes the time
    run("-m", "tests.core.two_processes", processes=2)


@pytest.mark.long
def test_each_plays_its_own_games_and_all_stop_when_one_is_asked(tmp_path: Path):
    folder = tmp_path / "run"
    said = train(*GAMES, "budget=1e9", f"hydra.run.dir={folder}", processes=2, status=75, ask=1)
    assert "stopped at" in said[0]
    newest = max((folder / "checkpoints").glob("0*"))
    assert sorted(path.name for path in newest.glob("source/*")) == ["0.npz", "1.npz"]
    assert sorted(path.name for path in newest.glob("replay/*")) == ["0-0", "1-1"]
    first, second = (np.fromfile(newest / "replay" / part / "replay.first", np.uint8) for part in ("0-0", "1-1"))
    assert not np.array_equal(first, second)  # other games

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any("eval/episode_return_stderr" in row for row in rows)  # of three games, two and one

    frames = int(newest.name) * 8
    said = train(f"resume={folder}", f"budget={frames + 320}")  # one process goes on with both memories
    assert f"finished at {frames + 320:,} frames" in said[0]
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == frames // 8 + 40


@pytest.mark.long
@pytest.mark.parametrize(
    "typed, told",
    [
        ("source.batch=15", "batch=15: does not divide over 2 processes; take 14 or 16"),
        ("mesh.data=1", "leaves some of the 2 processes without a device"),
    ],
)
def test_what_does_not_divide_is_refused_by_all(typed: str, told: str, tmp_path: Path):
    said = train(*IMAGES, typed, f"hydra.run.dir={tmp_path / 'run'}", processes=2, status=2)
    assert all(told in text for text in said)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_process_says_where_it_looks_for_the_first_one():
    code = "from core import distributed; distributed.PATIENCE = 2; distributed.start()"
    several = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | several, capture_output=True, text=True, check=False)
    assert done.returncode and "127.0.0.1:1" in done.stderr


def test_what_slurm_says_is_understood():
    step = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    step |= {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
    four = {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    settings = distributed._settings
    assert settings({}) is settings({"SLURM_JOB_ID": "7"}) is settings(step | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert settings(step) == {}
    assert settings(step | four) == {"local_device_ids": [0, 1, 2, 3]}  # alone on its node: all of them
    assert settings(step | four | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}) == {}  # JAX takes one by the task's number
    bound = {"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "3"}
    assert settings(step | bound) == {"local_device_ids": [0]}  # Slurm shows it the one


WHOLE = {"JAX_COORDINATOR_ADDRESS": "node1:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
SLURM = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}


@pytest.mark.parametrize(
    "environ, told",
    [
        (
            {"JAX_COORDINATOR_ADDRESS": "node1:1234"},
            r"^JAX_NUM_PROCESSES: missing beside JAX_COORDINATOR_ADDRESS=node1",
        ),
        ({"JAX_PROCESS_ID": "1"}, r"^JAX_COORDINATOR_ADDRESS: missing beside JAX_PROCESS_ID=1; set all three"),
        (WHOLE | {"JAX_PROCESS_ID": ""}, r"^JAX_PROCESS_ID: missing beside .*; set all three of .*, or none"),
        (WHOLE | {"JAX_NUM_PROCESSES": "two"}, r"^JAX_NUM_PROCESSES=two: must be a whole number, at least 1$"),
        (WHOLE | {"JAX_NUM_PROCESSES": "0"}, r"^JAX_NUM_PROCESSES=0: must be a whole number, at least 1$"),
        (WHOLE | {"JAX_PROCESS_ID": "-1"}, r"^JAX_PROCESS_ID=-1: must be a whole number, at least 0$"),
        (WHOLE | {"JAX_PROCESS_ID": "2"}, r"^JAX_PROCESS_ID=2: must be less than JAX_NUM_PROCESSES=2"),
        (WHOLE | {"JAX_COORDINATOR_ADDRESS": "node1"}, r"^JAX_COORDINATOR_ADDRESS=node1: must be the host and port"),
        (WHOLE | {"JAX_COORDINATOR_ADDRESS": "node1:x"}, r"^JAX_COORDINATOR_ADDRESS=node1:x: must be the host and"),
        (
            WHOLE | {"JAX_COORDINATOR_ADDRESS": "node1:70000"},
            r"must be the host and port of process 0, as in node1:",
        ),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "two"}, r"^SLURM_STEP_NUM_TASKS=two: must be a whole number, at least 1$"),
        (SLURM, r"^SLURM_PROCID: missing beside SLURM_STEP_NODELIST; start the processes with srun$"),
        (WHOLE | {"JAXCADE_JOIN_SECONDS": "soon"}, r"^JAXCADE_JOIN_SECONDS=soon: must be a whole number of seconds"),
    ],
)
def test_half_of_an_environment_is_told_in_a_line(environ: dict[str, str], told: str):
    with pytest.raises(ValueError, match=told):
        distributed.start(environ)


def test_a_training_in_half_an_environment_ends_with_a_line(tmp_path: Path):
    said = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAXCADE_TUNE": "0"}
    command = [sys.executable, "-m", "experiments.train", "experiment=dqn/cartpole", f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | said, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stderr.startswith("JAX_NUM_PROCESSES: missing beside") and len(done.stderr.splitlines()) == 1
