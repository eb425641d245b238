"""A trained classifier as what images are seen through: by its run, and as one file."""

from pathlib import Path

import numpy as np
import pytest

from core import stopping
from experiments import runs, training
from experiments.config import build, command_line
from experiments.evaluation import classifiers
from generative import features

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 9, 8, 1), dtype=np.uint8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    np.savez(tmp_path / "images.npz", image=IMAGES, label=np.arange(60) % 3)
    folder = tmp_path / "run"
    folder.mkdir()
    settings = command_line.compose(
        "experiment=classifier/mlp",
        "source=npz",
        f"source.path={tmp_path / 'images.npz'}",
        "network.make.widths=[7,5]",
        "+debug=tiny",
        "tracker=none",
        "evaluators=none",
        "budget=16",
    )
    training.train(settings, folder, stop=stopping.Stop())
    return folder


def test_a_run_and_the_file_made_of_it_see_alike(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    judge = classifiers.Judge(run=str(run))
    seen = features.extract(judge, IMAGES, batch=32)
    trained = runs.load(run)
    np.testing.assert_allclose(seen, trained.learner.features(trained.view, IMAGES), rtol=1e-5, atol=1e-6)
    assert seen.shape == (60, 5) and judge.image == (9, 8, 1) and "step " in judge.name
    assert len(judge.digest) == 64 and judge.digest == classifiers.Judge(run=str(run)).digest

    path = tmp_path / "published.npz"
    assert classifiers.main([str(run), str(path)]) == 0
    published = features.Published(file=str(path))
    assert published.digest in capsys.readouterr().out
    np.testing.assert_allclose(features.extract(published, IMAGES), seen, atol=0.01)
    assert published.image == judge.image

    with pytest.raises(ValueError, match=r"sees images of \(9, 8, 1\), these are \(28, 28, 1\)"):
        features.check(judge, (28, 28, 1))


def test_what_is_no_classifier_is_refused(tmp_path: Path):
    with pytest.raises(build.ConfigError, match="nowhere: no run here"):
        features.extract(classifiers.Judge(run=str(tmp_path / "nowhere")), IMAGES)
    assert "nowhere" in classifiers.main([str(tmp_path / "nowhere"), "a.npz"])
    assert classifiers.main(["run"]).startswith("usage:") and classifiers.main(["run", "a.png"]).startswith("usage:")
