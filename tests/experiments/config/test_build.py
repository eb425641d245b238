"""Config nodes become objects; mistakes are told with their key before anything is built."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest

from experiments.config import build

HERE = __name__
BUILT: list[str] = []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    period: int

    def __post_init__(self):
        BUILT.append("target")
        if self.period < 1:
            raise ValueError(f"period={self.period}: must be at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    target: Target
    loss: Callable[[float], float] = abs
    batch: int = 32
    rate: float = 0.5
    clip: float | None = None
    clean: bool = False
    layers: tuple[int, ...] = ()
    color: Literal["grey", "rgb"] = "grey"
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    sizes: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self):
        BUILT.append("toy")
        if self.batch < 1:
            raise ValueError(f"batch={self.batch}: must be at least 1")
        if self.batch == 13:
            raise ValueError("an unlucky choice")


class Source:
    """Says when it was started, as real ones cost something."""

    def __init__(self, *, game: str, seed: int):
        BUILT.append("source")
        self.sizes = {"actions": 6}


def square(x: float) -> float:
    return x * x


def node(**values: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.Toy", "target": {"_target_": f"{HERE}.Target", "period": 2}} | values


def refused(config: Any, key: str = "learner", **options: Any) -> str:
    BUILT.clear()
    with pytest.raises(build.ConfigError) as caught:
        build.objects(config, key, **options)
    return str(caught.value)


def test_a_node_becomes_its_target_and_lists_become_tuples():
    toy = build.objects(node(layers=[3, 4], parts={"a": [1, [2]]}))
    assert toy == Toy(target=Target(period=2), layers=(3, 4), parts={"a": (1, (2,))})
    assert hash(build.objects(node(layers=[3, 4]))) == hash(Toy(target=Target(period=2), layers=(3, 4)))


def test_targets_inside_lists_and_mappings_are_built():
    toy = build.objects(node(parts={"many": [{"_target_": f"{HERE}.Target", "period": 3}]}))
    assert toy.parts == {"many": (Target(period=3),)}


def test_a_function_is_named_by_text_or_by_an_empty_partial():
    assert build.objects(node(loss=f"{HERE}.square")).loss is square
    assert build.objects(node(loss={"_target_": f"{HERE}.square", "_partial_": True})).loss is square


def test_a_partial_keeps_its_arguments_and_may_miss_some():
    made = build.objects({"_target_": f"{HERE}.Toy", "_partial_": True, "batch": 4})
    assert isinstance(made, functools.partial)
    assert made(target=Target(period=1)).batch == 4


def test_a_mapping_where_a_dataclass_is_wanted_becomes_one():
    assert build.objects(node(target={"period": 5})).target == Target(period=5)
    assert refused(node(target={"perod": 5})) == "learner.target.perod: no such key; did you mean period?"


def test_local_names_are_for_people_alone():
    assert build.objects(node(_local_=["game"], game="pong")) == Toy(target=Target(period=2))


def test_what_is_off_is_empty_whatever_was_merged_into_it():
    assert build.objects({"_off_": True, "episodes": {"every": 3}}) == {}


def test_sizes_go_to_whoever_asks():
    assert build.objects(node(), sizes={"actions": 6}).sizes == {"actions": 6}
    assert build.objects(node(sizes={"actions": 2}), sizes={"actions": 6}).sizes == {"actions": 2}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"batc": 3}, "learner.batc: no such key; did you mean batch?"),
        ({"batch": "3"}, "learner.batch=3: should be a valid integer, not text"),
        ({"batch": 2.5}, "learner.batch=2.5: should be a valid integer"),
        ({"batch": True}, "learner.batch=true: should be a valid integer, not true or false"),
        ({"batch": None}, "learner.batch=null: should be a valid integer, not null"),
        ({"clean": 1}, "learner.clean=1: should be a valid boolean"),
        ({"rate": "fast"}, "learner.rate=fast: should be a valid number, not text"),
        ({"color": "gray"}, "learner.color=gray: should be 'grey' or 'rgb'"),
        ({"layers": [1, "x"]}, 'learner.layers=[1, "x"]: element 1 should be a valid integer, not text'),
        ({"loss": 3}, "learner.loss=3: should be callable"),
        ({"loss": f"{HERE}.sqare"}, f"learner.loss={HERE}.sqare: {HERE} has no sqare; did you mean square?"),
        ({"loss": "abs"}, "learner.loss=abs: a name like agents.dqn.DQN is wanted"),
        ({"target": 3}, "learner.target=3: Target is wanted here, as a mapping of its fields"),
        ({"target": {"_target_": f"{HERE}.Target"}}, f"learner.target.period: missing; {HERE}.Target needs it"),
        (
            {"target": {"_target_": f"{HERE}.Source", "game": "pong", "seed": 0}},
            f"learner.target._target_={HERE}.Source: {HERE}.Target is wanted here",
        ),
        (
            {"target": {"_target_": "agents_.x.Y"}},
            "learner.target._target_=agents_.x.Y: No module named 'agents_'",
        ),
    ],
)
def test_a_mistake_is_told_before_anything_is_built(values: dict[str, Any], message: str):
    assert refused(node(**values)) == message
    assert BUILT == []


def test_numbers_bend_only_where_nothing_is_lost():
    toy = build.objects(node(batch=2e6, rate=1, layers=[2.0]))
    assert (toy.batch, toy.rate, toy.layers) == (2_000_000, 1.0, (2,))
    assert [type(value) for value in (toy.batch, toy.rate, toy.layers[0])] == [int, float, int]


def test_a_value_out_of_range_is_told_with_its_own_key():
    assert refused(node(batch=0)) == "learner.batch=0: must be at least 1"
    assert refused(node(target={"period": 0})) == "learner.target.period=0: must be at least 1"
    assert refused(node(batch=13)) == "learner: an unlucky choice"


def test_a_bug_in_a_constructor_stays_a_bug():
    with pytest.raises(ZeroDivisionError):
        build.objects({"_target_": f"{HERE}.broken"})


def broken() -> float:
    return 1 / 0


def whole(**values: Any) -> dict[str, Any]:
    return {
        "name": "toy",
        "seed": 0,
        "budget": 1e3,
        "lag": 0,
        "log_every": 10,
        "checkpoint": {"every": 100},
        "source": {"_target_": f"{HERE}.Source", "game": "pong", "seed": 0},
        "learner": node(),
        "evaluators": {},
        "mesh": {"_target_": "core.mesh.Placement"},
        "tracker": None,
    } | values


def test_a_run_has_typed_settings_and_the_sources_sizes():
    run = build.run(whole())
    assert (run.budget, run.checkpoint) == (1_000, build.Checkpoint(every=100))
    assert run.learner.sizes == run.source.sizes == {"actions": 6}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"learner": node(batch=0)}, "learner.batch=0: must be at least 1"),
        ({"evaluators": {"a": node(batch=0)}}, "evaluators.a.batch=0: must be at least 1"),
        ({"budget": 0}, "budget=0: must be at least 1"),
        ({"lag": 2}, "lag=2: should be 0 or 1"),
        ({"checkpoint": {"every": 0}}, "checkpoint.every=0: must be at least 1"),
        ({"evaluators": {"a": {"every": 3}}}, "evaluators.a: _target_ is missing, so this makes no Evaluator"),
        ({"bugdet": 3}, "bugdet: no such key; did you mean budget?"),
    ],
)
def test_the_source_starts_only_when_all_else_is_right(values: dict[str, Any], message: str):
    BUILT.clear()
    with pytest.raises(build.ConfigError) as caught:
        build.run(whole(**values))
    assert str(caught.value) == message
    assert "source" not in BUILT
