"""What a run's samples are seen through stands in its folder, and stays the same over a resume."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from core import stopping
from experiments import training
from experiments.config import build, command_line, saved

pytestmark = pytest.mark.filterwarnings("ignore:FID of 16 images")


def pixels(file: str) -> Any:
    """Features by a network that looks at three pixels."""
    return lambda image: image.reshape(len(image), -1)[:, 20:23].astype(np.float32)


def train(folder: Path, weights: Path, **changes: Any) -> None:
    features = f"{{_target_: generative.features.Plugged, make: {__name__}.pixels, file: {weights}, name: pixels}}"
    typed = ("experiment=demo/vae", "evaluators=images", "evaluators.samples=null", "tracker=none", "+debug=tiny")
    settings = command_line.compose(*typed, f"++evaluators.quality.features={features}", "evaluators.quality.alarm=0")
    training.train(settings | {"budget": 400} | changes, folder, stop=stopping.Stop())


def test_the_digest_of_the_judging_network_is_kept_and_a_resume_with_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    folder, weights = tmp_path / "run", tmp_path / "weights"
    weights.write_bytes(b"first")
    digest, other = (hashlib.sha256(content).hexdigest() for content in (b"first", b"second"))
    train(folder, weights)
    judged = saved.protocol(folder)["evaluators"]
    assert (judged["quality"]["features_sha256"], judged["quality"]["samples"]) == (digest, 16)
    assert judged["held_out"] == {"split": "validation", "images": 16, "seed": 0}

    weights.write_bytes(b"second")
    message = rf"^evaluators\.quality\.features: have the digest {other}, and .* of {digest}, .*init_from="
    with pytest.raises(build.ConfigError, match=message):
        train(folder, weights, resume=str(folder), budget=800)
    assert saved.protocol(folder)["evaluators"] == judged

    moved = tmp_path / "moved"  # and named at the resume
    moved.write_bytes(b"third")
    typed = ["train", f"resume={folder}", "budget=800", f"evaluators.quality.features.file={moved}"]
    monkeypatch.setattr("sys.argv", [*typed])
    with pytest.raises(SystemExit):
        command_line.main(training.task)
    assert "evaluators.quality.features: have the digest " in capsys.readouterr().err
    moved.write_bytes(b"first")
    monkeypatch.setattr("sys.argv", [*typed])
    command_line.main(training.task)
    assert saved.load(folder)["evaluators"]["quality"]["features"]["file"] == str(moved)
    assert saved.protocol(folder)["evaluators"]["quality"]["features_sha256"] == digest

    content: Any = OmegaConf.load(folder / saved.FILE)
    del content["protocol"]["evaluators"]  # of an older revision
    OmegaConf.save(content, folder / saved.FILE)
    weights.write_bytes(b"second")
    train(folder, weights, resume=str(folder), budget=1_200)
    assert saved.protocol(folder)["evaluators"]["quality"]["features_sha256"] == other
