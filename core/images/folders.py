"""Images read from a folder of pictures, of all formats that Pillow reads. All are checked before any is used."""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import psutil
from PIL import Image, ImageOps

from core import distributed, progress
from core.images import names

_NO_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")  # what Pillow names, but cannot read by itself
_MARKED = ("__MACOSX",)  # folders that archives bring along
_AT_ONCE = 1_024  # files handed to the threads at a time
_TOLD = 5  # broken files that an error names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """What a folder of images holds, read-only, with each split's images side by side."""

    image: np.ndarray  # [N, H, W, C] uint8
    label: np.ndarray  # [N] int32
    classes: tuple[str, ...]  # () where there is no class but one
    splits: Mapping[str, slice]


@functools.lru_cache(maxsize=1)  # training takes one split and an evaluator another
def read_folder(
    folder: pathlib.Path, size: tuple[int, int], color: str, class_names: tuple[str, ...] | None = None
) -> Folder:
    """Reads all images below `folder`; see `core.images.datasets.ImageFolder`.

    Raises: ValueError where there are none, where some are broken (the first are named), or too many for the memory.
    """
    files, classes = _files(folder, class_names)
    height, width = size
    channels = 3 if color == "rgb" else 1
    check_memory(len(files) * height * width * channels, f"folder={folder}", remedy="take a smaller source.size")
    image = np.empty((len(files), height, width, channels), np.uint8)
    _decode([file.path for file in files], image, folder)
    image.setflags(write=False)  # it is kept for the next caller
    splits, start = {}, 0
    for split in ("train", "validation", "test"):
        stop = start + sum(file.split == split for file in files)
        splits[split], start = slice(start, stop), stop
    return Folder(image=image, label=np.array([f.label for f in files], np.int32), classes=classes, splits=splits)


def check_memory(wanted: int, what: str, remedy: str = "take fewer or smaller images") -> None:
    """Raises: ValueError where `wanted` bytes exceed the memory that is free."""
    free = psutil.virtual_memory().available
    if wanted > free:
        raise ValueError(f"{what}: needs {wanted / 1e9:.2f} GB of memory and {free / 1e9:.2f} GB is free: {remedy}")


def decode(path: pathlib.Path, size: tuple[int, int], color: str) -> np.ndarray:
    """Uint8 [H, W, C]: upright, scaled to cover `size`, cut around the middle; what is transparent is black.

    Of a file with several frames or pages the first. Raises whatever Pillow raises for a broken file, and ValueError
    for one of 16 bits a channel.
    """
    return _decoded(path, size, color)[0]


def _decoded(path: pathlib.Path, size: tuple[int, int], color: str) -> tuple[np.ndarray, bool]:
    """What `decode` returns, and whether the file has more frames."""
    height, width = size
    with Image.open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode} has more than 8 bits a pixel; save it as 8-bit grey or RGB")
        several = getattr(image, "is_animated", False) and image.format != "MPO"  # a camera's JPEG with a preview
        # A JPEG is decoded at a fraction of its size where that is enough.
        image.draft(None, (2 * width, 2 * height))
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        image = image.convert("RGB" if color == "rgb" else "L")
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(height, width, -1), several


@functools.cache
def suffixes() -> frozenset[str]:
    """Those of the files that Pillow reads by itself, in small letters."""
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in Image.OPEN and name not in _NO_PICTURES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    path: pathlib.Path
    split: str
    label: int


def _files(folder: pathlib.Path, class_names: tuple[str, ...] | None) -> tuple[list[_File], tuple[str, ...]]:
    """All files by split, then by name, and the names of the classes in their order."""
    found, folders, others = _walk(folder)
    splits = _own_splits(folder, found, folders)
    level = 1 if splits else 0  # how deep classes lie
    own = {name: split for split, name in splits.items()}
    found = [path for path in found if not splits or len(path.parts) == 1 or path.parts[0] in own]
    classes = {path.parts[level] for path in found if len(path.parts) > level + 1}
    loose = [path for path in found if len(path.parts) < level + (2 if classes else 1)]
    if loose:
        raise ValueError(
            f"folder={folder}: {len(loose)} images, such as {loose[0]}, lie beside the folders of classes or splits; "
            "put every image into one, or none"
        )
    if classes:
        _check_classes(folder, found, folders, others, splits)
    order = _ordered(folder, classes, class_names) if max(len(classes), len(class_names or ())) > 1 else ()
    number = {name: label for label, name in enumerate(order)}
    shares = {0: "test", 1: "validation"}
    shares = {share: split for share, split in shares.items() if split not in splits}
    files = []
    for path in found:
        split = own.get(path.parts[0], "train")
        if split == "train":
            share = zlib.crc32(path.as_posix().encode(errors="surrogateescape")) % 10
            split = shares.get(share, "train")
        label = number[path.parts[level]] if order else 0
        files.append(_File(path=folder / path, split=split, label=label))
    return sorted(files, key=lambda f: ("train", "validation", "test").index(f.split)), order


def _own_splits(
    folder: pathlib.Path, found: Sequence[pathlib.PurePath], folders: Sequence[pathlib.PurePath]
) -> dict[str, str]:
    """{split: folder} where the folders in `folder` are splits, said in a line if some are missing; else {}."""
    filled = {path.parts[0] for path in found if len(path.parts) > 1}
    tops = sorted({path.parts[0] for path in folders})
    named, clear = _named(tops, filled)
    others = sorted(filled - named.keys()) if named else []
    if others and clear and not _classed(found, named, others):
        count = sum(path.parts[0] in others for path in found)
        distributed.say(
            f"folder={folder}: left out {', '.join(others)}, beside the splits (number of images: {count:,})"
        )
    elif others:
        raise ValueError(
            f"folder={folder}: folders named {', '.join(named)} look like splits, and those are train/ and test/, and "
            f"perhaps validation/, with nothing beside them; here is {', '.join(others[:5])}, too. Move those, or "
            "rename a class that is called so"
        )
    inner = {name for path in found for name in path.parts[1:-1]}
    mistaken = sorted(name for name in inner if names.split_of(name))
    if mistaken := mistaken or sorted({} if named else names.worded(inner)):
        first = next(path for path in found if mistaken[0] in path.parts[1:-1])
        raise ValueError(
            f"folder={folder}: {first} lies in a folder that looks like a split, and splits are looked for in "
            "source.folder itself: name the folder that train/ and test/ lie in, or rename a class that is called so"
        )
    if not named:
        return {}
    try:
        splits = names.official(named, named)
    except ValueError as error:
        raise ValueError(f"folder={folder}: {error}") from error
    if empty := sorted(set(splits.values()) - filled):
        raise ValueError(f"folder={folder}: no image in {', '.join(empty)}; fill it, or take it away")
    if worded := [name for name in splits.values() if names.split_of(name) is None]:
        told = ", ".join(f"{name} is the split {named[name]}" for name in worded)
        distributed.say(f"folder={folder}: {told}, by its name")
    if remark := names.told(splits):
        distributed.say(f"folder={folder}: {remark}")
    return splits


def _named(tops: Sequence[str], filled: set[str]) -> tuple[dict[str, str], bool]:
    """{folder: split} as the names say, {} where these are classes; and whether no name could mean anything else."""
    plain = {name: split for name in tops if (split := names.split_of(name)) is not None}
    worded = names.worded(sorted(filled))
    if worded.keys() - plain.keys():
        return plain | worded, False
    return plain, "train" in plain.values() and len(set(plain.values())) > 1


def _classed(found: Sequence[pathlib.PurePath], named: Mapping[str, str], others: Sequence[str]) -> bool:
    """Whether folders beside the splits hold images in folders that are classes in the splits."""
    inside = lambda tops: {path.parts[1] for path in found if path.parts[0] in tops and len(path.parts) > 2}
    return not inside(named).isdisjoint(inside(others))


def _check_classes(
    folder: pathlib.Path,
    found: Sequence[pathlib.PurePath],
    folders: Sequence[pathlib.PurePath],
    others: Sequence[pathlib.PurePath],
    splits: Mapping[str, str],
) -> None:
    """Says which folders hold no image; raises ValueError for classes in which there is nothing to train on."""
    level = 1 if splits else 0
    trained = [path for path in found if not splits or path.parts[0] == splits["train"]]
    filled = {path.parts[level] for path in trained if len(path.parts) > level + 1}
    inside = lambda paths, deep: {
        path.parts[level]
        for path in paths
        if len(path.parts) > deep and (not splits or path.parts[0] in splits.values())
    }
    judged = inside(found, level + 1)
    missing = inside(folders, level) - filled
    if stray := sorted((inside(others, level + 1) & missing) - judged):
        distributed.say(f"folder={folder}: left out folders without an image: {', '.join(stray)}")
    if empty := sorted(missing - set(stray)):
        where = f"in {splits['train']} " if splits else ""
        raise ValueError(
            f"folder={folder}: classes without an image {where}to train on: {', '.join(empty[:10])}"
            f"{f', and {len(empty) - 10} more' if len(empty) > 10 else ''}; add images, or take these folders away"
        )


def _ordered(folder: pathlib.Path, classes: set[str], wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """The classes in the order wanted, which a run that goes on keeps; without one, by name, numbers by value."""
    if wanted is None:
        return tuple(sorted(classes, key=names.natural))
    if set(wanted) != classes:
        new, gone = sorted(classes - set(wanted)), sorted(set(wanted) - classes)
        changes = [f"{word} {', '.join(names[:10])}" for word, names in (("more", new), ("without", gone)) if names]
        raise ValueError(
            f"folder={folder}: its classes are not those of class_names, which a run keeps as it began: "
            f"{'; '.join(changes)}"
        )
    return wanted


def _walk(folder: pathlib.Path) -> tuple[list[pathlib.PurePath], list[pathlib.PurePath], list[pathlib.PurePath]]:
    """Images below `folder`, folders, and other files, which are counted; relative to it, without what is hidden.

    Links are followed, to each folder once. Raises: ValueError where there is no image.
    """
    found, folders, been, others = [], [], set(), []
    for place, inner, held in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in been:
            inner.clear()
            continue
        been.add(real)
        inner[:] = [name for name in inner if not name.startswith(".") and name not in _MARKED]
        here = pathlib.Path(place).relative_to(folder)
        folders += [here / name for name in inner]
        for name in held:
            if not name.startswith("."):
                (found if _suffix(name) in suffixes() else others).append(here / name)
    counts = collections.Counter(_suffix(path.name) or "without a suffix" for path in others)
    left_out = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(10))
    if not found:
        more = f"; what lies there: {left_out}" if others else ""
        raise ValueError(f"folder={folder}: no .png, .jpg, .jpeg file below it, nor another that Pillow reads{more}")
    if others:
        files = "file" if len(others) == 1 else "files"
        distributed.say(f"folder={folder}: left out {len(others):,} {files} that Pillow does not read: {left_out}")
    return sorted(found), sorted(folders), others


def _suffix(name: str) -> str:
    return pathlib.PurePath(name).suffix.lower()


def _decode(paths: Sequence[pathlib.Path], into: np.ndarray, folder: pathlib.Path) -> None:
    """Fills `into` [N, H, W, C] by threads, which Pillow lets run side by side."""
    size, color = into.shape[1:3], "rgb" if into.shape[-1] == 3 else "grey"
    broken: list[str] = []
    several: list[pathlib.Path] = []

    def one(row: int) -> None:
        try:
            into[row], more = _decoded(paths[row], size, color)
            several.extend([paths[row]] if more else [])
        except Exception as error:  # damaged bytes may raise anything
            broken.append(f"{paths[row]} ({error})")

    first = jax.process_index() == 0
    bar = progress.Progress(len(paths), "images") if first else None
    if bar is not None:
        bar.message(f"reading the {len(paths):,} images of {folder}")
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, len(paths), _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, len(paths)))
            for row, _ in zip(rows, threads.map(one, rows), strict=True):
                if bar is not None:
                    bar.update(row + 1, {})
    if bar is not None:
        bar.close()
    if several:
        distributed.say(f"folder={folder}: of {len(several):,} files with several frames or pages the first is taken")
    if broken:
        more = f", and {len(broken) - _TOLD} more" if len(broken) > _TOLD else ""
        raise ValueError(
            f"folder={folder}: {len(broken)} of {len(paths)} images cannot be read: "
            f"{', '.join(sorted(broken)[:_TOLD])}{more}; repair or remove them"
        )
