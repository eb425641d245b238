"""An .npz is read under the names that people use, splits included; what could be meant otherwise is told."""

import pathlib
from typing import Any

import numpy as np
import pytest

from core.images import datasets
from core.images.datasets import SPLITS

WHOLE = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), np.uint8)
LABEL = np.arange(60) % 3


def recipe(folder: pathlib.Path, **arrays: Any) -> datasets.Npz:
    np.savez(folder / "x.npz", **arrays)
    return datasets.Npz(path=str(folder / "x.npz"))


@pytest.mark.parametrize("image, label", [("images", "labels"), ("X", "Y"), ("arr_0", "arr_1"), ("Image", "LABEL")])
def test_usual_names_are_read(tmp_path: pathlib.Path, image: str, label: str):
    plain = recipe(tmp_path, image=WHOLE, label=LABEL).load("train")
    found = recipe(tmp_path, **{image: WHOLE, label: LABEL[:, None]}).load("train")
    assert found.digest == plain.digest and found.classes == 3


@pytest.mark.parametrize("names", ["x_{}", "{}_images", "X{}", "{}-X"])
def test_arrays_of_splits_are_those_splits(tmp_path: pathlib.Path, names: str, capsys: pytest.CaptureFixture):
    """As Keras and MedMNIST keep them, also without the axis of grey."""
    labels = names.replace("images", "labels").replace("x", "y").replace("X", "Y")
    arrays = {names.format("train"): WHOLE[:40, ..., 0], labels.format("train"): LABEL[:40, None]}
    arrays |= {names.format("test"): WHOLE[40:, ..., 0], labels.format("test"): LABEL[40:, None]}
    found = {split: recipe(tmp_path, **arrays).load(split) for split in SPLITS}
    np.testing.assert_array_equal(found["test"].image, WHOLE[40:])
    np.testing.assert_array_equal(found["test"].label, LABEL[40:])
    assert [len(found[split].image) for split in SPLITS] == [36, 4, 20]
    learned = np.concatenate([found["train"].image, found["validation"].image])
    assert {image.tobytes() for image in learned} == {image.tobytes() for image in WHOLE[:40]}
    assert "no validation split: a tenth of train" in capsys.readouterr().out
    arrays |= {names.format("val"): WHOLE[50:, ..., 0], labels.format("val"): LABEL[50:]}
    np.testing.assert_array_equal(recipe(tmp_path, **arrays).load("validation").image, WHOLE[50:])


def test_validation_alone_is_the_test_set_and_that_is_said(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture):
    data = recipe(tmp_path, x_train=WHOLE[:40], x_val=WHOLE[40:])
    np.testing.assert_array_equal(data.load("test").image, WHOLE[40:])
    assert [len(data.load(split).image) for split in ("train", "validation")] == [36, 4]
    assert "validation is used as test" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arrays, told",
    [
        ({"x": WHOLE, "images": WHOLE}, "`x` and `images` could both be the images"),
        ({"x": WHOLE, "labels": LABEL, "Y": LABEL}, "`labels` and `Y` could both be the labels"),
        ({"x": WHOLE, "x_train": WHOLE}, "`x` and `x_train`: images with and without splits"),
        ({"x_train": WHOLE, "train_images": WHOLE}, "`x_train` and `train_images` could both be"),
        ({"x_test": WHOLE}, "test without a split to train on"),
        ({"x_train": WHOLE, "y_train": LABEL, "x_test": WHOLE}, "labels for some splits and not for others"),
        ({"image": WHOLE, "label": np.eye(3)[LABEL]}, r"one-hot: store the classes' numbers, label\.argmax"),
        ({"image": WHOLE, "label": LABEL + 1}, "3 classes from 1 to 3, and no image of class 0: count classes from 0"),
        ({"image": WHOLE, "label": 10 * LABEL}, r"from 0 to 20, and no image of class 1 and 17 more: .*classes=21"),
        ({"image": WHOLE, "label": LABEL * 10**9}, r"no image of class 1 and 1999999997 more"),
        (
            {"x_train": WHOLE, "y_train": LABEL, "x_test": WHOLE, "y_test": LABEL + 1},
            "label: 3: of these classes there are images to judge by",
        ),
        ({"image": np.repeat(WHOLE, 4, -1)}, r"RGBA: leave out the opacity, image\[\.\.\., :3\]"),
        ({"image": np.repeat(WHOLE, 2, -1)}, r"grey and opacity: take image\[\.\.\., :1\]"),
        ({"image": WHOLE.transpose(0, 3, 1, 2)}, r"channels first: .* numpy\.moveaxis\(image, 1, -1\)"),
    ],
)
def test_what_could_be_meant_otherwise_is_told(tmp_path: pathlib.Path, arrays: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        [recipe(tmp_path, **arrays).load(split) for split in SPLITS]


def test_empty_classes_are_allowed_where_they_are_typed(tmp_path: pathlib.Path):
    data = recipe(tmp_path, image=WHOLE, label=LABEL + 1)
    found = datasets.Npz(path=data.path, classes=5).load("train")
    assert found.classes == 5 and found.counts.tolist() == [0, *np.bincount(found.label)[1:], 0]


def test_arrays_that_are_not_used_are_named_and_class_names_kept(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture):
    found = recipe(tmp_path, image=WHOLE, label=LABEL, class_names=["a", "b", "c"], seed=LABEL, y_train=LABEL)
    assert found.load("train").provenance == {"class_names": ["a", "b", "c"]}
    assert "x.npz: left out arrays that are not used: seed, y_train\n" in capsys.readouterr().out


def test_the_exact_names_win_and_the_others_are_left_out(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture):
    plain = recipe(tmp_path, image=WHOLE, label=LABEL).load("train")
    others = {"x": LABEL / 2, "y": LABEL / 2, "groups": LABEL, "x_train": WHOLE, "y_train": LABEL}
    found = recipe(tmp_path, **others, image=WHOLE, label=LABEL, group=np.arange(60)).load("train")
    assert found.digest == plain.digest
    assert "left out arrays that are not used: groups, x, x_train, y, y_train\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arrays, told",
    [
        ({"label": LABEL, "class_names": ["a", "b"]}, "left out class_names: 2 of them for 3 classes"),
        ({"class_names": ["a", "b"]}, "left out class_names: 2 of them for 0 classes"),
        ({"label": LABEL, "class_names": np.array(["a", "b", None], object)}, "left out class_names: Object arrays"),
        ({"label": LABEL, "provenance": '{"class_names": 3}'}, "left out class_names: no list for 3 classes"),
        ({"label": LABEL, "provenance": "a game"}, "left out provenance: Expecting value"),
    ],
)
def test_names_that_do_not_fit_are_left_out(
    tmp_path: pathlib.Path, arrays: dict[str, Any], told: str, capsys: pytest.CaptureFixture
):
    found = recipe(tmp_path, image=WHOLE, **arrays).load("train")
    assert found.provenance == {} and found.classes == (3 if "label" in arrays else 0)
    assert told in capsys.readouterr().out


def test_a_file_is_read_once_for_all_splits_and_anew_when_it_changed(tmp_path: pathlib.Path):
    data = recipe(tmp_path, x_train=WHOLE[:40], x_val=WHOLE[40:50], x_test=WHOLE[50:])
    train = data.load("train")
    assert data.load("train").image is train.image and not train.image.flags.writeable
    changed = WHOLE[:40].copy()
    changed[7] ^= 1
    again = recipe(tmp_path, x_train=changed, x_val=WHOLE[40:50], x_test=WHOLE[50:]).load("train")
    np.testing.assert_array_equal(again.image, changed)
