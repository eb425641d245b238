"""Learners over several devices or processes: a process of the suite `core`, or one of a group of them.

    python -m experiments.benchmarks.core_parts --models dqn dit --rounds 3 --seconds 0.5 [overrides]

Devices are those that JAX finds, and the processes those that `core.distributed` joins. Three programs of each learner
are timed: its step as the loop calls it; the same step with nothing crossing, each device training by itself on its
share of the batch; and an all-reduce of its gradients' sizes alone. The first process tells what was found in the
last line it writes. Every call is waited for: collectives of simulated devices must not pile up.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from agents import dqn
from core import distributed, loop, platform
from experiments.benchmarks import core, dqn_parts, generative_parts, programs, timing
from experiments.config import build, command_line

GAMES, STEPS = 8, 4  # a rollout, which pays for one update

Parts = Mapping[str, timing.Part]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", choices=tuple(core.ROWS), required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    platform.cache()
    distributed.start()
    found = []
    for model in given.models:
        for scaling in ("weak", "strong") if jax.device_count() > 1 else ("weak",):
            batch = core.ROWS[model] * (jax.device_count() if scaling == "weak" else 1)
            facts, parts = scaled(model, batch, given.overrides)
            times = measured(parts, rounds=given.rounds, seconds=given.seconds)
            found.append(core.Scaled(scaling=scaling, **facts, **times))
    if distributed.primary():
        print(json.dumps([dataclasses.asdict(one) for one in found]), flush=True)


def scaled(model: str, batch: int, overrides: Sequence[str]) -> tuple[dict[str, Any], Parts]:
    """What the compiled program says, and the programs to time."""
    devices = jax.device_count()
    run = described(model, batch=batch, devices=devices, overrides=overrides)
    start, over, program = generative_parts.begun(run), run.mesh.mesh(), programs.compiled(run)
    facts = {
        "model": model,
        "devices": devices,
        "processes": jax.process_count(),
        "batch": batch,
        "parameter_bytes": programs.sizes(start.functions.abstract.params)[1],
        **dataclasses.asdict(programs.facts(program)),
    }
    random = np.random.default_rng(jax.process_index())
    rows = jax.tree.map(lambda leaf: dqn_parts.noise(random, _local(leaf, run.source), leaf.dtype), run.source.spec)
    rows = start.functions.globalize(rows)
    parts = {"step": repeated(program, start.state, rows)}
    if devices > 1:
        fresh = start.functions.init(jax.random.key(0))
        bare = alone(share(run.learner, devices), start, over).lower(fresh, rows).compile()
        assert not programs.crossings(bare.as_text() or ""), "something crosses devices where each trains by itself"
        parts["alone"] = repeated(bare, fresh, rows)
        parts["all_reduce"] = all_reduce(start, over)
    return facts, parts


def described(model: str, *, batch: int, devices: int, overrides: Sequence[str] = ()) -> build.Run:
    """The run of a learner that makes one update a step."""
    if model == "dit":
        small = ("network.make.width=256", "network.make.depth=1", f"source.batch={batch}", "source.dispatch=1")
        return generative_parts.described(
            command_line.compose("experiment=diffusion/fashion_mnist", *small, *overrides)
        )
    rollout = (f"source.envs={GAMES}", f"source.steps={STEPS}", f"source.shards={devices}", "source.game=pong")
    learner = (f"learner.batch={batch}", f"learner.update_every={GAMES * STEPS}", "learner.learning_starts=64")
    rest = ("learner.replay.capacity=8_192", "optimizer=adam")
    run = build.run(command_line.compose("experiment=dqn/nature", *rollout, *learner, *rest, *overrides))
    run.source.close()  # its spec is all that is wanted
    return run


def share(learner: Any, devices: int) -> Any:
    """The learner that does on its own what one of so many devices does."""
    if not isinstance(learner, dqn.DQN):
        return learner  # it takes batches of any size
    ring = learner.replay
    return dataclasses.replace(
        learner,
        batch=learner.batch // devices,
        update_every=learner.update_every // devices,
        replay=dataclasses.replace(ring, capacity=ring.capacity // devices, shards=ring.shards // devices),
    )


def repeated(program: Any, state: Any, rows: Any) -> timing.Part:
    """A step, again and again; the state that it is given is gone."""
    held = [state]

    def step() -> int:
        held[0] = jax.block_until_ready(program(held[0], rows))[0]
        return 1

    return step


def alone(learner: Any, start: loop.Start, over: jax.sharding.Mesh) -> Any:
    """The step of `learner`, made for a share of the batch, on each device by itself.

    What should be the same everywhere drifts apart, so this is for timing only.
    """
    places = jax.tree.map(lambda leaf: leaf.sharding.spec, start.functions.abstract)
    split = jax.shard_map(
        learner.step, mesh=over, in_specs=(places, P("data")), out_specs=(places, P()), check_vma=False
    )
    return jax.jit(split, donate_argnums=0)


def all_reduce(start: loop.Start, over: jax.sharding.Mesh) -> timing.Part:
    """The sum over devices of arrays like the parameters."""
    like = start.functions.abstract.params
    total = jax.shard_map(
        lambda tree: jax.lax.psum(tree, "data"), mesh=over, in_specs=P(), out_specs=P(), check_vma=False
    )
    places = jax.tree.map(lambda leaf: leaf.sharding, like)
    ones = jax.jit(lambda: jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), like), out_shardings=places)
    arrays, reduce = ones(), jax.jit(total)

    def call() -> int:
        jax.block_until_ready(reduce(arrays))
        return 1

    return call


def measured(parts: Parts, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Median seconds of a call by round, the slowest process's; `seconds` is for all parts together.

    All processes make the same number of calls: in each of them they wait for one another.
    """
    calls = {}
    for name, part in parts.items():
        part()
        once = max(distributed.gather(timing.median_seconds(part, 0)))
        calls[name] = max(timing.LEAST_CALLS, int(seconds / len(parts) / once))
    taken: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            taken[name].append(max(distributed.gather(timing.median_seconds(part, 0, calls=calls[name]))))
    return taken


def _local(leaf: Any, source: Any) -> tuple[int, ...]:
    """The shape of this process's rows."""
    shape = list(leaf.shape)
    shape[source.data_axis] //= jax.process_count()
    return tuple(shape)


if __name__ == "__main__":
    main()
