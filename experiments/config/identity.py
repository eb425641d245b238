"""Are these packages ours? Their names are plain, so another one may stand in front of them."""

import importlib.util
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("core", "agents", "generative", "slurm")


def check() -> None:
    """Raises ImportError, naming path and remedy, where one of `PACKAGES` is not the one beside this file.

    Looks packages up without importing them, so that a foreign one never runs. `experiments/__init__.py` calls it, so
    every `python -m experiments.<command>` does before its first import of them.
    """
    for name in PACKAGES:
        found = _location(name)
        if found == ROOT / name:
            continue
        if found is None:
            raise ImportError(f"jaxcade's package `{name}` is not found: run `pip install --editable {ROOT}`")
        raise ImportError(
            f"`import {name}` finds {found}, a foreign package in front of jaxcade's own {ROOT / name}: "
            f"start from {ROOT}, and take {found.parent} out of PYTHONPATH or uninstall what put `{name}` there"
        )


def _location(name: str) -> pathlib.Path | None:
    """The folder (or the file, for a plain module) that `import name` would use or has used; None if there is none."""
    loaded = sys.modules.get(name)
    spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations is not None:
        return pathlib.Path(next(iter(spec.submodule_search_locations))).resolve()
    return pathlib.Path(spec.origin or name).resolve()
