"""Whether the parts of a run's config belong together, and whether all of it is used: before anything is resolved."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from experiments.config import build

_SHARED = ("network", "optimizer", "sampler")  # which a learner refers to
_OF_A_KIND = ("source", "learner", "network", "evaluators")
_KINDS = {"agents.": "games", "generative.": "images", "core.images.stream": "images"}  # by what a target begins with
_START = {
    "games": "experiment=dqn/atari (or another of dqn/)",
    "images": "experiment=vae/fashion_mnist (or another of vae/, gan/, diffusion/ or classifier/)",
}


def check(raw: Mapping[str, Any], *, choices: Mapping[str, Any], typed: Sequence[str]) -> None:
    """Raises build.ConfigError for parts that are not of one kind, and for what was typed and nothing uses.

    Args:
      raw: a run's config, plain, with its interpolations as they are written.
      choices: group -> what was chosen of it, as Hydra says it.
      typed: overrides.
    """
    if "learner" not in raw:
        return
    given = [typed_key(line) for line in typed]
    _check_kinds(raw, choices, given)
    for key in given:
        if (reason := _unused(raw, key.replace("/", "."))) is not None:
            raise build.ConfigError(key, f": nothing uses it, as {reason}; leave it out")


def check_single(lists: Iterable[tuple[str, Sequence[Any]]], groups: Collection[str]) -> None:
    """Raises build.ConfigError where one of the lists, each with the key or group it is for, is of choices of a group.

    Hydra would merge their files: a mixture that bears the last one's name. Evaluators lie side by side by name.
    """
    for key, values in lists:
        group = key.partition("@")[0]
        if group.partition("/")[0] in groups and group != "evaluators":
            names = ",".join(map(str, values))
            remedy = f"take {key}={values[-1]}, or -m {key}={names} for a run of each" if values else "name one"
            raise build.ConfigError(key, f"=[{names}]: one is wanted, as the files of several would mix; {remedy}")


def overruled(
    raw: Mapping[str, Any], learner: str, content: Mapping[str, Any], *, experiment: str, typed: Sequence[str]
) -> Iterator[str]:
    """A line on each value that a learner's file, `content`, gives outside its group and the experiment changed."""
    given = {typed_key(line) for line in typed}
    for dotted, value in _leaves({name: node for name, node in content.items() if name not in ("defaults", "learner")}):
        key = dotted.lstrip(".")
        now = value_at(raw, key.split("."))
        if now != value and key not in given:
            changed = f"learner={learner} has {key}={value}, which experiment={experiment} made {now}"
            yield f"{changed}; {key}={value} makes it so again"


def typed_key(line: str) -> str:
    """`+source@data=npz` -> `source`"""
    return re.split("[=@]", line.lstrip("+~"))[0]


def value_at(node: Any, key: Iterable[str | int]) -> Any:
    """What stands below `node` at a key, given part by part; None where nothing does."""
    for part in key:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            return None
    return node


def unused_rules(raw: Mapping[str, Any], optimizer: Any) -> Iterator[str]:
    """A line on the numbers of each optimiser's rule that are given and not those of the optimiser that was chosen."""
    others = {name: node for name, node in raw.items() if name != "rules"}
    for name in raw.get("rules") or ():
        if not _referred(others, f"rules.{name}"):
            yield f"rules.{name}: not used, as optimizer={optimizer} has numbers of its own"


def _check_kinds(raw: Mapping[str, Any], choices: Mapping[str, Any], given: Sequence[str]) -> None:
    parts = {f"{group}={choices.get(group)}": raw.get(group) for group in _OF_A_KIND}
    judged = raw.get("evaluators") or {}
    if "evaluators" not in choices or len({_kind(each) for each in judged.values()} - {None}) > 1:
        del parts[f"evaluators={choices.get('evaluators')}"]
        parts |= {f"evaluators.{name}": each for name, each in judged.items()}
    kinds = {part: kind for part, node in parts.items() if (kind := _kind(node)) is not None}
    if len({*kinds.values()}) < 2:
        return
    told = []
    for kind in dict.fromkeys(kinds.values()):
        names = [part for part in kinds if kinds[part] == kind]
        told.append(f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} for {kind}")
    typed = {re.split("[./]", key)[0] for key in given}
    asked = {kinds[part] for part in kinds if re.split("[.=]", part)[0] in typed}
    starts = " or ".join(start for kind, start in _START.items() if kind in asked or not asked)
    remedy = f"choose them all for one, or begin with {starts}"
    raise build.ConfigError("", f"{', '.join(told)}, which do not go together; {remedy}")


def _kind(node: Any) -> str | None:
    """What a part is for, games or images; None where it is for both, or comes from elsewhere."""
    for key, value in _leaves(node):
        if key.endswith("_target_") and isinstance(value, str):
            for begins, kind in _KINDS.items():
                if value.startswith(begins):
                    return kind
    return None


def _unused(raw: Mapping[str, Any], key: str) -> str | None:
    """Why nothing uses the value of this key; None where something does, as far as the config says."""
    parts = key.split(".")
    for end in range(1, len(parts)):
        node = value_at(raw, parts[:end])
        if isinstance(node, Mapping) and node.get("_off_", False) is True:
            return f"{'.'.join(parts[:end])} is off"
        inner, local = ".".join(parts[: end + 1]), node.get("_local_", ()) if isinstance(node, Mapping) else ()
        if parts[end] in local and not _referred(raw, inner):
            return f"no other setting refers to {inner}"
    group = parts[0]
    others = {name: node for name, node in raw.items() if name != group}
    if group in _SHARED and raw.get(group) is not None and not _referred(others, group):
        return f"the learner has no {group}, or one of its own"
    return f"no other setting refers to {key}" if group == "rules" and not _referred(others, key) else None


def _referred(node: Any, key: str) -> bool:
    """Whether an interpolation below `node` names this key, or something within it."""
    expressions = (value for _, value in _leaves(node) if isinstance(value, str) and "${" in value)
    names = (name for text in expressions for name in re.findall(r"[\w.]+", text))
    return any(name == key or name.startswith(f"{key}.") or key.endswith(f".{name.lstrip('.')}") for name in names)


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else None
    if items is None:
        yield key, node
        return
    for name, value in items:
        yield from _leaves(value, f"{key}.{name}")
