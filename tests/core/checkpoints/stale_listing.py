"""Run by test_processes.py in each of two processes: the second one sees folders as they were some time ago."""

import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from core import distributed, mesh, types
from core.checkpoints import checkpoint, files, folders


def state(step: int) -> types.TrainState:
    everywhere = NamedSharding(mesh.Placement().mesh(), PartitionSpec())

    def make() -> types.TrainState:
        return types.TrainState(
            step=jnp.int32(step),
            key=jax.random.key(0),
            params={f"layer{i}": jnp.full((64, 64), float(step + i)) for i in range(4)},
            aux={},
            opt_state=(),
            diverged=jnp.int32(-1),
        )

    return jax.jit(make, out_shardings=everywhere)()


def main() -> None:
    folder, second = Path(sys.argv[1]), jax.process_index() == 1
    listed = folders.numbered
    open_ = lambda: checkpoint.Checkpoints(folder, keep=3, metric="eval/score", log=lambda line: None)
    checkpoints = open_()
    for step in (1, 2):
        checkpoints.save(step, state(step), {"step": step}, extra={"step": step})
        assert checkpoints.best(float(step), step, state(step))
    if second:
        folders.numbered = lambda folder: listed(folder)[:1]  # a network's file system may show what was
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0))

    again = open_()
    read: list[str] = []
    check = files._check_file
    files._check_file = lambda folder, manifest, name: (read.append(name), check(folder, manifest, name))
    restored = again.restore(abstract)
    assert restored is not None and (restored.step, int(restored.state.params["layer1"][0, 0])) == (2, 3)
    assert restored.source == {"step": 2}
    # Each has checked its own source and a share of what both need.
    assert [name for name in read if name.startswith("source/")] == [f"source/{jax.process_index()}.npz"]
    shares = distributed.gather([name for name in read if name.startswith("state/")])
    assert not set(shares[0]) & set(shares[1]) and all(shares)
    held = files.read_manifest(restored.path).files
    assert set(shares[0]) | set(shares[1]) == {name for name in held if name.startswith("state/")}

    assert again.best(1.5, 3, state(3)) is None  # 2 was better, which the second does not see
    assert again.best(3.0, 3, state(3))
    assert again.save(3, state(3), {"step": 3}, extra={}).step == 3
    assert checkpoint.load(folder, {"step": jax.ShapeDtypeStruct((), np.int32)}).step == 3
    # A damaged file is found by whoever checks it, and all go back to the checkpoint before.
    if not second:
        files_of_3 = (file for file in (folder / f"{3:012d}" / "state").rglob("*") if file.is_file())
        broken = max(files_of_3, key=lambda file: file.stat().st_size)
        broken.write_bytes(b"x" * broken.stat().st_size)
    distributed.gather(None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        back = open_().restore(abstract)
    assert back is not None and back.step == 2 and "does not match its checksum" in str(caught[0].message)
    # The best one, of step 3, lay ahead of where the run goes on.
    assert distributed.decided(lambda: [path.name for path in listed(folder / "best")]) == []


if __name__ == "__main__":
    distributed.start()
    with distributed.ending_together(refusal=checkpoint.CheckpointError):
        main()
