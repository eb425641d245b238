"""A folder of images is read as people keep theirs: their spelling of splits, their formats, their order of classes."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from core.images import datasets, names
from core.images.datasets import SPLITS


def fill(*folders: pathlib.Path, count: int = 30, value: int = 200, suffix: str = ".png") -> None:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(np.full((6, 6, 3), value, np.uint8)).save(folder / f"{i}{suffix}")


def sizes(folder: pathlib.Path) -> dict[str, int]:
    return {split: len(datasets.ImageFolder(folder=str(folder), size=4).load(split).image) for split in SPLITS}


# ---- splits ----


@pytest.mark.parametrize(
    "folder, split",
    [(name, "train") for name in ("train", "Train", "TRAINING", "train_set", "trainset", "images-train", "train2017")]
    + [(name, "test") for name in ("Test", "testing", "tests", "test-images", "test_data", "seg_test", "TestSet")]
    + [(name, "validation") for name in ("val", "Valid", "validation", "Dev", "eval", "val2017", "Validation Set")]
    + [(name, None) for name in ("trains", "cat", "valley", "device", "evaluate", "testament", "12", "set", "images")],
)
def test_spellings_of_splits(folder: str, split: str | None):
    assert names.split_of(folder) == split


def test_splits_in_other_spellings_are_kept_apart(tmp_path: pathlib.Path):
    fill(tmp_path / "Train" / "a", tmp_path / "Train" / "b", value=100)
    fill(tmp_path / "Testing_Set" / "a", tmp_path / "Testing_Set" / "b", count=2)
    found = {split: datasets.ImageFolder(folder=str(tmp_path), size=4).load(split) for split in SPLITS}
    assert (found["test"].image == 200).all() and found["test"].label.tolist() == [0, 0, 1, 1]
    assert (found["train"].image == 100).all() and (found["validation"].image == 100).all()
    assert len(found["train"].image) + len(found["validation"].image) == 60 and len(found["validation"].image)
    assert found["train"].provenance == {"class_names": ["a", "b"]}


def test_val_without_test_is_the_test_set(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture):
    fill(tmp_path / "train" / "a", tmp_path / "train" / "b", value=100)
    fill(tmp_path / "val" / "a", tmp_path / "val" / "b", count=3)
    found = sizes(tmp_path)
    assert found["test"] == 6 and found["train"] + found["validation"] == 60 and found["validation"]
    assert "no test split: val is used as test, and a tenth of train as validation" in capsys.readouterr().out


def test_train_alone_is_shared_out(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture):
    fill(tmp_path / "TRAIN" / "a", tmp_path / "TRAIN" / "b")
    found = sizes(tmp_path)
    assert sum(found.values()) == 60 and min(found.values()) > 0
    assert "a tenth of TRAIN is test" in capsys.readouterr().out


@pytest.mark.parametrize(
    "folders, told",
    [
        (["train/a", "test/a", "extra/a"], "folders named test, train look like splits.* here is extra"),
        (["test/a", "val/a"], "test and val without a split to train on"),
        (["train/a", "Train/a", "test/a"], "Train and train are both the split train"),
        (["data/train/a", "data/test/a"], "looks like a split, and splits are looked for in source.folder itself"),
        (["cats/train", "cats/test", "dogs/train", "dogs/test"], "looks like a split"),
        (["train/train/a", "train/train/b", "test/test/a"], "looks like a split"),
        (["trainA", "trainB", "testA", "testB"], "testA and testB are both the split test"),
        (["train/a", "test_a/a", "test_b/a"], "test_a and test_b are both the split test"),
        (["steam_train", "test_tube", "cat"], "folders named steam_train, test_tube look like splits.* here is cat"),
        (["data/trainA", "data/testA"], "looks like a split, and splits are looked for"),
        (["train/a", "train/b", "test/a", "test/c"], "classes without an image in train to train on: c"),
    ],
)
def test_splits_that_are_not_clear_are_refused(tmp_path: pathlib.Path, folders: list[str], told: str):
    fill(*(tmp_path / folder for folder in folders), count=1)
    with pytest.raises(ValueError, match=told):
        sizes(tmp_path)


@pytest.mark.parametrize(
    "folders, empty, told",
    [
        (["a"], "b", "classes without an image to train on: b;"),
        (["train/a", "train/b", "test/a"], "train/c", "classes without an image in train to train on: c"),
        (["train/a", "train/b"], "test", "no image in test; fill it, or take it away"),
    ],
)
def test_empty_folders_are_refused(tmp_path: pathlib.Path, folders: list[str], empty: str, told: str):
    fill(*(tmp_path / folder for folder in folders), count=1)
    (tmp_path / empty).mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=told):
        sizes(tmp_path)


@pytest.mark.parametrize(
    "train, test",
    [
        ("train_orig", "test_orig"),
        ("ILSVRC2012_train", "ILSVRC2012_val"),
        ("train_64x64", "valid_64x64"),
        ("train.v2", "test"),
    ],
)
def test_splits_with_more_in_their_names_are_no_classes(
    tmp_path: pathlib.Path, train: str, test: str, capsys: pytest.CaptureFixture
):
    fill(tmp_path / train, count=60, value=100)
    fill(tmp_path / test, count=4)
    found = {split: datasets.ImageFolder(folder=str(tmp_path), size=4).load(split) for split in SPLITS}
    assert (found["test"].image == 200).all() and len(found["test"].image) == 4 and found["test"].classes == 0
    assert (found["train"].image == 100).all() and (found["validation"].image == 100).all()
    assert f"{train} is the split train" in capsys.readouterr().out


@pytest.mark.parametrize(
    "folders, stray, told",
    [
        (["cat", "dog"], "annotations/a.xml", "left out folders without an image: annotations"),
        (["cat", "dog"], "train_boxes/test/a.xml", "left out folders without an image: train_boxes"),
        (["train/cat", "train/dog", "test/cat"], "train/boxes/a.xml", "left out folders without an image: boxes"),
        (["train/cat", "train/dog", "test/cat"], "annotations/train/a.xml", "left out 1 file that Pillow"),
        (
            ["train/cat", "train/dog", "test/cat"],
            "unlabeled/a.png",
            "left out unlabeled, beside the splits (number of images: 1)",
        ),
    ],
)
def test_folders_beside_the_classes_are_left_out(
    tmp_path: pathlib.Path, folders: list[str], stray: str, told: str, capsys: pytest.CaptureFixture
):
    fill(*(tmp_path / folder for folder in folders))
    (tmp_path / stray).parent.mkdir(parents=True)
    (tmp_path / stray).touch()  # no image can be read from it
    data = datasets.ImageFolder(folder=str(tmp_path), size=4).load("train")
    assert data.provenance == {"class_names": ["cat", "dog"]}
    assert told in capsys.readouterr().out


def test_a_class_of_a_run_that_lost_its_images_is_missed(tmp_path: pathlib.Path):
    fill(tmp_path / "cat")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "a.xml").touch()
    with pytest.raises(ValueError, match=r"not those of class_names.*: without dog"):
        datasets.ImageFolder(folder=str(tmp_path), class_names=("cat", "dog")).load("train")


# ---- files ----


def test_every_format_is_read_and_what_is_left_out_is_counted(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture):
    formats = [
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".PGM",
        ".TGA",
    ]
    for suffix in formats:
        fill(tmp_path / "a", tmp_path / "b", count=2, suffix=suffix)
    for name in ("notes.txt", "b/x.svg", "b/y.svg", "b/z.heic", ".DS_Store", "__MACOSX/a/x.txt", "readme"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sum(sizes(tmp_path).values()) == 4 * len(formats)
    shown = capsys.readouterr().out
    for part in ("left out 5 files that Pillow does not read: 2 .svg", "1 .heic", "1 .txt", "1 without a suffix"):
        assert part in shown


def test_of_an_animation_the_first_frame_is_taken_and_that_is_said(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
):
    frames = [Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (200, 50)]
    for suffix in ("gif", "webp", "tiff", "png"):
        frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
    fill(tmp_path)
    for split in SPLITS:
        image = datasets.ImageFolder(folder=str(tmp_path), size=4).load(split).image
        np.testing.assert_allclose(image.astype(int), 200, atol=3)
    assert "of 4 files with several frames or pages the first is taken" in capsys.readouterr().out


# ---- order of classes ----


@pytest.mark.parametrize(
    "names, order",
    [
        ([str(i) for i in range(12)], [str(i) for i in range(12)]),
        ([f"class_{i}" for i in (1, 2, 10, 11)], ["class_1", "class_2", "class_10", "class_11"]),
        (["07", "8", "10", "9"], ["07", "8", "9", "10"]),
        (["b", "A", "a10", "a2"], ["A", "a2", "a10", "b"]),
    ],
)
def test_classes_are_in_the_order_of_their_numbers(tmp_path: pathlib.Path, names: list[str], order: list[str]):
    for name in names:
        fill(tmp_path / name, value=100 + 8 * order.index(name), count=10)
    data = datasets.ImageFolder(folder=str(tmp_path), size=4).load("train")
    assert data.provenance["class_names"] == order
    assert (data.image[:, 0, 0, 0] == 100 + 8 * data.label).all()


def test_an_order_that_is_given_is_kept(tmp_path: pathlib.Path):
    fill(tmp_path / "2", value=100)
    fill(tmp_path / "10", value=108)
    old = datasets.ImageFolder(folder=str(tmp_path), size=4, class_names=("10", "2"))  # as text, of an earlier version
    data = old.load("train")
    assert data.provenance["class_names"] == ["10", "2"] and (data.image[:, 0, 0, 0] == 108 - 8 * data.label).all()
    fill(tmp_path / "3")
    (tmp_path / "2").rename(tmp_path / "two")
    with pytest.raises(ValueError, match=r"not those of class_names.*: more 3, two; without 2"):
        datasets.ImageFolder(folder=str(tmp_path), size=5, class_names=("10", "2")).load("train")
