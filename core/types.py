"""The concepts that every learner, source and evaluator shares. Start reading here.

Shapes use one legend throughout the project: B batch, S shards, N environments, T time, K stacked
frames, A actions, H W C image, Z latent, D features.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import jax
import numpy as np
import optax

Params = dict[str, Any]  # nested, string keys only, arrays at the leaves
Metrics = dict[str, jax.Array]  # name -> [] float32, or an array where a histogram is meant
# What a network must know: {"observation": (4, 84, 84), "actions": 6} or {"image": (28, 28, 1), "classes": 10}
Sizes = Mapping[str, Any]

State = Any  # a TrainState, or a subclass with fields of its own
Batch = Any  # a pytree with a leading axis over `data`
View = Any  # a dict of pytrees, such as {"params": ...}


def check_seed(seed: int, *, count: int = 1) -> None:
    """Raises ValueError unless `seed` ... `seed + count - 1` lie in 0..2^32 - 1: a key is made from 32 bits."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed}: must lie in 0..{2**32 - 1}")
    if count > 2**32:
        raise ValueError(f"count={count}: must be at most {2**32}, for each takes a seed of its own")
    if seed + count > 2**32:
        raise ValueError(f"seed={seed}: must be at most {2**32 - count}, for {count:,} seeds from there on")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """Everything a learner knows that changes. Learners extend it by inheritance (fields only)."""

    step: jax.Array  # [] int32, learner steps so far
    key: jax.Array  # [] root key; per-step keys are fold_in(key, step)
    params: Params
    aux: Params  # arrays that no gradient moves; {} by default
    opt_state: optax.OptState
    diverged: jax.Array  # [] int32, the step whose loss or gradient was first not finite; -1 while healthy


class Learner(Protocol):
    """One pure function with its initial value. Implementations are frozen, hashable dataclasses."""

    def warmup(self, spec: Batch) -> int:
        """Learner steps that only take data in, before learning begins."""
        ...

    def init(self, key: jax.Array, spec: Batch) -> State:
        """The state at step 0; `spec` holds the (global) shapes and dtypes of a batch."""
        ...

    def absorb(self, state: State, batch: Batch) -> State:
        """Takes a batch in without learning; called instead of `step` during warm-up."""
        ...

    def step(self, state: State, batch: Batch) -> tuple[State, Metrics]:
        """The next state. Pure, jitted and donated by the loop."""
        ...

    def view(self, state: State) -> View:
        """What acting, sampling and evaluating need, as a dict (`params`, an EMA)."""
        ...


class Source(Protocol):
    """Host side, one a process: where batches come from."""

    spec: Batch  # of jax.ShapeDtypeStruct: the global shapes and dtypes of what one learner step takes
    sizes: Sizes
    unit: str  # "frames" or "images": what budgets, intervals and x-axes count
    data_axis: int  # the axis of `spec` that is laid over `data`
    dispatch: int  # learner steps in one call of the device: a batch has one more leading axis where it is above 1
    examples_per_step: int  # global count of them in one batch, all its learner steps together

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What training figures must be read with; kept in the run's `config.yaml`."""
        ...

    def attach(self, learner: Any) -> None:
        """Says who learns from the batches (an actor plays with it). Once, before the first batch."""
        ...

    def start(self, step: int, view: Callable[[], View]) -> None:
        """Begins batch number `step` and returns at once.

        `view()` copies what acting needs out of the state. It costs the gathering of all weights and only works before
        this call returns: a source that acts calls it here, any other does not call it.
        """
        ...

    def next(self) -> Batch:
        """Waits for the oldest batch that was started: this process's part, as NumPy arrays."""
        ...

    def metrics(self) -> Mapping[str, float]:
        """What happened since the last call: episode returns and the like."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, tree: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """A still picture for the tracker: uint8 [H, W, 3]."""

    pixels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Video:
    """Moving pictures for the tracker: uint8 [T, H, W, 3]."""

    frames: np.ndarray
    frames_per_second: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What an evaluator found. Scalars are named `eval/...`, media by one word or `eval/...`."""

    scalars: Mapping[str, float]
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    media: Mapping[str, Image | Video] = dataclasses.field(default_factory=dict)


class Evaluator(Protocol):
    """Judges a learner now and then. All processes call it in step; rank 0 writes the report.

    It calls `stop()` between device calls, each of which it keeps below two seconds: `stopping.Stopped` then ends the
    evaluation, and the resumed run makes it again. All processes call `stop()` equally often.
    """

    @property
    def every(self) -> int:
        """Frames or images between two evaluations."""
        ...

    def prepare(self, learner: Any) -> None:
        """Refuses, by a ValueError and before any training, a learner that it cannot judge."""
        ...

    def names(self, learner: Any, spec: Any) -> Collection[str]:
        """The names of the scalars that its reports may have; `spec` is that of the learner's batches."""
        ...

    def __call__(self, learner: Any, state: Any, key: jax.Array, *, stop: Callable[[], None]) -> Report: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollout:
    """What an actor hands to any agent: T steps of N environments in each of S shards.

    Games end as gymnasium's NEXT_STEP says: at an end `observation[t+1]` is the true last frame, its
    row has `valid=False` (the action there is ignored and only resets the game), and `first[t+2]` opens
    the next game. A lost life may be `terminal` although the game goes on.
    """

    observation: Any  # [S, T, N, *frame] the newest frame only, before the action
    action: Any  # [S, T, N] int32
    reward: Any  # [S, T, N] float32, raw
    terminal: Any  # [S, T, N] bool, nothing is worth anything after this action
    truncated: Any  # [S, T, N] bool, the episode was cut after this action: bootstrap
    first: Any  # [S, T, N] bool, `observation` opens a game: older frames are blank
    valid: Any  # [S, T, N] bool, False: a reset step, not to be learned from
    context: Any  # [S, K-1, N, *frame] the frames before t = 0, blank where the game had not begun
    tail: Any  # [S, N, *frame] the frame after step T-1
    extras: Any  # what `act` returned, with leading axes [S, T, N]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """What a dataset hands to any model of images.

    A GAN's batch has one axis more in front, [n, B, ...]: n updates of its discriminator to one of its generator.
    """

    image: Any  # [B, H, W, C] uint8
    label: Any  # [B] int32 in 0..classes-1; 0 where the data has no classes
