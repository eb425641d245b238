"""Run folders as they are found: whole, half written, half deleted, of other times."""

import os
import pathlib
import re
import time

import numpy as np
import pytest

from experiments.comparing import reading
from experiments.config import build
from tests.experiments.comparing import folders


@pytest.fixture(scope="module")
def base():
    return folders.settings("experiment=dqn/cartpole", "tracker=none")


def read(folder: pathlib.Path, *wanted: str) -> reading.Run:
    run = reading.read(folder, wanted or None)
    assert isinstance(run, reading.Run), run
    return run


def reason(folder: pathlib.Path) -> str:
    left_out = reading.read(folder, None)
    assert isinstance(left_out, reading.LeftOut)
    return left_out.reason


def test_a_whole_run(base, tmp_path: pathlib.Path):
    values = {folders.METRIC: [1.0, None, 3.0], "loss/td": [5.0, 4.0]}
    folder = folders.write(tmp_path / "run", base, values, seed=7, origin={"git": {"revision": "abc"}})
    run = read(folder, "*")
    assert (run.seed, run.budget, run.reached, run.unit, run.state, run.resumed) == (7, 300, 300, "frames", "done", ())
    np.testing.assert_array_equal(run.metrics[folders.METRIC].values, [1.0, np.nan, 3.0])
    np.testing.assert_array_equal(run.metrics[folders.METRIC].x, [100, 200, 300])
    np.testing.assert_array_equal(run.metrics["loss/td"].x, [100, 200])
    assert run.origin["git"]["revision"] == "abc" and run.protocol == {"sticky": 0.0} and run.notes == ()
    other = read(folder)
    assert set(other.metrics) == {folders.METRIC} and set(other.names) == {folders.METRIC, "loss/td"}


def test_torn_and_foreign_lines_are_counted_and_all_others_kept(base, tmp_path: pathlib.Path):
    path = folders.write(tmp_path / "run", base, [1.0, 2.0, 3.0, 4.0]) / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:20]
    lines += ["[1, 2]", '{"step": 5, "frames": 500, "seconds": 4, "eval/episode_return": NaN}']
    path.write_text("\n".join(lines) + '\n{"step": 6, "fra')
    run = read(path.parent)
    np.testing.assert_array_equal(run.metrics[folders.METRIC].values, [1.0, 3.0, 4.0, np.nan])
    assert run.notes == ("metrics.jsonl: 2 of 7 lines cannot be read (line 2, 5); the last line is torn",)


@pytest.mark.parametrize(
    "row", ['{"step": 9, "frames": 900, "eval/episode_return": "high"}', '{"step": 9, "frames": 900}']
)
def test_what_is_no_number_is_no_value(base, tmp_path: pathlib.Path, row: str):
    path = folders.write(tmp_path / "run", base, [1.0, 2.0]) / "metrics.jsonl"
    path.write_text(path.read_text() + row + "\n")
    np.testing.assert_array_equal(read(path.parent).metrics[folders.METRIC].values, [1.0, 2.0])


def test_rows_that_go_backwards_are_put_in_order(base, tmp_path: pathlib.Path):
    path = folders.write(tmp_path / "run", base, [1.0, 2.0, 3.0]) / "metrics.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    series = read(path.parent).metrics[folders.METRIC]
    assert (series.x.tolist(), series.values.tolist()) == ([100, 200, 300], [1.0, 2.0, 3.0])


def test_broken_folders_are_left_out_with_the_reason(base, tmp_path: pathlib.Path):
    make = lambda name: folders.write(tmp_path / name, base, [1.0, 2.0])
    (make("no_rows") / "metrics.jsonl").write_text("")
    (make("no_record") / "metrics.jsonl").unlink()
    (make("cut_config") / "config.yaml").write_text("name: dqn/cartpole\nlearner: {")
    (make("short_config") / "config.yaml").write_text("name: dqn/cartpole\n")
    (make("odd_config") / "config.yaml").write_text("budget: 5\nlearner: null\nprotocol: [1]\n")
    (make("binary") / "metrics.jsonl").write_bytes(os.urandom(500))
    (make("no_config") / "config.yaml").unlink()
    (make("failed") / "error.txt").write_text("MemoryError: no room\n\nTraceback …\n")
    (tmp_path / "failed" / "metrics.jsonl").unlink()
    assert reason(tmp_path / "no_rows") == "no rows yet"
    assert reason(tmp_path / "no_record") == "metrics.jsonl: No such file or directory"
    assert reason(tmp_path / "cut_config").startswith("config.yaml: cannot be read")
    assert reason(tmp_path / "short_config").startswith("config.yaml: budget=None")
    assert "cannot be read" in reason(tmp_path / "odd_config")
    assert reason(tmp_path / "binary").startswith("no rows yet: metrics.jsonl")
    assert reason(tmp_path / "failed").endswith("it failed: MemoryError: no room")
    found, left_out = reading.find([str(tmp_path)], key="runs")
    assert [(each.folder.name, each.reason) for each in left_out] == [("no_config", "no config.yaml")]
    assert len(found) == 7


def test_how_a_run_is(base, tmp_path: pathlib.Path):
    folder = folders.write(tmp_path / "run", base, [1.0, 2.0], budget=1000)
    assert (read(folder).state, read(folder).reason) == ("running", "last row 0 min ago")
    then = time.time() - 7 * 3600
    os.utime(folder / "metrics.jsonl", (then, then))
    assert (read(folder).state, read(folder).reason) == ("unfinished", "last row 7 h ago")
    (folder / "slurm").mkdir()
    (folder / "slurm" / "attempts.jsonl").write_text(
        '{"event": "submitted", "job": "5"}\n{"event": "failed", "job": "5", "status": 137}\n'
    )
    (folder / "slurm" / "5-rank0.log").write_text("step 3\nRESOURCE_EXHAUSTED\n")
    assert (read(folder).state, read(folder).reason) == (
        "failed",
        "killed (SIGKILL: out of memory?): RESOURCE_EXHAUSTED",
    )
    (folder / "error.txt").write_text("Diverged: step 3: loss/td was not finite\n\nTraceback …\n")
    assert (read(folder).state, read(folder).reason) == ("failed", "Diverged: step 3: loss/td was not finite")
    (folder / "provenance.jsonl").write_text('{"step": 0}\n{"step": 8}\n{"step": 64}\n')
    assert read(folder).resumed == (8, 64)


def test_runs_are_found_by_folder_pattern_and_inside_folders(base, tmp_path: pathlib.Path, monkeypatch):
    for name in ("a/0", "a/1", "a/10", "a/2", "b/x"):
        folders.write(tmp_path / name, base, [1.0])
    monkeypatch.chdir(tmp_path)
    names = lambda *patterns: [str(f.relative_to(tmp_path)) for f in reading.find(patterns, key="runs")[0]]
    assert names("a") == ["a/0", "a/1", "a/2", "a/10"]
    assert names("a/1*", "b/x", "a/1") == ["a/1", "a/10", "b/x"]
    assert names("*") == ["a/0", "a/1", "a/2", "a/10", "b/x"]
    with pytest.raises(build.ConfigError, match=r"^runs=c: no such folder; "):
        reading.find(["c"], key="runs")


def test_links_are_followed_and_never_in_a_circle(base, tmp_path: pathlib.Path):
    folders.write(tmp_path / "elsewhere" / "run", base, [1.0])
    (tmp_path / "runs" / "deep").mkdir(parents=True)
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere" / "run")
    (tmp_path / "runs" / "deep" / "circle").symlink_to(tmp_path / "runs")
    assert reading.find([str(tmp_path / "runs")], key="runs") == ([tmp_path / "runs" / "linked"], [])


def test_members_of_a_launch_that_have_not_begun_are_named(base, tmp_path: pathlib.Path):
    folders.write(tmp_path / "0", base, [1.0])
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "launch.json").write_text('{"members": [{"folder": "0"}, {"folder": "1"}]}')
    _, left_out = reading.find([str(tmp_path)], key="sweep")
    assert [(each.folder.name, each.reason) for each in left_out] == [("1", "has not begun")]


def test_a_config_of_before_is_read_as_it_is_called_now(base, tmp_path: pathlib.Path):
    folder = folders.write(tmp_path / "run", base, [1.0])
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(
        re.sub(r" +compute: float32\n", "", text).replace("learner:\n", "learner:\n  compute: float32\n", 1)
    )
    assert read(folder).config["learner"]["network"]["compute"] == "float32"
