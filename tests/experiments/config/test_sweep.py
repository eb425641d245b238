"""A sweep of whose jobs some fail: the others run, and all that failed are told, at once and at the end."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import training
from experiments.config import build, command_line, saved

TINY = (
    "experiment=dqn/cartpole",
    "+debug=tiny",
    "tracker=none",
    "evaluators=none",
    "optimizer.rule._target_=optax.sgd",
)
SGD = (
    *(f"~optimizer.rule.{name}" for name in ("b1", "b2", "eps")),
    "checkpoint.metric=null",
    "budget=160",
    "hydra.sweep.dir=sweep",
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def status(*typed: str, task: Any = training.task) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *typed])
        with pytest.raises(SystemExit) as left:
            command_line.main(task)
    return left.value.code


def test_every_failure_of_a_sweep_is_told_and_the_others_run(capsys: pytest.CaptureFixture):
    values = "optimizer.learning_rate=-1,1e30,nan,1e-3"
    assert status(*TINY, *SGD, "-m", values) == command_line.EXIT_FAILED
    told = capsys.readouterr().err
    before, _, end = told.partition("of this sweep 3 failed:\n")
    assert "job 0 failed: optimizer.learning_rate=-1.0: must be greater than 0" in before
    assert "job 1 failed: Traceback" in before and "Diverged: step " in before
    assert "job 2 failed: optimizer.learning_rate=nan: must be" in before
    rows = end.splitlines()
    assert [re.match(r"job (\d) ", row)[1] for row in rows] == ["0", "1", "2"]  # pyright: ignore[reportOptionalSubscript]
    assert "no folder" in rows[0] and rows[0].endswith("optimizer.learning_rate=-1.0: must be greater than 0")
    where = re.escape(str(Path("sweep/1").absolute()))
    assert re.match(rf"job 1  optimizer\.learning_rate=1e\+?30 +{where} +Diverged: step \d+: ", rows[1])
    assert Path("sweep/1/error.txt").read_text().startswith("Diverged: step ")
    assert sorted(path.name for path in Path("sweep").iterdir()) == ["1", "3", "multirun.yaml"]
    assert not Path("sweep/3/error.txt").exists() and saved.load("sweep/3")["optimizer"]["learning_rate"] == 1e-3


def test_mistakes_alone_have_the_status_of_mistakes(capsys: pytest.CaptureFixture):
    assert status(*TINY, *SGD, "-m", "optimizer.learning_rate=-1,-2") == command_line.EXIT_MISTAKE
    assert "Error executing job" not in capsys.readouterr().err


def test_a_mistake_is_told_whole_at_once_and_in_a_line_at_the_end(capsys: pytest.CaptureFixture):
    def task(settings: command_line.Config, folder: Path) -> None:
        raise build.ConfigError("seed", "=1: is taken\ntake another")

    assert status("-m", "seed=1", task=task) == command_line.EXIT_MISTAKE
    before, _, end = capsys.readouterr().err.partition("of this sweep 1 failed:\n")
    assert before.startswith("job 0 failed: seed=1: is taken\ntake another\n") and "take another" not in end


def test_a_stop_ends_the_whole_sweep_and_failures_so_far_are_told(capsys: pytest.CaptureFixture):
    seen = []

    def task(settings: command_line.Config, folder: Path) -> None:
        seen.append(settings["seed"])
        if settings["seed"] == 1:
            raise RuntimeError("a bug\nof two lines")
        sys.exit(75)

    assert status("-m", "seed=1,2,3", task=task) == 75
    assert seen == [1, 2]
    assert capsys.readouterr().err.rstrip().endswith("RuntimeError: a bug")


def test_a_run_says_why_it_ended_until_it_goes_on(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("the disk is gone")

    typed = (*TINY, *SGD, "hydra.run.dir=run")
    with monkeypatch.context() as patch:
        patch.setattr("core.record.Record.write", broken)
        patch.setattr(sys, "argv", ["train", *typed])
        with pytest.raises(OSError, match="the disk is gone"):
            command_line.main(training.task)
    assert Path("run/error.txt").read_text().startswith("OSError: the disk is gone\n\nTraceback")
    monkeypatch.setattr(sys, "argv", ["train", "resume=run"])
    command_line.main(training.task)
    assert not Path("run/error.txt").exists()
