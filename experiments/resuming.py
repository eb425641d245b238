"""`resume=<run folder>`: that run's own config, of which only the settings named here may change."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser  # what hydra.main itself reads the command line with
from hydra.core.override_parser import overrides_parser
from hydra.core.override_parser import types as override_types
from omegaconf import OmegaConf

from experiments import build

_MAY_CHANGE = re.compile(
    r"budget|log_every|source\.(path|folder)|checkpoint\.\w+|evaluators\.\w+\.every|(tracker|mesh|cluster)(\..+)?|hydra/launcher|hydra\.launcher\..+"
)
_NAMED = (
    "budget, log_every, checkpoint.*, evaluators.*.every, tracker, mesh, hydra/launcher, and source.path or "
    "source.folder where its data were moved"
)


def overrides(arguments: Sequence[str]) -> list[str]:
    """The arguments that are no options (`-m`, `--help`), wherever they stand."""
    return list(get_args_parser().parse_intermixed_args(list(arguments)).overrides)


def arguments(typed: Sequence[str]) -> list[str]:
    """The command line for Hydra, which wants options first; with `resume=` the run's own folder is used.

    Raises:
      build.ConfigError: the folder holds no run, or a setting is given that a resumed run keeps.
    """
    lines = overrides(typed)
    options = [argument for argument in typed if argument not in lines]
    if not any(line.startswith("resume=") for line in lines):
        return options + lines
    parsed = _parse(lines)
    folders = next(o for o in parsed if o.key_or_group == "resume")
    for folder in folders.sweep_string_iterator() if folders.is_sweep_override() else [folders.value()]:
        if folder is None:
            return options + lines
        load(str(folder))
    for override in parsed:
        if override is not folders and (override.is_delete() or not _MAY_CHANGE.fullmatch(override.key_or_group)):
            remedy = f"a resumed run takes {_NAMED}; init_from={folders.get_value_element_as_str()} starts a new run"
            raise build.ConfigError(override.key_or_group, f": stays as the run began with it; {remedy}")
    here = ["hydra.run.dir=${resume}", "hydra.sweep.dir=.", "hydra.sweep.subdir=${resume}"]
    return [*options, str(folders.input_line), *(_forced(o) for o in parsed if o is not folders), *here]


def merged(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The resumed run's config with those settings of `config` that `changes`, Hydra's overrides, name."""
    saved = load(config["resume"])
    for override in _parse(changes):
        *outer, last = override.key_or_group.split(".")
        new, old = config, saved
        for name in outer:
            if not isinstance(old.get(name), dict):
                raise build.ConfigError(override.key_or_group, f": no such key; {build.nearest(name, old)}")
            new, old = new[name], old[name]
        if outer == ["source"]:
            saved = moved(saved, {last: new[last]})
            continue
        if last not in old:
            raise build.ConfigError(override.key_or_group, f": no such key; {build.nearest(last, old)}")
        old[last] = new[last]
    return saved


def moved(config: dict[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """A run's config with another place, by `path` or `folder`, of the data that it trains on, wherever it is named.

    Raises build.ConfigError where the run's data have no such place.
    """
    for key, place in places.items():
        source = config.get("source", {})
        data = source.get("data")
        if not isinstance(data, Mapping) or key not in data:
            problem = "this run reads no data" if data is None else f"its data have {', '.join(data)}"
            raise build.ConfigError(f"source.{key}", f"={place}: {problem}")
        before = data["_target_"], data[key]
        for node in [source, *_nodes(config)]:
            if (node.get("_target_"), node.get(key)) == before or (node is source and key in node):
                node[key] = place
    return config


def _nodes(value: Any) -> list[dict[str, Any]]:
    """All mappings in a config."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [node for item in inner for node in _nodes(item)] + ([value] if isinstance(value, dict) else [])


def load(folder: str | Path) -> dict[str, Any]:
    """The config of the run in `folder`. Raises build.ConfigError where there is none."""
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        parent = Path(folder).absolute().parent
        runs = [run.parent.name for run in parent.glob("*/config.yaml")] if parent.is_dir() else []
        near = f"; {build.nearest(Path(folder).name, runs)}" if runs else ""
        raise build.ConfigError("", f"{folder}: no run here (no config.yaml){near}")
    config: Any = OmegaConf.to_container(OmegaConf.load(path))
    return _renamed(config, config.pop("protocol", {}))


def _renamed(config: dict[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What earlier versions called otherwise, and the classes that the run began with, in their order."""
    names = protocol.get("data", {}).get("provenance", {}).get("class_names")
    for node in _nodes(config):
        if names and node.get("_target_") == "core.datasets.ImageFolder":
            node["class_names"] = node.get("class_names") or list(names)
        if protocol.get("classes") and node.get("_target_") == "core.datasets.Npz":
            node["classes"] = node.get("classes") or protocol["classes"]
    learner = config.get("learner", {})
    if "compute" in learner and "network" in learner:
        learner["network"].setdefault("compute", learner["compute"])
        del learner["compute"]
    return config


def keys(lines: Sequence[str]) -> set[str]:
    """The keys and groups that these overrides set."""
    return {override.key_or_group for override in _parse(lines)}


def _parse(lines: Sequence[str]) -> list[override_types.Override]:
    return overrides_parser.OverridesParser.create().parse_overrides(list(lines))


def _forced(override: override_types.Override) -> str:
    """`++key=value`: the key need not be one of the default config, which Hydra composes beside the run's own."""
    line = str(override.input_line)
    return f"++{line.lstrip('+')}" if "." in override.key_or_group and "hydra" not in override.key_or_group else line
