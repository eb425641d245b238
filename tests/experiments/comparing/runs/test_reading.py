"""Run folders as they are found: whole, half written, half deleted, of other times."""

import json
import os
import pathlib
import re
import shlex
import time

import numpy as np
import pytest

from experiments.comparing import report, scoring
from experiments.comparing.runs import reading
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
    (make("piped") / "metrics.jsonl").unlink()
    os.mkfifo(tmp_path / "piped" / "metrics.jsonl")
    (make("piped_config") / "config.yaml").unlink()
    os.mkfifo(tmp_path / "piped_config" / "config.yaml")
    (make("huge_config") / "config.yaml").write_bytes(b"# " + b"x" * (5 << 20))
    (make("laughs") / "config.yaml").write_text(LAUGHS)
    (make("circle") / "config.yaml").write_text("budget: 1\nlearner: &a [*a]\n")
    (make("deep") / "config.yaml").write_text("budget: 1\nlearner: " + "[" * 100_000)
    (make("dashes") / "config.yaml").write_text("- " * 100_000)
    (make("code") / "config.yaml").write_text("budget: 1\nlearner: !!python/object/apply:os.system [true]\n")
    (make("endless") / "config.yaml").write_text("budget: .inf\nlearner: {}\n")
    assert reason(tmp_path / "no_rows") == "no rows yet"
    assert reason(tmp_path / "no_record") == "metrics.jsonl: No such file or directory"
    assert reason(tmp_path / "cut_config").startswith("config.yaml: cannot be read")
    assert reason(tmp_path / "short_config").startswith("config.yaml: budget=None")
    assert "cannot be read" in reason(tmp_path / "odd_config")
    assert reason(tmp_path / "binary").startswith("no rows yet: metrics.jsonl")
    assert reason(tmp_path / "failed").endswith("it failed: MemoryError: no room")
    assert reason(tmp_path / "piped") == "metrics.jsonl: is not a regular file"
    assert reason(tmp_path / "piped_config") == "config.yaml: is not a regular file"
    assert reason(tmp_path / "huge_config") == "config.yaml: is larger than 4 MB"
    for name in ("laughs", "circle"):
        assert "its aliases stand for more than 1,000,000 values" in reason(tmp_path / name)
    for name in ("deep", "dashes"):
        assert "nested more than 100 levels deep" in reason(tmp_path / name)
    assert reason(tmp_path / "code").startswith("config.yaml: cannot be read")
    assert reason(tmp_path / "endless").startswith("config.yaml: budget=inf: no number")
    found, left_out = reading.find([str(tmp_path)], key="runs")
    assert [(each.folder.name, each.reason) for each in left_out] == [("no_config", "no config.yaml")]
    assert len(found) == 16


LAUGHS = "budget: 1\na: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{this}: &{this} [{', '.join([f'*{before}'] * 9)}]\n" for before, this in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_pipes_in_the_place_of_other_files_are_never_waited_for(base, tmp_path: pathlib.Path):
    folder = folders.write(tmp_path / "run", base, [1.0, 2.0])
    (folder / "slurm").mkdir()
    for name in ("error.txt", "provenance.jsonl", "slurm/attempts.jsonl", "slurm/launch.json"):
        os.mkfifo(folder / name)
    assert read(folder).notes == ()
    assert reading.find([str(tmp_path)], key="runs")[0] == [folder]


def test_runs_of_an_older_schema(base, tmp_path: pathlib.Path):
    """Without provenance, choices, steps, seconds and what attempts lost."""
    config = {key: value for key, value in base.items() if key not in ("choices", "follows")}
    folder = folders.write(tmp_path / "run", config, [1.0])
    (folder / "metrics.jsonl").write_text('{"frames": 50, "eval/episode_return": 4}\n')
    run = read(folder)
    assert run.metrics[folders.METRIC].steps.tolist() == [0] and np.isnan(run.hours) and np.isnan(run.device_hours)
    assert (run.lost_steps, run.requeued, run.resumed) == (None, 0, ())
    (folder / "provenance.jsonl").write_text('{"step": 0}\n{"step": 3}\n')
    assert (read(folder).lost_steps, read(folder).resumed) == (None, (3,))


def test_provenance_nested_deeper_than_python_goes_is_none_of_ours(base, tmp_path: pathlib.Path):
    folder = folders.write(tmp_path / "run", base, [1.0, 2.0])
    (folder / "provenance.jsonl").write_text('{"step": 0, "a": ' + '{"a":' * 900 + "1" + "}" * 901 + "\n")
    found = reading.read(folder, None)
    assert isinstance(found, reading.Run) and found.origin == {} and found.lost_steps is None
    report.make([found], [], scoring.Asked())


def test_a_clock_that_goes_backwards_is_told(base, tmp_path: pathlib.Path):
    folder = folders.write(tmp_path / "run", base, [1.0, 2.0, 3.0])
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text.replace('"seconds": 2.0', '"seconds": 0.5'))
    run = read(folder)
    assert run.notes == ("metrics.jsonl: the seconds go backwards 1 times, so hours are not to be trusted",)
    assert run.hours == 1 / 3600


def test_a_folder_whose_name_is_no_text_is_left_out(base, tmp_path: pathlib.Path):
    folders.write(tmp_path / "runs" / "good", base, [1.0])
    os.rename(folders.write(tmp_path / "runs" / "x", base, [2.0]), os.fsencode(tmp_path) + b"/runs/\xff")
    found, left_out = reading.find([str(tmp_path / "runs")], key="runs")
    assert [each.name for each in found] == ["good"]
    assert [(each.folder.name, each.reason) for each in left_out] == [("\\udcff", "its name is not UTF-8; rename it")]


def test_two_thousand_folders_of_which_three_are_broken(tmp_path: pathlib.Path):
    for number in range(2_000):
        folder = tmp_path / f"{number:04}"
        folder.mkdir()
        (folder / "config.yaml").write_text(f"seed: {number}\nbudget: 100\nname: dqn\n")
        (folder / "metrics.jsonl").write_text('{"step": 1, "frames": 100, "seconds": 1, "eval/a": 1}\n')
    (tmp_path / "0003" / "config.yaml").write_text("seed: {")
    (tmp_path / "0500" / "metrics.jsonl").write_bytes(b"\x00" * 4_000)
    (tmp_path / "1999" / "metrics.jsonl").unlink()
    found, left_out = reading.find([str(tmp_path)], key="runs")
    runs = reading.read_all(found, None, keep=False)
    broken = {run.folder.name: run.reason for run in runs if isinstance(run, reading.LeftOut)}
    assert sum(isinstance(run, reading.Run) for run in runs) == 1_997 and left_out == []
    assert broken["0003"].startswith("config.yaml: cannot be read") and "No such file" in broken["1999"]
    assert broken["0500"].startswith("no rows yet: metrics.jsonl: the last line is torn") and len(broken) == 3


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
    lines = ['{"step": 0, "lost_steps": 0}', '{"step": 8, "lost_steps": 5}', '{"step": 64, "lost_steps": 7}']
    (folder / "provenance.jsonl").write_text("\n".join(lines) + "\n")
    assert (read(folder).resumed, read(folder).lost_steps) == ((8, 64), 12)


def test_what_goes_on_with_a_run(base, tmp_path: pathlib.Path):
    plain = folders.write(tmp_path / "plain", base, [1.0], budget=1000)
    assert read(plain).retry == ""  # it is running
    (plain / "error.txt").write_text("OSError: full\n")
    assert read(plain).retry == f"python -m experiments.train resume={plain}"
    member = folders.write(tmp_path / "sweep" / "0", base, [1.0], budget=1000)
    member.joinpath("error.txt").write_text("OSError: full\n")
    launch = {"name": "x", "command": "", "cwd": "/", "sweep": True, "settings": {}, "folder": None}
    launch["members"] = [{"folder": "0", "arguments": []}]
    (tmp_path / "sweep" / "slurm").mkdir()
    (tmp_path / "sweep" / "slurm" / "launch.json").write_text(json.dumps(launch))
    assert read(member).retry == f"python -m experiments.launch retry={tmp_path / 'sweep'}"
    (member / "slurm").mkdir()
    event = '{{"event": "{}", "job": "5_0", "restart": {}}}\n'
    (member / "slurm" / "attempts.jsonl").write_text(
        "".join(event.format(*each) for each in [("started", 0), ("stopped", 0), ("started", 1), ("started", 2)])
    )
    assert read(member).requeued == 2


@pytest.mark.parametrize(
    "name", ["a b", "a=b,c", "it's", "a'", "x$y", "${oc.env:HOME}", "é", "a\\'b", "[1]", "a:b {c}"]
)
def test_the_command_to_go_on_can_be_pasted_whatever_the_folder_is_called(base, tmp_path: pathlib.Path, name: str):
    folder = folders.write(tmp_path / name, base, [1.0], budget=1000)
    (folder / "error.txt").write_text("OSError: full\n")
    *_, typed = shlex.split(read(folder).retry)
    assert folders.settings("experiment=dqn/cartpole", typed)["resume"] == str(folder)


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
