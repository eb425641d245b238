"""What a compiled program computes, holds and sends, read from the program itself: nothing is run."""

import dataclasses
import math
import re
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from core import loop
from experiments.config import build

_OPERATIONS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"
_CROSSING = re.compile(rf"= (\(.*?\)|\S+) ({_OPERATIONS})(?:-start)?\(")
_IDLE = "parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id"
_WORK = re.compile(rf"^  (?:ROOT )?%?\S+ = (?:\(.*?\)|\S+) (?!(?:{_IDLE})\()", re.MULTILINE)
_ARRAY = re.compile(r"\b(pred|[a-z]+?(\d+)\w*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crossing:
    """An operation that crosses devices."""

    operation: str  # XLA's name: "all-reduce"
    elements: tuple[int, ...]  # of each array that comes out
    bytes: int  # of all of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Of one step. What stands in a loop counts once, so take a program that makes one update."""

    flops: float  # on each device
    kernels: int  # instructions that do something; about as many kernels will an accelerator start
    all_reduces: int
    reduced_bytes: int  # that come out of them, on each device
    other_bytes: int  # that come out of all other operations that cross devices
    state_bytes: int  # on each device


def compiled(run: build.Run) -> jax.stages.Compiled:
    """A run's step, as the loop compiles it over all devices; no state is made."""
    if run.source.dispatch != 1:
        raise ValueError(f"source.dispatch={run.source.dispatch}: take 1, so that the program makes one update")
    functions = loop.programs(run.learner, run.source, run.mesh)
    return functions.step.lower(functions.abstract, batch(run)).compile()


def batch(run: build.Run) -> Any:
    """Shapes and places of what one call of a run's step takes."""
    lead = () if run.source.dispatch == 1 else (run.source.dispatch,)
    over = NamedSharding(run.mesh.mesh(), P(*[None] * (len(lead) + run.source.data_axis), "data"))
    laid = lambda leaf: jax.ShapeDtypeStruct((*lead, *leaf.shape), leaf.dtype, sharding=over)
    return jax.tree.map(laid, run.source.spec)


def crossings(text: str) -> list[Crossing]:
    """Everything that crosses devices in a compiled program's text."""
    found = []
    for shapes, operation in _CROSSING.findall(text):
        arrays = [
            (math.prod(int(size) for size in sizes.split(",") if size), 1 if kind == "pred" else int(bits) // 8)
            for kind, bits, sizes in _ARRAY.findall(shapes)
        ]
        found.append(
            Crossing(
                operation=operation,
                elements=tuple(count for count, _ in arrays),
                bytes=sum(count * width for count, width in arrays),
            )
        )
    return found


def facts(program: jax.stages.Compiled) -> Facts:
    """Of a program that donates its state, and nothing else."""
    text = program.as_text() or ""
    crossing = crossings(text)
    memory, cost = program.memory_analysis(), program.cost_analysis()
    assert memory is not None and cost is not None, "this backend does not tell"
    return Facts(
        flops=cost["flops"],
        kernels=len(_WORK.findall(text[text.index("\nENTRY ") :])),
        all_reduces=sum(c.operation == "all-reduce" for c in crossing),
        reduced_bytes=sum(c.bytes for c in crossing if c.operation == "all-reduce"),
        other_bytes=sum(c.bytes for c in crossing if c.operation != "all-reduce"),
        state_bytes=memory.alias_size_in_bytes,
    )


def sizes(tree: Any) -> tuple[int, int]:
    """(elements, bytes) of a tree of arrays or of their shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf.size for leaf in leaves), sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
