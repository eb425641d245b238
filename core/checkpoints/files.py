"""One checkpoint's folder: what lies in it, and how a damaged one is told from a whole one.

    state/                       every leaf of the state but the replay's, by path, as Orbax writes it
    replay/<process>-<shard>/    the replay, where it was asked for (`core/checkpoints/replay_files.py`)
    source/<process>.npz         what each process's source must know to go on
    manifest.json                written last: shapes, and the size and CRC-32 of every other file

Leaves go by their path ("params/torso/kernel"), so files outlive changes of the classes that held them.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from core import distributed
from core.checkpoints import replay_files, tree_files

T = TypeVar("T")
Leaves = dict[str, Any]  # path -> array, or its jax.ShapeDtypeStruct

SCHEMA = 2  # raise it whenever older checkpoints no longer restore, and say below how they could
# {version: a function from that version's leaves by path (without the replay's) to those of version + 1}
MIGRATIONS: dict[int, Callable[[Leaves], Leaves]] = {
    1: lambda leaves: leaves  # the same but for the replay: its rewards were clipped and it had no extras
}


class CheckpointError(Exception):
    """A checkpoint cannot be written, or cannot be used here."""


class Corrupt(CheckpointError):
    """A checkpoint is truncated or damaged: another one may do."""


class SchemaError(CheckpointError):
    """A checkpoint was written by another version of this project."""


class Mismatch(CheckpointError):
    """A checkpoint holds another network, optimiser or replay than this run's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder holds. `schema`, `files` and the checksum stay as they are in every version."""

    schema: int
    step: int
    state: dict[str, str]  # path -> "float32[8,4]"
    replay: dict[str, str]  # the same, {} where the replay was not saved
    files: dict[str, tuple[int, int]]  # name -> (bytes, CRC-32)
    extra: dict[str, Any]

    @property
    def memory(self) -> dict[str, str]:
        """`replay` where this version can read it; one of an earlier version is filled anew."""
        return self.replay if self.schema == SCHEMA else {}

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.files.values())

    @property
    def replay_bytes(self) -> int:
        return sum(size for name, (size, _) in self.files.items() if name.startswith("replay/"))


def flatten(tree: Any) -> Leaves:
    """The leaves of any pytree by path."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}
    if len(leaves) != len(pairs):
        raise ValueError("two leaves of the state share one path: no name in it may contain '/'")
    return leaves


def unflatten(like: Any, leaves: Leaves) -> Any:
    """The inverse of `flatten`, into the structure of `like`."""
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[path] for path in flatten(like)])


def split(leaves: Leaves) -> tuple[Leaves, Leaves]:
    """(state, replay): the leaves under the top-level field `replay` are written apart."""
    replay = {path: leaf for path, leaf in leaves.items() if path.split("/")[0] == "replay"}
    return {path: leaf for path, leaf in leaves.items() if path not in replay}, replay


def write(folder: pathlib.Path, *, step: int, state: Leaves, replay: Leaves, source: Any, extra: Mapping) -> Manifest:
    """Fills a new folder and flushes it to the disk: every process its own files, the first one what is of all."""
    with distributed.together():
        if distributed.primary():
            folder.mkdir()
            (folder / "source").mkdir()
    with distributed.together(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as orbax:
        orbax.save(folder / "state", args=ocp.args.StandardSave({p: x for p, x in state.items() if x.size}))
    with distributed.together():
        mine = folder / "source" / f"{jax.process_index()}.npz"
        tree_files.save(mine, source)
        shared = (folder / "state").rglob("*") if distributed.primary() else []
        own = [mine, *(file for file in sorted(shared) if file.is_file())]
        sums = {file.relative_to(folder).as_posix(): _seal(file) for file in own}
        sums |= {f"replay/{name}": entry for name, entry in replay_files.write(folder / "replay", replay).items()}
    files = {name: tuple(entry) for every in distributed.gather(sums) for name, entry in every.items()}
    manifest = Manifest(
        schema=SCHEMA,
        step=step,
        state={path: describe(leaf) for path, leaf in state.items()},
        replay={path: describe(leaf) for path, leaf in replay.items()},
        files=files,
        extra=dict(extra),
    )
    with distributed.together():
        if distributed.primary():
            (folder / "manifest.json").write_text(_dump(dataclasses.asdict(manifest)))
            for made in [folder / "manifest.json", *(path for path in folder.rglob("*") if path.is_dir()), folder]:
                sync(made)
    return manifest


def read_manifest(folder: pathlib.Path) -> Manifest:
    """Raises: Corrupt where anything is amiss that can be seen without reading the files; SchemaError."""
    try:
        text = (folder / "manifest.json").read_text()
        content = json.loads(text)
        content.pop("checksum")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise Corrupt(f"{folder}: no readable manifest ({type(error).__name__}: {error})") from error
    if _dump(content) != text:
        raise Corrupt(f"{folder}: manifest.json does not match its checksum")
    _check_schema(folder, content["schema"])
    for name, (size, _) in content["files"].items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != size:
            raise Corrupt(f"{folder}: {name} has {'vanished' if found is None else f'{found} bytes'} instead of {size}")
    return Manifest(**content)


def agreed(read: Callable[[], T]) -> T:
    """What `read()` gives; where it raises Corrupt in one process, it does in all. All of them have to call it."""
    value: Any = None
    problem = None
    try:
        value = read()
    except Corrupt as error:
        problem = str(error)
    if problem := next(filter(None, distributed.gather(problem)), None):
        raise Corrupt(problem)
    return value


def verify(folder: pathlib.Path, manifest: Manifest, prefix: str) -> None:
    """Reads every file below `prefix` once: of several processes each checks its share, and all hear of a damaged one.

    Raises: Corrupt.
    """
    names = sorted(name for name in manifest.files if name.startswith(prefix))
    mine = names[jax.process_index() :: jax.process_count()]
    agreed(lambda: [_check_file(folder, manifest, name) for name in mine])


def renew(folder: pathlib.Path, extra: Mapping[str, Any]) -> None:
    """Puts another `extra` into a checkpoint that is whole, atomically."""
    manifest = dataclasses.replace(read_manifest(folder), extra=dict(extra))
    part = folder / "manifest.json.part"
    part.write_text(_dump(dataclasses.asdict(manifest)))
    sync(part)
    os.replace(part, folder / "manifest.json")
    sync(folder)


def read_state(folder: pathlib.Path, manifest: Manifest, abstract: Leaves, *, partly: bool) -> Leaves:
    """The arrays that `abstract` asks for, on its shardings (or on the first device); call `verify` first.

    Raises: Corrupt; Mismatch, also where the checkpoint holds more, unless only a part is wanted (`partly`).
    """
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or place)
        for path, leaf in abstract.items()
    }
    stored = {path: leaf for path, leaf in abstract.items() if leaf.size}  # Orbax refuses empty arrays
    empty = {path: jnp.zeros(x.shape, x.dtype, device=x.sharding) for path, x in abstract.items() if not x.size}
    if manifest.schema != SCHEMA:
        leaves = empty | _migrated(folder, manifest, place)
        _compare(folder, {path: describe(leaf) for path, leaf in leaves.items()}, abstract, partly=partly)
        return {path: jax.device_put(leaves[path], leaf.sharding) for path, leaf in abstract.items()}
    _compare(folder, manifest.state, abstract, partly=partly)
    wanted = ocp.args.PyTreeRestore(
        item=stored, restore_args=ocp.checkpoint_utils.construct_restore_args(stored), partial_restore=True
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        return orbax.restore(folder / "state", args=wanted) | empty


def read_replay(folder: pathlib.Path, manifest: Manifest, abstract: Leaves) -> Leaves:
    """The replay's arrays, checked while they are read. Raises: Corrupt, Mismatch."""
    _compare(folder, manifest.replay, abstract, partly=False)
    try:
        leaves, sums = replay_files.read(folder / "replay", abstract)
    except OSError as error:
        raise Corrupt(f"{folder}: {error}") from error
    for name, found in sums.items():
        _check_sum(folder, manifest, f"replay/{name}", found)
    return leaves


def read_source(folder: pathlib.Path, manifest: Manifest) -> Any:
    """This process's source state, None where another number of processes wrote it. Raises: Corrupt."""
    if sum(name.startswith("source/") for name in manifest.files) != jax.process_count():
        return None
    mine = f"source/{jax.process_index()}.npz"
    _check_file(folder, manifest, mine)
    return tree_files.load(folder / mine)


def check_space(folder: pathlib.Path, step: int, *, state: int, replay: int) -> None:
    free = shutil.disk_usage(folder).free
    if state + replay > free:
        remedy = "free space there, or set checkpoint.replay=false" if replay else "free space there"
        raise CheckpointError(
            f"the checkpoint of step {step} needs {readable(state + replay)} (replay: {readable(replay)}) and "
            f"{folder} has {readable(free)} free: {remedy}; earlier checkpoints are untouched"
        )


def readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def size_of(leaves: Leaves) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves.values())


def describe(leaf: Any) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def sync(path: pathlib.Path) -> None:
    """Flushes a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _dump(content: Mapping[str, Any]) -> str:
    """JSON that carries its own checksum; a file is whole if dumping what it says gives the same text."""
    body = json.dumps(content, indent=1, default=lambda value: value.item())
    return json.dumps({**json.loads(body), "checksum": zlib.crc32(body.encode())}, indent=1)


def _seal(file: pathlib.Path) -> tuple[int, int]:
    sync(file)
    return _sum(file)


def _sum(file: pathlib.Path) -> tuple[int, int]:
    size = crc = 0
    with open(file, "rb") as source:
        while piece := source.read(1 << 20):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return size, crc


def _check_file(folder: pathlib.Path, manifest: Manifest, name: str) -> None:
    try:
        found = _sum(folder / name)
    except OSError as error:
        raise Corrupt(f"{folder}: {error}") from error
    _check_sum(folder, manifest, name, found)


def _check_sum(folder: pathlib.Path, manifest: Manifest, name: str, found: tuple[int, int]) -> None:
    if tuple(manifest.files[name]) != found:
        raise Corrupt(f"{folder}: {name} does not match its checksum")


def _check_schema(folder: pathlib.Path, schema: int) -> None:
    if schema > SCHEMA or any(version not in MIGRATIONS for version in range(schema, SCHEMA)):
        remedy = "update the project" if schema > SCHEMA else "use the revision of the project that wrote it"
        raise SchemaError(f"{folder}: its schema is version {schema}, this project reads version {SCHEMA}: {remedy}")


def _migrated(folder: pathlib.Path, manifest: Manifest, place: jax.sharding.Sharding) -> Leaves:
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as orbax:
        leaves = orbax.restore(folder / "state", args=ocp.args.StandardRestore(fallback_sharding=place))
    for version in range(manifest.schema, SCHEMA):
        leaves = MIGRATIONS[version](leaves)
    return leaves


def _compare(folder: pathlib.Path, saved: Mapping[str, str], abstract: Leaves, *, partly: bool) -> None:
    wanted = {path: describe(leaf) for path, leaf in abstract.items()}
    names = wanted if partly else wanted | dict(saved)
    for path in names:
        here, there = wanted.get(path, "absent"), saved.get(path, "absent")
        if here != there:
            raise Mismatch(
                f"{folder}: {path} is {there} in the checkpoint and {here} in this run; "
                "use the network, optimiser and replay settings that wrote it (config.yaml beside it)"
            )
