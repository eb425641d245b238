"""How long an update takes, and what share of the card's peak that is: a process of the suite `gpu`.

    python -m experiments.benchmarks.gpu.speed dqn|dit|unet [--small] [--seconds 1]

FLOPs are those of the program as JAX hands it to XLA, by XLA's own count; a fused or rewritten program does the same
work. Networks and batches are those that `foreign/torch_gpu.py` times.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax

from core import mesh, platform
from experiments.benchmarks import dqn, dqn_parts, generative, generative_parts, programs, timing
from experiments.benchmarks.gpu import cards, children, equal
from experiments.config import command_line

BATCHES = {"dqn": (32, 256, 2048), "dit": (128, 1024), "unet": (64, 512)}
SMALL_BATCHES = {"dqn": (32,), "dit": (16,), "unet": (4,)}
COMPUTES = {"dqn": ("float32", "bfloat16"), "dit": ("bfloat16",), "unet": ("bfloat16",)}
TRIES = 20  # steps of a model of images behind each other; a DQN's updates are in a scan


def main() -> None:
    parser = children.arguments("update times", *BATCHES)
    parser.add_argument("--only", help="one item", default=None)
    given = parser.parse_args()
    batches = (SMALL_BATCHES if given.small else BATCHES)[given.kind]
    computes = COMPUTES[given.kind][: 1 if given.small else None]
    items = {f"{given.kind} {batch} {compute}": (batch, compute) for compute in computes for batch in batches}
    items = {name: item for name, item in items.items() if given.only in (None, name)}
    children.plan(list(items))
    platform.cache()
    measure = of_dqn if given.kind == "dqn" else of_images
    for name, (batch, compute) in items.items():
        try:
            found = measure(given.kind, batch, compute, small=given.small, seconds=given.seconds)
            children.tell(name, **found, **memory())
        except Exception as error:  # the next batch may do
            children.failed(name, error)


def of_dqn(_: str, batch: int, compute: str, *, small: bool, seconds: float) -> dict[str, Any]:
    """Nature's update, in a scan as it is trained, from samples at hand."""
    run = equal.described(*dqn.SETTING, f"network.compute={compute}", "learner.replay.capacity=2_048")
    learner, samples = run.learner, dqn_parts.random_samples(run, batch)
    params = learner.network.init(jax.random.key(0))
    weights = (params, learner.optimizer.init(params), params)
    one = jax.tree.map(lambda leaf: leaf[0], samples)
    flops = flops_of(jax.jit(dqn_parts.one_update(learner)).lower(weights, one))
    update = dqn_parts.updating(run, [batch])[f"scan {batch}"]
    return told(update, flops, compute, seconds=seconds)


def of_images(kind: str, batch: int, compute: str, *, small: bool, seconds: float) -> dict[str, Any]:
    """A whole step as the loop compiles and donates it, with its average of weights."""
    overrides = generative.MODELS[kind].forms["ours"].overrides
    sizes = (f"source.batch={batch}", "source.dispatch=1", f"network.compute={compute}")
    run = generative_parts.described(command_line.compose(*overrides, *sizes, *(shrunk(kind) if small else ())))
    start = generative_parts.begun(run)
    lowered = start.functions.step.lower(start.functions.abstract, programs.batch(run))
    program, rows = lowered.compile(), start.functions.globalize(equal.batch(run.source.spec))
    part = repeated(program, start.state, rows, times=1 if small else TRIES)
    found = told(part, flops_of(lowered), compute, seconds=seconds)
    return found | estimates(start.functions.abstract, program)


def shrunk(kind: str) -> tuple[str, ...]:
    if kind == "dit":
        return ("network.make.width=32", "network.make.depth=1")
    return ("network.make.channels=[8,8]", "network.make.depth=1", "network.make.attention=[2]", "network.make.heads=2")


def told(part: timing.Part, flops: float | None, compute: str, *, seconds: float) -> dict[str, Any]:
    """Milliseconds of an update, FLOP/s and the share of the peak."""
    part()  # compiles
    taken = timing.median_seconds(part, seconds)
    kind = jax.devices()[0].device_kind
    found: dict[str, Any] = {"milliseconds": 1e3 * taken, "device": kind}
    if flops is None:
        return found | {"flops": "not available: XLA does not count them for this backend"}
    return found | {"flops": flops, "flops_per_second": flops / taken} | cards.share(kind, compute, flops / taken)


def repeated(program: jax.stages.Compiled, state: Any, rows: Any, *, times: int) -> timing.Part:
    """So many steps behind each other, and then waits; the state that it is given is gone."""
    held = [state]

    def steps() -> int:
        for _ in range(times):
            held[0], _ = program(held[0], rows)
        jax.block_until_ready(held[0])
        return times

    return steps


def flops_of(lowered: jax.stages.Lowered) -> float | None:
    cost: Any = None
    with contextlib.suppress(Exception):  # what a backend cannot say it raises in many ways
        cost = lowered.cost_analysis()
    cost = cost[0] if isinstance(cost, Sequence) and cost else cost
    return float(cost["flops"]) if cost else None


def estimates(abstract: Any, program: jax.stages.Compiled) -> dict[str, Any]:
    """Bytes of the state as a launch estimates them, and of the whole program as XLA plans it."""
    memory_ = program.memory_analysis()
    planned = None
    if memory_ is not None:
        arguments = memory_.argument_size_in_bytes + memory_.output_size_in_bytes - memory_.alias_size_in_bytes
        planned = arguments + memory_.temp_size_in_bytes
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return {"state_bytes": mesh.state_bytes(abstract, shardings), "planned_bytes": planned}


def memory() -> dict[str, Any]:
    """Most bytes of the device in use since the process began."""
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use", "not available: this device counts no memory")
    return {"peak_bytes": peak}


if __name__ == "__main__":
    main()
