"""A replay goes to disk and back in pieces, without a second copy and without a view that outlives it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.checkpoints import replay_files


def _abstract(leaves):
    return {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for path, leaf in leaves.items()}


@pytest.mark.parametrize("piece", [7, 300])
@pytest.mark.parametrize("shape", [(), (3,), (2, 7), (2, 5, 3, 4), (1, 1, 300), (2, 0, 3)])
def test_every_element_comes_back_whatever_the_pieces(tmp_path, monkeypatch, shape, piece):
    monkeypatch.setattr(replay_files, "PIECE", piece)
    values = np.random.default_rng(0).integers(0, 255, shape)
    leaves = {f"replay/{dtype}": jnp.asarray(values, dtype) for dtype in ("uint8", "bfloat16")}
    sums = replay_files.write(tmp_path, leaves)
    back, found = replay_files.read(tmp_path, _abstract(leaves))
    assert found == sums
    for path, leaf in leaves.items():
        assert back[path].dtype == leaf.dtype
        np.testing.assert_array_equal(back[path], leaf)


@pytest.mark.parametrize("shape", [(2, 1000, 84, 84), (4, 3, 8_000_000), (1, 20_000_000)])
def test_pieces_are_small_and_cover_the_array_in_order(shape):
    pieces = [piece for row in range(shape[0]) for piece in replay_files._pieces(shape, 1, row)]
    sizes = [int(np.prod(size)) for _, size in pieces]
    assert max(sizes) <= replay_files.PIECE
    offsets = [int(np.ravel_multi_index(start, shape)) for start, _ in pieces]
    assert offsets == [0, *np.cumsum(sizes)[:-1]]
    assert sum(sizes) == np.prod(shape)


def test_a_file_that_ends_early_is_an_error(tmp_path):
    leaves = {"replay/frames": jax.random.bits(jax.random.key(0), (1, 1000), jnp.uint8)}
    sums = replay_files.write(tmp_path, leaves)
    path = tmp_path / "0-0/replay.frames"
    whole = path.read_bytes()
    ends = [whole[:size] for size in (0, 3, 500, len(whole) - 1)]
    flips = [whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(0, len(whole), 50)]
    told = set()
    for content in (*ends, *flips, whole + b"more"):
        path.write_bytes(content)
        try:
            assert replay_files.read(tmp_path, _abstract(leaves))[1] != sums  # which the caller compares
        except OSError as error:
            told.add(str(error).removeprefix(f"{path} ").split(" after")[0].split(":")[0])
    assert told == {"ends", "is damaged"}


def test_frames_that_repeat_a_row_apart_take_little_room(tmp_path):
    """64 games whose screens move a little from row to row: a row is 450 KB, and what repeats lies that far back."""
    screens = np.random.default_rng(0).integers(0, 256, (64, 84, 84), dtype=np.uint8)
    ring = np.stack([np.roll(screens, t, axis=1) for t in range(8)])
    sums = replay_files.write(tmp_path, {"replay/frames": jnp.asarray(ring[None])})
    assert sums["0-0/replay.frames"][0] < 1.2 * screens.size


def test_donation_stays_in_place_after_a_write_and_after_a_read(tmp_path):
    add = jax.jit(lambda ring, row: jax.lax.dynamic_update_slice(ring, row, (0, 3, 0)), donate_argnums=0)
    ring, row = jnp.zeros((1, 4096, 1024), jnp.uint8), jnp.ones((1, 1, 1024), jnp.uint8)
    ring = add(ring, row)
    for _ in range(2):
        where = ring.unsafe_buffer_pointer()
        replay_files.write(tmp_path, {"replay": ring})
        ring = add(ring, row)
        assert ring.unsafe_buffer_pointer() == where
        ring = replay_files.read(tmp_path, _abstract({"replay": ring}))[0]["replay"]
        where = ring.unsafe_buffer_pointer()
        ring = add(ring, row)
        assert ring.unsafe_buffer_pointer() == where
