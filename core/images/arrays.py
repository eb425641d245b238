"""Images read from an .npz, under the names that people give their arrays: `image`, `x_train`, `test_labels`."""

import dataclasses
import functools
import json
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core import distributed
from core.images import folders, names

_ABOUT = ("provenance", "class_names", "label_names")  # what else is read


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrays:
    """The arrays of one split, or those that it is a share of."""

    image: np.ndarray
    label: np.ndarray | None  # [N]
    learned: np.ndarray | None  # [M] the labels that say which classes there are: of all images, or of the training's
    judged: Sequence[np.ndarray]  # the labels of splits that are not trained on
    group: np.ndarray | None  # [N], which images belong together
    shares: tuple[str, ...]  # splits without arrays of their own, which are shares of these
    provenance: Mapping[str, Any]


def read_npz(path: pathlib.Path, split: str) -> Arrays:
    """Reads what `split` needs, and says in a line what is left out.

    Raises: ValueError where the file is missing, damaged, without images, or larger than the memory, and where two
    arrays could be the images.
    """
    if not path.is_file():
        raise ValueError(
            f"path={path}: no such file. `python -m experiments.collect source.game=pong out={path}` writes one of a "
            "game's frames, and numpy.savez(path, image=<uint8 [N, H, W, C]>, label=<int [N], if any>) of your own; "
            "a run whose data were moved takes source.path=<the new place>"
        )
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as found:
            keys = list(found)
            named, own = _named(keys)
            parts = list(own.values()) if own else [""]
            if own and (remark := names.told(own)):
                distributed.say(f"path={path}: {remark}")
            used = {name for (part, _), name in named.items() if part in parts}
            if unused := sorted(set(keys) - used - set(_ABOUT)):
                distributed.say(f"path={path}: left out arrays that are not used: {', '.join(unused)}")
            labelled = [part for part in parts if (part, "label") in named]
            if 0 < len(labelled) < len(parts):
                raise ValueError("label: labels for some splits and not for others; give all of them some, or none")
            learned = own.get("train", "")
            part = own.get(split, learned)
            name = named[part, "image"]
            stored = archive.getinfo(f"{name}.npy")
            image = _image(_read(path.resolve(), name, stored.file_size, stored.CRC), official=bool(own))
            return Arrays(
                image=image,
                label=_label(found, named.get((part, "label"))),
                learned=_label(found, named.get((learned, "label"))),
                judged=[found[named[p, "label"]].ravel() for p in labelled if p != learned],
                group=_group(found, named.get((part, "group")), len(image)),
                shares=tuple(s for s in ("test", "validation") if s not in own) if part == learned else (),
                provenance=_about(found, keys, path),
            )
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        if told.startswith(("path=", "group: ", "label: ")):
            raise ValueError(told if told.startswith("path=") else f"path={path}: {told}") from error
        raise ValueError(f"path={path}: no readable .npz of images: {told}") from error


@functools.lru_cache(maxsize=1)  # training takes one split and evaluators others
def _read(path: pathlib.Path, name: str, size: int, checksum: int) -> np.ndarray:
    """The array, read-only, of so many bytes and that CRC-32; a file that was written anew is read anew."""
    del checksum
    folders.check_memory(2 * size, f"path={path}")  # what is kept beside it is a copy of some rows
    with np.load(path, allow_pickle=False) as found:
        image = found[name]
    image.setflags(write=False)
    return image


def _named(keys: Sequence[str]) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """{(split or "", "image", "label" or "group"): array}, and by split what it is called there; {} without splits."""
    named: dict[tuple[str, str], str] = {}
    for key in keys:
        if (meant := names.array_of(key)) is None:
            continue
        split, kind = meant
        if key != kind and ("image" if split else kind) in keys:
            continue  # `image`, `label` and `group` themselves are what is meant, whatever lies beside them
        if (other := named.get((split or "", kind))) is not None:
            raise ValueError(f"`{other}` and `{key}` could both be the {kind}s; keep one, or rename the other")
        named[split or "", kind] = key
    splits = [split for split, kind in named if split and kind == "image"]
    if splits and ("", "image") in named:
        both = f"`{named['', 'image']}` and `{named[splits[0], 'image']}`"
        raise ValueError(f"{both}: images with and without splits; keep one kind")
    if not splits and ("", "image") not in named:
        wanted = "other names that do are images, x, arr_0, and x_train with x_test"
        raise ValueError(f"it has no array `image`, only {', '.join(keys) or 'nothing'}; {wanted}")
    return named, names.official(splits, dict(zip(splits, splits, strict=True))) if splits else {}


def _image(image: np.ndarray, *, official: bool) -> np.ndarray:
    """Grey images of Keras and MedMNIST, which come in splits, have no axis of channels."""
    return image[..., None] if official and image.ndim == 3 else image


def _label(found: Mapping[str, np.ndarray], name: str | None) -> np.ndarray | None:
    """[N], also of [N, 1]."""
    if name is None:
        return None
    label = found[name]
    if label.ndim == 2 and label.shape[1] == 1:
        return label[:, 0]
    if label.ndim == 2 and label.dtype.kind in "iufb" and label.max(initial=0) == 1 and (label.sum(axis=1) == 1).all():
        raise ValueError(f"label: shape {label.shape} is one-hot: store the classes' numbers, {name}.argmax(-1)")
    return label


def _group(found: Mapping[str, np.ndarray], name: str | None, count: int) -> np.ndarray | None:
    if name is None:
        return None
    group = found[name]
    if group.shape != (count,) or group.dtype.kind not in "iu":
        raise ValueError(f"group: {group.dtype} {group.shape}; one whole number for each image is wanted")
    return group


def _about(found: Mapping[str, np.ndarray], keys: Sequence[str], path: pathlib.Path) -> dict[str, Any]:
    """The provenance in the file and the classes' names, as texts; what cannot be read is left out, in a line."""
    about: dict[str, Any] = {}
    for key in (key for key in _ABOUT if key in keys):
        try:
            if key != "provenance":
                about["class_names"] = found[key].ravel().astype(str).tolist()
                break
            told = json.loads(str(found[key]))
            about = told if isinstance(told, dict) else {key: told}
        except ValueError as error:  # an array of objects, say
            distributed.say(f"path={path}: left out {key}: {str(error).splitlines()[0]}")
    return about
