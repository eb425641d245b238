"""What people get wrong about images, from the command line: a line or two, status 2, and nothing begun."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.images import download
from experiments import training
from experiments.config import command_line, saved

GREY = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
LABEL = np.arange(40) % 4


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture):
    """What standard error says of a training that does not begin; its folder would be tmp_path/runs."""

    def run(*typed: str, evaluators: str = "none") -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        always = ("tracker=none", f"evaluators={evaluators}", "hydra.run.dir=runs/a")
        monkeypatch.setattr(sys, "argv", ["train", *typed, *always])
        with pytest.raises(SystemExit) as left:
            command_line.main(training.task)
        assert left.value.code == command_line.EXIT_MISTAKE
        assert not (tmp_path / "runs" / "a" / saved.FILE).exists()  # no run lies there
        told = capfd.readouterr().err
        assert "Traceback" not in told
        return told.strip()

    return run


@pytest.mark.parametrize(
    "arrays, told",
    [
        ({"image": GREY[..., 0]}, "image: shape (40, 8, 8), and images are [N, H, W, C]: add the axis of channels"),
        ({"image": np.moveaxis(np.repeat(GREY, 3, -1), -1, 1)}, "put the channels, 1 or 3, last"),
        ({"image": np.repeat(GREY, 4, -1)}, "images are [N, H, W, C]: RGBA: leave out the opacity, image[..., :3]"),
        ({"image": (GREY / 255).astype(np.float32)}, "image: float32, and images are uint8: scale to 0..255"),
        ({"image": GREY.astype(np.int64)}, "image: int64, and images are uint8: store 0..255 as uint8"),
        ({"image": GREY // 128}, "image: no pixel is above 1, and white is 255: multiply by 255"),
        ({"image": GREY[:0]}, "there is none"),
        ({"image": GREY, "label": LABEL - 1}, "label: -1 at image 0, and 9 more, lie outside 0..2; count classes from"),
        ({"image": GREY, "label": LABEL[:7]}, "label: shape (7,) for 40 images"),
        ({"image": GREY, "label": LABEL / 2}, "label: float64; classes are whole numbers"),
        ({"picture": GREY}, "it has no array `image`, only picture"),
    ],
    ids=[
        "no channels",
        "channels first",
        "rgba",
        "floats",
        "int64",
        "0 and 1",
        "none",
        "labels",
        "few",
        "half",
        "name",
    ],
)
def test_arrays_that_are_no_images(refused, tmp_path: Path, arrays: dict[str, np.ndarray], told: str):
    np.savez(tmp_path / "x.npz", **arrays)  # pyright: ignore[reportArgumentType]
    assert told in refused("experiment=vae/fashion_mnist", "source=npz", "source.path=x.npz")


def test_labels_beyond_the_classes_that_were_typed(refused, tmp_path: Path):
    np.savez(tmp_path / "x.npz", image=GREY, label=LABEL)
    told = refused("experiment=vae/conditional", "source=npz", "source.path=x.npz", "source.data.classes=3")
    assert "label: 3 at image 3, and 9 more, lie outside 0..2" in told


def test_files_that_are_not_there_or_damaged(refused, tmp_path: Path):
    typed = ("experiment=gan/fashion_mnist", "source=npz", "source.path=x.npz")
    assert "path=x.npz: no such file. `python -m experiments.collect source.game=pong out=x.npz`" in refused(*typed)
    np.savez(tmp_path / "x.npz", image=GREY)
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-200])
    assert "path=x.npz: no readable .npz of images" in refused(*typed)


def test_folders_without_images_and_with_a_broken_one_in_their_middle(refused, tmp_path: Path):
    typed = ("experiment=diffusion/fashion_mnist", "source=image_folder", "source.folder=pictures", "source.size=8")
    assert "folder=pictures: no such folder" in refused(*typed)
    (tmp_path / "pictures").mkdir()
    assert "folder=pictures: no .png, .jpg, .jpeg file below it" in refused(*typed)
    for index, image in enumerate(GREY):
        Image.fromarray(image[..., 0]).save(tmp_path / "pictures" / f"{index:02}.png")
    broken = tmp_path / "pictures" / "20.png"
    broken.write_bytes(broken.read_bytes()[:60])
    told = refused(*typed)
    assert "folder=pictures: 1 of 40 images cannot be read: pictures/20.png" in told and "repair or remove" in told


@pytest.mark.parametrize("source", ["fashion_mnist", "mnist", "cifar10"])
def test_without_data_and_network_the_three_ways_are_told(
    refused, source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    nowhere = "http://127.0.0.1:9"  # the discard port, where nobody answers
    known = download.KNOWN[source]
    changes = vars(known) | {"addresses": (nowhere,), "installed": None}
    monkeypatch.setitem(download.KNOWN, source, download.Known(**changes))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    told = refused("experiment=vae/fashion_mnist", f"source={source}")
    assert f"{known.title} is not on this machine, and could not be downloaded ({nowhere}: " in told
    lines = [line.strip() for line in told.splitlines()]
    assert [line[:2] for line in lines if line[:1].isdigit()] == ["1.", "2.", "3."]
    for way in ("source.folder=<a folder with", f"download {next(iter(known.files))}", "source=digits"):
        assert way in told


@pytest.mark.parametrize(
    "typed, told",
    [
        (("experiment=diffusion/ddpm_unet", "sampler.steps=1001"), "steps=1001: a chain of timesteps=1000 has 1000 to"),
        (
            ("experiment=diffusion/fashion_mnist", "learner.label_dropout=0", "sampler.guidance=2"),
            "guidance=2.0: needs",
        ),
        (("experiment=gan/fashion_mnist", "source.batches=null"), "a GAN takes [n, B, H, W, C]; set source.batches=1"),
        (("experiment=vae/fashion_mnist_conv", "network.make.decoder.widths=[4,4,4,4]"), "widths: 4 of them halve"),
        (("experiment=classifier/lenet",), "LeNet needs [H, W, C] of at least 12 x 12 pixels; use"),
    ],
    ids=["chain", "guidance", "gan", "widths", "lenet"],
)
def test_models_that_do_not_fit_the_images_or_the_sampler(refused, tmp_path: Path, typed: tuple[str, ...], told: str):
    np.savez(tmp_path / "x.npz", image=GREY, label=LABEL)
    small = ("+debug=tiny", "source=npz", "source.path=x.npz", "source.batch=8")
    assert told in refused(*typed, *small)


@pytest.mark.parametrize("experiment", ["classifier/mlp", "vae/conditional", "gan/conditional"])
def test_models_of_classes_want_labels(refused, tmp_path: Path, experiment: str):
    np.savez(tmp_path / "x.npz", image=GREY)
    told = refused(f"experiment={experiment}", "+debug=tiny", "source=npz", "source.path=x.npz", "source.batch=8")
    assert "no labels" in told or "no classes" in told


@pytest.mark.parametrize(
    "typed, told",
    [
        (
            "evaluators.quality.count=1000",
            "sees images of (28, 28, 1), these are (8, 8, 1); train a classifier on such",
        ),
        ("evaluators.quality.count=1438", "count=1438: the split train has 1437 images"),
        ("evaluators.held_out.images=181", "images=181: the split validation has 180 images"),
        ("+evaluators.samples.sampler=5", "VAE draws in one step and takes none; leave it out"),
        ("+evaluators.quality.features.file=no.npz", "file=no.npz: No such file or directory; the weights must lie in"),
    ],
)
def test_evaluations_that_cannot_be_are_refused_before_the_training(refused, typed: str, told: str):
    count = "evaluators.quality.count=1000"  # fewer than there are
    error = refused("experiment=vae/fashion_mnist", "source=digits", count, typed, evaluators="autoencoder")
    assert error.startswith("evaluators.") and told in error
