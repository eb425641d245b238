"""Placement on one device here; eight devices are `tests/agents/test_dqn.py`'s."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from core import mesh

STATE = {
    "params": {"torso": {"kernel": jax.ShapeDtypeStruct((8, 6), np.float32)}},
    "replay": {"frames": jax.ShapeDtypeStruct((8, 50, 4), np.uint8), "head": jax.ShapeDtypeStruct((), np.int32)},
    "key": jax.eval_shape(lambda: jax.random.key(0)),
}


def eight() -> Any:
    return AbstractMesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def specs(placement: mesh.Placement, state=STATE) -> dict:
    return jax.tree.map(lambda place: place.spec, placement.shardings(state, eight()))


def test_the_replay_lies_over_data_and_all_else_everywhere():
    assert specs(mesh.Placement()) == {
        "params": {"torso": {"kernel": P()}},
        "replay": {"frames": P("data"), "head": P()},
        "key": P(),
    }


def test_the_first_rule_that_is_found_in_a_path_decides():
    rules = ((r"torso/.*kernel$", (None, "model")), (r"kernel", ("data",)), (r"^replay/", ("data",)))
    placed = specs(mesh.Placement(rules=rules))
    assert placed["params"]["torso"]["kernel"] == P(None, "model")
    assert placed["replay"]["frames"] == P("data")


def test_a_rule_may_leave_the_dimension_open():
    shapes = {"a": (6, 40, 80), "b": (6, 600), "c": (31, 33, 3), "d": (8,), "e": ()}
    state = {"params": {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}}
    placed = specs(mesh.Placement(rules=(("^params/", "data"),)), state)["params"]
    # the largest; the largest that four devices divide; none does; too small to be worth it; a scalar
    assert placed == {"a": P(None, None, "data"), "b": P(None, "data"), "c": P(), "d": P(), "e": P()}


def test_rows_that_do_not_divide_are_told_with_the_remedy():
    state = {"replay": {"frames": jax.ShapeDtypeStruct((6, 50), np.uint8)}}
    with pytest.raises(ValueError, match=r"replay/frames: 6 rows do not divide over the 4 devices of mesh axis 'data'"):
        mesh.Placement().shardings(state, eight())


def test_a_mesh_has_the_devices_that_there_are():
    count = jax.device_count()
    made = mesh.Placement().mesh()
    assert (dict(made.shape), made.axis_types) == ({"data": count, "model": 1}, (AxisType.Auto, AxisType.Auto))
    with pytest.raises(ValueError, match=rf"mesh: data={count + 1} x model=1 needs more than the {count} devices here"):
        mesh.Placement(data=count + 1).mesh()
    with pytest.raises(
        ValueError,
        match=rf"data=null x model={count + 1} needs more than the {count} devices here; take mesh.model={count}",
    ):
        mesh.Placement(model=count + 1).mesh()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": 0}, "data=0: must be at least 1"),
        ({"model": 0}, "model=0: must be at least 1"),
        ({"rules": ((r"^replay/", ("dat",)),)}, r"rules: axis 'dat' of \^replay/ is none of data, model"),
        ({"rules": ((r"^params/", "dat"),)}, r"rules: axis 'dat' of \^params/ is none of data, model"),
        ({"rules": (("(", ("data",)),)}, r"rules: \( is no regular expression"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        mesh.Placement(**settings)


def test_local_parts_become_global_and_local_again():
    devices = mesh.Placement(data=1).mesh()
    batch = {"x": np.arange(6.0, dtype=np.float32).reshape(2, 3)}
    whole = mesh.globalize(batch, devices)
    assert whole["x"].sharding.spec == P("data")
    local = mesh.localize(whole)
    assert local["x"].is_fully_addressable and len(local["x"].devices()) == 1
    np.testing.assert_array_equal(local["x"], batch["x"])


def test_memory_is_what_the_fullest_device_holds():
    placed = mesh.Placement().shardings(STATE, eight())
    assert mesh.check_memory(STATE, placed, hint="") == 8 * 6 * 4 + 8 // 4 * 50 * 4 + 4 + 16


def test_a_state_that_does_not_fit_is_refused_with_both_sizes_and_what_to_change(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mesh, "_free_bytes", lambda: 500_000_000)
    state = {"replay": jax.ShapeDtypeStruct((1, 1_000_000, 84, 84), jnp.uint8)}
    placed = mesh.Placement().shardings(state, mesh.Placement(data=1).mesh())
    message = "needs 7.06 GB on a device that has 0.50 GB free: a smaller learner.replay.capacity would fit"
    with pytest.raises(ValueError, match=re.escape(message)):
        mesh.check_memory(state, placed, hint="a smaller learner.replay.capacity would fit")
