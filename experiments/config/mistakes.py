"""Hydra's complaints about a command line, told in a line or two with the nearest valid names."""

import difflib
import importlib.resources
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import errors
from hydra.core.override_parser import overrides_parser
from omegaconf import DictConfig, OmegaConf
from omegaconf import errors as omegaconf_errors

from experiments.config import build, fitting

# Which version's defaults hold. Hydra 1.3 warns without it, 1.4 warns of it; what 1.4 does by default is what 1.3 does.
BASE: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def explain(error: errors.CompactHydraException, overrides: Sequence[str], *, conf: Path, name: str) -> str:
    """What was wrong in `overrides` of `conf/<name>.yaml`, and what may have been meant."""
    if isinstance(error, errors.OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, errors.MissingConfigException) and error.missing_cfg_file:
        choices = _choices(_compose_what_fits(overrides, conf=conf, name=name))
        asking = re.match(r"In '(.+?)'", str(error))
        where = f" (asked for in {asking[1]}.yaml)" if asking and asking[1] not in (name, "hydra/config") else ""
        return _no_such_choice(error.missing_cfg_file, choices, error.options or ()) + where
    if found := re.search(r"Could not (?:override|delete from config\.|delete\. No match for) '(.+?)'", str(error)):
        return _unknown(found[1], overrides, conf=conf, name=name)
    if found := re.search(r"An item is already at '(.+?)'|^(\S+) appears more than once", str(error)):
        key = found[1] or found[2]
        return f"+{key}: is there already, and + only adds; take {_typed(key, overrides).lstrip('+')}"
    cause = f": {error.__cause__}" if error.__cause__ else ""
    return (str(error).split("\nConfig search path:")[0] + cause).strip()


def unresolved(overrides: Sequence[str], *, conf: Path, name: str) -> None:
    """Raises build.ConfigError where these overrides choose what does not belong together."""
    config = _compose_what_fits(overrides, conf=conf, name=name)
    fitting.check(_raw(config), choices=config.hydra.runtime.choices, typed=overrides)


def _unreadable(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override}: not understood; write key=value or group=choice"
    return (
        f"{override}: not understood; quote a value that holds spaces, commas, brackets, colons or '=' twice, "
        f"once for the shell and once for Hydra: '{key}=\"{value}\"'"
    )


def _unknown(key: str, overrides: Sequence[str], *, conf: Path, name: str) -> str:
    """Of an override of what the config has not: a group, a key that + would add, or a mistake."""
    typed, config = _typed(key, overrides), _compose_what_fits(overrides, conf=conf, name=name)
    groups, value = _choices(config), typed.partition("=")[2]
    group, _, part = key.partition("/")
    if name == "train" and group in groups and not typed.startswith("~"):
        choices = [choice.removeprefix(f"{part}/") for choice in groups[group] if choice.startswith(part)]
        if value not in choices:
            return f"{typed}: no such choice; {build.nearest(value, choices)}"
        if adds := _adds(typed, overrides, conf=conf):
            return f"{typed}: no {key} was chosen yet; + adds one: {adds}"
        uses = re.compile(rf"^ *- (override )?(/?{part}|/{group}@_global_\.{group}):", re.MULTILINE)
        users = sorted(file.stem for file in (conf / "learner").glob("*.yaml") if uses.search(file.read_text()))
        if users:
            return f"{typed}: the learner chosen has no {part or group}; those of {', '.join(users)} have"
    keys = [other for other in _keys(config) if other.startswith("hydra") == key.startswith("hydra")]
    # A group of other commands is none of this one's.
    told = _no_such_key(key, [other for other in (*groups, *keys) if other != key])
    if name == "train" and "." in key and (adds := _adds(typed, overrides, conf=conf)):
        _, meant, near = told.partition("did you mean ")
        return f"{key}: not in this config; + adds it: {adds}" + (f" (or {meant}{near})" if near else "")
    return told


def _raw(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=False)  # pyright: ignore[reportReturnType]


def _typed(key: str, overrides: Sequence[str]) -> str:
    """The override of this key, as it was typed."""
    return next((line for line in overrides if fitting.typed_key(line) == key), key)


def _adds(typed: str, overrides: Sequence[str], *, conf: Path) -> str | None:
    """`typed` with a + before it where a run takes it so: asked of what composes and checks a run."""
    adding = f"+{typed.lstrip('+~')}"
    if "=" not in typed or typed.startswith("~"):
        return None
    config = _compose_what_fits([*overrides, adding], conf=conf, name="train")
    if adding not in config.hydra.overrides.task:
        return None
    run = OmegaConf.masked_copy(config, [str(key) for key in config if key not in ("hydra", "debug")])
    try:
        fitting.check(_raw(run), choices=config.hydra.runtime.choices, typed=[adding])
        run.name = "any"  # Hydra would say it
        plain: Any = OmegaConf.to_container(run, resolve=True)
        build.plan(plain | {"_target_": "experiments.config.build.Run"})
    except (build.ConfigError, omegaconf_errors.OmegaConfBaseException):
        return None
    return adding


def _no_such_choice(path: str, choices: Mapping[str, list[str]], options: Iterable[str]) -> str:
    """`experiment/dqn/png` -> `experiment=dqn/png: no such choice; did you mean dqn/pong?`"""
    group = next((group for group in choices if path.startswith(group + "/")), path.rpartition("/")[0])
    wrong = path.removeprefix(group + "/")
    return f"{group}={wrong}: no such choice; {build.nearest(wrong, choices.get(group) or options)}"


def _no_such_key(wrong: str, names: Sequence[str]) -> str:
    """Near are a sibling that reads alike (`learner.batc`), and a key of that very name elsewhere (`batch`)."""
    parent, _, last = wrong.rpartition(".")
    siblings = [name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == parent]
    close = [f"{parent}.{name}".lstrip(".") for name in difflib.get_close_matches(last, siblings, n=2)]
    close += [name for name in names if name not in close and name.rpartition(".")[2] == last]
    others = [name for name in names if name not in close and not wrong.startswith(name + ".")]
    close += difflib.get_close_matches(wrong, others, n=1, cutoff=0.85)
    if close:
        return f"{wrong}: no such key; did you mean {' or '.join(dict.fromkeys(close[:3]))}?"
    if not siblings:
        return f"{wrong}: no such key, nor is {parent} one with keys of its own"
    return f"{wrong}: no such key; {parent or 'the config'} has {', '.join(dict.fromkeys(siblings))}"


def _compose_what_fits(overrides: Sequence[str], *, conf: Path, name: str) -> DictConfig:
    """The config, with Hydra's part, under those overrides that compose by themselves."""
    kept: list[str] = []
    with hydra.initialize_config_dir(**BASE, config_dir=str(conf)):
        config = hydra.compose(name, return_hydra_config=True)
        for override in _in_order(overrides):
            try:
                config = hydra.compose(name, overrides=[*kept, override], return_hydra_config=True)
                kept.append(override)
            except errors.CompactHydraException:
                continue
    return config


def _in_order(overrides: Sequence[str]) -> list[str]:
    """Search paths first, then what can be a group's choice, then keys inside the groups."""
    parsed = overrides_parser.OverridesParser.create().parse_overrides(list(overrides))
    single = [o for o in parsed if not o.is_sweep_override()]
    rank = lambda o: (o.key_or_group != "hydra.searchpath", "." in o.key_or_group)
    return [str(o.input_line) for o in sorted(single, key=rank)]


def _keys(config: DictConfig) -> list[str]:
    """Every dotted key, `learner.network.make` and the like reached through `${network}` as well."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        found = re.fullmatch(r"\$\{([a-z]+)\}", node) if isinstance(node, str) else None
        node = plain.get(found[1]) if found else node
        for key, value in node.items() if isinstance(node, dict) else ():
            if not str(key).startswith("_"):
                yield f"{prefix}{key}"
                yield from walk(value, f"{prefix}{key}.")

    plain = _raw(config)
    return [key for key in walk(plain, "") if key.count(".") < 12]


def _choices(config: DictConfig) -> dict[str, list[str]]:
    """Every top-level group with its choices, as far as Hydra's search path reaches: {"learner": ["dqn", ...]}."""
    choices: dict[str, set[str]] = {}
    for source in config.hydra.runtime.config_sources:
        if source.schema not in ("file", "pkg") or source.provider == "hydra":
            continue
        folder = Path(source.path) if source.schema == "file" else Path(str(importlib.resources.files(source.path)))
        for file in folder.rglob("*.yaml"):
            group, slash, choice = file.relative_to(folder).with_suffix("").as_posix().partition("/")
            if slash and group != "hydra":
                choices.setdefault(group, set()).add(choice)
    return {group: sorted(names) for group, names in sorted(choices.items())}
