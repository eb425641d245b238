"""What a run's folder says of the run: `config.yaml`, written once it has begun and read ever after."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.core import hydra_config
from omegaconf import OmegaConf

from core import files
from experiments.config import build, overrides

FILE = "config.yaml"  # in a run's folder
FAILURE = "error.txt"  # likewise: why it ended badly, until it goes on; the reason is its first line

# Keys whose values are places, where something lies there.
PLACES = re.compile(r"(\w+_)?(path|folder|file|directory|dir|root|run)|init_from")

LONGEST = 4 << 20  # bytes of a config.yaml
_DEEPEST, _MOST = 100, 1_000_000  # levels, and values with every alias written out


_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML was built with it


class _Loader(_BASE):
    """Reads scalars as OmegaConf does: 1e-3 is a number, a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:timestamp"]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_FLOAT = r"""[-+]?[0-9]+(_[0-9]+)*(\.[0-9_]*)?[eE][-+]?[0-9]+|[-+]?[0-9]+(_[0-9]+)*\.[0-9_]*
|\.[0-9]+(_[0-9]+)*([eE][-+][0-9]+)?|[-+]?[0-9]+(_[0-9]+)*(:[0-5]?[0-9])+\.[0-9_]*
|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"""
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"^(?:{_FLOAT})$", re.X), list("-+0123456789."))


def save(folder: Path, config: Mapping[str, Any], *, protocol: Mapping[str, Any] | None = None) -> None:
    """Writes `config.yaml`, atomically, with the commands so far above it and the `protocol` below.

    Places of files and folders are written as absolute paths: the run goes on, and is evaluated, from any folder.

    Raises: as `refuse_taken`.
    """
    refuse_taken(folder, config)
    path = folder / FILE
    content = {**config, "resume": None} | ({"protocol": dict(protocol)} if protocol else {})
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(_commands(path) + OmegaConf.to_yaml(OmegaConf.create(_absolute(content))))
    part.replace(path)


def refuse_taken(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises build.ConfigError where the folder holds a run already that `config` does not resume."""
    if (folder / FILE).exists() and not config.get("resume"):
        remedy = f"resume={folder} goes on with it, hydra.run.dir=<folder> starts elsewhere"
        raise build.ConfigError("hydra.run.dir", f"={folder}: holds a run already; {remedy}")


def load(folder: str | Path) -> dict[str, Any]:
    """The config of the run in `folder`. Raises build.ConfigError where there is none."""
    path = Path(folder) / FILE
    if not path.is_file():
        parent = Path(folder).absolute().parent
        runs = [run.parent.name for run in parent.glob(f"*/{FILE}")] if parent.is_dir() else []
        near = f"; {build.nearest(Path(folder).name, runs)}" if runs else ""
        raise build.ConfigError("", f"{folder}: no run here (no config.yaml){near}")
    config: Any = OmegaConf.to_container(OmegaConf.load(path))
    return _renamed(config, config.pop("protocol", {}))


def read(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and protocol of the run in `folder`, as `load` and `protocol` give them, in a twentieth of their time.

    Raises: as `content`.
    """
    return parts(content(folder))


def content(folder: str | Path) -> dict[str, Any]:
    """What `config.yaml` holds, as it is written.

    Raises build.ConfigError where the file is missing, is not YAML of a mapping, or would not fit into memory.
    """
    try:
        raw = files.read(Path(folder) / FILE, most=LONGEST)
        _refuse_deep(raw)
        content = yaml.load(raw, _Loader)
        if not isinstance(content, dict):
            raise build.ConfigError("", f"{FILE}: holds no settings")
        _values(content, {})
    except OSError as error:
        raise build.ConfigError("", f"{FILE}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise build.ConfigError("", f"{FILE}: cannot be read: {str(error).splitlines()[0]}") from error
    return content


def parts(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and protocol of what a `config.yaml` holds, which is changed."""
    told = content.pop("protocol", None)
    told = told if isinstance(told, dict) else {}
    return _renamed(content, told), told


def protocol(folder: str | Path) -> dict[str, Any]:
    """What `save` was given as the protocol of the run in `folder`."""
    content: Any = OmegaConf.to_container(OmegaConf.load(Path(folder) / FILE))
    return content.get("protocol", {})


def nodes(value: Any) -> list[dict[str, Any]]:
    """All mappings in a config, the inner ones first."""
    found = list[dict[str, Any]]()
    _gather(value, found)
    return found


def _gather(value: Any, found: list[dict[str, Any]]) -> None:
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            _gather(item, found)
    if isinstance(value, dict):
        found.append(value)


def _refuse_deep(raw: bytes) -> None:
    """Raises ValueError for what is nested so deeply that libyaml would end the process."""
    depth = 0
    if sum(map(raw.count, (b"[", b"{", b"- ", b"? "))) < _DEEPEST:
        return
    for event in yaml.parse(raw, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"nested more than {_DEEPEST} levels deep")


def _values(value: Any, known: dict[int, int]) -> int:
    """How many values it holds, those behind each alias counted; ValueError where there is no end of them."""
    if not isinstance(value, dict | list | set | tuple):
        return 1
    if id(value) not in known:
        known[id(value)] = _MOST  # until it is counted: it may hold itself
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_values(item, known) for item in inner)
    if known[id(value)] >= _MOST:
        raise ValueError(f"its aliases stand for more than {_MOST:,} values")
    return known[id(value)]


def _renamed(config: dict[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What earlier versions called otherwise, and the classes that the run began with, in their order."""
    names = protocol.get("data", {}).get("provenance", {}).get("class_names")
    for node in nodes(config):
        node |= {key: build.today(value) for key, value in node.items() if isinstance(value, str)}
        if node.get("_target_") == "core.replay.Replay" and "n_step" in node:
            node["read"] = {"_target_": "core.windows.Transitions", "n_step": node.pop("n_step")}
        if node.get("_target_") == "agents.atari.Atari":
            node.setdefault("period", 25_000)  # so that runs from before it are not told apart by it
        if names and node.get("_target_") == "core.images.datasets.ImageFolder":
            node["class_names"] = node.get("class_names") or list(names)
        if protocol.get("classes") and node.get("_target_") == "core.images.datasets.Npz":
            node["classes"] = node.get("classes") or protocol["classes"]
    if isinstance(held := config.get("checkpoint"), dict):
        held.setdefault("replay_every", None)  # so that a resume may set it
    learner = config.get("learner", {})
    if "compute" in learner and "network" in learner:
        learner["network"].setdefault("compute", learner["compute"])
        del learner["compute"]
    return config


def _absolute(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {name: _absolute(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_absolute(item, key) for item in value]
    if isinstance(value, str) and value and PLACES.fullmatch(key):
        place = os.path.expanduser(value)
        return os.path.abspath(place) if os.path.exists(place) else value
    return value


def _commands(path: Path) -> str:
    """The comments that open the file, and one more: the command that runs now."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    before = "".join(line for line in lines if line.startswith("# "))
    return f"{before}# {overrides.command()}\n" if hydra_config.HydraConfig.initialized() else before
