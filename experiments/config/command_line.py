"""From the command line to plain data and a run folder: the one door through which Hydra comes in.

`main(task)` lets Hydra compose `conf/<name>.yaml` with what was typed and hands `task` plain data and the run's
folder. A mistake in what was typed is told in a line or two, with the nearest valid names, and exits with status 2;
an exception inside the task keeps its traceback (with HYDRA_FULL_ERROR=1 a mistake does, too).
"""

import contextlib
import dataclasses
import difflib
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import errors, types
from hydra.core import global_hydra, hydra_config
from omegaconf import DictConfig, OmegaConf
from omegaconf import errors as omegaconf_errors

from experiments.config import build, fitting, mistakes, overrides, resume

CONF = Path(__file__).resolve().parents[2] / "conf"
EXIT_MISTAKE = 2
EXIT_FAILED = 1  # of a sweep of which a job failed in its run
GROUPS = frozenset(path.name for path in CONF.iterdir() if path.is_dir())

Config = dict[str, Any]  # plain: dicts, lists, text, numbers; nothing left to interpolate


def main(task: Callable[[Config, Path], Any], *, name: str = "train") -> None:
    """Runs `task(config, folder)` as the command line asks: once, or once a job with `-m`.

    Exits with status 2 on a mistake in the command line or the config (a `build.ConfigError` from `task` is one).
    A sweep goes on after a job that failed; at its end all that did are told, and it exits with status 1, or with 2
    where all of them were mistakes. What `task` returns goes to Hydra's sweeper; to end the process with a status of
    its own it calls `sys.exit`.
    """
    failures: list[Failure] = []
    with _raising() as told_in_full:
        try:
            sys.argv[1:] = resume.arguments(sys.argv[1:])
            fitting.check_single(overrides.lists(overrides.among(sys.argv[1:])), GROUPS)
            with _summed_up(failures, raising=told_in_full):
                job = _job(task, failures, raising=told_in_full)
                hydra.main(config_path=str(CONF), config_name=name, **mistakes.BASE)(job)()
        except _MISTAKES as error:
            if told_in_full or (type(error) is ValueError and "Config group override" not in str(error)):
                raise
            sys.stderr.write(f"{_explained(error, name)}\n")
            sys.exit(EXIT_MISTAKE)


_MISTAKES = (errors.CompactHydraException, omegaconf_errors.OmegaConfBaseException, ValueError)


def _explained(error: Exception, name: str) -> str:
    """A mistake in the command line or the config in a line or two."""
    lines = overrides.among(sys.argv[1:])
    if isinstance(error, errors.CompactHydraException):
        return mistakes.explain(error, lines, conf=CONF, name=name)
    if type(error) is ValueError:  # of Hydra's, for group=null
        empty = next((line for line in lines if line.endswith("=null")), "null")
        return f"{empty}: no such choice; name one, or take the whole group out: ~{empty.removesuffix('=null')}"
    if isinstance(error, omegaconf_errors.OmegaConfBaseException):  # by Hydra's own --cfg job --resolve
        try:
            mistakes.unresolved(lines, conf=CONF, name=name)
        except build.ConfigError as better:
            return str(better)
        return f"{error.full_key or 'the config'}: {str(error.msg or error).splitlines()[0]}"
    return str(error)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """A job of a sweep that failed."""

    number: int
    overrides: str  # in which the jobs differ
    folder: Path
    mistake: bool  # in the config; else something happened in the run
    reason: str


def reason(error: BaseException) -> str:
    """In a line."""
    told = str(error).partition("\n")[0]
    return told if isinstance(error, build.ConfigError) else f"{type(error).__name__}: {told}"


def compose(*overrides: str, name: str = "train", fits: bool = False) -> Config:
    """What `main` hands to its task under these overrides, for tests and tools. Errors are Hydra's own.

    With `fits` all of it has to belong together and be used, or build.ConfigError is raised.
    """
    inside = global_hydra.GlobalHydra.instance().is_initialized()  # of a task that `main` runs
    with contextlib.nullcontext() if inside else hydra.initialize_config_dir(**mistakes.BASE, config_dir=str(CONF)):
        config = hydra.compose(name, overrides=list(overrides), return_hydra_config=True)
        with _current(config):
            if fits and not config.get("resume"):
                _fits(config, choices=config.hydra.runtime.choices, typed=overrides)
            return resolved(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))


@contextlib.contextmanager
def composing(lines: Sequence[str], *, names: Iterable[str]) -> Iterator[None]:
    """Inside, another command's task composes configs of `experiments.train` from these overrides.

    Hydra's complaints become build.ConfigError; `names` are the other command's keys, which may have been meant.
    """
    global_hydra.GlobalHydra.instance().clear()  # of the other command: Hydra knows one config at a time
    try:
        yield
    except errors.CompactHydraException as error:
        told = mistakes.explain(error, lines, conf=CONF, name="train")
        wrong = told.partition(":")[0]
        if ": no such key" in told and (near := difflib.get_close_matches(wrong, list(names), n=1, cutoff=0.75)):
            told = f"{wrong}: no such key; did you mean {near[0]}?"
        raise build.ConfigError("", told) from error


def _fits(config: DictConfig, *, choices: Mapping[str, Any], typed: Sequence[str]) -> list[str]:
    """Raises build.ConfigError where the parts of a run do not fit; returns lines on what the experiment overruled."""
    raw: Any = OmegaConf.to_container(config, resolve=False)
    fitting.check_single(overrides.chosen_lists(), GROUPS)
    fitting.check(raw, choices=choices, typed=typed)
    lines = list(fitting.unused_rules(raw, choices.get("optimizer")))
    path = CONF / "learner" / f"{choices.get('learner')}.yaml"
    if path.is_file() and path.read_text().startswith("# @package _global_"):  # which sets more than the learner
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        lines += fitting.overruled(raw, path.stem, content, experiment=str(choices.get("experiment")), typed=typed)
    return lines


def resolved(config: DictConfig) -> Config:
    """Plain data, shrunk where `+debug=` says so, with every interpolation resolved. Raises build.ConfigError.

    Of a run, `choices` says what was chosen of each group, and `follows` how its numbers are made that a resume makes
    anew (`resume.follows`).
    """
    try:
        if "debug" in config:
            config = _shrunk(config)
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        if "budget" not in config:
            return plain
        return plain | {"choices": overrides.choices(), "follows": resume.follows(config, plain)}
    except omegaconf_errors.OmegaConfBaseException as error:
        missing = isinstance(error, omegaconf_errors.MissingMandatoryValue)
        problem = "missing; give it a value" if missing else str(error.msg or error).splitlines()[0]
        raise build.ConfigError(str(error.full_key), f": {problem}") from error


def _shrunk(config: DictConfig) -> DictConfig:
    """`config` with the values of its node `debug` at every key that it has; what was typed stays as typed."""
    typed = overrides.keys(overrides.typed())

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


def _job(task: Callable[[Config, Path], Any], failures: list[Failure], *, raising: bool) -> Callable[[DictConfig], Any]:
    here = os.getpid()  # where `failures` are heard of: a launcher may run the job elsewhere

    @functools.wraps(task)
    def job(config: DictConfig) -> Any:
        settings = hydra_config.HydraConfig.get()
        folder, sweep = Path(settings.runtime.output_dir), settings.mode is not types.RunMode.RUN
        typed = overrides.typed()
        if sweep:
            print(f"job {settings.job.num}: {' '.join(typed)} in {folder}", flush=True)
        try:
            if not config.get("resume"):
                for line in _fits(config, choices=settings.runtime.choices, typed=typed):
                    print(line, flush=True)
            plain = resolved(config)
            if plain.get("resume"):
                plain = resume.merged(plain, typed)
            with typed_keys(config):
                return task(plain, folder)
        except Exception as error:
            mistake = isinstance(error, build.ConfigError)
            if mistake and folder != Path.cwd():
                with contextlib.suppress(OSError):
                    folder.rmdir()  # Hydra made it; only an empty one goes
            if sweep:
                number, told = settings.job.num, reason(error)
                own = " ".join(line for line in typed if not {line, line.removesuffix("=null")} & {*sys.argv})
                failures.append(Failure(number=number, overrides=own, folder=folder, mistake=mistake, reason=told))
                sys.stderr.write(f"job {number} failed: {error if mistake else traceback.format_exc()}\n")
                _forget(error)
                if os.getpid() == here and not raising:
                    return None  # the other jobs go on, and `_summed_up` tells of this one
            if sweep or not mistake:
                raise
            sys.stderr.write(f"{error}\n")
            sys.exit(EXIT_MISTAKE)

    return job


def _forget(error: BaseException | None) -> None:
    """Frees what the frames of an error hold, arrays on a device say: Hydra keeps the error to the sweep's end."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def _summed_up(failures: Sequence[Failure], *, raising: bool) -> Iterator[None]:
    """Tells at the end of a sweep, however it comes, which of its jobs failed."""
    try:
        yield
    except Exception:
        if not failures or raising:
            raise
    finally:
        if failures:
            widths = [max(len(text) for text in column) for column in zip(*map(_columns, failures), strict=True)]
            rows = (zip(_columns(each), widths, strict=True) for each in failures)
            lines = ["  ".join(text.ljust(width) for text, width in row).rstrip() for row in rows]
            sys.stderr.write("\n".join(["", f"of this sweep {len(failures)} failed:", *lines, ""]))
    if failures:
        sys.exit(EXIT_MISTAKE if all(each.mistake for each in failures) else EXIT_FAILED)


def _columns(failure: Failure) -> tuple[str, str, str, str]:
    folder = str(failure.folder) if failure.folder.exists() else "no folder"
    return f"job {failure.number}", failure.overrides, folder, failure.reason


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
