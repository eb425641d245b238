"""A replay memory on disk: one file a leaf and shard, written and read in small pieces, compressed with zstd.

A ring of gigabytes must never exist twice, neither on the host nor on a device, and no NumPy view of it
may outlive a save (a viewed array is copied when it is donated). So pieces are cut out on the device, and
put back into a donated buffer there. Files are named by shard, which makes them independent of how many
devices wrote them: `<process>-<shard>/<leaf>`, one frame of zstd over the bytes in C order, in which the frames of one
game are a row apart: the window reaches over many rows.
"""

import functools
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, cast

import jax
import jax.numpy as jnp
import numpy as np
import zstandard
from jax import lax

Sums = dict[str, tuple[int, int]]  # file, relative to the folder -> (bytes, CRC-32)
PIECE = 2 << 20  # bytes: larger pieces are no faster and leave malloc with more to hold on to
LEVEL, WINDOW = 1, 21  # the fastest of zstd's usual levels; log2 of the bytes in which it finds what repeats


def write(folder: pathlib.Path, leaves: Mapping[str, jax.Array]) -> Sums:
    """Writes this process's shards of `leaves`, arrays [S, ...] by path, and flushes them to the disk."""
    sums = {}
    for path, array in leaves.items():
        for part in array.addressable_shards:
            if part.replica_id == 0:
                for row, shard in enumerate(_shards(path, array.shape, part.index)):
                    name = f"{jax.process_index()}-{shard}/{_file(path)}"
                    sums[name] = _write_shard(folder / name, part.data, row)
    return sums


def read(folder: pathlib.Path, abstract: Mapping[str, Any]) -> tuple[dict[str, jax.Array], Sums]:
    """Arrays of the shapes, dtypes and shardings of `abstract`, and what was read: what `write` returned, if whole.

    Raises: OSError for files that are missing, too short or no zstd.
    """
    leaves, sums = {}, {}
    for path, spec in abstract.items():
        parts = []
        for device, index in spec.sharding.addressable_devices_indices_map(spec.shape).items():
            buffer = jnp.zeros(spec.sharding.shard_shape(spec.shape), spec.dtype, device=device)
            for row, shard in enumerate(_shards(path, spec.shape, index)):
                file = next(folder.glob(f"*-{shard}/{_file(path)}"), folder / f"*-{shard}" / _file(path))
                buffer, sums[file.relative_to(folder).as_posix()] = _read_shard(file, buffer, row)
            parts.append(buffer)
        leaves[path] = jax.make_array_from_single_device_arrays(spec.shape, spec.sharding, parts)
    return leaves, sums


def _file(path: str) -> str:
    return path.replace("/", ".")


def _shards(path: str, shape: tuple[int, ...], index: tuple[slice, ...]) -> range:
    """The shards that one device holds: positions along the first axis, the only one that is laid over devices."""
    if not shape:
        return range(1)
    if any(cut.indices(size) != (0, size, 1) for cut, size in zip(index[1:], shape[1:], strict=True)):
        raise ValueError(f"{path}: a replay array may be laid over devices by its first axis only, not {index}")
    return range(shape[0])[index[0]]


def _write_shard(file: pathlib.Path, array: jax.Array, row: int) -> tuple[int, int]:
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = zstandard.ZstdCompressionParameters.from_level(LEVEL, window_log=WINDOW)
    with open(file, "wb") as out:
        counted = _Counted(out)
        with zstandard.ZstdCompressor(compression_params=settings).stream_writer(
            cast(Any, counted), closefd=False
        ) as packed:
            for start, shape in _pieces(array.shape, array.dtype.itemsize, row):
                packed.write(np.asarray(_cut(array, start, shape)).reshape(-1).view(np.uint8).data)
        out.flush()
        os.fsync(out.fileno())
    return counted.size, counted.crc


def _read_shard(file: pathlib.Path, buffer: jax.Array, row: int) -> tuple[jax.Array, tuple[int, int]]:
    size = 0
    with open(file, "rb") as source:
        counted = _Counted(source)
        unpacked = zstandard.ZstdDecompressor().stream_reader(cast(Any, counted), closefd=False)
        try:
            for start, shape in _pieces(buffer.shape, buffer.dtype.itemsize, row):
                piece = np.empty(shape, buffer.dtype)
                view = piece.reshape(-1).view(np.uint8)
                size += (found := unpacked.readinto(view.data))
                if found != view.size:
                    raise OSError(f"{file} ends after {size} bytes of its content")
                buffer = _put(buffer, piece, start)
                buffer.block_until_ready()  # else pieces queue up in memory
        except zstandard.ZstdError as error:
            raise OSError(f"{file} is damaged: {error}") from error
        while counted.read(PIECE):  # what is left counts for the checksum
            pass
    return buffer, (counted.size, counted.crc)


class _Counted:
    """A file that knows the size and the CRC-32 of what went through it."""

    def __init__(self, file: BinaryIO):
        self._file, self.size, self.crc = file, 0, 0

    def write(self, data: bytes) -> int:
        self._count(data)
        return self._file.write(data)

    def read(self, size: int) -> bytes:
        self._count(data := self._file.read(size))
        return data

    def _count(self, data: bytes) -> None:
        self.size, self.crc = self.size + len(data), zlib.crc32(data, self.crc)


def _pieces(shape: tuple[int, ...], itemsize: int, row: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(start, shape) of pieces of at most PIECE bytes (or one element) that make up `array[row]` in C order."""
    if len(shape) < 2:
        yield (row,) * len(shape), (1,) * len(shape)
        return
    axis, below = len(shape) - 1, itemsize  # `axis` is cut, `below` are the bytes of one step along it
    while axis > 1 and below * shape[axis] <= PIECE:
        below *= shape[axis]
        axis -= 1
    step, whole = max(1, PIECE // max(1, below)), shape[axis + 1 :]
    for lead in np.ndindex(*shape[1:axis]):
        for start in range(0, shape[axis], step):
            count = min(step, shape[axis] - start)
            yield (row, *lead, start, *(0 for _ in whole)), (*(1 for _ in shape[:axis]), count, *whole)


@functools.partial(jax.jit, static_argnums=2)
def _cut(array: jax.Array, start: tuple[int, ...], shape: tuple[int, ...]) -> jax.Array:
    return lax.dynamic_slice(array, start, shape)


@functools.partial(jax.jit, donate_argnums=0)
def _put(buffer: jax.Array, piece: Any, start: tuple[int, ...]) -> jax.Array:
    return lax.dynamic_update_slice(buffer, piece, start)
