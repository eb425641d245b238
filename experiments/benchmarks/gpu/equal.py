"""Each learner's update on this device and on the host's CPU: a process of the suite `gpu`.

    python -m experiments.benchmarks.gpu.equal first|rest [--small]

One whole `learner.step` with the experiment's own optimiser, from the same state, batch and key, in float32 (products
in full precision) and in bfloat16. Large networks are shrunk, since the CPU computes them too. Without an accelerator
the same CPU stands in for it, by a program compiled with other optimisations: that shows the suite, not a GPU.
"""

import concurrent.futures
import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from core import platform, types
from experiments.benchmarks import dqn_parts, generative_parts, programs
from experiments.benchmarks.gpu import children
from experiments.config import build, command_line

_GAMES = ("source.envs=4", "source.game=pong", "learner.learning_starts=64", "learner.batch=16", "optimizer=adam")
_IMAGES = ("source.batch=16", "source.dispatch=1")
_DIT = ("network.make.width=64", "network.make.depth=2", "network.make.heads=2")
_REPLAY = "learner.replay.capacity=2_048"
KINDS = {
    "first": {
        "vae": ("experiment=vae/fashion_mnist", *_IMAGES),
        "dqn": ("experiment=dqn/nature", *_GAMES, _REPLAY),
        "dit": ("experiment=diffusion/fashion_mnist", *_IMAGES, *_DIT),
        "unet": (
            "experiment=diffusion/ddpm_unet",
            *(*_IMAGES, "network.make.channels=[16,32]", "network.make.depth=1", "network.make.attention=[2]"),
        ),
        "gan": ("experiment=gan/dcgan", *_IMAGES),
    },
    "rest": {
        "dqn_prioritized": ("experiment=dqn/nature", "learner=prioritized", *_GAMES, _REPLAY),
        "dqn_dueling": ("experiment=dqn/nature", "learner=dueling", "learner.replay.read.n_step=3", *_GAMES, _REPLAY),
        "flow_dit": ("experiment=diffusion/flow_dit", *_IMAGES, *_DIT),
        "vae_convolutions": ("experiment=vae/fashion_mnist_conv", *_IMAGES),
        "gan_r3": ("experiment=gan/fashion_mnist", *_IMAGES, "network.widths=[16,32]"),
        "gan_wgan_gp": ("experiment=gan/wgan_gp", *_IMAGES, "network.width=16"),
        "classifier": ("experiment=classifier/lenet", *_IMAGES),
    },
}
# Largest ‖device - CPU‖ / ‖CPU‖ of what a step makes, in float32. `moments`: the optimiser's, so the gradient;
# `update`: what the parameters moved by, where Adam turns a gradient near 0 into a step of either sign.
TOLERANCE = {"metrics": 1e-4, "moments": 1e-3, "update": 2e-2, "rest": 1e-4}
# In bfloat16: as far as twice the CPU's own bfloat16 is from its float32 (each side may be once as far from exact), and
# at least so far.
FLOOR = {"metrics": 1e-2, "moments": 2e-2, "update": 5e-2, "rest": 1e-3}
COMPUTES = ("float32", "bfloat16")

Step = dict[str, list[np.ndarray]]  # what a step made, by the names of TOLERANCE


def main() -> None:
    given = children.arguments("updates on this device and on the CPU", *KINDS).parse_args()
    families = KINDS[given.kind]
    names = list(families)[: 1 if given.small else None]
    children.plan([f"{name} {compute}" for name in names for compute in COMPUTES])
    platform.cache()
    for name in names:
        exact: Step | None = None
        for compute in COMPUTES:
            try:
                found, exact = compared(families[name], compute, exact)
                children.tell(f"{name} {compute}", **found)
            except Exception as error:  # the next family may do
                children.failed(f"{name} {compute}", error)


def compared(overrides: Sequence[str], compute: str, exact: Step | None) -> tuple[dict[str, Any], Step]:
    """What was found, and what the CPU made; `exact` is what it made in float32."""
    run = described(*overrides, f"network.compute={compute}")
    cpu, device = jax.devices("cpu")[0], jax.devices()[0]
    rows = batch(run.source.spec)
    other = {"xla_backend_optimization_level": 0} if device.platform == "cpu" else None
    with jax.default_device(cpu), _precision(compute):
        state = started(run, rows)
        given = [laid(state, rows, place) for place in (cpu, device)]
        step = jax.jit(run.learner.step, donate_argnums=0)
        lowered = [step.lower(*each) for each in given]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            compiled = list(pool.map(lambda each, options: each.compile(options), lowered, (None, other)))
        (here, _), (there, facts) = (
            stepped(state, program, *each) for program, each in zip(compiled, given, strict=True)
        )
    differences = {name: distance(there[name], here[name]) for name in TOLERANCE}
    tolerance = dict(TOLERANCE)
    if compute == "bfloat16":
        noise = {name: distance(here[name], exact[name]) for name in TOLERANCE} if exact else {}
        tolerance = {name: max(FLOOR[name], 2 * noise.get(name, 0.0)) for name in TOLERANCE}
    return {
        "device": device.device_kind,
        "equal": all(differences[name] <= tolerance[name] for name in differences),
        "differences": differences,
        "tolerance": tolerance,
        **facts,
    }, here


def described(*overrides: str) -> build.Run:
    """The run's objects; games are closed again, since their shapes are all that is wanted."""
    settings = command_line.compose(*overrides, "tracker=none")
    if "envs" not in settings["source"]:
        return generative_parts.described(settings)
    run = build.run(settings)
    run.source.attach(run.learner)
    run.source.close()
    return run


def batch(spec: Any) -> Any:
    """Random bytes and numbers of these shapes (NumPy); labels are any of ten classes."""
    random = np.random.default_rng(0)
    if isinstance(spec, types.Images):
        label = random.integers(generative_parts.CLASSES, size=spec.label.shape, dtype=np.int32)
        return types.Images(image=random.integers(256, size=spec.image.shape, dtype=np.uint8), label=label)
    return jax.tree.map(lambda leaf: dqn_parts.noise(random, leaf.shape, leaf.dtype), spec)


def started(run: build.Run, rows: Any) -> Any:
    """The first state that can learn: with a memory that is warm."""
    learner, spec = run.learner, run.source.spec
    state = jax.jit(lambda key: learner.init(key, spec))(jax.random.key(0))
    absorb = jax.jit(learner.absorb) if learner.warmup(spec) else None
    for _ in range(learner.warmup(spec)):
        state = absorb(state, rows)  # pyright: ignore[reportOptionalCall]
    return state


def laid(state: Any, rows: Any, device: Any) -> tuple[Any, Any]:
    """Both on `device`; the state is a copy, since a step is given it to keep."""
    return jax.tree.map(lambda leaf: jax.device_put(jnp.copy(leaf), device), state), jax.device_put(rows, device)


def stepped(before: Any, program: jax.stages.Compiled, own: Any, rows: Any) -> tuple[Step, dict[str, Any]]:
    """One step from `own`, which equals `before`; and whether its arrays went over into the next state."""
    new, metrics = jax.block_until_ready(program(own, rows))
    memory, size = program.memory_analysis(), state_bytes(new)
    facts = {
        "donated": all(leaf.is_deleted() for leaf in jax.tree.leaves(own)),
        "state_bytes": size,
        "aliased_bytes": None if memory is None else memory.alias_size_in_bytes,
    }
    return parts(before, new, metrics), facts


def parts(before: Any, after: Any, metrics: Any) -> Step:
    """What a step made, as numbers."""
    numbers = lambda tree: [
        np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    moved = [new - old for new, old in zip(numbers(after.params), numbers(before.params), strict=True)]
    others = {name: value for name, value in vars(after).items() if name not in ("params", "opt_state")}
    return {
        "metrics": numbers(metrics),
        "moments": numbers(after.opt_state),
        "update": moved,
        "rest": numbers(others),
    }


def distance(found: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> float:
    """‖found - right‖ / ‖right‖ over all arrays together."""
    square = lambda arrays: sum(float(np.sum(np.square(array))) for array in arrays)
    apart = square([a - b for a, b in zip(found, right, strict=True)])
    return float(np.sqrt(apart / max(square(right), 1e-30))) if apart else 0.0


def _precision(compute: str) -> contextlib.AbstractContextManager:
    return jax.default_matmul_precision("highest") if compute == "float32" else contextlib.nullcontext()


def state_bytes(tree: Any) -> int:
    """Of all arrays but keys."""
    plain = [leaf for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    return programs.sizes(plain)[1]


if __name__ == "__main__":
    main()
