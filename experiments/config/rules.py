"""An experiment's numbers of an optimiser's rule hold for the optimiser that it names, and for no other.

Hydra merges files: b1, ε and weight decay that `experiment=diffusion/edm_unet` gives its AdamW would else stay where
`optimizer=rmsprop` is chosen instead, by the command line or by another experiment on top of that one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import types
from hydra.core import global_hydra
from omegaconf import DictConfig, OmegaConf, open_dict

from experiments.config import overrides


def settle(config: DictConfig, *, hydra: Any, typed: Sequence[str]) -> str | None:
    """Gives `config.optimizer.rule` the chosen optimiser's own numbers in place of those meant for another.

    Args:
      config: a run's config, changed in place.
      hydra: its Hydra node.
      typed: overrides; the numbers in them stay.

    Returns:
      A line on the numbers left out; None where there are none.
    """
    chosen = hydra.runtime.choices.get("optimizer")
    rule = OmegaConf.select(config, "optimizer.rule") if "optimizer" in config else None
    if not isinstance(rule, DictConfig) or chosen is None:
        return None
    own: dict[str, Any] = {}
    foreign: dict[str, str] = {}  # number -> the optimiser that it is for
    named = chosen
    for content in _experiments(str(hydra.runtime.choices.get("experiment")), _folders(hydra)):
        named = _named(content) or named
        numbers = (content.get("optimizer") or {}).get("rule") or {}
        if named == chosen:
            own |= numbers
            foreign = {name: other for name, other in foreign.items() if name not in numbers}
        else:
            foreign |= dict.fromkeys(numbers, named)
    given = overrides.keys(typed)
    foreign = {name: other for name, other in foreign.items() if f"optimizer.rule.{name}" not in given}
    if not foreign:
        return None
    search = [line for line in typed if line.startswith("hydra.searchpath=")]
    loader = global_hydra.GlobalHydra.instance().config_loader()
    made = loader.load_configuration(
        hydra.job.config_name, [*search, f"optimizer={chosen}"], types.RunMode.RUN, from_shell=False
    )
    with open_dict(rule):
        for name in foreign:
            rule.pop(name, None)
            if name in own or name in made.optimizer.rule:
                rule[name] = own[name] if name in own else made.optimizer.rule[name]
    left = ", ".join(f"optimizer.rule.{name}" for name in foreign)
    return f"optimizer={chosen}: {left} of the experiment are for {', '.join(sorted({*foreign.values()}))} and left out"


def _folders(hydra: Any) -> list[Path]:
    return [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]


def _experiments(name: str, folders: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    """The contents of an experiment's files in the order in which they merge: those that it begins from come first."""
    file = next((path for folder in folders if (path := folder / "experiment" / f"{name}.yaml").is_file()), None)
    if file is None:
        return
    content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    for entry in content.get("defaults", ()):
        if isinstance(entry, str) and entry != "_self_":
            yield from _experiments(entry.removeprefix("/experiment/"), folders)
    yield content


def _named(content: Mapping[str, Any]) -> str | None:
    """The optimiser that a file chooses."""
    entries = (entry for entry in content.get("defaults", ()) if isinstance(entry, Mapping))
    return next(
        (entry[key] for entry in entries for key in entry if re.fullmatch(r"(override )?/?optimizer", key)), None
    )
