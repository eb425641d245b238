"""Which runs belong together: what differs in their settings, the task each is on, and the protocol it is judged by."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.comparing.runs import reading
from experiments.config import build, saved

# Settings that say where a run lies, what it leaves behind and how it is shown, but not what is learned.
_APART = re.compile(
    r"(seed|name|resume|tune|profile|log_every|tracker|mesh|follows|choices|checkpoint|provenance)(\..*)?"
    r"|.*\.(seed|_local_|_partial_|_off_)"
)
ORIGIN = "provenance"  # of keys that are no settings: `provenance.git.revision`
_DATA = re.compile(r"source\.(data|path|folder)(\..*)?|evaluators\.\w+\.data(\..*)?")  # which images: the task
# Choices in the order in which they are tried as labels: what learns, all others (None), what only goes with it.
_LABELS = ("learner", "network", "optimizer", None, "evaluators", "experiment", "debug", "mesh", "tracker")

_SCALARS = {str, int, float, bool, type(None)}

Values = tuple[Any, ...]  # of one setting, a value for each run; None where a run has none


@dataclasses.dataclass(frozen=True)
class Difference:
    """A setting that differs, and others of the same values in every run (`network.width` within the learner, say)."""

    key: str
    values: Values
    also: tuple[str, ...] = ()


def settings(run: reading.Run) -> dict[str, Any]:
    """Every setting under its dotted key, places by their last part; and where it came from, below `provenance`."""
    flat = flatten({name: value for name, value in run.config.items() if name != "choices"})
    choices = run.config.get("choices")
    flat |= {f"choices.{name}": value for name, value in (choices if isinstance(choices, dict) else {}).items()}
    flat = {key: _placed(key, value) for key, value in flat.items()}
    return flat | {f"{ORIGIN}.{key}": value for key, value in flatten(dict(run.origin)).items() if key}


def flatten(node: Any, key: str = "") -> dict[str, Any]:
    """{"a.b": 1} of {"a": {"b": 1}}; lists and empty mappings are values."""
    if not isinstance(node, dict | Mapping) or (not node and key):  # a dict is known at once
        return {key: node}
    found = {}
    for name, value in node.items():
        own = f"{key}.{name}".lstrip(".")
        if type(value) in _SCALARS:
            found[own] = value
        else:
            found |= flatten(value, own)
    return found


class Table:
    """The settings of all runs."""

    def __init__(self, runs: Sequence[reading.Run]):
        self.runs = runs
        self._settings = [settings(run) for run in runs]
        self.keys = list(dict.fromkeys(key for own in self._settings for key in own))
        self.tasks = [task(run) for run in runs]
        self._canonical: dict[str, tuple[str, ...]] = {}

    def values(self, key: str) -> Values:
        return tuple(own.get(key) for own in self._settings)

    def _names(self, key: str) -> tuple[str, ...]:
        """The values in their canonical form."""
        if key not in self._canonical:
            self._canonical[key] = tuple(map(canonical, self.values(key)))
        return self._canonical[key]

    def differences(self) -> list[Difference]:
        """What differs between the runs in what they learn and on what, seeds and bookkeeping apart."""
        found: dict[tuple[str, ...], Difference] = {}
        for key in self.keys:
            if _APART.fullmatch(key):
                continue
            names = self._names(key)
            if len(set(names)) > 1:
                first = found.setdefault(names, Difference(key, self.values(key)))
                if first.key != key:
                    found[names] = dataclasses.replace(first, also=(*first.also, key))
        return list(found.values())

    def chosen(self) -> list[Difference]:
        """What was chosen of groups, where that differs; runs of before that was saved differ in nothing."""
        found = [Difference(key.removeprefix("choices."), self.values(key)) for key in self._choices()]
        return [each for each in found if len({*map(canonical, each.values)} - {"null"}) > 1]

    def default_keys(self) -> list[str]:
        """The fewest keys that tell all runs apart which differ in more than seed and task.

        What was chosen of a group (`learner`) goes before the settings that it holds.
        """
        wanted = [each for each in self.differences() if not self._is_task(each.key)]
        whole = self._partition([each.key for each in wanted])
        usable = [key for key in self._choices() if _refines(whole, self._partition([key]))]
        keys, classes = list[str](), 1
        for key in [*usable, *sorted((each.key for each in wanted), key=lambda key: key.count("."))]:
            if (finer := len(set(self._partition([*keys, key])))) > classes:
                keys, classes = [*keys, key], finer
        return [key.removeprefix("choices.") for key in keys]

    def labels(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """For each run the values of `keys`; the task's own are left to the task. Raises build.ConfigError."""
        columns = {key: self._column(key) for key in keys}
        columns = {key: values for key, values in columns.items() if not self._is_task(key)}
        return [{key: values[number] for key, values in columns.items()} for number in range(len(self.runs))]

    def _choices(self) -> list[str]:
        place = lambda name: _LABELS.index(name if name in _LABELS else None)
        names = [key.removeprefix("choices.") for key in self.keys if key.startswith("choices.")]
        return [f"choices.{name}" for name in sorted(names, key=place)]

    def _column(self, key: str) -> Values:
        """A choice (`learner`), a setting (`source.game`), or all that differs below a node (`optimizer.schedule`)."""
        if key in self.keys:
            return self.values(key)
        if f"choices.{key}" in self.keys:
            return self.values(f"choices.{key}")
        below = [each for each in self.keys if each.startswith(f"{key}.")]
        if not below:
            names = [each.removeprefix("choices.") for each in self.keys]
            raise build.ConfigError("group", f"={key}: no run has such a setting; {build.nearest(key, names)}")
        varied = [each for each in below if len(set(self._names(each))) > 1]
        columns = [self.values(each) for each in varied]
        names = [each.removeprefix(f"{key}.") for each in varied]
        return tuple(
            ", ".join(f"{name}={shown(value)}" for name, value in zip(names, row, strict=True))
            for row in zip(*columns, strict=True)
        ) or (None,) * len(self.runs)

    def _partition(self, keys: Sequence[str]) -> list[tuple[str, ...]]:
        """For each run its class: runs of one class have the same values of all keys."""
        columns = [self._names(key) for key in keys]
        return [tuple(column[number] for column in columns) for number in range(len(self.runs))]

    def _is_task(self, key: str) -> bool:
        """Whether it says in every run which task that is on."""
        if _DATA.fullmatch(key) or key == "choices.source":
            return True
        return all(own.get(key) == name for own, name in zip(self._settings, self.tasks, strict=True))


def task(run: reading.Run) -> str:
    """The game, the environment, or the data set with its file."""
    source = run.config.get("source")
    source = source if isinstance(source, dict) else {}
    if name := source.get("game") or source.get("id"):
        return str(name)
    choices = run.config.get("choices")
    chosen = choices.get("source") if isinstance(choices, dict) else None
    data = source.get("data")
    data = data if isinstance(data, dict) else {}
    parts = [chosen or data.get("name") or str(data.get("_target_", "unknown")).rpartition(".")[2]]
    if place := source.get("path") or (source.get("folder") if chosen == "image_folder" else None):
        parts.append(Path(str(place)).name)
    return " ".join(map(str, parts))


def protocol(run: reading.Run) -> dict[str, Any]:
    """What the run's figures must be read with, under dotted keys, without places and what repeats the seed."""
    flat = flatten(dict(run.protocol))
    digests = any(key.endswith("sha256") for key in flat)
    kept = {key: value for key, value in flat.items() if not (_is_place(key) and digests)}
    return {key: value for key, value in kept.items() if not (key.rpartition(".")[2] == "seed" and value == run.seed)}


def digest(protocol: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(dict(protocol)).encode()).hexdigest()[:8]


def protocol_differences(protocols: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys in which they differ, each with its distinct values."""
    every = list(protocols)
    found = {}
    for key in dict.fromkeys(key for each in every for key in each):
        values = {canonical(each.get(key)): each.get(key) for each in every}
        if len(values) > 1:
            found[key] = list(values.values())
    return found


def canonical(value: Any) -> str:
    """Equal for equal values: 1 and 1.0, mappings in any order."""
    return _canonical_scalar(value) if type(value) in _SCALARS else json.dumps(_plain(value), sort_keys=True)


@functools.lru_cache(maxsize=100_000, typed=True)
def _canonical_scalar(value: Any) -> str:
    """Settings of thousands of runs are mostly the same."""
    return json.dumps(_plain(value))


def shown(value: Any) -> str:
    """A setting's value for a reader: unlike values never look alike."""
    if not isinstance(value, str):
        return json.dumps(_plain(value))
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value)  # the text "1" is not the number


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _placed(key: str, value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and _is_place(key) and "/" in value else value


def _is_place(key: str) -> bool:
    return saved.PLACES.fullmatch(key.rpartition(".")[2]) is not None


def _refines(fine: Sequence[Any], coarse: Sequence[Any]) -> bool:
    """Whether runs of one class of `fine` are in one class of `coarse`."""
    return len(set(zip(fine, coarse, strict=True))) == len(set(fine))
