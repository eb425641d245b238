"""`resume=<run folder>`: that run's own config, of which only the settings named here may change.

Numbers that were made from these (`images: ${budget}`) are made anew from what they are then: a run's config says in
`follows` how each of them is made.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser import types as override_types
from omegaconf import DictConfig, OmegaConf

from experiments.config import build, fitting, overrides, saved

_MAY_CHANGE = re.compile(
    r"budget|log_every|source\.(path|folder)|checkpoint\.\w+|evaluators\.\w+\.(every|features\.(path|file|run))|(tracker|mesh|cluster)(\..+)?|hydra/launcher|hydra\.launcher\..+"
)
_NAMED = (
    "budget, log_every, checkpoint.*, evaluators.*.every, tracker, mesh, hydra/launcher, and, of files "
    "that were moved, source.path, source.folder, evaluators.*.features.path, .file or .run"
)
_FOLLOWED = re.compile(r"budget|log_every|checkpoint\.every|evaluators\.\w+\.every")
_Key = tuple[str | int, ...]


def arguments(typed: Sequence[str]) -> list[str]:
    """The command line for Hydra, which wants options first; with `resume=` the run's own folder is used.

    Raises:
      build.ConfigError: the folder holds no run, or a setting is given that a resumed run keeps.
    """
    lines = overrides.among(typed)
    options = [argument for argument in typed if argument not in lines]
    if not any(line.startswith("resume=") for line in lines):
        return options + lines
    parsed = overrides.parse(lines)
    folders = next(o for o in parsed if o.key_or_group == "resume")
    for folder in folders.sweep_string_iterator() if folders.is_sweep_override() else [folders.value()]:
        if folder is None:
            return options + lines
        saved.load(str(folder))
    for override in parsed:
        if override is not folders and (override.is_delete() or not _MAY_CHANGE.fullmatch(override.key_or_group)):
            remedy = f"a resumed run takes {_NAMED}; init_from={folders.get_value_element_as_str()} starts a new run"
            raise build.ConfigError(override.key_or_group, f": stays as the run began with it; {remedy}")
    here = ["hydra.run.dir=${resume}", "hydra.sweep.dir=.", "hydra.sweep.subdir=${resume}"]
    return [*options, str(folders.input_line), *(_forced(o) for o in parsed if o is not folders), *here]


def merged(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The resumed run's config with those settings of `config` that `changes`, Hydra's overrides, name.

    What follows one of them is made anew, unless it is named itself: then it follows no more.
    """
    kept = saved.load(config["resume"])
    for override in overrides.parse(changes):
        *outer, last = override.key_or_group.split(".")
        new, old = config, kept
        for name in outer:
            if not isinstance(old.get(name), dict):
                raise build.ConfigError(override.key_or_group, f": no such key; {build.nearest(name, old)}")
            new, old = new[name], old[name]
        if outer == ["source"]:
            kept = moved(kept, {last: new[last]})
            continue
        if last not in old:
            raise build.ConfigError(override.key_or_group, f": no such key; {build.nearest(last, old)}")
        old[last] = new[last]
        if not outer and last in config.get("choices", {}):
            kept.setdefault("choices", {})[last] = config["choices"][last]
    if not kept.get("follows"):
        return kept
    kept["follows"] = {key: made for key, made in kept["follows"].items() if key not in overrides.keys(changes)}
    follows = {_split(key): made for key, made in kept["follows"].items()}
    return _resolved(kept, follows) | {"follows": kept["follows"]}


def follows(config: DictConfig, plain: dict[str, Any]) -> dict[str, str]:
    """{"optimizer.schedule.images": "${budget}"}: the numbers of `config` made from what a resumed run may change.

    `plain` is `config` resolved.
    """
    raw: Any = OmegaConf.to_container(config, resolve=False)
    written, now = dict(_leaves(raw, raw)), dict(_leaves(plain, plain))
    moved = OmegaConf.create(raw)
    for key, value in written.items():
        if _FOLLOWED.fullmatch(_joined(key)) and isinstance(value, int | float):
            OmegaConf.update(moved, _joined(key), 3 * value + 1)
    then: Any = OmegaConf.to_container(moved, resolve=True)
    found = {
        key: written[key]
        for key, value in _leaves(then, then)
        if isinstance(value, int | float) and isinstance(written.get(key), str) and value != now.get(key)
    }
    if not found:
        return {}
    # A reference relative to where it was written may mean something else where the value is used.
    again = dict(_leaves(remade := _resolved(plain, found), remade))
    return {_joined(key): made for key, made in found.items() if again[key] == now[key]}


def told(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """A line on what follows the changes of a resumed run's config, or may have to."""
    old, new = (dict(_leaves(config, config)) for config in (before, after))
    if "follows" in before:
        moved = [key for key in map(_split, after["follows"]) if old[key] != new[key]]
        shown = ", ".join(f"{_joined(key)} {old[key]:,} -> {new[key]:,}" for key in _shortest(moved))
        return f"updated with the new settings: {shown}" if moved else None
    if before["budget"] == after["budget"]:
        return None
    same = [key for key, value in new.items() if value == before["budget"] and type(value) in (int, float)]
    shown = ", ".join(map(_joined, _shortest(same)))
    if not same:
        return None
    return (
        f"budget={after['budget']:,} (was {before['budget']:,}): {shown} still equal the old budget. If they should "
        "follow it, set them in config.yaml and resume again."
    )


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
        for node in [source, *saved.nodes(config)]:
            if (node.get("_target_"), node.get(key)) == before or (node is source and key in node):
                node[key] = place
    return config


def _leaves(node: Any, root: Any, key: _Key = ()) -> Iterator[tuple[_Key, Any]]:
    """Every value below `node` that is no list or mapping, also behind a reference to a whole node (`${optimizer}`)."""
    whole = re.fullmatch(r"\$\{(\w[\w.]*)\}", node) if isinstance(node, str) else None
    target = fitting.value_at(root, _split(whole[1])) if whole else None
    node = target if isinstance(target, dict | list) else node
    if not isinstance(node, dict | list):
        yield key, node
        return
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(name, int) or (isinstance(name, str) and "." not in name and not name.isdecimal()):
            yield from _leaves(value, root, (*key, name))


def _resolved(plain: Mapping[str, Any], made: Mapping[_Key, str]) -> dict[str, Any]:
    """A copy of `plain` with these values made by their expressions."""
    changed = OmegaConf.create({name: node for name, node in plain.items() if name != "follows"})
    for key, expression in made.items():
        OmegaConf.update(changed, _joined(key), expression)
    return OmegaConf.to_container(changed, resolve=True)  # pyright: ignore[reportReturnType]


def _shortest(found: Sequence[_Key]) -> list[_Key]:
    """Without those that hold another one's value in a second place: `learner.optimizer.x` beside `optimizer.x`."""
    return [key for key in found if not any(key[start:] in found for start in range(1, len(key)))]


def _joined(key: _Key) -> str:
    return ".".join(map(str, key))


def _split(key: str) -> _Key:
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def _forced(override: override_types.Override) -> str:
    """`++key=value`: the key need not be one of the default config, which Hydra composes beside the run's own."""
    line = str(override.input_line)
    return f"++{line.lstrip('+')}" if "." in override.key_or_group and "hydra" not in override.key_or_group else line
