"""Checkpoints: whole or not there, checked when read, the newest few and the best kept."""

import dataclasses
import errno
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core import types
from core.checkpoints import checkpoint, files, folders, replay_files


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class State(types.TrainState):
    target_params: types.Params
    replay: Any


def make(value: float, *, width: int = 4, capacity: int = 50, shards: int = 2) -> State:
    params = {"torso": {"kernel": jnp.full((8, width), value), "bias": jnp.full(width, value, jnp.bfloat16)}}
    return State(
        step=jnp.int32(value),
        key=jax.random.key(int(value)),
        params=params,
        aux={},
        opt_state=optax.adam(1e-3).init(params),
        diverged=jnp.int32(-1),
        target_params={"nothing": jnp.zeros((0, 3))},
        replay={
            "frames": jnp.full((shards, capacity, 6), value, jnp.uint8),
            "priority": jnp.full((shards, capacity), value),
            "head": jnp.int32(value),
        },
    )


def abstract(state: Any) -> Any:
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    return jax.tree.map(place, state)


def assert_same(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def open_(folder: pathlib.Path, **settings: Any) -> checkpoint.Checkpoints:
    return checkpoint.Checkpoints(folder, **{"log": lambda line: None, **settings})


def save(folder: pathlib.Path, *steps: int, **settings: Any) -> checkpoint.Saved:
    checkpoints = open_(folder, **settings)
    return [checkpoints.save(step, make(step), {"batch": np.full(3, step)}, extra={"step": step}) for step in steps][-1]


def test_everything_comes_back(tmp_path):
    lines = []
    saved = save(tmp_path, 5, log=lines.append)
    assert saved.bytes == sum(
        f.stat().st_size for f in saved.path.rglob("*") if f.name != "manifest.json" and f.is_file()
    )
    assert saved.replay_bytes == sum(file.stat().st_size for file in (saved.path / "replay").rglob("*.*"))
    assert "MB in" in lines[0]
    assert "2 are kept" in lines[0]
    restored = open_(tmp_path).restore(abstract(make(0)))
    assert restored is not None
    assert_same(restored.state, make(5))
    np.testing.assert_array_equal(restored.source["batch"], [5, 5, 5])
    assert (restored.step, restored.extra, restored.replay_restored, restored.path) == (
        5,
        {"step": 5},
        True,
        saved.path,
    )


def test_an_empty_folder_restores_nothing(tmp_path):
    assert open_(tmp_path / "checkpoints").restore(abstract(make(0))) is None
    assert checkpoint.complete(tmp_path / "none") == []


def test_a_donated_update_stays_in_place_after_save_and_after_restore(tmp_path):
    update = jax.jit(lambda s: jax.tree.map(lambda x: x if x.dtype == s.key.dtype else x + 1, s), donate_argnums=0)
    address = lambda s: s.replay["frames"].unsafe_buffer_pointer()  # Orbax may lend its own memory to small arrays
    state = dataclasses.replace(update(make(1, width=512, capacity=4000)), diverged=jnp.int32(-1))
    open_(tmp_path).save(1, state, None, extra={})
    before = address(state)
    state = update(state)
    assert address(state) == before
    restored = open_(tmp_path).restore(abstract(state))
    assert restored is not None
    before = address(restored.state)
    assert address(update(restored.state)) == before


def test_the_newest_few_are_kept_and_leftovers_go(tmp_path):
    save(tmp_path, 1, 2, 3, keep=2)
    assert [path.name[-1] for path in checkpoint.complete(tmp_path)] == ["2", "3"]
    (tmp_path / "tmp-000000000004").mkdir()
    (tmp_path / "best" / "tmp-000000000001").mkdir(parents=True, exist_ok=True)
    with pytest.raises(checkpoint.Mismatch):
        open_(tmp_path).restore(abstract(make(0, width=8)))
    assert len([*tmp_path.rglob("tmp-*")]) == 2  # a run that is refused changes nothing
    open_(tmp_path).restore(abstract(make(0)))
    assert not [*tmp_path.rglob("tmp-*")]


@pytest.mark.parametrize("what", ["state", "best"])
def test_the_folder_of_a_run_that_was_deleted_is_not_made_again(tmp_path, what):
    checkpoints = open_(tmp_path / "run" / "checkpoints")
    (tmp_path / "run").mkdir()
    checkpoints.save(1, make(1), None, extra={})
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(checkpoint.CheckpointError, match="run is gone: nothing can be saved there any more"):
        checkpoints.save(2, make(2), None, extra={}) if what == "state" else checkpoints.best(1.0, 2, make(2))
    assert not (tmp_path / "run").exists()


def test_a_step_is_saved_once_and_never_behind_a_newer_one(tmp_path):
    first = save(tmp_path, 7)
    checkpoints = open_(tmp_path)
    with pytest.raises(
        checkpoint.CheckpointError, match=r"step 7 beside the newer checkpoint of step 7; go on from it"
    ):
        checkpoints.save(7, make(7), None, extra={})
    checkpoints.restore(abstract(make(0)))
    assert checkpoints.save(7, make(7), None, extra={}).path == first.path
    with pytest.raises(checkpoint.CheckpointError, match="step 6 beside the newer"):
        checkpoints.save(6, make(6), None, extra={})


def _files(folder: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _save_two(folder: pathlib.Path) -> pathlib.Path:
    checkpoints = open_(folder)
    return [checkpoints.save(step, make(step, shards=1), {"n": step}, extra={}).path for step in (1, 2)][-1]


def test_a_flipped_bit_in_any_file_is_named_and_the_checkpoint_before_is_used(tmp_path):
    names = _files(_save_two(tmp_path / "whole"))
    assert {name.split("/")[0] for name in names} == {"state", "replay", "source", "manifest.json"}
    for name in names:
        run = shutil.copytree(tmp_path / "whole", tmp_path / "run")
        file = run / "000000000002" / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1 << (len(content) % 8)
        file.write_bytes(content)
        with pytest.warns(UserWarning, match="000000000002: .*" + ("manifest" if name == "manifest.json" else name)):
            restored = open_(run).restore(abstract(make(0, shards=1)))
        assert restored is not None
        assert (restored.step, restored.source) == (1, {"n": 1})
        assert_same(restored.state, make(1, shards=1))
        shutil.rmtree(run)


@pytest.mark.parametrize("damage", ["truncate", "empty", "delete"])
def test_a_file_that_is_cut_short_or_gone_makes_a_checkpoint_incomplete(tmp_path, damage):
    newest = _save_two(tmp_path)
    for name in _files(newest):
        content = (newest / name).read_bytes()
        (newest / name).unlink()
        if damage != "delete":
            (newest / name).write_bytes(content[:-1] if damage == "truncate" else b"")
        assert checkpoint.complete(tmp_path) == [tmp_path / "000000000001"], name
        (newest / name).write_bytes(content)
    assert len(checkpoint.complete(tmp_path)) == 2


def test_a_damaged_checkpoint_makes_way_for_a_new_one_of_its_step(tmp_path):
    (_save_two(tmp_path) / "replay/0-0/replay.frames").unlink()
    checkpoints = open_(tmp_path)
    with pytest.warns(UserWarning, match=r"replay\.frames has vanished"):
        checkpoints.restore(abstract(make(0, shards=1)))
    checkpoints.save(2, make(2, shards=1), None, extra={})
    restored = open_(tmp_path).restore(abstract(make(0, shards=1)))
    assert restored is not None
    assert restored.step == 2


def test_every_byte_of_the_manifest_counts(tmp_path):
    file = save(tmp_path, 1).path / "manifest.json"
    content = file.read_bytes()
    for at in range(0, len(content), 7):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert checkpoint.complete(tmp_path) == [], at
    file.write_bytes(content)
    assert len(checkpoint.complete(tmp_path)) == 1


def test_when_all_are_damaged_a_run_does_not_start_anew_unasked(tmp_path):
    (save(tmp_path, 1).path / "manifest.json").unlink()
    for _ in range(2):
        with (
            pytest.warns(UserWarning, match="damaged"),
            pytest.raises(checkpoint.CheckpointError, match="all 1 checkpoints are damaged"),
        ):
            open_(tmp_path).restore(abstract(make(0)))


def test_nothing_that_is_not_finite_is_saved(tmp_path):
    save(tmp_path, 1)
    checkpoints, state = open_(tmp_path), make(2)
    bad = [
        (dataclasses.replace(state, diverged=jnp.int32(2)), r"not finite at step 2; .*000000000001"),
        (dataclasses.replace(state, params={"w": jnp.array([1.0, jnp.inf])}), "params/w is not finite"),
        (dataclasses.replace(state, opt_state={"nu": jnp.array(jnp.nan)}), "opt_state/nu is not finite"),
    ]
    for state, message in bad:
        with pytest.raises(checkpoint.NotFinite, match=message):
            checkpoints.save(2, state, None, extra={})
        with pytest.raises(checkpoint.NotFinite, match=message):
            checkpoints.best(9.0, 2, state)
    assert [path.name[-1] for path in checkpoint.complete(tmp_path)] == ["1"]
    plateau = dataclasses.replace(make(2), opt_state={"best": jnp.array(jnp.inf)})
    checkpoints.save(2, plateau, None, extra={})


def test_the_best_is_kept_beside_the_latest_over_resumes(tmp_path):
    checkpoints = open_(tmp_path, metric="eval/fid", better="lower")
    assert checkpoints.best(30.0, 1, make(1)) is not None
    assert checkpoints.best(40.0, 2, make(2)) is None
    assert checkpoints.best(float("nan"), 2, make(2)) is None
    checkpoints = open_(tmp_path, metric="eval/fid", better="lower")
    assert checkpoints.best(30.0, 3, make(3)) is None
    assert checkpoints.best(20.0, 1, make(7)) is not None  # the same step again, after a resume
    loaded = checkpoint.load(tmp_path, abstract({"params": make(0).params}), which="best")
    assert (loaded.step, loaded.extra) == (1, {"metric": "eval/fid", "value": 20.0})
    assert_same(loaded.tree, {"params": make(7).params})
    assert len([*(tmp_path / "best").iterdir()]) == 1
    assert not [name for name in _files(loaded.path) if name.startswith("replay/")]
    assert open_(tmp_path, metric="eval/other").best_value() is None


def test_the_replay_is_a_choice(tmp_path):
    lines = []
    saved = save(tmp_path, 3, replay=False, log=lines.append)
    assert saved.replay_bytes == 0
    assert "checkpoint.replay=true" in lines[0]
    restored = open_(tmp_path).restore(abstract(make(0)))
    assert restored is not None
    assert not restored.replay_restored
    assert restored.state.replay is None
    restored = open_(tmp_path).restore(abstract(make(0)), replay=lambda: make(9).replay)
    assert restored is not None
    assert_same(restored.state, dataclasses.replace(make(3), replay=make(9).replay))
    bare = dataclasses.replace(make(4), replay=None)
    open_(tmp_path).save(4, bare, None, extra={})
    restored = open_(tmp_path).restore(abstract(bare))
    assert restored is not None
    assert restored.replay_restored


def save_mixed(folder: pathlib.Path) -> None:
    """Step 1 has its replay as the first, 3 as asked, the others have none."""
    checkpoints = open_(folder)
    for step in range(1, 7):
        checkpoints.save(step, make(step), {"n": step}, extra={}, replay=step == 3)


def held(folder: pathlib.Path) -> list[int]:
    return [int(path.name) for path in checkpoint.complete(folder)]


def test_a_run_goes_on_from_the_newest_checkpoint_with_its_replay_which_cleaning_up_keeps(tmp_path):
    save_mixed(tmp_path)
    assert held(tmp_path) == [1, 3, 5, 6]
    assert checkpoint.load(tmp_path, {"step": jnp.int32(0)}).step == 6  # evaluations take the newest
    lines = []
    checkpoints = open_(tmp_path, log=lines.append)
    restored = checkpoints.restore(abstract(make(0)))
    assert restored is not None
    assert (restored.step, restored.source, restored.replay_restored) == (3, {"n": 3}, True)
    assert_same(restored.state, make(3))
    assert lines == [
        "goes on from the checkpoint of step 3, the newest with its replay; the 3 steps up to that of step 6, which "
        "has none, are made again"
    ]
    assert held(tmp_path) == [1, 3, 5, 6]  # a run that ends before it saves has lost none
    checkpoints.save(4, make(4), None, extra={}, replay=False)
    assert held(tmp_path) == [1, 3, 4]


def test_where_the_replay_is_not_wanted_a_run_goes_on_from_the_newest(tmp_path):
    save_mixed(tmp_path)
    lines = []
    restored = open_(tmp_path, replay=False, log=lines.append).restore(abstract(make(0)), replay=lambda: make(9).replay)
    assert restored is not None
    assert_same(restored.state, dataclasses.replace(make(6), replay=make(9).replay))
    assert "step 6, the newest; its replay is filled anew, as checkpoint.replay=false says" in lines[0]
    for path in checkpoint.complete(tmp_path)[:2]:
        (path / "manifest.json").unlink()
    lines.clear()  # those with a replay are damaged
    with pytest.warns(UserWarning, match="damaged"):
        restored = open_(tmp_path, log=lines.append).restore(abstract(make(0)))
    assert restored is not None and restored.step == 6
    assert "whole; its replay is filled anew, since it was saved without one that this version reads" in lines[0]


def test_a_run_that_saved_no_replay_for_a_while_goes_on_from_its_newest_checkpoint(tmp_path):
    open_(tmp_path).save(1, make(1), None, extra={})
    lean = open_(tmp_path, replay=False)
    assert lean.restore(abstract(make(0))) is not None
    assert lean.save(2, make(2), None, extra={}).resumable
    again = open_(tmp_path)
    restored = again.restore(abstract(make(0)), replay=lambda: make(9).replay)
    assert restored is not None and (restored.step, restored.replay_restored) == (2, False)
    assert again.save(3, make(3), None, extra={}, replay=False).replay_bytes > 0  # at once: step 1's is no way back
    restored = open_(tmp_path).restore(abstract(make(0)))
    assert restored is not None and (restored.step, restored.replay_restored) == (3, True)


def test_without_a_replay_in_the_state_a_damaged_checkpoint_is_set_aside(tmp_path):
    bare = lambda value: dataclasses.replace(make(value), replay=None)
    checkpoints = open_(tmp_path)
    for step in (1, 2):
        assert checkpoints.save(step, bare(step), None, extra={}, replay=False).resumable
    file = next(file for file in (tmp_path / "000000000002" / "state").rglob("*") if file.stat().st_size > 100)
    file.write_bytes(b"x" * file.stat().st_size)
    lines = []
    with pytest.warns(UserWarning, match="damaged"):
        restored = open_(tmp_path, log=lines.append).restore(abstract(bare(0)))
    assert restored is not None and restored.step == 1
    assert lines == ["goes on from the checkpoint of step 1, the newest that is whole"]


def test_a_newer_version_beside_an_older_one_with_its_replay_is_refused(tmp_path, monkeypatch):
    checkpoints = open_(tmp_path)
    checkpoints.save(1, make(1), None, extra={})
    with monkeypatch.context() as patch:
        patch.setattr(files, "SCHEMA", files.SCHEMA + 1)
        checkpoints.save(2, make(2), None, extra={})
    with pytest.raises(checkpoint.SchemaError):
        open_(tmp_path).restore(abstract(make(0)))
    assert held(tmp_path) == [1, 2]


def test_a_kill_while_a_checkpoint_is_replaced_loses_nothing(tmp_path):
    checkpoints = open_(tmp_path, keep=1, replay=False)
    checkpoints.save(1, make(1), None, extra={})
    (tmp_path / "000000000001").rename(tmp_path / f"{folders.REPLACED}000000000001")  # as the kill leaves it
    restored = open_(tmp_path).restore(abstract(make(0)))
    assert restored is not None and restored.step == 1


def test_wandb_hears_of_checkpoints_only_that_a_killed_run_goes_on_from(tmp_path):
    checkpoints = open_(tmp_path)
    saved = [checkpoints.save(n, make(n), None, extra={}, replay=n != 2) for n in (1, 2, 3)]
    assert [each.resumable for each in saved] == [True, False, True]


def test_saving_a_step_again_brings_the_replay_that_the_first_left_out(tmp_path):
    checkpoints = open_(tmp_path)
    checkpoints.save(1, make(1), None, extra={})
    assert checkpoints.save(2, make(2), {"n": 2}, extra={}, replay=False).replay_bytes == 0
    assert checkpoints.save(2, make(2), {"n": 2}, extra={"again": True}).replay_bytes > 0
    assert checkpoints.save(2, make(2), {"n": 2}, extra={}, replay=False).replay_bytes > 0
    restored = open_(tmp_path).restore(abstract(make(0)))
    assert restored is not None
    assert_same(restored.state, make(2))
    assert not [*tmp_path.glob("tmp-*")]


def test_another_network_or_replay_gives_one_short_error(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(checkpoint.Mismatch, match=r"params/torso/bias is bfloat16\[4\] .* and bfloat16\[5\]"):
        open_(tmp_path).restore(abstract(make(0, width=5)))
    with pytest.raises(checkpoint.Mismatch, match=r"replay/frames is uint8\[2,50,6\] .* and uint8\[2,60,6\]"):
        open_(tmp_path).restore(abstract(make(0, capacity=60)))
    more = dataclasses.replace(make(0), aux={"u": jnp.ones(2)})
    with pytest.raises(checkpoint.Mismatch, match=r"aux/u is absent in the checkpoint and float32\[2\] in this run"):
        open_(tmp_path).restore(abstract(more))
    fewer = dataclasses.replace(make(0), target_params={})
    with pytest.raises(checkpoint.Mismatch, match=r"target_params/nothing is float32\[0,3\] .* and absent"):
        open_(tmp_path).restore(abstract(fewer))


def test_a_full_disk_is_foreseen_and_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    checkpoints = open_(tmp_path)
    checkpoints.save(1, make(1), None, extra={})
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
        with pytest.raises(
            checkpoint.CheckpointError,
            match=r"needs 0\.17 MB \(replay: 0\.17 MB\) and .* has 0\.10 MB free: .*checkpoint\.replay=false",
        ):
            checkpoints.save(2, make(2, capacity=20_000), None, extra={})
        lean = open_(tmp_path, replay=False)
        lean.save(2, make(2, capacity=20_000), None, extra={})

    def full(folder, leaves):
        folder.mkdir()
        (folder / "half").write_bytes(b"1")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(replay_files, "write", full)
        with pytest.raises(
            checkpoint.CheckpointError, match=r"No space left on device.*earlier checkpoints are untouched"
        ):
            checkpoints.save(3, make(3), None, extra={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000001", "000000000002"]
    restored = lean.restore(abstract(make(0)))
    assert restored is not None
    assert restored.step == 2


def test_an_older_schema_is_migrated_where_there_is_a_way_and_refused_where_not(tmp_path, monkeypatch):
    save(tmp_path, 1)
    wanted = dataclasses.replace(abstract(make(0)), aux={"scale": jax.ShapeDtypeStruct((8, 4), jnp.float32)})
    wanted.params["torso"]["weights"] = wanted.params["torso"].pop("kernel")
    version = files.SCHEMA
    monkeypatch.setattr(files, "SCHEMA", version + 1)
    newer = rf"version {version}, this project reads version {version + 1}: use the revision"
    with pytest.raises(checkpoint.SchemaError, match=newer):
        open_(tmp_path).restore(wanted)

    def rename(leaves):
        out = {path.replace("kernel", "weights"): leaf for path, leaf in leaves.items()}
        return out | {"aux/scale": jnp.ones((8, 4))}

    monkeypatch.setitem(files.MIGRATIONS, version, rename)
    wanted = dataclasses.replace(wanted, opt_state=jax.eval_shape(optax.adam(1e-3).init, wanted.params))
    restored = open_(tmp_path).restore(wanted, replay=lambda: make(9).replay)
    assert restored is not None and not restored.replay_restored  # a memory of another version is filled anew
    np.testing.assert_array_equal(restored.state.params["torso"]["weights"], np.ones((8, 4)))
    assert_same(restored.state.replay, make(9).replay)
    monkeypatch.setattr(files, "SCHEMA", version - 1)
    with pytest.raises(checkpoint.SchemaError, match=rf"version {version}, .* reads version {version - 1}: update the"):
        open_(tmp_path).restore(wanted)


def test_a_part_can_be_loaded_from_any_checkpoint_without_touching_the_folder(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "tmp-000000000003").mkdir()  # a save in progress
    shape = {"params": jax.eval_shape(lambda: make(0).params)}
    assert_same(checkpoint.load(tmp_path, shape).tree, {"params": make(2).params})
    assert_same(checkpoint.load(tmp_path, shape, which=1).tree, {"params": make(1).params})
    (tmp_path / "000000000002" / "manifest.json").write_text("{}")
    with pytest.warns(UserWarning, match="000000000002: no readable manifest"):
        assert checkpoint.load(tmp_path, shape).step == 1
    assert (tmp_path / "tmp-000000000003").is_dir()
    with pytest.raises(checkpoint.CheckpointError, match="no whole checkpoint 'best'; steps held: 1"):
        checkpoint.load(tmp_path, shape, which="best")
    with pytest.raises(checkpoint.CheckpointError, match="no whole checkpoint '9'"):
        checkpoint.load(tmp_path, shape, which=9)
    with pytest.raises(checkpoint.Mismatch, match="ema/w is absent in the checkpoint"):
        checkpoint.load(tmp_path, {"ema": {"w": jnp.ones(3)}}, which=1)


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint\.keep=0: must be at least 1"):
        open_(tmp_path, keep=0)
    with pytest.raises(ValueError, match=r"checkpoint\.better=max"):
        open_(tmp_path, better="max")


def test_a_best_one_that_lies_ahead_of_where_the_run_goes_on_is_removed(tmp_path):
    checkpoints = open_(tmp_path, metric="eval/score")
    checkpoints.save(1, make(1), None, extra={})
    assert checkpoints.best(5.0, 2, make(2))
    again = open_(tmp_path, metric="eval/score")
    assert again.restore(abstract(make(0))) is not None  # of step 1: step 2 is yet to come
    assert again.best_value() is None and again.best(3.0, 2, make(2))

    early = open_(tmp_path / "early", metric="eval/score")  # killed before its first checkpoint
    assert early.best(5.0, 500, make(5))
    (tmp_path / "early" / "tmp-000000000700").mkdir()
    again = open_(tmp_path / "early", metric="eval/score")
    assert again.restore(abstract(make(0))) is None
    assert again.best(1.0, 100, make(1)) and not [*(tmp_path / "early").rglob("tmp-*")]
