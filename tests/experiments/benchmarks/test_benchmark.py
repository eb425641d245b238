"""`python -m experiments.benchmark`: what is measured, told and written; the peers themselves are not run here."""

import contextlib
import io
import json
import math
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.benchmarks import command, compare, compile, dqn, dqn_parts, peers, processes, results, timing
from experiments.comparing import report, scoring
from experiments.comparing.runs import reading
from experiments.config import build, command_line

TINY = ("learner.replay.capacity=2_000", "learner.learning_starts=64", "network.make.torso.width=2", "source.envs=2")


def ask(parts, *lines: str) -> list:
    told = io.StringIO()
    timing.serve(parts, {"fact": 1}, asked=io.StringIO("".join(f"{line}\n" for line in lines)), told=told)
    return [json.loads(line) for line in told.getvalue().splitlines()]


def test_a_part_is_warmed_up_and_told_for_one_of_what_it_counts():
    calls = []

    def part() -> int:
        calls.append(time.sleep(0.01))
        return 10

    ready, seconds = ask({"a part": part}, "0.0 a part")
    assert ready == {"parts": ["a part"], "fact": 1}
    assert 0.001 <= seconds < 0.01
    assert len(calls) == 2 + timing.LEAST_CALLS


def test_the_stopwatch_leaves_out_what_comes_before_learning(capsys):
    watch = timing.Stopwatch(seconds=0.05, after=3)
    for _ in range(3):
        time.sleep(0.03)
        assert watch.step()
    steps = 1
    while watch.step():
        steps += 1
        time.sleep(0.01)
    watch.tell()
    found = json.loads(capsys.readouterr().out)
    assert 20 < found["steps_per_second"] <= 120 and steps <= 6
    assert found["peak_bytes"] > 1e7


@pytest.fixture(scope="module")
def run() -> build.Run:
    return build.run(command_line.compose(*dqn.SETTING, *TINY))


@pytest.mark.long
def test_every_part_of_the_run_is_measured(run: build.Run):
    games = run.source._games
    parts = dqn_parts.updating(run, [4]) | dqn_parts.acting(run, games) | dqn_parts.remembering(run)
    parts |= dqn_parts.prioritised()
    counts = {name: part() for name, part in parts.items()}
    assert counts == {
        "single 4": 1,
        "scan 4": 8,
        "environment": 2,
        "act": 2,
        "insert": 8,
        "sample": 1,
        "step": 8,
        "draw": 1,
    }
    assert all(part() == counts[name] for name, part in parts.items())  # what was donated has been replaced
    run.source.close()


def test_a_transition_is_counted_whole(run: build.Run):
    state = jax.eval_shape(lambda key: run.learner.init(key, run.source.spec), jax.random.key(0)).replay
    rows, streams = state.action.shape[1:]
    small = 4 + 4 + 4  # action, reward, four flags
    assert dqn_parts.transition_bytes(run) == pytest.approx(84 * 84 + small, abs=8 / (rows * streams) + 1e-9)


def test_the_kinds_of_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.setenv("XLA_FLAGS", "--mine")
    found = {kind: processes.environment(kind) for kind in processes.KINDS}
    assert all(variables["JAXCADE_TUNE"] == "0" for variables in found.values())
    malloc = {kind: variables.get("MALLOC_TRIM_THRESHOLD_", "") for kind, variables in found.items()}
    flags = {kind: variables.get("XLA_FLAGS", "") for kind, variables in found.items()}
    assert malloc["nothing"] == malloc["flag"] == "" and flags["nothing"] == flags["malloc"] == ""
    if processes.shown("all"):  # a CPU that tune() knows
        assert len(malloc["malloc"]) > 1 and malloc["malloc"] == malloc["all"]
        assert flags["flag"] == flags["all"] != "--mine"


def test_speed_is_taken_between_rows():
    rows = [{"frames": 100, "seconds": 5.0}, {"frames": 200, "seconds": 6.0}, {"frames": 500, "seconds": 7.0}]
    assert processes.speed(rows) == 200.0
    assert math.isnan(processes.speed(rows[:1]))


def made_up(**changes: list[float]) -> dict[str, list[float]]:
    """Two rounds; an environment step takes 1 + 2 + 1 + (4 + 12) / 4 = 8 ms in parts, and 9 ms in all."""
    values = {
        "environment": [0.001, 0.001],
        "act": [0.002, 0.002],
        "insert": [0.001, 0.001],
        "sample": [0.004, 0.004],
        "step": [0.004, 0.004],
        "draw": [0.0004, 0.0005],
        "single 32": [0.014, 0.012],
        "scan 32": [0.012, 0.014],
        "single 256": [0.1, 0.1],
        "scan 256": [0.1, 0.1],
        "plain single 32": [0.024, 0.028],
        "plain single 256": [0.2, 0.2],
        "jaxcade": [1 / 0.009, 1 / 0.009],
        "peak memory": [1.6],
        "transition": [7_068.0],
    } | changes
    return values | {"sum of parts": dqn._sum(values, 4)}


def test_limits_are_judged_round_by_round():
    found = {target.name: target for target in dqn._targets(made_up())}
    assert found["end to end / sum of its parts"].values == pytest.approx([9 / 8, 9 / 8])
    assert found["update of 32 / plain"].values == pytest.approx([0.5, 0.5])
    met = {name: target.met for name, target in found.items()}
    assert met["end to end / sum of its parts"] and met["update of 32 / plain"] and met["a transition"]
    assert met["prioritised draw"]
    assert not met["update of 256 / plain"] and not met["peak memory"]


def test_the_best_of_the_others_is_the_measure():
    others = {"dopamine": [40.0, 70.0], "plain JAX": [50.0, 50.0], "plain JAX, malloc as it is": [10.0, 10.0]}
    ours = {"jaxcade": [100.0, 140.0], "jaxcade, malloc as it is": [90.0, 90.0]}
    found = {target.name: target for target in dqn._targets(made_up(**ours, **others))}
    assert found["end to end / best of the others"].values == (2.0, 2.0)
    assert found["end to end / best of the others, malloc as it is"].values == (9.0, 9.0)


def test_the_tables_tell_what_is_missed():
    values = made_up()
    table = results.Results(rows=dqn._rows(values), targets=dqn._targets(values)).table()
    lines = {line.split("  ")[0]: line for line in table.splitlines()}
    assert lines["environments alone"].split()[2:] == ["1,000", "1,000", "-", "1,000", "environment", "steps/s"]
    assert lines["peak memory"].endswith("MISSED") and lines["a transition"].endswith("met")


class FakeParts:
    """A process that answers at once: in ours everything takes 1 ms, elsewhere 3 ms."""

    def __init__(self, command: list[str], kind: str):
        self.is_ours = "ours" in command
        names = [f"{how} {batch}" for how in ("single", "scan") for batch in dqn.BATCHES]
        names += ["environment", "act", "insert", "sample", "step", "draw"]
        self.facts = {"parts": names, "update_every": 4, "frames_per_step": 4, "transition_bytes": 7_068.0}

    def seconds(self, name: str, seconds: float) -> float:
        return 0.001 if self.is_ours else 0.003


def test_the_suite_measures_all_contestants_in_every_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked: list[str] = []

    def train(folder: Path, overrides, kind: str, *, learns: str, seconds: float | None = None, cache=None):
        asked.append(f"jaxcade {kind}")
        folder.mkdir()
        return processes.Trained(examples_per_second=800.0, peak_bytes=10**9, rows=[])

    def train_peer(python: Path, name: str, kind: str, *, seconds: float) -> float:
        asked.append(f"{name} {kind}")
        return math.nan if name == "dopamine" else 50.0 if kind == "nothing" else 80.0

    monkeypatch.setattr(processes, "parts", lambda command, kind: contextlib.nullcontext(FakeParts(command, kind)))
    monkeypatch.setattr(processes, "train", train)
    monkeypatch.setattr(peers, "python", lambda folder, suite, stack: tmp_path / "python")
    monkeypatch.setattr(peers, "train", train_peer)
    found = dqn.run(command.Wanted(suite="dqn", rounds=2, peers=True))
    one_round = ["jaxcade all", "jaxcade flag"]
    one_round += [f"{name} {kind}" for name in peers.DQNS for kind in ("malloc", "nothing")]
    again = [name for name in one_round if not name.startswith("dopamine")]  # it failed
    assert asked == [*one_round, *again, "jaxcade all"]
    targets = {target.name: target.values for target in found.targets}
    assert targets["end to end / best of the others"] == (2.5, 2.5)
    assert targets["end to end / best of the others, malloc as it is"] == (4.0, 4.0)
    assert targets["end to end / sum of its parts"] == pytest.approx([5 / 3.5, 5 / 3.5])
    assert targets["update of 32 / torch's"] == targets["update of 256 / plain"] == pytest.approx([1 / 3, 1 / 3])
    assert "dopamine" not in found.table() and found.table().count("stable-baselines3") == 2


@pytest.mark.long
def test_the_programs_of_a_run_are_timed_without_its_data():
    described = lambda *overrides: compile.described(command_line.compose(*overrides))
    assert described("experiment=gan/atari_frames").source.spec.image.shape == (1, 256, 64, 64, 3)
    images = compile.seconds(described("experiment=demo/vae"))
    assert list(images) == ["init", "step", "sample"] and min(images.values()) > 0.01
    games = compile.seconds(described("experiment=dqn/cartpole", "learner.replay.capacity=2_000"))
    assert list(games) == ["init", "absorb", "step"] and min(games.values()) > 0.01


def test_every_experiment_is_compiled_in_every_round(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def last_line(command: list[str], kind: str) -> dict[str, float]:
        asked.append(f"{command[-2]} {command[-1]} {kind}")
        return {"init": 1.0, "step": 70.0 if "unet" in command[-2] else 10.0}

    monkeypatch.setattr(processes, "last_line", last_line)
    found = compile.run(command.Wanted(suite="compile", rounds=2, overrides=("seed=1",)))
    assert asked == 2 * [f"experiment={name} seed=1 all" for name in compile.EXPERIMENTS]
    assert {target.name.split(":")[0] for target in found.targets if not target.met} == {
        name for name in compile.EXPERIMENTS if "unet" in name
    }
    only = command.Wanted(suite="compile", rounds=1, only=("dqn/pong",))
    assert [row.name for row in compile.run(only).rows] == ["dqn/pong: the first state", "dqn/pong: a step"]


@pytest.mark.long
def test_a_training_is_timed_and_stopped(tmp_path: Path):
    overrides = ("experiment=dqn/cartpole", "+debug=tiny", "budget=10_000_000", "evaluators=none", "tracker=none")
    found = processes.train(tmp_path / "run", overrides, "nothing", seconds=0.5, learns="loss/td")
    assert found.examples_per_second > 0 and found.peak_bytes > 1e8
    assert list((tmp_path / "run" / "checkpoints").glob("0*")), "it was asked to stop, and saved"
    with pytest.raises(RuntimeError, match="no such"):
        processes.train(tmp_path / "wrong", ("experiment=dqn/pongg",), "nothing", seconds=1.0, learns="loss/td")


def test_a_process_that_fails_is_told(capfd):
    with pytest.raises(RuntimeError, match="ended with status 3"):
        processes.Parts([sys.executable, "-c", "raise SystemExit(3)"], "nothing")
    with pytest.raises(RuntimeError, match="nothing to see"):
        processes.last_line([sys.executable, "-c", "raise ValueError('nothing to see')"], "nothing")
    assert processes.last_line([sys.executable, "-c", "print('x'); print('[1]')"], "nothing") == [1]


def test_a_peer_that_fails_is_left_out(tmp_path: Path, capsys):
    speed = peers.train(Path(sys.executable), "stable-baselines3", "nothing", seconds=1.0)  # not installed here
    assert math.isnan(speed) and "stable-baselines3 failed" in capsys.readouterr().err


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    values = made_up()
    monkeypatch.setattr(
        dqn, "run", lambda wanted: results.Results(rows=dqn._rows(values), targets=dqn._targets(values))
    )
    monkeypatch.setattr(sys, "argv", ["benchmark", "suite=dqn", "rounds=2", "out=to/it.json"])
    command_line.main(command.task, name="benchmark")
    found = json.loads((tmp_path / "to" / "it.json").read_text())
    assert found["command"] == "python -m experiments.benchmark suite=dqn rounds=2 out=to/it.json"
    assert found["machine"]["cpu"] and f"jax {jax.__version__}" in found["machine"]["packages"]
    assert found["environments"]["nothing"] == {}
    assert [np.median(row["values"]) for row in found["rows"]] == [row["median"] for row in found["rows"]]
    assert "target" in capsys.readouterr().out


@pytest.mark.parametrize(
    "typed, told",
    [
        ((), "suite: missing"),
        (("suite=dqn", "rounds=0"), "rounds=0: must be at least 1"),
        (("suite=pong",), "suite=pong: should be 'dqn', 'generative', 'core', 'compile', 'compare' or 'gpu'"),
    ],
)
def test_a_mistake_is_told(monkeypatch: pytest.MonkeyPatch, capsys, typed: tuple[str, ...], told: str):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(sys, "argv", ["benchmark", *typed])
    with pytest.raises(SystemExit) as left:
        command_line.main(command.task, name="benchmark")
    assert left.value.code == command_line.EXIT_MISTAKE
    assert told in capsys.readouterr().err


@pytest.mark.long
def test_reports_of_many_runs_are_measured_and_the_runs_go(tmp_path: Path, capsys):
    size = compare.Size(games=2, rates=2, seeds=2, rows=20)
    found = compare.of_size(size, rounds=1, parent=tmp_path)
    for state in ("cold", "warm"):
        assert (
            found[f"{state}, the whole report", "s"][0] > found[f"{state}, processor time of all processes", "s"][0] / 4
        )
        assert 0.05 < found[f"{state}, peak memory of all processes", "GB"][0] < 4
    assert {target.name for target in compare._targets("tiny", found)} >= {"tiny: warm, the whole report"}
    assert list(tmp_path.iterdir()) == [] and "8 runs of 20 rows" in capsys.readouterr().err


def test_made_up_runs_are_real_ones_of_the_size_that_is_told(tmp_path: Path):
    size = compare.Size(games=2, rates=2, seeds=2, rows=300)
    compare.make(tmp_path, size)
    folders, left_out = reading.find([str(tmp_path)], key="runs")
    runs = reading.read_all(folders, None, keep=True)
    assert left_out == [] and [run.state for run in runs if isinstance(run, reading.Run)] == ["done"] * 8
    told = report.make([run for run in runs if isinstance(run, reading.Run)], [], scoring.Asked())
    assert (
        len(told.labels) == 2
        and len(told.tasks) == 2
        and {cell.summary.n for cell in told.cells if cell.summary} == {2}
    )
    lengths = [len(line) for line in (folders[0] / "metrics.jsonl").read_bytes().splitlines(keepends=True)]
    assert min(lengths) > 430 and max(lengths) <= 500


def test_a_disk_without_room_for_the_runs_is_told(tmp_path: Path):
    with pytest.raises(OSError, match="are free; TMPDIR=<folder> makes the runs elsewhere"):
        compare.of_size(compare.Size(games=57, rates=1000, seeds=1000, rows=10**9), rounds=1, parent=tmp_path)
