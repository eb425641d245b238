"""Every experiment file, shrunk: two updates, an evaluation, a checkpoint, and on from there."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from core import stopping
from core.checkpoints import checkpoint
from core.images import download
from experiments import training
from experiments.config import command_line

EXPERIMENTS = sorted(
    file.relative_to(command_line.CONF / "experiment").with_suffix("").as_posix()
    for file in (command_line.CONF / "experiment").rglob("*.yaml")
)


def examples_per_step(settings: command_line.Config) -> int:
    """Frames or images in a batch."""
    source = settings["source"]
    if "envs" not in source:
        return source["batch"] * (source["batches"] or 1) * source["dispatch"]
    return source["envs"] * source["steps"] * source["environments"].get("frame_skip", 1)


def steps_needed(settings: command_line.Config) -> tuple[int, int]:
    """Batches: those that are only taken in, and enough for two updates."""
    source, learner = settings["source"], settings["learner"]
    if "envs" not in source:
        return 0, math.ceil(2 / source["dispatch"])
    taken = source["envs"] * source["steps"]
    return math.ceil(learner["learning_starts"] / taken), math.ceil(2 * learner["update_every"] / taken)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:FID of 16 images")  # as few as it takes to go through the code
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_learns_is_judged_is_saved_and_goes_on(experiment: str, tmp_path: Path):
    frames = [f"source.path={frames_of_a_game(tmp_path)}"] * experiment.endswith("/atari_frames")
    settings = command_line.compose(f"experiment={experiment}", "+debug=tiny", "tracker=none", *frames)
    installed = Path(download.KNOWN["fashion_mnist"].installed or "")
    if settings["source"].get("data", {}).get("name") == "fashion_mnist" and not installed.is_dir():
        pytest.skip(f"needs Debian's dataset-fashion-mnist ({installed})")
    size = examples_per_step(settings)
    warmup, learning = steps_needed(settings)
    again = learning if settings["checkpoint"]["replay"] else warmup + learning
    outcomes = []
    for steps, resume in ((warmup + learning, None), (warmup + learning + again, str(tmp_path))):
        budget = size * steps
        run = settings | {"budget": budget, "resume": resume, "log_every": size}
        outcomes.append(training.train(run, tmp_path, stop=stopping.Stop()))
        assert outcomes[-1].finished and outcomes[-1].examples == budget
        losses = [value for name, value in outcomes[-1].scalars.items() if name.startswith("loss/")]
        assert losses and np.isfinite(losses).all()
    assert 2 <= updates(outcomes[0].state) < updates(outcomes[1].state)
    assert checkpoint.complete(tmp_path / "checkpoints")[-1].name == f"{outcomes[1].step:012d}"
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), outcomes[0].state.params, outcomes[1].state.params)
    assert any(jax.tree.leaves(moved))

    rows: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == set(range(1, outcomes[1].step + 1))
    judged = [row["step"] for row in rows if any(name.startswith("eval/") for name in row)]
    assert sorted(set(judged)) == [outcome.step for outcome in outcomes] * tells_figures(settings["evaluators"])


def tells_figures(evaluators: command_line.Config) -> bool:
    """Whether an evaluation leaves more than pictures."""
    chosen = {name for name, node in evaluators.items() if isinstance(node, dict)}
    return not evaluators.get("_off_", False) and bool(chosen - {"samples", "pictures"})


def frames_of_a_game(folder: Path) -> Path:
    """What `experiments.collect` would have written."""
    path = folder / "frames.npz"
    np.savez(path, image=np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3), np.uint8))
    return path


def updates(state: Any) -> int:
    """Updates of the weights: a learner step makes one, unless it counts them itself."""
    return int(getattr(state, "updates", state.step))
