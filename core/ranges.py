"""Ranges of numbers, written as annotations of the fields that they bound: `batch: ranges.PositiveInt = 32`.

`check(self)` in a dataclass's `__post_init__` holds them wherever an object is made. `experiments.config.build` reads
the same annotations with pydantic, so that a class that is made only from configs needs no `check`. Text beside the
bounds is the remedy that an error ends with: `Annotated[ranges.PositiveInt, "2000 is usual"]`.
"""

import dataclasses
import functools
import numbers
import operator
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Interval

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]

_HOLDS = {"ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt}
_WORDS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}


def check(owner: Any) -> None:
    """Raises ValueError, `batch=0: must be at least 1`, for a number of the dataclass `owner` outside its range."""
    for name, annotation, bounds in _fields(type(owner)):
        value = getattr(owner, name)
        if isinstance(value, numbers.Real) and not all(_HOLDS[kind](value, bounds[kind]) for kind in bounds):
            raise ValueError(f"{name}={value}: {demand(annotation)}")


def demand(annotation: Any) -> str:
    """What a range demands, and its remedy: `must lie in [0, 1]`, `must be greater than 0, or null; 1 is usual`."""
    bounds = _bounds(annotation)
    if len(bounds) == 2:
        low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
        words = f"must lie in {'[' if 'ge' in bounds else '('}{low}, {high}{']' if 'le' in bounds else ')'}"
    else:
        words = " and ".join(f"must be {_WORDS[kind]} {bound}" for kind, bound in bounds.items())
    null = ", or null" if type(None) in typing.get_args(annotation) else ""
    return words + null + "".join(f"; {part}" for part in _metadata(annotation) if isinstance(part, str))


@functools.cache
def _fields(owner: type) -> list[tuple[str, Any, Mapping[str, float]]]:
    found = ((field.name, field.type, _bounds(field.type)) for field in dataclasses.fields(owner))
    return [each for each in found if each[-1]]


def _bounds(annotation: Any) -> dict[str, float]:
    """{"ge": 0, "le": 1}"""
    found = ((kind, getattr(part, kind, None)) for part in _metadata(annotation) for kind in _HOLDS)
    return {kind: bound for kind, bound in found if bound is not None}


def _metadata(annotation: Any) -> list[Any]:
    """What stands in `Annotated[...]`, by itself or as one option of several: `PositiveInt | None`."""
    options = (annotation, *typing.get_args(annotation))
    return [part for option in options for part in getattr(option, "__metadata__", ())]
