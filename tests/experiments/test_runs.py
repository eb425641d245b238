"""A run's folder alone gives its agent back."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from core import stopping
from experiments import runs, training
from experiments.config import build, command_line, saved


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A tiny run: its folder and how it ended."""
    folder = tmp_path_factory.mktemp("runs") / "cartpole"
    settings = command_line.compose("experiment=dqn/cartpole", "+debug=tiny", "tracker=none")
    return folder, training.train(settings, folder, stop=stopping.Stop())


def test_a_run_comes_back_as_it_ended(trained):
    folder, outcome = trained
    before = files(folder)
    run = runs.load(folder)
    assert (run.step, run.examples, run.unit) == (outcome.step, outcome.examples, "frames")
    jax.tree.map(np.testing.assert_array_equal, run.view, run.learner.view(outcome.state))
    assert files(folder) == before


def test_the_best_is_another_checkpoint(trained):
    folder, _ = trained
    assert runs.load(folder, "best").checkpoint.parent == folder / "checkpoints" / "best"


def test_no_run_and_no_checkpoint_are_told_apart(trained, tmp_path: Path):
    folder, _ = trained
    with pytest.raises(build.ConfigError, match=r"cartpol: no run here .* did you mean cartpole\?"):
        runs.load(folder.with_name("cartpol"))
    (tmp_path / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
    with pytest.raises(build.ConfigError, match=f"run={tmp_path}.* no whole checkpoint 'latest'"):
        runs.load(tmp_path)


def test_a_setting_that_has_moved_is_found_where_it_is_now(trained, tmp_path: Path):
    """learner.compute became network.compute."""
    folder, _ = trained
    text = (folder / "config.yaml").read_text()
    old = re.sub(r"( +)compute: float32\n", "", text).replace("learner:\n", "learner:\n  compute: bfloat16\n")
    assert old.count("compute") == 1
    (tmp_path / "config.yaml").write_text(old)
    settings = saved.load(tmp_path)
    assert "compute" not in settings["learner"] and settings["learner"]["network"]["compute"] == "bfloat16"
    build.check(settings)


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
