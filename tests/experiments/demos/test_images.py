"""The images' demo, made tiny: three models, one picture, and where all of it lies."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from experiments import demo_images
from experiments.demos import images


@pytest.mark.long
def test_the_demo_runs_to_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    monkeypatch.chdir(tmp_path)
    typed = ["+debug=tiny", "budget=32", "tracker=none", "hydra.run.dir=runs/images"]
    monkeypatch.setattr(sys, "argv", ["demo_images", *typed])
    demo_images.main()
    told = capsys.readouterr().out
    folder = tmp_path / "runs" / "images"
    for family in images.FAMILIES:
        assert (folder / family.rpartition("/")[2] / "checkpoints").is_dir()
    with Image.open(folder / images.PICTURE) as picture:
        assert len(set(picture.convert("L").tobytes())) > 10  # something is drawn
    commands = told.split("== Try next ==\n")[1].splitlines()
    assert len(commands) == 3 and all(" -m experiments." in command for command in commands)
