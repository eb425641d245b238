"""A checkpoint moves between numbers of devices: the files know shards, not devices."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from core.checkpoints import checkpoint


def make(value: int) -> dict[str, Any]:
    return {
        "key": jax.random.key(value),
        "params": {"kernel": jnp.arange(32.0).reshape(8, 4) + value, "bias": jnp.full(4, value, jnp.bfloat16)},
        "replay": {"frames": jnp.arange(8 * 50, dtype=jnp.int32).reshape(8, 50, 1) + value, "head": jnp.int32(value)},
    }


def restore(folder: pathlib.Path, value: int, spread: Any, whole: Any) -> Any:
    """Step `value` laid out with `spread` (replay and kernel) and `whole` (the rest), and checked."""
    split = lambda x: spread if x.shape[:1] == (8,) else whole
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split(x)), make(0))
    restored = checkpoint.Checkpoints(folder).restore(wanted)
    assert restored is not None
    assert (restored.step, restored.replay_restored) == (value, True)
    for leaf, spec in zip(jax.tree.leaves(restored.state), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding == spec.sharding
    plain = lambda tree: jax.tree.map(np.asarray, tree | {"key": jax.random.key_data(tree["key"])})
    jax.tree.map(np.testing.assert_array_equal, plain(restored.state), plain(make(value)))
    return restored.state


def test_from_one_device_to_eight_and_back(tmp_path):
    checkpoint.Checkpoints(tmp_path).save(1, make(1), None, extra={})
    env = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    restore(tmp_path, 2, one, one)


def _on_eight_devices(folder: pathlib.Path) -> None:
    """Goes on from step 1, spread over eight devices, and saves step 2 from there."""
    assert jax.device_count() == 8
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    place = lambda *axes: jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
    restore(folder, 1, place("data"), place())
    state = jax.device_put(make(2), jax.tree.map(lambda x: place("data") if x.shape[:1] == (8,) else place(), make(2)))
    checkpoints = checkpoint.Checkpoints(folder)
    checkpoints.save(2, state, None, extra={})
    restore(folder, 2, place("data"), place())


if __name__ == "__main__":
    _on_eight_devices(pathlib.Path(sys.argv[1]))
