"""Where arrays live: a mesh, placement rules over parameter paths, and global batches from local parts."""

import dataclasses
import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from core import ranges, watchdog

Rules = tuple[tuple[str, tuple[str | None, ...] | str], ...]

AXES = ("data", "model")
REPLAY_OVER_DATA: Rules = ((r"^replay/", ("data",)),)
SMALL = 1024  # elements: what is smaller stays whole where a rule leaves the choice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """A mesh of `data` x `model` devices and the rules that lay a state over it.

    `rules` are (pattern, axes) pairs: the first pattern found in a leaf's path ("params/torso/conv1/kernel") gives
    the mesh axes of its leading dimensions, or one mesh axis ("data"), over which its largest dimension that divides is
    laid. What no rule names is replicated, and so is every scalar.
    """

    data: ranges.PositiveInt | None = None  # devices along `data`; all that remain by default
    model: ranges.PositiveInt = 1
    rules: Rules = REPLAY_OVER_DATA

    def __post_init__(self):
        ranges.check(self)
        for pattern, axes in self.rules:
            if unknown := [axis for axis in ([axes] if isinstance(axes, str) else axes) if axis not in (*AXES, None)]:
                raise ValueError(f"rules: axis {unknown[0]!r} of {pattern} is none of {', '.join(AXES)}")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"rules: {pattern} is no regular expression: {error}") from error

    def planned(self, devices: int) -> AbstractMesh:
        """The mesh over so many devices, none of which has to be here. Raises ValueError where they do not fill it."""
        data = self.data or devices // self.model
        if data * self.model > devices or data < 1:
            problem = f"data={self.data or 'null'} x model={self.model} needs more than the {devices} devices here"
            raise ValueError(f"mesh: {problem}; take mesh.model={min(self.model, devices)} mesh.data=null, or fewer")
        return AbstractMesh((data, self.model), AXES, axis_types=(AxisType.Auto,) * 2)

    def mesh(self) -> jax.sharding.Mesh:
        """Raises: ValueError where the devices at hand do not fill the mesh."""
        devices = jax.devices()
        planned = self.planned(len(devices))
        used = devices[: planned.size]
        if len({device.process_index for device in used}) < jax.process_count():
            raise ValueError(
                f"mesh: data={planned.shape['data']} x model={self.model} leaves some of the {jax.process_count()} "
                f"processes without a device; take all {len(devices)} devices (mesh.data=null) or fewer processes"
            )
        return jax.make_mesh(planned.axis_sizes, AXES, axis_types=planned.axis_types, devices=used)

    def shardings(self, abstract: Any, mesh: jax.sharding.Mesh | AbstractMesh) -> Any:
        """A NamedSharding for each leaf of `abstract`, a tree of shapes."""

        def place(path: Any, leaf: Any) -> NamedSharding:
            name = "/".join(_part(entry) for entry in path)
            axes = next((axes for pattern, axes in self.rules if re.search(pattern, name)), ())
            axes = _largest(leaf, axes, mesh.shape[axes]) if isinstance(axes, str) else axes[: leaf.ndim]
            for size, axis in zip(leaf.shape, axes, strict=False):
                if axis is not None and size % mesh.shape[axis]:
                    raise ValueError(
                        f"{name}: {size} rows do not divide over the {mesh.shape[axis]} devices of mesh axis '{axis}'; "
                        "for replay set source.shards and learner.replay.shards to a multiple"
                    )
            return NamedSharding(mesh, P(*axes))

        return jax.tree_util.tree_map_with_path(place, abstract)


def globalize(batch: Any, mesh: jax.sharding.Mesh, *, axis: int = 0) -> Any:
    """This process's part of a batch (NumPy, `axis` over `data`) as global arrays: one host and many alike."""
    sharding = NamedSharding(mesh, P(*[None] * axis, "data"))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)


def check_batch(spec: Any, mesh: jax.sharding.Mesh | AbstractMesh, *, axis: int) -> None:
    """Raises: ValueError, with the next sizes that do, where `axis` of a batch does not divide over `data`."""
    devices, size = mesh.shape["data"], jax.tree.leaves(spec)[0].shape[axis]
    if size % devices:
        below, above = size // devices * devices, -(-size // devices) * devices
        sizes = f"{below} or {above}" if below else str(above)
        raise ValueError(
            f"source: the {size} rows of a batch do not divide over the {devices} devices of mesh axis 'data'; take "
            f"{sizes} (source.batch of images, source.shards of an actor), or other mesh.data"
        )


def localize(tree: Any) -> Any:
    """Global arrays, whole, as this process's own on its first device. All processes have to call it."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), _whole(tree))


def replicate(tree: Any) -> Any:
    """Arrays, whole, as this process's own on each of its devices: for `spread` rows. All processes have to call it."""
    everywhere = NamedSharding(local(), P())

    def own(leaf: jax.Array) -> jax.Array:
        if len(leaf.sharding.device_set) == 1:  # of a run that was read onto one device
            return jax.device_put(leaf, everywhere)
        parts = {part.device: part.data for part in leaf.addressable_shards}
        if parts.keys() != set(jax.local_devices()):  # a mesh that leaves some devices out
            return jax.device_put(leaf.addressable_data(0), everywhere)
        return jax.make_array_from_single_device_arrays(
            leaf.shape, everywhere, [parts[device] for device in jax.local_devices()]
        )

    return jax.tree.map(own, _whole(tree))


def spread(rows: Any) -> Any:
    """NumPy arrays with their leading axis laid over this process's devices; as they are where it does not divide."""
    if jax.tree.leaves(rows)[0].shape[0] % local().size:
        return rows
    return jax.device_put(rows, NamedSharding(local(), P("data")))


@functools.cache
def local() -> jax.sharding.Mesh:
    """This process's own devices, along `data`."""
    return jax.make_mesh(
        (jax.local_device_count(),), ("data",), axis_types=(AxisType.Auto,), devices=jax.local_devices()
    )


def _whole(tree: Any) -> Any:
    """Every array on all devices of its mesh."""
    laid = [leaf for leaf in jax.tree.leaves(tree) if not leaf.is_fully_replicated]
    if not laid:
        return tree
    watchdog.passed()
    over: Any = laid[0].sharding
    return _gathering(over.mesh)(tree)


@functools.cache
def _gathering(devices: jax.sharding.Mesh) -> Any:
    """One function a mesh, which compiles once for each tree of shapes."""

    def whole(tree: Any) -> Any:
        return tree

    return jax.jit(whole, out_shardings=NamedSharding(devices, P()))


def check_memory(abstract: Any, shardings: Any, *, hint: str) -> int:
    """Bytes of state on the fullest device.

    Raises:
      ValueError: they exceed what a device has; `hint` names the settings that change them.
    """
    need, free = state_bytes(abstract, shardings), _free_bytes()
    if need > free:
        raise ValueError(
            f"memory: the state needs {need / 1e9:.2f} GB on a device that has {free / 1e9:.2f} GB free: {hint}"
        )
    return need


def state_bytes(abstract: Any, shardings: Any) -> int:
    """On the fullest device."""
    return sum(jax.tree.leaves(jax.tree.map(_bytes_on_device, abstract, shardings)))


def _bytes_on_device(leaf: Any, sharding: NamedSharding) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 16
    return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _free_bytes() -> int:
    device = jax.local_devices()[0]
    if device.platform == "cpu":  # all simulated devices share the host's memory
        return psutil.virtual_memory().available // jax.local_device_count()
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit", 1 << 62) - stats.get("bytes_in_use", 0)


def _largest(leaf: Any, axis: str, devices: int) -> tuple[str | None, ...]:
    """The largest dimension that divides, over `axis`; none of a small array, or where none divides."""
    sizes = [size if size % devices == 0 else 0 for size in leaf.shape]
    if math.prod(leaf.shape) < SMALL or not any(sizes):
        return ()
    return (*[None] * sizes.index(max(sizes)), axis)


def _part(entry: Any) -> str:
    return str(getattr(entry, "name", getattr(entry, "key", getattr(entry, "idx", entry))))
