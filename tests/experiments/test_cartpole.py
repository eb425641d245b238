"""That it learns: the one test that trains for long."""

import json
import pathlib

import pytest

from core import stopping
from experiments import training
from experiments.config import command_line


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1])
def test_cartpole_reaches_475_within_100000_steps(tmp_path: pathlib.Path, seed: int):
    settings = command_line.compose("experiment=dqn/cartpole", f"seed={seed}", "tracker=none")
    outcome = training.train(settings, tmp_path, stop=stopping.Stop())
    assert outcome.examples <= 100_000
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [row["eval/episode_return"] for row in rows if "eval/episode_return" in row]
    assert max(scores) >= 475, scores
