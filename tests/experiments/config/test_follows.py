"""What was made from the budget follows it when a run is resumed with another one."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from omegaconf import OmegaConf

from experiments import runs, training
from experiments.config import build, command_line, fitting, resume, saved


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def note(settings: command_line.Config, folder: Path) -> None:
    """A task that begins a run and does nothing in it."""
    saved.save(folder, settings)


def start(*typed: str, task: Any = note) -> command_line.Config:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *typed])
        command_line.main(task)
    return saved.load("run")


def weights() -> list[np.ndarray]:
    view: Any = runs.load("run").view
    return [np.asarray(leaf) for leaf in jax.tree.leaves(view["params"])]


def test_a_learning_rate_that_had_come_to_its_end_goes_on_as_of_the_longer_run(capsys: pytest.CaptureFixture):
    typed = ["experiment=classifier/resnet", "network=classifier_mlp", "source=digits", "+debug=tiny", "tracker=none"]
    typed += ["evaluators=none", "checkpoint.metric=null", "log_every=160", "learner.averages={}", "hydra.run.dir=run"]
    start(*typed, "budget=640", task=training.task)
    ended = weights()
    resumed = start("resume=run", "budget=3200", task=training.task)
    assert "updated with the new settings: optimizer.schedule.images 640 -> 3,200\n" in capsys.readouterr().out
    share = build.objects(resumed["learner"]["optimizer"]["schedule"])
    assert float(share(np.int32(80))) > 0.9 > 0.1 > float(share(np.int32(395)))  # of 400 updates of 8 images
    assert all(np.abs(new - old).max() > 1e-3 for new, old in zip(weights(), ended, strict=True))
    rates = [json.loads(line)["images"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert rates[-1] == 3200


@pytest.mark.parametrize(
    "typed, before, after",
    [
        (
            ["experiment=gan/fashion_mnist", "budget=1000"],
            {"learner.budget": 1000, "learner.averages.ema.over": 1000},
            {"learner.budget": 5000, "learner.averages.ema.over": 5000},
        ),
        (
            ["experiment=dqn/pong", "learner=prioritized", "budget=1000", "log_every=${budget}"],
            {"learner.replay.sampler.anneal.frames": 1000, "log_every": 1000},
            {"learner.replay.sampler.anneal.frames": 5000, "log_every": 5000},
        ),
        (
            ["experiment=classifier/mlp", "budget=1000", "+learner.odd=[1,{x: [2, '${budget}']}]"],
            {"learner.odd.1.x.1": 1000},
            {"learner.odd.1.x.1": 5000},
        ),
        (  # through others, of which only the first may change
            ["budget=1000", "checkpoint.every=${budget}", "evaluators.episodes.every=${checkpoint.every}"],
            {"checkpoint.every": 1000, "evaluators.episodes.every": 1000},
            {"checkpoint.every": 5000, "evaluators.episodes.every": 5000},
        ),
    ],
)
def test_numbers_made_from_the_budget_are_made_anew(typed: list[str], before: dict[str, int], after: dict[str, int]):
    def values(settings: command_line.Config) -> dict[str, Any]:
        return {key: fitting.value_at(settings, resume._split(key)) for key in before}

    first = start(*typed, "hydra.run.dir=run")
    assert " ".join(typed) in Path("run/config.yaml").read_text().partition("\n")[0]
    assert values(first) == before and first["follows"].keys() == before.keys()
    second = start("resume=run", "budget=5000")
    assert values(second) == after
    assert start("resume=run", "budget=1000") == first


def test_nothing_else_moves_with_it():
    first = start("experiment=diffusion/fashion_mnist", "budget=5000", "name=of_${budget}", "hydra.run.dir=run")
    second = start("resume=run", "budget=7000")
    assert second["name"] == "of_5000" and second["learner"]["averages"] == first["learner"]["averages"]
    assert second["learner"]["optimizer"] == second["optimizer"]
    second["budget"] = 5000
    for node in (second["optimizer"], second["learner"]["optimizer"]):
        node["schedule"]["images"] = 5000
    assert second == first


def test_what_is_typed_at_a_resume_follows_no_more():
    start("experiment=dqn/pong", "budget=1000", "log_every=${budget}", "hydra.run.dir=run")
    assert start("resume=run", "budget=5000", "log_every=70")["log_every"] == 70
    assert start("resume=run", "budget=9000")["log_every"] == 70


def test_a_run_of_before_is_told_what_may_have_to_follow():
    start("experiment=diffusion/fashion_mnist", "budget=5000", "hydra.run.dir=run")
    content: Any = OmegaConf.load("run/config.yaml")
    del content["follows"]
    OmegaConf.save(content, "run/config.yaml")
    old = saved.load("run")
    line = resume.told(old, resume.merged(command_line.compose("resume=run", "budget=9000"), ["budget=9000"]))
    assert (
        line
        and "budget=9,000 (was 5,000)" in line
        and " optimizer.schedule.images still equal the old budget. If " in line
    )
    assert resume.told(old, old) is None
    assert start("resume=run", "budget=9000")["optimizer"]["schedule"]["images"] == 5000
