"""Config becomes objects here and nowhere else: every node is checked first, then built.

A node is plain data (dicts, lists, text, numbers), as `config.resolved` makes it. In it
- `_target_: package.name` is called with the node's other keys as keyword arguments;
- `_partial_: true` makes a `functools.partial` of it, or the target itself where no argument is given;
- `_local_: [game]` names keys that people and interpolations use and the target does not get;
- `_off_: true` empties a mapping, whatever else was merged into it; `null` takes one object out of it;
- text given where a function is wanted names it: `bootstrap: agents.td.double_bootstrap`;
- a plain mapping where a dataclass is wanted becomes that dataclass;
- lists become tuples, so that frozen dataclasses stay hashable.

Only a source may cost something to construct. Everything else is inert: built once without the source's sizes, to
find values out of range before anything starts, and again with them (a target with a parameter `sizes` gets them).
"""

import collections.abc
import dataclasses
import difflib
import functools
import importlib
import inspect
import json
import re
import types as python_types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax
import optax
import pydantic

from core import mesh as meshes
from core import ranges, types

_ANY = (Any, inspect.Parameter.empty)
_MOVED = {
    "core.data.": "core.images.stream.",
    "core.datasets.": "core.images.datasets.",
    "experiments.judges.": "experiments.evaluation.classifiers.",
}
_OUTSIDE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


class ConfigError(ValueError):
    """A mistake in a config, shown to its writer without a traceback: `key`, then `problem` (`=3: must be ...`)."""

    def __init__(self, key: str, problem: str):
        super().__init__(f"{key}{problem}")
        self.key, self.problem = key, problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    every: ranges.PositiveInt  # frames or images
    keep: ranges.PositiveInt = 2  # newest ones that stay
    replay: bool = True  # False: smaller, and acting refills the memory after a resume
    replay_every: ranges.PositiveInt | None = None  # frames; None: `core.loop.Schedule.memory_every`
    metric: str | None = None  # the best by this one is kept too
    better: Literal["higher", "lower"] = "higher"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A whole run: `conf/train.yaml` as an object."""

    name: str
    seed: int
    budget: ranges.PositiveInt  # frames or images, all told
    lag: Literal[0, 1]
    log_every: ranges.PositiveInt  # frames or images
    checkpoint: Checkpoint
    resume: str | None = None
    init_from: str | None = None
    profile: bool = False
    tune: bool = True
    choices: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # group -> what was chosen of it
    follows: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of `resume`: what one makes anew
    network: Any = None  # as the learner has it: here so that a mistake is told under the key it was typed with
    optimizer: Any = None  # likewise
    sampler: Any = None  # likewise
    rules: Any = None  # numbers of optimisers, {adamw: {b1: 0.9}}: the file of the chosen one refers to them
    source: Any
    learner: Any
    evaluators: Mapping[str, types.Evaluator]
    mesh: meshes.Placement
    tracker: Any

    def __post_init__(self):
        types.check_seed(self.seed)
        if self.optimizer is not None:
            _check_told(self.learner, self.optimizer)


def _check_told(learner: Any, optimizer: optax.GradientTransformation) -> None:
    """Raises ValueError for an optimiser that wants to know what the learner does not tell it."""
    told = {"progress": 0.0} if hasattr(learner, "budget") else {}  # how far the run is
    update = optax.with_extra_args_support(optimizer).update
    try:
        jax.eval_shape(lambda: update({}, optimizer.init({}), {}, **told))
    except TypeError as error:
        raise ValueError(
            f"optimizer: {type(learner).__name__} does not tell it all that it wants ({error}); take "
            "optimizer=adam or adamw (adam_cosine is for GANs)"
        ) from error


def run(config: Mapping[str, Any], *, source: Any = None) -> Run:
    """The objects of a whole run's config, with `source` in place of its own where that is given.

    Raises ConfigError before the source, and so anything costly, is built.
    """
    call = check(config)
    source = _make(call.arguments["source"], sizes=None) if source is None else source
    return dataclasses.replace(call, arguments={**call.arguments, "source": source}).make(sizes=source.sizes)


def check(config: Mapping[str, Any]) -> "Call":
    """A whole run's config, checked as far as that is possible without its source. Raises ConfigError."""
    call = plan({**config, "_target_": f"{__name__}.Run"})
    inert = {name: _make(value, sizes={}) for name, value in call.arguments.items() if name != "source"}
    dataclasses.replace(call, arguments=inert | {"source": None}).make(sizes=None)
    return call


def objects(node: Any, key: str = "", *, sizes: Mapping[str, Any] | None = None) -> Any:
    """The objects of one node, checked as a whole before the first is built. `key` is where the node stands."""
    return _make(plan(node, key), sizes=sizes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A checked node: what to call with what. Arguments hold calls in turn."""

    key: str
    target: Callable[..., Any]
    arguments: Mapping[str, Any]
    partial: bool = False

    def make(self, *, sizes: Mapping[str, Any] | None) -> Any:
        arguments = {name: _make(value, sizes=sizes) for name, value in self.arguments.items()}
        if self.partial:
            return functools.partial(self.target, **arguments) if arguments else self.target
        if sizes is not None and "sizes" in _parameters(self.target):
            arguments = {"sizes": sizes} | arguments
        try:
            return self.target(**arguments)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(*self._blame(str(error))) from error

    def _blame(self, message: str) -> tuple[str, str]:
        """`game=pongg: no such game` is told of the argument's own key, any other message of the node's."""
        found = re.match(r"(?:\w+\.)*(\w+)(=.*)", message, re.DOTALL)
        if found and found[1] in _parameters(self.target):
            return _join(self.key, found[1]), found[2]
        return self.key, f": {message}" if self.key else message


def plan(value: Any, key: str = "", annotation: Any = Any) -> Any:
    """`value` with a checked `Call` at every node that has a target. Raises ConfigError with the key at fault."""
    if isinstance(value, Mapping):
        if "_target_" in value or _dataclass_in(annotation):
            return _plan_call(value, key, annotation)
        if value.get("_off_", False):
            return {}
        if _is_protocol(annotation) or (_is_class(annotation) and not issubclass(dict, annotation)):
            raise ConfigError(key, f": _target_ is missing, so this makes no {annotation.__name__}")
        if _wants_function(annotation):
            raise ConfigError(key, ": _target_ is missing, so this makes no function")
        inner = (typing.get_args(annotation) or (Any, Any))[-1] if _is_mapping(annotation) else Any
        kept = {name: item for name, item in value.items() if item is not None or not _is_protocol(inner)}
        return {name: plan(item, _join(key, name), inner) for name, item in kept.items()}
    if isinstance(value, list | tuple):
        if _has_target(value):
            return tuple(plan(item, f"{key}.{index}") for index, item in enumerate(value))
        value = _tuples(value)
    if isinstance(value, str) and _wants_function(annotation):
        return _lookup(value, key)
    return _require(annotation, value, key)


def _plan_call(node: Mapping[str, Any], key: str, annotation: Any) -> Call:
    name = node.get("_target_")
    target = _dataclass_in(annotation) if name is None else _lookup(name, _join(key, "_target_"))
    partial, local = _require(bool, node.get("_partial_", False), _join(key, "_partial_")), node.get("_local_", ())
    wanted = annotation if _is_class(annotation) else object
    if inspect.isclass(target) and not partial and not _is_protocol(wanted) and not issubclass(target, wanted):
        raise ConfigError(_join(key, "_target_"), f"={name}: {wanted.__module__}.{wanted.__qualname__} is wanted here")
    given = [name for name in node if name not in ("_target_", "_partial_", "_local_", *local)]
    parameters = _parameters(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for unknown in [name for name in given if name not in names and not open_ended]:
        raise ConfigError(
            _join(key, unknown), f": no such key; {nearest(unknown, {*names, *local} - {'choices', 'follows'})}"
        )
    missing = [n for n in names if n not in given and n != "sizes" and parameters[n].default is inspect.Parameter.empty]
    if missing and not partial:
        raise ConfigError(_join(key, missing[0]), f": missing; {target.__module__}.{target.__qualname__} needs it")
    annotations = {name: parameters[name].annotation if name in names else Any for name in given}
    arguments = {name: plan(node[name], _join(key, name), annotations[name]) for name in given}
    return Call(key=key, target=target, arguments=arguments, partial=partial)


def nearest(name: str, names: Iterable[str]) -> str:
    """`did you mean a or b?`, or all there is where nothing is near."""
    names = sorted(set(names))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"what there is: {', '.join(names) or 'nothing'}"


def _make(value: Any, *, sizes: Mapping[str, Any] | None) -> Any:
    if isinstance(value, Call):
        return value.make(sizes=sizes)
    if isinstance(value, dict):
        return {name: _make(item, sizes=sizes) for name, item in value.items()}
    if type(value) is tuple:  # and no named one, which an optimiser that is made already is
        return tuple(_make(item, sizes=sizes) for item in value)
    return value


def _require(annotation: Any, value: Any, key: str) -> Any:
    """`value` as `annotation` wants it: 2e6 for an int is 2000000 and 1 for a float 1.0, and nothing else is bent."""
    if annotation in _ANY:
        return value
    if inspect.isclass(annotation) and dataclasses.is_dataclass(annotation):
        raise ConfigError(key, f"={_shown(value)}: {annotation.__name__} is wanted here, as a mapping of its fields")
    try:
        adapter = pydantic.TypeAdapter(annotation, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
        try:
            return adapter.validate_python(value, strict=True)
        except pydantic.ValidationError:
            return adapter.validate_python(_integral(value), strict=True)
    except pydantic.ValidationError as error:
        raise ConfigError(key, f"={_shown(value)}: {_told(error.errors()[0], annotation)}") from None
    except (pydantic.errors.PydanticUserError, TypeError, NameError):
        return value  # an annotation that pydantic cannot read: left to the target


@functools.lru_cache(maxsize=4096)
def today(path: str) -> str:
    """Where an object of an earlier version lies now, by the beginning of its name."""
    return next((path.replace(before, now, 1) for before, now in _MOVED.items() if path.startswith(before)), path)


def _lookup(path: str, key: str) -> Any:
    """The object at `package.module.name`."""
    if not isinstance(path, str) or "." not in path:
        raise ConfigError(key, f"={_shown(path)}: a name like agents.dqn.DQN is wanted")
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        moved = f"; it is {today(path)} now" if today(path) != path else ""
        raise ConfigError(key, f"={path}: {error}{moved}") from error
    except AttributeError:
        public = [name for name in dir(importlib.import_module(module)) if not name.startswith("_")]
        close = difflib.get_close_matches(name, public, n=3) or public
        raise ConfigError(key, f"={path}: {module} has no {name}; {nearest(name, close)}") from None


@functools.cache
def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """A class is read by its `__init__`: flax's modules have a metaclass that hides it."""
    has_init = inspect.isclass(target) and target.__init__ is not object.__init__
    function = target.__init__ if has_init else target
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that is known to type checkers only
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: takes what it is given
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}
    return dict(list(signature.parameters.items())[1 if has_init else 0 :])


def _wants_function(annotation: Any) -> bool:
    options = _options(annotation)
    return str not in options and any(
        collections.abc.Callable in (option, typing.get_origin(option)) or _is_protocol(option) for option in options
    )


def _dataclass_in(annotation: Any) -> Any:
    classes = filter(inspect.isclass, _options(annotation))
    return next(filter(dataclasses.is_dataclass, classes), None)


def _options(annotation: Any) -> tuple[Any, ...]:
    """Of a union; anything else is the only one."""
    union = typing.get_origin(annotation) in (typing.Union, python_types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def _is_class(annotation: Any) -> bool:
    return inspect.isclass(annotation) and annotation not in _ANY


def _is_protocol(annotation: Any) -> bool:
    return getattr(annotation, "_is_protocol", False)


def _is_mapping(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    return inspect.isclass(origin) and issubclass(origin, Mapping)


def _has_target(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_target, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_target, value))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _integral(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_integral, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _told(error: Any, annotation: Any) -> str:
    """Pydantic's words, with what was given instead: `should be a valid integer, not text`; of a range, ours."""
    if error["type"] in _OUTSIDE:
        return ranges.demand(annotation)
    where = "".join(f"element {part} " for part in error["loc"] if isinstance(part, int))
    kind = {str: ", not text", bool: ", not true or false", type(None): ", not null"}.get(type(error["input"]), "")
    return where + error["msg"].removeprefix("Input ") + (kind if "valid" in error["msg"] else "")


def _shown(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, bool | None | dict | tuple) else str(value)
    return text if len(text) < 60 else text[:57] + "..."


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
