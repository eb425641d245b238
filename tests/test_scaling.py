"""docs/scaling.py: the model of step times by hand, and that docs/scaling.md tells what it says."""

import dataclasses
import importlib.util
import json
import pathlib
import sys
from typing import Any

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def scaling() -> Any:
    spec = importlib.util.spec_from_file_location("scaling", DOCS / "scaling.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scaling"]


def machine(scaling: Any) -> Any:
    """Nodes of two, and numbers that one can reckon with."""
    return scaling.Machine(
        tf32_flops_per_second=20,
        bfloat16_flops_per_second=80,
        memory_bytes_per_second=100,
        kernel_seconds=0.1,
        gpus_per_node=2,
        nvlink_bytes_per_second=100,
        infiniband_bytes_per_second=10,
        nvlink_hop_seconds=1,
        infiniband_hop_seconds=2,
        collective_seconds=0.5,
        environment_steps_per_second=5,
    )


def test_an_all_reduce_by_hand(scaling: Any):
    seconds = lambda gpus: scaling.all_reduce_seconds(machine(scaling), reduced_bytes=400, gpus=gpus)
    assert seconds(1) == 0
    # Inside: 2 · 1/2 · 400 bytes at 100, two hops of 1 s.
    assert seconds(2) == pytest.approx(4 + 2 + 0.5)
    # Between four nodes: 2 · 3/4 · 200 bytes at 10, two times two hops of 2 s.
    assert seconds(8) == pytest.approx(4 + 30 + 2 + 8 + 0.5)


def test_a_step_by_hand(scaling: Any):
    program = {"flops_per_row": 10, "kernels": 3, "all_reduces": 2, "reduced_bytes": 800, "weight_bytes": 50}
    case = scaling.Case(name="", program="", batch=8, overlap=0.5, environment_steps_per_row=2)
    found = scaling.step(case, program, 2, machine(scaling))
    assert found == scaling.Step(
        arithmetic=pytest.approx(4 * 10 / 20),
        kernels=pytest.approx(0.3),
        optimizer=pytest.approx(2 * 50 / 100),
        all_reduce=pytest.approx(2 * 6.5),
        hidden=pytest.approx(1),
        environments=pytest.approx(8 * 2 / 5),
    )
    assert found.seconds == found.learner == pytest.approx(2 + 0.3 + 1 + 13 - 1) and found.lost_to == "all-reduce"
    weak = scaling.step(dataclasses.replace(case, weak=True, bfloat16=True), program, 4, machine(scaling))
    assert (weak.arithmetic, weak.environments) == pytest.approx((8 * 10 / 80, 4 * 8 * 2 / (2 * 5)))
    slow = dataclasses.replace(found, environments=20.0)
    assert slow.seconds == 20 and slow.lost_to == "environments"
    assert scaling.step(case, program, 16, machine(scaling)) is None


def test_the_page_tells_what_the_model_says(scaling: Any):
    programs = json.loads((DOCS / "scaling.json").read_text())
    page = (DOCS / "scaling.md").read_text()
    assert all(told(programs) in page for told in (scaling.limits, scaling.varied, scaling.table))
    assert (DOCS / "media" / "scaling.png").exists()


def test_the_programs_are_those_of_the_learners():
    programs = json.loads((DOCS / "scaling.json").read_text())
    assert programs["dqn"]["parameters"] == programs["pqn"]["parameters"] == 1_687_206
    assert 129e6 < programs["dit_b"]["parameters"] < 132e6  # 2212.09748, table 1
    for program in programs.values():
        assert 0 <= program["reduced_bytes"] - 4 * program["parameters"] <= 4 * 4  # the gradients and a few scalars
    # Forward, and backward with two products for each of forward's; table 1 counts multiply-adds: 23.0e9.
    assert programs["dit_b"]["flops_per_row"] == pytest.approx(3 * 2 * 23.0e9, rel=0.1)
