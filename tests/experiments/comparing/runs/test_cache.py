"""What is kept beside a run: the same numbers as read anew, of these very files, and never in the way."""

import json
import os
import pathlib
import shutil

import pytest

from experiments.comparing.runs import beside, cache, reading
from tests.experiments.comparing import dying, folders


@pytest.fixture(scope="module")
def base():
    return folders.settings("experiment=dqn/cartpole", "tracker=none")


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch):
    """Files that a test has only just written count as old."""
    monkeypatch.setattr(cache, "SETTLED", -1.0)


@pytest.fixture
def folder(base, tmp_path: pathlib.Path) -> pathlib.Path:
    values = {folders.METRIC: [1.0, None, 1 / 3], "loss/td": [5.0, 4.0], "eval/fid": [0.1, 0.2, 0.3]}
    origin = {"hardware": {"devices": {"kinds": {"cpu": 2}}}}
    path = folders.write(tmp_path / "run", base, values, seed=7, origin=origin)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"torn": ')
    return path


def read(folder: pathlib.Path, *wanted: str, keep: bool = True) -> reading.Run:
    (run,) = reading.read_all([folder], wanted or None, keep=keep)
    assert isinstance(run, reading.Run), run
    return run


def assert_same(run: reading.Run, other: reading.Run) -> None:
    for name in reading.Run.__dataclass_fields__:
        if name != "metrics":
            assert repr(getattr(run, name)) == repr(getattr(other, name)), name
    assert list(run.metrics) == list(other.metrics)
    for name, series in run.metrics.items():
        for field in reading.Series.__dataclass_fields__:
            one, two = (getattr(each, field) for each in (series, other.metrics[name]))
            assert one.dtype == two.dtype and one.tobytes() == two.tobytes(), (name, field)


def anew(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose metrics.jsonl is read from now on."""
    found, before = [], cache.read
    monkeypatch.setattr(cache, "read", lambda job: (found.append(job.folder.name), before(job))[1])
    return found


def test_what_is_kept_is_bit_for_bit_what_is_read_anew(folder: pathlib.Path, monkeypatch):
    fresh, first, asked = read(folder, keep=False), read(folder), anew(monkeypatch)
    again = read(folder)
    assert (
        asked == []
        and (folder / cache.FILE).stat().st_mode & 0o777 == (folder / "metrics.jsonl").stat().st_mode & 0o777
    )
    assert_same(fresh, first)
    assert_same(fresh, again)
    assert again.notes == ("metrics.jsonl: the last line is torn",)
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == [cache.FILE]


def test_further_metrics_are_added_and_only_what_is_asked_for_is_given(folder: pathlib.Path, monkeypatch):
    asked = anew(monkeypatch)
    assert list(read(folder, folders.METRIC).metrics) == [folders.METRIC]
    assert list(read(folder, "loss/*").metrics) == ["loss/td"] and len(asked) == 2
    assert list(read(folder, "loss/td").metrics) == ["loss/td"] and list(read(folder, "eval/e*").metrics) == [
        folders.METRIC
    ]
    assert len(asked) == 2
    assert_same(read(folder, "*"), read(folder, "*", keep=False))
    assert list(read(folder, "nothing/*").metrics) == []
    assert asked == ["run"] * 4


def test_a_changed_file_counts_at_once(folder: pathlib.Path):
    read(folder)
    path = folder / "metrics.jsonl"
    then, text = path.stat(), path.read_bytes()
    path.write_bytes(text.replace(b"1.0", b"8.0"))
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))  # the same size and time, as some copies leave it
    assert read(folder).metrics[folders.METRIC].values[0] == 8.0
    fresh = path.with_name("other")
    fresh.write_bytes(text)
    fresh.replace(path)  # as a resume does
    assert read(folder).metrics[folders.METRIC].values[0] == 1.0
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("seed: 7", "seed: 8"))
    assert read(folder).seed == 8
    read(folder)
    (folder / "error.txt").write_text("OSError: no room\n")  # is not kept
    assert (read(folder).state, read(folder).reason) == ("failed", "OSError: no room")


def test_a_file_that_was_only_just_written_is_not_kept(folder: pathlib.Path, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED", 60.0)
    read(folder)
    assert not [path for path in folder.iterdir() if path.name.startswith(".compare")]


@pytest.mark.parametrize("damage", ["cut", "byte", "empty", "text", "folder", "pipe", "version"])
def test_a_damaged_one_is_made_anew(folder: pathlib.Path, damage: str, monkeypatch):
    fresh = read(folder)
    path = folder / cache.FILE
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    else:
        broken = {"cut": whole[:-9], "byte": whole[:-20] + b"?" + whole[-19:], "empty": b"", "text": b"x" * 999}
        path.write_bytes(broken.get(damage, b"jxc0" + whole[4:]))
    assert_same(fresh, read(folder))
    if damage != "folder":
        assert path.read_bytes() == whole
    assert not [each for each in folder.iterdir() if each.suffix == ".tmp"]


def test_a_folder_that_cannot_be_written_is_read_all_the_same(folder: pathlib.Path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.tempfile, "mkstemp", refuse)  # tests run as root, whom no mode stops
    assert_same(read(folder), read(folder, keep=False))
    assert not (folder / cache.FILE).exists()


def test_without_it_nothing_is_kept_and_nothing_used(folder: pathlib.Path, monkeypatch):
    read(folder, keep=False)
    assert not (folder / cache.FILE).exists()
    read(folder)
    asked = anew(monkeypatch)
    read(folder, keep=False)
    assert asked == ["run"]


def test_a_copy_of_a_run_with_what_is_kept_is_read_anew(folder: pathlib.Path, monkeypatch):
    read(folder)
    shutil.copytree(folder, folder.with_name("copy"), symlinks=True)
    asked = anew(monkeypatch)
    read(folder.with_name("copy"))
    assert asked == ["copy"]


def test_settings_that_json_would_change_are_read_from_their_file(folder: pathlib.Path):
    with (folder / "config.yaml").open("a") as file:
        file.write("odd: {1: a, 2: .inf, 3: .nan, 4: 1e-3}\n")
    assert cache.as_json({"a": float("nan")}) == cache.as_json({1: 2}) == b"null"  # pyright: ignore[reportArgumentType]
    assert json.loads(cache.as_json({"a": [1, 1.0, True, None, "é"]})) == {"a": [1, 1.0, True, None, "é"]}
    fresh, again = read(folder), read(folder)
    assert repr(fresh.config) == repr(again.config) and again.config["odd"][4] == 1e-3


# ---- in processes ----


def test_processes_read_what_one_would(base, tmp_path: pathlib.Path, monkeypatch):
    made = [folders.write(tmp_path / str(n), base, [float(n), None, 2.0], seed=n) for n in range(5)]
    (made[3] / "metrics.jsonl").unlink()
    (made[4] / "metrics.jsonl").unlink()
    os.mkfifo(made[4] / "metrics.jsonl")
    alone = reading.read_all(made, None, keep=False)
    monkeypatch.setattr(beside, "LITTLE", 0)
    monkeypatch.setattr(beside.os, "sched_getaffinity", lambda _: {0, 1})
    heard = []
    together = reading.read_all(made, None, keep=True, say=heard.append)
    assert heard[-1] == 5
    for one, two in zip(alone, together, strict=True):
        if isinstance(one, reading.Run) and isinstance(two, reading.Run):
            assert_same(one, two)
        else:
            assert one == two
    assert [each.reason for each in together[3:] if isinstance(each, reading.LeftOut)] == [
        "metrics.jsonl: No such file or directory",
        "metrics.jsonl: is not a regular file",
    ]


def test_one_run_that_ends_its_process_is_left_out_and_all_others_are_read(base, tmp_path: pathlib.Path, monkeypatch):
    made = [folders.write(tmp_path / str(n), base, [float(n)], seed=n) for n in range(4)]
    monkeypatch.setattr(beside, "LITTLE", 0)
    monkeypatch.setattr(beside.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(beside, "_read", dying.read)
    found = reading.read_all(made, None, keep=False)
    assert [isinstance(each, reading.Run) for each in found] == [True, True, False, True]
    assert isinstance(found[2], reading.LeftOut) and "was killed" in found[2].reason
