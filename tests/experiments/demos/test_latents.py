"""One command, two sizes of the code, one picture."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from experiments import latents


@pytest.mark.long
def test_it_trains_each_size_and_draws_them_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = ["+debug=tiny", "source=digits", "tracker=none", "evaluators=none", "hydra.sweep.dir=runs"]
    monkeypatch.setattr(sys, "argv", ["latents", *tiny, "network.make.encoder.widths=[4]"])
    latents.main()
    assert capsys.readouterr().out.rstrip().endswith("runs/latents.png")
    assert {folder.name for folder in (tmp_path / "runs").iterdir()} == {"0", "1", "latents.png", "multirun.yaml"}
    for run, size in (("0", 2), ("1", 5)):
        assert f"latent: {size}" in (tmp_path / "runs" / run / "config.yaml").read_text()
    with Image.open(tmp_path / "runs" / "latents.png") as picture:
        assert len(set(picture.convert("L").tobytes())) > 10  # something is drawn
