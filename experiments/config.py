"""From the command line to plain data and a run folder: the one door through which Hydra comes in.

`main(task)` lets Hydra compose `conf/<name>.yaml` with what was typed and hands `task` plain data and the run's
folder. A mistake in what was typed is told in a line or two, with the nearest valid names, and exits with status 2;
an exception inside the task keeps its traceback (with HYDRA_FULL_ERROR=1 a mistake does, too).
"""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra import errors, types
from hydra.core import global_hydra, hydra_config
from omegaconf import DictConfig, OmegaConf
from omegaconf import errors as omegaconf_errors

from experiments import build, mistakes, resuming

CONF = Path(__file__).resolve().parent.parent / "conf"
EXIT_MISTAKE = 2
FILE = "config.yaml"  # in a run's folder

Config = dict[str, Any]  # plain: dicts, lists, text, numbers; nothing left to interpolate


def main(task: Callable[[Config, Path], Any], *, name: str = "train") -> None:
    """Runs `task(config, folder)` as the command line asks: once, or once a job with `-m`.

    Exits with status 2 on a mistake in the command line or the config (a `build.ConfigError` from `task` is one).
    What `task` returns goes to Hydra's sweeper; to end the process with a status of its own it calls `sys.exit`.
    """
    with _raising() as told_in_full:
        try:
            sys.argv[1:] = resuming.arguments(sys.argv[1:])
            hydra.main(config_path=str(CONF), config_name=name, **mistakes.BASE)(_job(task))()
        except (errors.CompactHydraException, build.ConfigError) as error:
            if told_in_full:
                raise
            told = str(error)
            if isinstance(error, errors.CompactHydraException):
                told = mistakes.explain(error, resuming.overrides(sys.argv[1:]), conf=CONF, name=name)
            sys.stderr.write(f"{told}\n")
            sys.exit(EXIT_MISTAKE)


def compose(*overrides: str, name: str = "train") -> Config:
    """What `main` hands to its task under these overrides, for tests and tools. Errors are Hydra's own."""
    inside = global_hydra.GlobalHydra.instance().is_initialized()  # of a task that `main` runs
    with contextlib.nullcontext() if inside else hydra.initialize_config_dir(**mistakes.BASE, config_dir=str(CONF)):
        config = hydra.compose(name, overrides=list(overrides), return_hydra_config=True)
    with _current(config):
        return resolved(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))


def resolved(config: DictConfig) -> Config:
    """Plain data, shrunk where `+debug=` says so, with every interpolation resolved. Raises build.ConfigError."""
    try:
        if "debug" in config:
            config = _shrunk(config)
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # pyright: ignore[reportReturnType]
    except omegaconf_errors.OmegaConfBaseException as error:
        missing = isinstance(error, omegaconf_errors.MissingMandatoryValue)
        problem = "missing; give it a value" if missing else str(error.msg or error).splitlines()[0]
        raise build.ConfigError(str(error.full_key), f": {problem}") from error


def _shrunk(config: DictConfig) -> DictConfig:
    """`config` with the values of its node `debug` at every key that it has; what was typed stays as typed."""
    typed = resuming.keys(hydra_config.HydraConfig.get().overrides.task)

    def shrink(node: dict[str, Any], values: Mapping[str, Any], outer: str) -> None:
        for name in values.keys() & node.keys():
            key = f"{outer}{name}"
            if isinstance(values[name], dict):
                if isinstance(node[name], dict):
                    shrink(node[name], values[name], f"{key}.")
            elif key not in typed:
                node[name] = values[name]

    plain: Any = OmegaConf.to_container(config, resolve=False)
    shrink(plain, plain.pop("debug"), "")
    return DictConfig(plain)


def save(folder: Path, config: Mapping[str, Any], *, protocol: Mapping[str, Any] | None = None) -> None:
    """Writes `config.yaml`, atomically, with the commands so far above it and the `protocol` below.

    Raises:
      build.ConfigError: the folder holds a run already, and `config` does not resume it.
    """
    path = folder / FILE
    if path.exists() and not config.get("resume"):
        remedy = f"resume={folder} goes on with it, hydra.run.dir=<folder> starts elsewhere"
        raise build.ConfigError("hydra.run.dir", f"={folder}: holds a run already; {remedy}")
    content = {**config, "resume": None} | ({"protocol": dict(protocol)} if protocol else {})
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(_commands(path) + OmegaConf.to_yaml(OmegaConf.create(content)))
    part.replace(path)


def load(folder: str | Path) -> Config:
    """The config of the run in `folder`, as its task got it. Raises build.ConfigError where there is none."""
    return resuming.load(folder)


def protocol(folder: str | Path) -> dict[str, Any]:
    """What `save` was given as the protocol of the run in `folder`."""
    content: Any = OmegaConf.to_container(OmegaConf.load(Path(folder) / FILE))
    return content.get("protocol", {})


def _job(task: Callable[[Config, Path], Any]) -> Callable[[DictConfig], Any]:
    @functools.wraps(task)
    def job(config: DictConfig) -> Any:
        settings = hydra_config.HydraConfig.get()
        folder = Path(settings.runtime.output_dir)
        if settings.mode is not types.RunMode.RUN:
            print(f"job {settings.job.num}: {' '.join(settings.overrides.task)} in {folder}", flush=True)
        try:
            plain = resolved(config)
            if plain.get("resume"):
                plain = resuming.merged(plain, list(settings.overrides.task))
            with typed_keys(config):
                return task(plain, folder)
        except build.ConfigError as error:
            if folder != Path.cwd():
                with contextlib.suppress(OSError):
                    folder.rmdir()  # Hydra made it; only an empty one goes
            if settings.mode is not types.RunMode.RUN:
                raise  # the other jobs of the sweep go on
            sys.stderr.write(f"{error}\n")
            sys.exit(EXIT_MISTAKE)

    return job


@contextlib.contextmanager
def typed_keys(config: DictConfig) -> Iterator[None]:
    """A ConfigError names the key that people set: `source.game`, where `source.environments.game` refers to it."""
    try:
        yield
    except build.ConfigError as error:
        origins = _references(OmegaConf.to_container(config, resolve=False), "")
        key = error.key
        while found := next((k for k in origins if key == k or key.startswith(k + ".")), None):
            key = origins.pop(found) + key.removeprefix(found)
        raise build.ConfigError(key, error.problem) from error


def _references(node: Any, key: str) -> dict[str, str]:
    """{"source.environments.game": "source.game"} for every value that is one interpolation and no more."""
    if isinstance(node, str) and (found := re.fullmatch(r"\$\{(\w[\w.]*)\}", node)):
        return {key: found[1]}
    items = node.items() if isinstance(node, dict) else ()
    return {k: v for name, value in items for k, v in _references(value, f"{key}.{name}".lstrip(".")).items()}


@contextlib.contextmanager
def _raising() -> Iterator[bool]:
    """Hydra raises what happened, instead of printing it and exiting by itself. Yields whether a person asked so."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield before == "1"
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextlib.contextmanager
def _current(config: DictConfig) -> Iterator[None]:
    """`${hydra:...}` refers to this config's own Hydra node."""
    instance = hydra_config.HydraConfig.instance()
    before = instance.cfg
    instance.set_config(config)
    try:
        yield
    finally:
        instance.cfg = before


def command() -> str:
    """What was typed, where Hydra was asked for it."""
    settings = hydra_config.HydraConfig.get()
    return f"python -m experiments.{settings.job.name} {' '.join(settings.overrides.task)}"


def _commands(path: Path) -> str:
    """The comments that open the file, and one more: the command that runs now."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    before = "".join(line for line in lines if line.startswith("# "))
    return f"{before}# {command()}\n" if hydra_config.HydraConfig.initialized() else before
