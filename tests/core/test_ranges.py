"""A range is written once, as an annotation; a direct call and a config are held to it in the same words."""

import dataclasses
import re
from typing import Annotated, Any

import annotated_types
import numpy as np
import pytest

from core import ranges
from experiments.config import build


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    count: ranges.PositiveInt = 1
    begin: ranges.NonNegativeInt = 0
    rate: ranges.PositiveFloat = 1.0
    share: ranges.Share = 0.5
    width: Annotated[float, annotated_types.Interval(gt=0, lt=0.28)] = 0.1
    clip: Annotated[ranges.PositiveFloat, "1 is usual"] | None = None
    tasks: ranges.PositiveInt | str = "gpus"

    def __post_init__(self):
        ranges.check(self)


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"count": 0}, "count=0: must be at least 1"),
        ({"begin": -1}, "begin=-1: must be at least 0"),
        ({"rate": 0.0}, "rate=0.0: must be greater than 0"),
        ({"rate": float("nan")}, "rate=nan: must be greater than 0"),
        ({"share": 1.5}, "share=1.5: must lie in [0, 1]"),
        ({"share": float("nan")}, "share=nan: must lie in [0, 1]"),
        ({"width": 0.28}, "width=0.28: must lie in (0, 0.28)"),
        ({"clip": -1.0}, "clip=-1.0: must be greater than 0, or null; 1 is usual"),
        ({"tasks": 0}, "tasks=0: must be at least 1"),
    ],
)
def test_a_direct_call_and_a_config_are_told_alike(settings: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        Part(**settings)
    with pytest.raises(build.ConfigError, match=f"^part.{re.escape(told)}$"):
        build.plan({"_target_": f"{__name__}.Part", **settings}, "part")


def test_what_lies_inside_is_taken_as_it_is():
    numbers: dict[str, Any] = {"count": np.int64(1), "rate": np.float32(1e-3)}
    assert Part(**numbers, share=0, clip=None, tasks="gpus") == Part(rate=numbers["rate"], share=0)
    assert build.objects({"_target_": f"{__name__}.Part", "count": 2e6, "share": 1}) == Part(count=2_000_000, share=1.0)
