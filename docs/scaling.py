"""A model of the step time on 8, 64 and 512 H200s, for docs/scaling.md; nothing here was measured on a GPU.

    python docs/scaling.py count    compiles the programs on two simulated devices: docs/scaling.json
    python docs/scaling.py          the tables of docs/scaling.md, and docs/media/scaling.png, from that file

What a step computes, holds and sends stands in the compiled programs; how long that takes is assumed, in `Machine`.
"""

import dataclasses
import json
import math
import os
import pathlib
import sys
from typing import Any

FOLDER = pathlib.Path(__file__).parent
COUNTED = FOLDER / "scaling.json"
GPUS = tuple(2**power for power in range(10))
SHOWN = (1, 8, 64, 512)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """H200s in nodes of eight: data sheets' figures, and the share of each that is taken to be reached."""

    bfloat16_flops_per_second: float = 0.40 * 989e12  # dense, of large matrix products
    tf32_flops_per_second: float = 0.10 * 494e12  # dense, of Nature's convolutions of 4 to 64 channels
    memory_bytes_per_second: float = 0.80 * 4.8e12
    kernel_seconds: float = 2e-6  # for each instruction of the CPU's program, of which a GPU's would fuse more
    gpus_per_node: int = 8
    nvlink_bytes_per_second: float = 0.80 * 450e9  # of a GPU, each way
    infiniband_bytes_per_second: float = 0.90 * 50e9  # likewise: an NDR port of 400 Gb/s for every GPU
    nvlink_hop_seconds: float = 1.2e-6
    infiniband_hop_seconds: float = 8.5e-6
    collective_seconds: float = 4.4e-6  # of every one, however small
    environment_steps_per_second: float = 112 * 2_000.0  # a node of 112 cores, nothing else running on them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A learner and how its batch grows with the GPUs."""

    name: str
    program: str  # in docs/scaling.json
    batch: int  # rows an update over all GPUs; with `weak`, on each
    weak: bool = False
    bfloat16: bool = False
    overlap: float = 0.0  # the share of the arithmetic behind which an all-reduce can hide
    environment_steps_per_row: float = 0.0  # played for one row of a batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """Seconds of one update, by what they go to."""

    arithmetic: float
    kernels: float  # starting them
    optimizer: float  # reading and writing parameters, moments, averages
    all_reduce: float  # all of it
    hidden: float  # of it, behind the arithmetic
    environments: float  # playing meanwhile what the update is paid with

    @property
    def learner(self) -> float:
        return self.arithmetic + self.kernels + self.optimizer + self.all_reduce - self.hidden

    @property
    def seconds(self) -> float:
        return max(self.learner, self.environments)

    @property
    def lost_to(self) -> str:
        """What takes the most of it, arithmetic apart."""
        if self.environments > self.learner:
            return "environments"
        parts = {"kernels": self.kernels, "optimiser": self.optimizer, "all-reduce": self.all_reduce - self.hidden}
        return max(parts, key=lambda name: parts[name])


CASES = (
    # One update for 4 environment steps: each row is paid with an eighth of one.
    Case(name="DQN, 32 rows", program="dqn", batch=32, environment_steps_per_row=4 / 32),
    # Ape-X (1803.00933): 512 rows, 19 updates/s beside 12,500 environment steps/s of 360 actors.
    Case(name="Ape-X-like DQN, 512 rows", program="dqn", batch=512, environment_steps_per_row=12_500 / (19 * 512)),
    # PQN (2407.04811): no replay, no target network; every environment step is learned from twice.
    Case(name="PQN-like, 65,536 rows", program="pqn", batch=65_536, environment_steps_per_row=0.5),
    Case(name="PQN-like, games not counted", program="pqn", batch=65_536),
    Case(name="DiT-B, 256 images", program="dit_b", batch=256, bfloat16=True),
    Case(name="DiT-B, 2,048 images", program="dit_b", batch=2_048, bfloat16=True),
    Case(name="DiT-B, 2,048 images, hidden", program="dit_b", batch=2_048, bfloat16=True, overlap=0.6),
    Case(name="DiT-B, 128 images a GPU", program="dit_b", batch=128, bfloat16=True, weak=True),
)

VARIED = {
    "kernels at 1 µs": {"kernel_seconds": 1e-6},
    "kernels at 4 µs": {"kernel_seconds": 4e-6},
    "half of InfiniBand": {"infiniband_bytes_per_second": 0.45 * 50e9},
    "25 % of bfloat16's peak": {"bfloat16_flops_per_second": 0.25 * 989e12},
    "50 % of bfloat16's peak": {"bfloat16_flops_per_second": 0.50 * 989e12},
    "5 % of TF32's peak": {"tf32_flops_per_second": 0.05 * 494e12},
    "games four times as quick": {"environment_steps_per_second": 4 * 112 * 2_000.0},
}


def all_reduce_seconds(machine: Machine, *, reduced_bytes: float, gpus: int) -> float:
    """Reduce-scatter in each node, all-reduce of the parts between nodes, all-gather in each node.

    A GPU sends 2 (n - 1) / n of what n have to reduce. Latency as NCCL itself reckons with it for its trees: two hops
    for each other GPU of the node, two for each doubling of the nodes.
    """
    if gpus == 1:
        return 0.0
    inside, nodes = min(gpus, machine.gpus_per_node), -(-gpus // machine.gpus_per_node)
    sent_inside = 2 * (inside - 1) / inside * reduced_bytes
    sent_between = 2 * (nodes - 1) / nodes * reduced_bytes / inside
    hops_seconds = 2 * (inside - 1) * machine.nvlink_hop_seconds
    hops_seconds += 2 * math.ceil(math.log2(nodes)) * machine.infiniband_hop_seconds
    seconds = sent_inside / machine.nvlink_bytes_per_second + sent_between / machine.infiniband_bytes_per_second
    return seconds + hops_seconds + machine.collective_seconds


def step(case: Case, program: dict[str, float], gpus: int, machine: Machine = Machine()) -> Step | None:
    """One update on so many GPUs; None where the batch has fewer rows than that."""
    rows = case.batch * (gpus if case.weak else 1)
    if rows % gpus:
        return None
    nodes = -(-gpus // machine.gpus_per_node)
    flops_per_second = machine.bfloat16_flops_per_second if case.bfloat16 else machine.tf32_flops_per_second
    arithmetic = rows / gpus * program["flops_per_row"] / flops_per_second
    each = program["reduced_bytes"] / program["all_reduces"]
    all_reduce = program["all_reduces"] * all_reduce_seconds(machine, reduced_bytes=each, gpus=gpus)
    return Step(
        arithmetic=arithmetic,
        kernels=program["kernels"] * machine.kernel_seconds,
        optimizer=2 * program["weight_bytes"] / machine.memory_bytes_per_second,
        all_reduce=all_reduce,
        hidden=min(all_reduce, case.overlap * arithmetic),
        environments=rows * case.environment_steps_per_row / (nodes * machine.environment_steps_per_second),
    )


def efficiency(case: Case, program: dict[str, float], gpus: int, machine: Machine = Machine()) -> float:
    """Rows a second and GPU, over those of one GPU; 0 where the batch cannot be divided."""
    single, several = step(case, program, 1, machine), step(case, program, gpus, machine)
    if single is None or several is None:
        return 0.0
    return single.seconds / several.seconds / (1 if case.weak else gpus)


def limit(case: Case, program: dict[str, float], machine: Machine = Machine()) -> int:
    """Up to how many GPUs each does at least half of what one alone does."""
    return max(gpus for gpus in GPUS if efficiency(case, program, gpus, machine) >= 0.5)


def table(programs: dict[str, dict[str, float]]) -> str:
    """A row for each case and number of GPUs."""
    names = ("case", "GPUs", "step, ms", "arithmetic", "kernels", "optimiser", "all-reduce", "of it hidden")
    lines = [(*names, "environments", "rows/s", "of one GPU's", "most lost to"), ("---",) * 12]
    for case in CASES:
        for gpus in SHOWN:
            found = step(case, programs[case.program], gpus)
            if found is None:
                lines.append((case.name, str(gpus), "fewer rows than GPUs", *("",) * 9))
                continue
            parts = (found.seconds, found.arithmetic, found.kernels, found.optimizer, found.all_reduce, found.hidden)
            rows = case.batch * (gpus if case.weak else 1) / found.seconds
            share = f"{100 * efficiency(case, programs[case.program], gpus):.0f} %"
            milliseconds = [f"{1e3 * part:.3g}" for part in (*parts, found.environments)]
            lines.append((case.name, str(gpus), *milliseconds, f"{float(f'{rows:.2g}'):,.0f}", share, found.lost_to))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def limits(programs: dict[str, dict[str, float]]) -> str:
    """For each case its limit, and what most is lost to with twice as many GPUs."""
    lines = []
    for case in CASES:
        good = limit(case, programs[case.program])
        beyond = step(case, programs[case.program], 2 * good)
        why = "fewer rows than GPUs" if beyond is None else beyond.lost_to
        lines.append(f"| {case.name} | {good} | {'-' if good == GPUS[-1] else why} |")
    return "\n".join(["| case | GPUs | beyond, most is lost to |", "| --- | --- | --- |", *lines])


def varied(programs: dict[str, dict[str, float]]) -> str:
    """The limits of all cases where one assumption is another."""
    lines = [("assumed instead", *(case.name for case in CASES)), ("---",) * (1 + len(CASES))]
    for name, changes in VARIED.items():
        machine = dataclasses.replace(Machine(), **changes)
        lines.append((name, *(str(limit(case, programs[case.program], machine)) for case in CASES)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(programs: dict[str, dict[str, float]], path: pathlib.Path) -> None:
    from matplotlib import figure

    picture = figure.Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = picture.subplots()
    axes.plot(GPUS, GPUS, color="0.7", linestyle="--", label="ideal")
    for case in CASES:
        points = [(gpus, gpus * efficiency(case, programs[case.program], gpus)) for gpus in GPUS]
        points = [point for point in points if point[1]]
        axes.plot(*zip(*points, strict=True), marker=".", label=case.name)
    axes.set(xscale="log", yscale="log", xlabel="H200s, eight a node", ylabel="rows a second, over those of one GPU")
    axes.set(title="Modelled, not measured: docs/scaling.md has the assumptions", xticks=GPUS, yticks=GPUS)
    axes.set(xticklabels=GPUS, yticklabels=GPUS)
    axes.minorticks_off()
    axes.legend(fontsize="small")
    picture.savefig(path)


# ---- what the compiled programs say ----


def count() -> dict[str, dict[str, float]]:
    """Of each program, compiled for two simulated devices; no weights are made."""
    import jax

    from core.images import stream
    from experiments.benchmarks import core_parts, programs
    from experiments.config import build, command_line

    dqn = core_parts.described("dqn", batch=256, devices=2)
    dit = ("experiment=diffusion/fashion_mnist", "network.make.patch=2", "network.make.width=768")
    dit += ("network.make.depth=12", "network.make.heads=12", "source.batch=16", "source.dispatch=1")
    latents = stream.Shape(image=(32, 32, 4), classes=1_000, batch=16)  # 256 patches of 2 x 2
    dit_b = build.run(command_line.compose(*dit), source=latents)
    states = [jax.eval_shape(run.learner.init, jax.random.key(0), run.source.spec) for run in (dqn, dit_b)]
    dqn_weights, dit_weights = ((state.params, state.opt_state) for state in states)
    compiled = {
        "dqn": (programs.compiled(dqn), 256, (*dqn_weights, states[0].target_params)),
        "pqn": (_update_without_replay(dqn, batch=256), 256, dqn_weights),
        "dit_b": (programs.compiled(dit_b), 16, (*dit_weights, states[1].ema_params)),
    }
    found = {}
    for name, (program, rows, weights) in compiled.items():
        facts = programs.facts(program)
        found[name] = {
            "parameters": programs.sizes(weights[0])[0],
            "weight_bytes": programs.sizes(weights)[1],  # with moments, target network and averages
            "flops_per_row": facts.flops * jax.device_count() / rows,
            "kernels": facts.kernels,
            "all_reduces": facts.all_reduces,
            "reduced_bytes": facts.reduced_bytes,
        }
    return found


def _update_without_replay(run: Any, *, batch: int) -> Any:
    """What PQN does at an update, as far as its cost goes: one network, targets at hand."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from agents import td
    from core import optim

    network, optimizer, sizes = run.learner.network, run.learner.optimizer, run.source.sizes

    def update(state: Any, observation: jax.Array, action: jax.Array, target: jax.Array) -> Any:
        params, opt_state = state
        loss_of = lambda params: jnp.mean(td.huber(target - td.chosen(network.bind(params)(observation), action)))
        loss, gradient = jax.value_and_grad(loss_of)(params)
        healthy = jnp.asarray(True)
        changed = {"loss": loss, "gradient": gradient, "params": params, "opt_state": opt_state, "healthy": healthy}
        return optim.apply(optimizer, **changed)[:2]

    over = run.mesh.mesh()
    everywhere, rows = (NamedSharding(over, PartitionSpec(*axes)) for axes in ((), ("data",)))
    params = jax.eval_shape(network.init, jax.random.key(0))
    abstract = (params, jax.eval_shape(optimizer.init, params))
    like = lambda place: lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
    given = [((batch, *sizes["observation"]), jnp.uint8), ((batch,), jnp.int32), ((batch,), jnp.float32)]
    given = [jax.ShapeDtypeStruct(shape, dtype, sharding=rows) for shape, dtype in given]
    jitted = jax.jit(update, donate_argnums=0, out_shardings=everywhere)
    return jitted.lower(jax.tree.map(like(everywhere), abstract), *given).compile()


def main(*arguments: str) -> None:
    if arguments == ("count",):
        os.environ |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
        COUNTED.write_text(json.dumps(count(), indent=2) + "\n")
        return
    programs = json.loads(COUNTED.read_text())
    print("\n\n".join(told(programs) for told in (limits, varied, table)))
    draw(programs, FOLDER / "media" / "scaling.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
