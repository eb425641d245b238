"""`python -m experiments.evaluate`: what it prints, what it leaves in the run's folder, and what it refuses."""

import json
import sys
from pathlib import Path

import pytest

from core import stopping
from experiments import training
from experiments.config import command_line
from experiments.evaluation import command


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "cartpole", "experiment=dqn/cartpole", "tracker=none")


@pytest.fixture(scope="module")
def atari(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(
        tmp_path_factory.mktemp("runs") / "atari",
        "experiment=dqn/atari",
        "evaluators=none",
        "network.make.torso.width=2",
    )


def trained(folder: Path, *overrides: str) -> Path:
    training.train(command_line.compose(*overrides, "+debug=tiny"), folder, stop=stopping.Stop())
    return folder


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run(*typed: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", ["evaluate", *typed])
        command_line.main(command.task, name="evaluate")

    return run


def test_scores_are_written_with_all_they_must_be_read_with(evaluate, cartpole: Path, capsys, tmp_path: Path):
    evaluate(f"run={cartpole}", "episodes=5", "seed=3", "random=true")
    found = json.loads((cartpole / "evaluation.json").read_text())
    assert found["command"] == f"python -m experiments.evaluate run={cartpole} episodes=5 seed=3 random=true"
    assert (found["frames"], found["checkpoint"]) == (640, "checkpoints/000000000080")
    agents = found["agents"]
    assert [agents[name]["protocol"]["epsilon"] for name in ("trained", "random")] == [0.0, 1.0]  # the run's own, 1
    assert agents["trained"]["protocol"]["seed"] == 3 and len(agents["trained"]["returns"]) == 5
    shown = capsys.readouterr().out
    assert "protocol: environment gymnasium" in shown and f"{agents['trained']['mean']:,.2f}" in shown
    assert list(tmp_path.iterdir()) == []  # nothing is left where one stands


def test_epsilon_one_is_random_play_on_the_same_games(evaluate, cartpole: Path):
    evaluate(f"run={cartpole}", "episodes=3", "epsilon=1", "random=true", "which=best")
    agents = json.loads((cartpole / "evaluation.json").read_text())["agents"]
    assert agents["trained"] == agents["random"]


@pytest.mark.long
def test_a_film_goes_to_the_folder_and_to_wandb(evaluate, atari: Path):
    rows = (atari / "metrics.jsonl").read_bytes()
    evaluate(f"run={atari}", "episodes=1", "video=true")
    assert {path.suffix for path in (atari / "media").glob("play-640.*")} == {".mp4", ".gif"}
    found = json.loads((atari / "evaluation.json").read_text())["agents"]["trained"]
    assert found["protocol"]["epsilon"] == 0.01  # the run had no evaluations of its own
    (logged,) = (atari / "evaluations").iterdir()
    assert list(logged.glob("wandb/offline-run-*")) and list(logged.glob("media/eval/play-640.mp4"))
    assert (atari / "metrics.jsonl").read_bytes() == rows  # the training's record stays as it is


@pytest.mark.parametrize(
    "typed, told",
    [
        ("episodes=0", "episodes=0: an evaluation plays at least 1"),
        ("episodes=many", "episodes=many: should be a valid integer"),
        ("epsilon=2", "epsilon=2.0: a share of random actions"),
        ("seed=-1", "seed=-1: must lie in 0..4294967295"),
        ("which=last", "which=last: should be 'latest' or 'best'"),
        ("video=true", "video=true: only Atari games can be filmed"),
        ("episode=3", "episode: no such key; did you mean episodes?"),
        ("tracker=none", "tracker: no such key; the config has"),
    ],
)
def test_a_mistake_is_told(evaluate, cartpole: Path, capsys, typed: str, told: str):
    with pytest.raises(SystemExit) as left:
        evaluate(f"run={cartpole}", typed)
    assert left.value.code == command_line.EXIT_MISTAKE
    assert told in capsys.readouterr().err


def test_a_run_must_be_named(evaluate, capsys, tmp_path: Path):
    (tmp_path / "mine").touch()
    for typed, told in (((), "run: missing"), (("run=nowhere/at_all",), "nowhere/at_all: no run here")):
        with pytest.raises(SystemExit):
            evaluate(*typed)
        assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]
