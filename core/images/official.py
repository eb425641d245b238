"""The files that MNIST, Fashion-MNIST and CIFAR-10 are published as, read into arrays."""

import functools
import gzip
import io
import pathlib
import pickle
import tarfile
import zlib
from typing import Any

import numpy as np

from core.images import download

_unpacked = functools.lru_cache(maxsize=2)(gzip.decompress)  # images and labels, which several take in turn


def find(folder: pathlib.Path, name: str) -> pathlib.Path:
    """`name`, or as some write it with a dot before `idx`, compressed or not."""
    for candidate in (name, f"{name}.gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    raise ValueError(f"folder={folder}: no {name} or {name}.gz in it")


def read_idx(path: pathlib.Path, *, axes: int) -> np.ndarray:
    """A file of unsigned bytes: 0, 0, 8, the number of axes, their sizes as big-endian uint32, the bytes."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = _unpacked(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: damaged ({error}); fetch it again") from error
    start = 4 + 4 * axes
    if content[:4] != bytes((0, 0, 8, axes)) or len(content) < start:
        raise ValueError(f"{path}: no IDX file of bytes with {axes} axes")
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4"))
    if len(content) - start != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path}: holds {len(content) - start:,} bytes for shape {shape}; damaged, fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def cifar_files(folder: pathlib.Path, names: list[str]) -> dict[str, bytes]:
    """What these files hold, out of the archive where it was not unpacked."""
    for place in (folder, folder / "cifar-10-batches-py"):
        if all((place / name).is_file() for name in names):
            return {name: (place / name).read_bytes() for name in names}
    archive, found = folder / download.CIFAR10, {}
    if archive.is_file():
        try:
            with tarfile.open(archive, "r|gz") as files:
                for file in files:
                    name = pathlib.PurePosixPath(file.name).name
                    if name in names and (content := files.extractfile(file)) is not None:
                        found[name] = content.read()
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{archive}: damaged ({error}); fetch it again") from error
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"folder={folder}: no {missing[0]} in it, nor in a {download.CIFAR10}")
    return found


class _Arrays(pickle.Unpickler):
    """Reads NumPy arrays in plain containers and nothing else: a pickle could run any program."""

    _RECONSTRUCT: Any = np.empty(0).__reduce__()[0]

    def find_class(self, module: str, name: str) -> Any:
        match module.replace("numpy._core", "numpy.core"), name:
            case "numpy.core.multiarray", "_reconstruct":
                return self._RECONSTRUCT
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return lambda name, *_: np.dtype(name, copy=True)  # old files say `align` in a way that NumPy refuses
        raise pickle.UnpicklingError(f"holds a {module}.{name}")


def read_cifar(name: str, content: bytes) -> dict[str, Any]:
    try:
        found = _Arrays(io.BytesIO(content), encoding="latin1").load()
        if found["data"].ndim == 2 and found["data"].shape[1] == 3072:
            return found
        problem: Any = f"`data` has shape {found['data'].shape}"
    except Exception as error:  # unpickling damaged bytes may raise anything
        problem = error
    raise ValueError(f"{name}: no batch of CIFAR-10's python version ({problem}); fetch it again")
