"""The demo, made tiny: it tells its story to the end, and tells the truth where a run falls short."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agents import evaluation
from experiments import demo
from experiments.config import command_line
from experiments.demos import atari


@pytest.mark.long
def test_the_demo_runs_to_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(atari, "EPISODES", 2)
    tiny = ["+debug=tiny", "network.make.torso.width=2", "tracker=none", "hydra.run.dir=runs/demo"]
    monkeypatch.setattr(sys, "argv", ["demo", *tiny])
    demo.main()
    told = capsys.readouterr().out
    folder = tmp_path / "runs" / "demo"
    for name in ("learning_curve.png", "media/play-640.gif", "media/play-640.mp4", "evaluation.json", "checkpoints"):
        assert (folder / name).exists() and name.split("/")[0] in told
    with Image.open(folder / "learning_curve.png") as picture:
        assert len(set(picture.convert("L").tobytes())) > 10  # something is drawn
    assert "over the same 2 games" in told
    commands = told.split("== Try next ==\n")[1].splitlines()
    assert len(commands) == 3 and all(" -m experiments." in command for command in commands)
    assert commands[0].endswith("resume=runs/demo budget=2560")


@pytest.mark.parametrize("trained, begins", [([900.0, 1100, 1000], "It learned"), ([0.0, 300, 100], "It fell short")])
def test_the_verdict_follows_the_standard_errors(trained: list[float], begins: str):
    told = atari.verdict({"trained": scores(trained), "random": scores([0.0, 20, 10])})
    assert told.startswith(begins)
    # By hand: means 1,000 and 10, standard errors 100 / √3 and 10 / √3; means 133.3 and 10, 88.2 and 5.8.
    assert f"a difference of {17.1 if begins == 'It learned' else 1.4} standard errors" in told


def test_the_settings_are_those_of_the_experiment():
    settings = command_line.compose("experiment=dqn/demo")
    assert settings["name"] == "dqn/demo" and settings["checkpoint"]["every"] == settings["budget"]


def scores(returns: list[float]) -> evaluation.Scores:
    count = len(returns)
    return evaluation.Scores(
        returns=np.array(returns),
        frames=np.full(count, 400),
        truncated=np.zeros(count, bool),
        human_normalised=None,
        protocol={},
    )
