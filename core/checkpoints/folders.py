"""The folders of a run's checkpoints: which there are, which are whole, which stay."""

import os
import pathlib
import shutil

from core.checkpoints import files

ALONE = "saves_no_replay"  # in the `extra` of a checkpoint: its run goes on from it though it has no memory
REPLACED = "tmp-before-"


def complete(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The checkpoints in `folder` that look whole (their files are all there), oldest first."""
    return [path for path in numbered(pathlib.Path(folder)) if _is_whole(path)]


def name(number: int) -> str:
    return f"{number:012d}"


def number(path: pathlib.Path) -> int:
    return int(path.name)


def numbered(folder: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints' folders by number, oldest first, whole or not."""
    return sorted((path for path in folder.glob("*") if path.name.isdigit()), key=number)


def _is_whole(path: pathlib.Path) -> bool:
    try:
        files.read_manifest(path)
    except files.Corrupt:
        return False
    except files.SchemaError:
        pass  # whole, though of another version: whoever reads it will hear so
    return True


def with_memory(folder: pathlib.Path) -> list[pathlib.Path]:
    """Those that look whole and hold a memory that this version reads, oldest first."""
    return [path for path in numbered(folder) if _memory(path)]


def light(folder: pathlib.Path) -> list[pathlib.Path]:
    """Those that look whole and hold none though their run saves it: written between two that do. Oldest first."""
    return [path for path in numbered(folder) if _memory(path) is False]


def _memory(path: pathlib.Path) -> bool | None:
    """Whether it has a memory; None where it is damaged or of another version, or where its run saves none."""
    try:
        manifest = files.read_manifest(path)
    except (files.Corrupt, files.SchemaError):
        return None
    return bool(manifest.memory) or (None if manifest.extra.get(ALONE) else False)


def recover(folder: pathlib.Path) -> None:
    """Puts back what a kill has caught while it was replaced."""
    for path in folder.glob(f"{REPLACED}*"):
        if not (place := path.with_name(path.name.removeprefix(REPLACED))).exists():
            os.rename(path, place)


def prune(folder: pathlib.Path, keep: int, *, memories: bool) -> None:
    """Leaves the newest `keep`, and with `memories` as many that have one, which a killed run goes on from."""
    kept = {*numbered(folder)[-keep:], *(with_memory(folder)[-keep:] if memories else ())}
    for path in numbered(folder):
        if path not in kept:
            remove(path)


def remove(path: pathlib.Path) -> None:
    """Renames first, so that a removal cut short is not taken for a damaged checkpoint."""
    gone = path.with_name(f"tmp-old-{path.name}")
    os.rename(path, gone)
    shutil.rmtree(gone)
