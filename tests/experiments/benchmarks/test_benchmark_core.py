"""The suite `core`: what it reads from compiled programs, that its programs are what they should be, its tables."""

import json
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import command, core, processes, programs, timing

TEXT = """
%body (p: f32[4]) -> f32[4] {
  %max = f32[] all-reduce(%y), channel_id=3, to_apply=%larger
}

ENTRY %main (a: f32[3,5], b: bf16[7]) -> (f32[3,5], bf16[7], pred[2]) {
  %a = f32[3,5]{1,0} parameter(0)
  %sum = (f32[3,5]{1,0}, bf16[7]{0}, /*index=2*/pred[2]{0}) all-reduce(%a, %b, %c), channel_id=1, to_apply=%add
  %rows = f32[6,5]{1,0} all-gather-start(%a), dimensions={0}
  %first = f32[3,5]{1,0} get-tuple-element(%sum), index=0
  %done = f32[6,5]{1,0} all-gather-done(%rows)
  ROOT %out = (f32[3,5]{1,0}, bf16[7]{0}) tuple(%first, %second)
}
"""


def test_what_crosses_stands_in_the_program():
    largest, gradients, gathered = programs.crossings(TEXT)
    assert largest == programs.Crossing(operation="all-reduce", elements=(1,), bytes=4)
    assert gradients == programs.Crossing(operation="all-reduce", elements=(15, 7, 2), bytes=60 + 14 + 2)
    assert gathered == programs.Crossing(operation="all-gather", elements=(30,), bytes=120)


def test_facts_of_a_program_by_hand():
    """State f32 [64, 32] += x [8, 64]ᵀ y [8, 32]: 2 · 8 · 64 · 32 operations for the product, 64 · 32 for the sum."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 32), (8, 64), (8, 32))]
    program = jax.jit(lambda state, x, y: state + x.T @ y, donate_argnums=0).lower(*shapes).compile()
    facts = programs.facts(program)
    assert facts.flops == pytest.approx(2 * 8 * 64 * 32 + 64 * 32, rel=0.01)
    assert facts.state_bytes == 4 * 64 * 32 and 1 <= facts.kernels <= 4
    assert facts.all_reduces == facts.reduced_bytes == facts.other_bytes == 0


def test_a_part_is_called_as_often_as_is_said():
    calls = []
    timing.median_seconds(lambda: calls.append(0) or 1, 0, calls=7)
    assert len(calls) == 7


@pytest.mark.long
@pytest.mark.parametrize("count, devices", [(2, 1), (1, 2)])
def test_learners_are_timed_over_devices_and_processes(monkeypatch: pytest.MonkeyPatch, count: int, devices: int):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # it is compiling that takes the time
    command = [sys.executable, "-W", "error", "-m", "experiments.benchmarks.core_parts", "--models", "dqn"]
    command += ["--rounds", "2", "--seconds", "0.01", "+debug=tiny"]
    weak, strong = (
        core.Scaled(**found) for found in processes.group(command, "nothing", processes=count, devices=devices)
    )
    assert (weak.scaling, weak.batch, strong.scaling, strong.batch) == ("weak", 64, "strong", 32)
    for found in (weak, strong):
        assert (found.devices, found.processes) == (2, count)
        assert found.all_reduces == 2 and found.reduced_bytes == found.parameter_bytes + 4 * 4 and not found.other_bytes
        assert all(len(times) == 2 and min(times) > 0 for times in (found.step, found.alone, found.all_reduce))
    assert weak.flops > 1.5 * strong.flops and weak.state_bytes == strong.state_bytes


def test_a_process_of_a_group_that_fails_is_told():
    code = "import os, sys; sys.exit('too bad' if os.environ['JAX_PROCESS_ID'] == '1' else 0)"
    with pytest.raises(RuntimeError, match=r"\(process 1 of 2, 3 devices each\) ended with status 1:\ntoo bad"):
        processes.group([sys.executable, "-c", code], "nothing", processes=2, devices=3)


def answer(command: Sequence[str], kind: str, *, processes: int, devices: int) -> list[dict]:
    """A step of 10 ms on one device, twice as long in n times the time, of which an all-reduce takes a quarter."""
    n, found = processes * devices, []
    for scaling in ("weak", "strong") if n > 1 else ("weak",):
        batch = 32 * n if scaling == "weak" else 32
        step = 0.01 * batch / 32 * (2 if n > 1 else 1)
        facts = {"model": "dqn", "scaling": scaling, "devices": n, "processes": processes, "batch": batch}
        facts |= {"parameter_bytes": 400, "flops": 2e9, "kernels": 9, "all_reduces": 2, "reduced_bytes": 416}
        times = {"step": [step], "alone": [0.75 * step] if n > 1 else [], "all_reduce": [0.002] if n > 1 else []}
        found.append({**facts, "other_bytes": 0, "state_bytes": 3_000_000, **times})
    return found


def test_the_suite_goes_through_all_layouts_and_says_what_is_simulated(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def group(command: Sequence[str], kind: str, *, processes: int, devices: int) -> list[dict]:
        asked.append((processes, devices))
        return answer(command, kind, processes=processes, devices=devices)

    monkeypatch.setattr(processes, "group", group)
    found = core.run(command.Wanted(suite="core", only=("dqn",), rounds=1))
    assert asked == [(1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (4, 1)]
    content = json.loads(json.dumps(found.content()))
    assert content["simulated"] and content["cores"] >= 1 and len(content["rows"]) == 11
    one, *several = content["rows"]
    assert (one["of_ideal"], one["communication"]) == (1, 0)
    assert all(row["of_ideal"] == pytest.approx(0.5) and row["communication"] == 0.25 for row in several)
    lines = found.table().splitlines()
    assert "simulated on" in found.table() and lines[2].split()[:5] == ["dqn", "weak", "1", "x", "2"]
    assert lines[2].split()[5:11] == ["64", "40", "(40", "-", "40)", "50"]
