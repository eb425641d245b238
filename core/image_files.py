"""Images read from files of one's own: an .npz, or a folder of PNG and JPEG. All are checked before any is used."""

import concurrent.futures
import dataclasses
import functools
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import psutil
from PIL import Image, ImageOps

from core import progress

SUFFIXES = (".png", ".jpg", ".jpeg")
_AT_ONCE = 1_024  # files handed to the threads at a time
_TOLD = 5  # broken files that an error names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrays:
    """What an .npz holds, as it is there."""

    image: np.ndarray
    label: np.ndarray | None
    group: np.ndarray | None  # [N], which images belong together
    provenance: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """What a folder of images holds, read-only, with each split's images side by side."""

    image: np.ndarray  # [N, H, W, C] uint8
    label: np.ndarray  # [N] int32
    classes: tuple[str, ...]  # () where there is no class but one
    splits: Mapping[str, slice]


def read_npz(path: pathlib.Path) -> Arrays:
    """Raises: ValueError where the file is missing, damaged, without images, or larger than the memory."""
    if not path.is_file():
        raise ValueError(
            f"path={path}: no such file. `python -m experiments.collect source.game=pong out={path}` writes one of a "
            "game's frames, and numpy.savez(path, image=<uint8 [N, H, W, C]>, label=<int [N], if any>) of your own"
        )
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as found:
            keys = list(found)
            if "image" not in keys:
                raise ValueError(f"it has no array `image`, only {', '.join(keys) or 'nothing'}")
            # What is kept is a copy of some rows: twice the size at most.
            check_memory(2 * archive.getinfo("image.npy").file_size, f"path={path}")
            arrays: dict[str, Any] = {key: found[key] if key in keys else None for key in ("image", "label", "group")}
            provenance = json.loads(str(found["provenance"])) if "provenance" in keys else {}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            told if told.startswith("path=") else f"path={path}: no readable .npz of images: {told}"
        ) from error
    group = arrays["group"]
    if group is not None and (group.shape != arrays["image"].shape[:1] or group.dtype.kind not in "iu"):
        raise ValueError(f"path={path}: group: {group.dtype} {group.shape}; one whole number for each image is wanted")
    return Arrays(**arrays, provenance=provenance if isinstance(provenance, dict) else {"provenance": provenance})


@functools.lru_cache(maxsize=1)  # training takes one split and an evaluator another
def read_folder(folder: pathlib.Path, size: tuple[int, int], color: str) -> Folder:
    """Reads all images below `folder`; see `core.datasets.ImageFolder`.

    Raises: ValueError where there are none, where some are broken (the first are named), or too many for the memory.
    """
    files, classes = _files(folder)
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

    Raises whatever Pillow raises for a broken file, and ValueError for one of 16 bits a channel.
    """
    height, width = size
    with Image.open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode} has more than 8 bits a pixel; save it as 8-bit grey or RGB")
        # A JPEG is decoded at a fraction of its size where that is enough.
        image.draft(None, (2 * width, 2 * height))
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        image = image.convert("RGB" if color == "rgb" else "L")
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(height, width, -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    path: pathlib.Path
    split: str
    label: int


def _files(folder: pathlib.Path) -> tuple[list[_File], tuple[str, ...]]:
    """All files by split, then by name, and the names of the classes."""
    found = sorted(_walk(folder))
    if not found:
        raise ValueError(f"folder={folder}: no {', '.join(SUFFIXES)} file below it")
    inner = {path.parts[0] for path in found if len(path.parts) > 1}
    own_splits = {"train", "test"} <= inner <= {"train", "validation", "test"}
    if not own_splits and (mistaken := inner & {"train", "test", "validation", "val", "valid"}):
        raise ValueError(
            f"folder={folder}: folders named {', '.join(sorted(mistaken))} look like splits, and those are train/ and "
            "test/, and perhaps validation/, with nothing beside them"
        )
    named = [pathlib.PurePath(*path.parts[1:]) for path in found] if own_splits else found
    classes = sorted({path.parts[0] for path in named if len(path.parts) > 1})
    loose = [path for path, name in zip(found, named, strict=True) if len(name.parts) < (2 if classes else 1)]
    if loose:
        raise ValueError(
            f"folder={folder}: {len(loose)} images, such as {loose[0]}, lie beside the folders of classes or splits; "
            "put every image into one, or none"
        )
    classes = classes if len(classes) > 1 else []
    labels = [classes.index(name.parts[0]) if classes else 0 for name in named]
    split = functools.partial(_split, own=own_splits, validation="validation" in inner)
    files = [_File(path=folder / p, split=split(p), label=label) for p, label in zip(found, labels, strict=True)]
    return sorted(files, key=lambda f: ("train", "validation", "test").index(f.split)), tuple(classes)


def _walk(folder: pathlib.Path) -> list[pathlib.PurePath]:
    """Images below `folder`, relative to it, without what is hidden; links are followed, to each folder once."""
    found, been = [], set()
    for place, inner, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in been:
            inner.clear()
            continue
        been.add(real)
        inner[:] = [name for name in inner if not name.startswith(".")]
        images = [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        found += [pathlib.Path(place, name).relative_to(folder) for name in images]
    return found


def _split(path: pathlib.PurePath, *, own: bool, validation: bool) -> str:
    share = zlib.crc32(path.as_posix().encode(errors="surrogateescape")) % 10
    if own:
        return "validation" if path.parts[0] == "train" and not validation and share == 1 else path.parts[0]
    return {0: "test", 1: "validation"}.get(share, "train")


def _decode(paths: Sequence[pathlib.Path], into: np.ndarray, folder: pathlib.Path) -> None:
    """Fills `into` [N, H, W, C] by threads, which Pillow lets run side by side."""
    size, color = into.shape[1:3], "rgb" if into.shape[-1] == 3 else "grey"
    broken: list[str] = []

    def one(row: int) -> None:
        try:
            into[row] = decode(paths[row], size, color)
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
    if broken:
        more = f", and {len(broken) - _TOLD} more" if len(broken) > _TOLD else ""
        raise ValueError(
            f"folder={folder}: {len(broken)} of {len(paths)} images cannot be read: "
            f"{', '.join(sorted(broken)[:_TOLD])}{more}; repair or remove them"
        )
