"""A run and its data: named by absolute paths, moved, grown, in an order of classes; through the real commands."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.images import datasets, folders
from experiments import runs, training
from experiments.config import build, command_line, saved
from experiments.evaluation import command, samples
from generative import drawing

Command = Callable[..., tuple[int, str, str]]
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
TASKS = {"train": training.task, "evaluate": command.task, "sample": samples.task}
SMALL = ("experiment=vae/conditional", "+debug=tiny", "budget=32", "tracker=none", "evaluators=classifier")
DATA = ("source=npz", "source.path=data.npz")
FOLDER = ("source=image_folder", "source.folder=data", "source.size=8", "source.color=grey")


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture) -> Command:
    """`python -m experiments.<name> <typed>`: its status, what it says, and what it says on standard error."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *typed: str) -> tuple[int, str, str]:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", [name, *typed])
        status = 0
        try:
            command_line.main(TASKS[name], name=name)
        except SystemExit as left:
            status = int(left.code or 0)
        return status, *capfd.readouterr()

    return run


@pytest.mark.long
def test_a_run_needs_no_more_than_its_folder_and_finds_data_that_were_moved(
    run_command: Command, tmp_path: Path, monkeypatch
):
    np.savez(tmp_path / "data.npz", image=IMAGES, label=np.arange(60) % 3)
    told = run_command("train", *SMALL, *DATA, "hydra.run.dir=run")
    assert told[0] == 0, told
    written = saved.load("run")
    place = str(tmp_path / "data.npz")
    assert written["source"]["path"] == written["source"]["data"]["path"] == place
    assert written["evaluators"]["held_out"]["data"]["path"] == place
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run = f"run={tmp_path / 'run'}"
    assert run_command("evaluate", run, "images=0")[0] == 0
    first = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert "warning" not in first["data"] and first["data"]["images"] == 48

    shutil.move(tmp_path / "data.npz", elsewhere / "new.npz")
    status, _, error = run_command("evaluate", run)
    assert status == 2 and f"path={place}: no such file" in error and "takes source.path=<the new place>" in error
    assert run_command("evaluate", run, "source.path=new.npz", "images=0")[0] == 0
    again = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert again["held_out"] == first["held_out"] and again["data"] == first["data"]
    resume = (f"resume={tmp_path / 'run'}", "budget=64")
    assert run_command("train", *resume)[0] == 2
    told = run_command("train", *resume, "source.folder=x")[2]
    assert "source.folder=x: its data have _target_, path, classes" in told
    status, shown, error = run_command("train", *resume, "source.path=new.npz")
    assert status == 0 and "finished at 64 images" in shown, error
    assert saved.load(tmp_path / "run")["evaluators"]["held_out"]["data"]["path"] == str(elsewhere / "new.npz")


@pytest.mark.long
def test_a_run_goes_on_with_its_own_data_alone(run_command: Command, tmp_path: Path):
    np.savez(tmp_path / "data.npz", image=IMAGES[:50], label=np.arange(50) % 3)
    assert run_command("train", *SMALL, *DATA, "hydra.run.dir=run")[0] == 0
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    digest = datasets.Npz(path="data.npz").load("train").digest
    assert saved.protocol("run")["images_sha256"] == digest and saved.protocol("run")["class_counts"]
    grown = IMAGES[:50].copy()
    grown[7] ^= 1
    for image, count in ((IMAGES, 48), (grown, 40)):
        np.savez(tmp_path / "data.npz", image=image, label=np.arange(len(image)) % 3)
        status, _, error = run_command("train", "resume=run", "budget=64")
        assert status == 2 and f"images_sha256 {digest}, images 40 then" in error and f"images {count} now" in error
        assert f"init_from={tmp_path / 'run'}" in error and (tmp_path / "run" / "config.yaml").read_bytes() == before
    status, shown, _ = run_command("evaluate", "run=run", "images=0")
    assert status == 0 and "warning: these data are not those that the run was trained on: 40 images" in shown
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["data"]["run_images_sha256"] == digest

    np.savez(tmp_path / "other.npz", image=IMAGES[:, :4], label=np.arange(60) % 3)
    error = run_command("evaluate", "run=run", "source.path=other.npz")[2]
    assert "the model is of {'image': (8, 8, 1), 'classes': 3}, and its data are {'image': (4, 8, 1)" in error

    text = before.decode().replace(f"  images_sha256: {digest}\n", "")  # of an earlier version: their number
    (tmp_path / "run" / "config.yaml").write_text(text)
    shutil.move("data.npz", "same.npz")
    np.savez(tmp_path / "data.npz", image=IMAGES, label=np.arange(60) % 3)
    status, _, error = run_command("train", "resume=run", "budget=64")
    assert status == 2 and "images 40 then; images 48 now" in error, error
    shutil.move("same.npz", "data.npz")
    assert run_command("train", "resume=run", "budget=64")[0] == 0


def numbered(folder: Path, names: list[str], count: int = 15) -> None:
    for value, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((6, 6), 20 * value + 10, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def drawn(run: runs.Trained, label: int | str) -> int:
    """The class that is asked for."""
    labels = samples.chosen_labels(run, samples.Wanted(run=str(run.folder), count=1, label=label))
    assert labels is not None
    return int(labels[0])


def test_classes_are_asked_for_and_answered_by_name(run_command: Command, tmp_path: Path):
    numbered(tmp_path / "data", [str(i) for i in range(1, 13)])
    assert run_command("train", *SMALL, *FOLDER, "hydra.run.dir=run")[0] == 0
    shutil.rmtree(tmp_path / "data")  # the run's folder is enough
    status, shown, error = run_command("sample", "run=run", "label=2", "count=257")
    assert status == 0 and ", class 1 (2): samples.npz, samples.png, which shows the first 256" in shown, error
    with np.load("samples.npz") as found:
        assert found["label"].tolist() == [1] * 257
        assert json.loads(str(found["about"]))["class_names"] == [str(i) for i in range(1, 13)]
    run = runs.load("run")
    assert [drawn(run, label) for label in (12, "02", "1")] == [11, 1, 0]
    for label in (0, 13, "cat"):
        with pytest.raises(build.ConfigError, match=f"label={label}: no such class"):
            drawn(run, label)


def test_a_run_keeps_the_order_of_its_classes(run_command: Command, tmp_path: Path):
    """Of earlier versions, which sorted numbers as text."""
    names = [str(i) for i in range(12)]
    numbered(tmp_path / "data", names)
    old = f"source.data.class_names=[{','.join(repr(name) for name in sorted(names))}]"
    assert run_command("train", *SMALL, *FOLDER, old, "hydra.run.dir=run")[0] == 0
    path = tmp_path / "run" / "config.yaml"
    lines = path.read_text().split("protocol:")
    kept = [line for line in lines[0].splitlines(keepends=True) if "class_names" not in line and "- '" not in line]
    path.write_text("".join(kept) + "protocol:" + lines[1])
    assert runs.load("run").class_names[2] == "10"
    assert drawn(runs.load("run"), 10) == 2
    status, shown, error = run_command("evaluate", "run=run", "images=0")
    assert status == 0 and "warning" not in shown, error
    assert run_command("train", "resume=run", "budget=64")[0] == 0
    numbered(tmp_path / "data", ["dog"])
    folders.read_folder.cache_clear()  # as in a process of its own
    assert "more dog" in run_command("train", "resume=run", "budget=96")[2]


def test_names_that_are_no_numbers(run_command: Command, tmp_path: Path):
    np.savez(tmp_path / "data.npz", image=IMAGES, label=np.arange(60) % 3, class_names=["cat", "big dog", "1"])
    assert run_command("train", *SMALL, *DATA, "hydra.run.dir=run")[0] == 0
    run = runs.load("run")
    assert [drawn(run, label) for label in ("cat", "big dog", 1, 0, "2")] == [0, 1, 2, 0, 2]
    for label, told in (("cats", "no such class; did you mean cat?"), (3, "the classes are 0 to 2")):
        with pytest.raises(build.ConfigError, match=f"label={label}: {re.escape(told)}"):
            drawn(run, label)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:FID of")  # fewer images than features
def test_defaults_take_what_there_is_and_say_so(run_command: Command, tmp_path: Path):
    """28 x 28 grey images, which the published features see, and fewer of them than any default wants."""
    image = np.random.default_rng(0).integers(0, 256, (60, 28, 28, 1), np.uint8)
    label = np.repeat([1, 2, 3], [42, 12, 6])
    np.savez(tmp_path / "data.npz", image=image, label=label)
    typed = (*SMALL[:-1], *DATA, "source.data.classes=4", "network.latent=3")
    whole = "evaluators.quality.usual=2000"
    status, shown, error = run_command("train", *typed, whole, "hydra.run.dir=run")
    assert status == 0, error
    assert "quality: 48 samples are judged, beside as many real images: 2,000 are usual" in shown
    assert "no image of the classes 0 to train on" in shown
    protocol = saved.protocol("run")
    assert protocol["evaluators"]["quality"]["samples"] == 48 and protocol["class_counts"][0] == 0
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("    classes: 4\n", "    classes: null\n"))  # earlier versions let gaps be
    status, shown, error = run_command("evaluate", "run=run", "images=0")
    assert status == 0 and "48 samples are judged, beside as many real images: 10,000 are usual" in shown, error
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["quality"]["protocol"]["samples"] == 48
    assert "count=49: the split train has 48 images" in run_command("evaluate", "run=run", "count=49")[2]

    assert "3 of its 4 classes in turn" in run_command("sample", "run=run", "count=4", "batch=4")[1]
    with np.load("samples.npz") as found:
        assert 0 not in found["label"]
    run = runs.load("run")
    with pytest.raises(build.ConfigError, match="label=0: there was no image of this class to train on"):
        drawn(run, 0)
    labels = drawing.by_seed(run.class_counts, np.arange(100))  # what runs.load(...).sample(100) asks for
    np.testing.assert_allclose(np.bincount(labels), 100 * run.class_counts / 48, atol=2)
