"""Reading what was typed, Hydra's overrides and options, before or without composing anything."""

import contextlib
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from hydra import errors, types
from hydra.core import global_hydra, hydra_config
from hydra.core.override_parser import overrides_parser
from hydra.core.override_parser import types as override_types
from omegaconf import OmegaConf

from experiments.config import build

# Hydra's options that take a value.
_VALUED = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"}


def among(arguments: Sequence[str]) -> list[str]:
    """The overrides, wherever they stand: no options (`-m`, `--help`) and none of their values (`--cfg job`)."""
    free = [each for before, each in zip(("", *arguments), arguments, strict=False) if before not in _VALUED]
    return [each for each in free if not each.startswith("-") and ("=" in each or each.startswith("~"))]


def multirun(arguments: Sequence[str]) -> bool:
    """Whether they ask for a sweep."""
    return not {"-m", "--multirun"}.isdisjoint(arguments)


def parse(lines: Sequence[str]) -> list[override_types.Override]:
    """Raises Hydra's own errors."""
    return overrides_parser.OverridesParser.create().parse_overrides(list(lines))


def keys(lines: Sequence[str]) -> set[str]:
    """The keys and groups that these overrides set."""
    return {override.key_or_group for override in parse(lines)}


def lists(lines: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """(key or group, list) for every list in these overrides, those among the values of a sweep as well."""
    choices = override_types.ValueType.CHOICE_SWEEP, override_types.ValueType.SIMPLE_CHOICE_SWEEP
    for override in parse(lines):
        values = override.sweep_iterator() if override.value_type in choices else [override.value()]
        yield from ((override.get_key_element().lstrip("+~"), value) for value in values if isinstance(value, list))


def chosen_lists() -> list[tuple[str, list[Any]]]:
    """(group, choices) for every list chosen of a group in this job, by a file (`override /learner: [a, b]`) as well.

    Hydra's `runtime.choices` leave these out, so the defaults list is made again.
    """
    settings = hydra_config.HydraConfig.get()
    typed: Any = OmegaConf.to_container(settings.overrides, resolve=False)
    loader = global_hydra.GlobalHydra.instance().config_loader()
    typed = typed["hydra"] + typed["task"]
    made = loader.compute_defaults_list(settings.job.config_name, typed, types.RunMode.RUN)
    return [(group, choice) for group, choice in made.overrides.override_choices.items() if isinstance(choice, list)]


def choices() -> dict[str, Any]:
    """{"learner": "dueling", ...}: what was chosen of each group but Hydra's own, in what is composed now."""
    found = hydra_config.HydraConfig.get().runtime.choices
    return {str(group): choice for group, choice in sorted(found.items()) if not str(group).startswith("hydra/")}


def swept(lines: Sequence[str]) -> list[str]:
    """Those of these overrides that give several values, as they were typed."""
    found = []
    for line in lines:
        with contextlib.suppress(errors.HydraException):  # told when it is composed
            found += [line for override in parse([line]) if override.is_sweep_override()]
    return found


def combinations(lines: Sequence[str]) -> list[list[str]]:
    """`a=1,2 b=3` -> [[a=1, b=3], [a=2, b=3]]. Raises build.ConfigError for an interval, which has no end."""
    parsed = parse(lines)
    if endless := next((each for each in parsed if each.is_sweep_override() and not each.is_discrete_sweep()), None):
        raise build.ConfigError(
            str(endless.input_line), ": an interval has no end of values; name those that are wanted"
        )
    values = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override()
        else [str(each.input_line)]
        for each in parsed
    ]
    return [list(run) for run in itertools.product(*values)]


def typed() -> list[str]:
    """The overrides of what runs now, those with interpolations as they were typed."""
    overrides: Any = OmegaConf.to_container(hydra_config.HydraConfig.get().overrides.task, resolve=False)
    return overrides


def command() -> str:
    """What was typed, where Hydra was asked for it."""
    settings = hydra_config.HydraConfig.get()
    return f"python -m experiments.{settings.job.name} {' '.join(typed())}"


def quoted(key: str, value: str) -> str:
    """`key=value` to be pasted into a shell, whatever the value holds."""
    if not re.fullmatch(r"[A-Za-z0-9._/@+-]+", value):  # as Hydra takes it
        inner = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
        value = "'" + inner.replace("${", "\\${") + "'"
    return shlex.quote(f"{key}={value}")
