"""W&B mirrors the record, agrees with it after every resume, and never stands in a run's way."""

import gc
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import types as modules
from typing import Any

import numpy as np
import pytest

from core import tracking, types

CONFIG = {"learner": {"discount": 0.99, "torso": (32, 64)}, "seed": 3}


def _open(folder, backend=None, **options):
    said = []
    tracker = tracking.open(
        folder,
        unit="frames",
        config=CONFIG,
        backend=backend or tracking.Wandb(finish_seconds=60),
        say=said.append,
        **options,
    )
    return tracker, said


def _log(tracker, steps):
    for step in steps:
        tracker.log(step=step, examples=4 * step, seconds=0.5 * step, scalars={"loss/td": 1 / step, "bad": np.nan})


def _recorded(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _attempts(folder, pattern="*run-2*"):
    return sorted(folder.glob(f"wandb/{pattern}/*.wandb"))


def _shown(path):
    """What one W&B file holds, by its own reader: {"history": [...], "run": [...], ...}."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    found = {}
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        record = json.loads(line)
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


def _steps(path):
    return [row["step"]["num"] for row in _shown(path).get("history", [])]


def test_an_offline_run_holds_rows_axis_config_origin_media_and_histograms(tmp_path):
    backend = tracking.Wandb(
        group="pong", tags=("a", "b"), name="first", job_type="train", notes="why", project="games"
    )
    tracker, said = _open(tmp_path, backend)
    _log(tracker, [1, 2])
    film = types.Video(frames=np.zeros((4, 32, 32, 3), np.uint8), frames_per_second=10.0)
    still = types.Image(pixels=np.zeros((8, 8, 3), np.uint8))
    report = types.Report(
        scalars={"eval/episode_return": 7.0},
        arrays={"eval/episode_returns": np.array([1.0, 2.0, np.nan])},
        media={"eval/play": film, "eval/last": still},
    )
    tracker.log(step=2, examples=8, seconds=1.5, scalars=report.scalars, report=report)
    tracker.finish("finished")
    assert said == []

    (path,) = _attempts(tmp_path)
    shown = _shown(path)
    first, second = (row["item"] for row in shown["history"])
    assert (first["frames"], first["seconds"], first["loss/td"]) == (4, 0.5, 1.0)
    assert "bad" not in first  # null in the record
    assert (second["frames"], second["loss/td"], second["eval/episode_return"]) == (8, 0.5, 7.0)  # one step, two rows
    assert second["eval/play._type"] == "video-file"
    assert second["eval/last._type"] == "image-file"
    assert sum(second["eval/episode_returns.values"]) == 2
    assert {"glob_name": "*", "step_metric": "frames"}.items() <= shown["metric"][1].items()
    (run,) = shown["run"]
    assert (run["run_group"], run["tags"], run["display_name"]) == ("pong", ["a", "b"], "first")
    assert (run["job_type"], run["notes"], run["project"]) == ("train", "why", "games")
    config = run["config"]["update"]
    assert config["learner"] == {"discount": 0.99, "torso": [32, 64]}
    assert config["provenance"]["hardware"]["cores"] == os.cpu_count()
    assert "git" in config["provenance"]
    assert {"status": "finished"} in [summary.get("update") for summary in shown["summary"]]
    assert shown["exit"][0]["exit_code"] == 0
    assert (tmp_path / "media/eval/play-8.mp4").exists() and (tmp_path / "media/eval/last-8.png").exists()
    assert not any("episode_returns" in row for row in _recorded(tmp_path))  # histograms are W&B's alone


def test_wandb_shows_a_row_once_a_checkpoint_covers_it(tmp_path):
    tracker, _ = _open(tmp_path)
    _log(tracker, range(1, 6))
    tracker.commit(3)
    tracker.finish("failed")
    shown = _shown(*_attempts(tmp_path))
    assert [row["step"]["num"] for row in shown["history"]] == [1, 2, 3]
    assert shown["exit"][0]["exit_code"] == 1
    assert [row["step"] for row in _recorded(tmp_path)] == [1, 2, 3, 4, 5]


def test_resume_goes_on_in_the_same_run_and_sends_what_a_kill_had_lost(tmp_path):
    tracker, _ = _open(tmp_path)
    _log(tracker, range(1, 41))
    tracker.commit(40)
    _log(tracker, [41, 42])
    tracker.finish("failed")
    (first,) = _attempts(tmp_path)
    assert _steps(first) == list(range(1, 41))
    os.truncate(first, first.stat().st_size // 2)  # as SIGKILL leaves it: W&B flushes about every 15 s
    before = _steps(first)
    assert 1 <= before[-1] < 40

    tracker, said = _open(tmp_path, resume_step=40)
    assert said == ["metrics.jsonl: went back to step 40; rows removed: 2"]
    _log(tracker, [41])
    tracker.finish("stopped")
    second = next(path for path in _attempts(tmp_path) if path != first)
    assert second.name == first.name  # the same run id
    assert before + _steps(second) == [row["step"] for row in _recorded(tmp_path)] == list(range(1, 42))
    assert len((tmp_path / "provenance.jsonl").read_text().splitlines()) == 2


def test_each_attempt_says_where_it_begins_and_how_many_steps_were_lost(tmp_path):
    backend = tracking.Nothing()
    for resume_step, steps in ((None, [1, 5, 9]), (5, [6]), (6, []), (0, [])):
        tracker = tracking.open(
            tmp_path, unit="frames", config={}, backend=backend, resume_step=resume_step, say=lambda line: None
        )
        _log(tracker, steps)
        tracker.finish("failed")
    lines = [json.loads(line) for line in (tmp_path / "provenance.jsonl").read_text().splitlines()]
    assert [(line["step"], line["lost_steps"]) for line in lines] == [(0, 0), (5, 4), (6, 0), (0, 6)]


def test_a_run_that_goes_back_behind_what_wandb_shows_begins_a_new_one_there(tmp_path):
    tracker, _ = _open(tmp_path, tracking.Wandb(live=True, finish_seconds=60))
    _log(tracker, range(1, 6))
    tracker.finish("failed")
    (first,) = _attempts(tmp_path)
    assert _steps(first) == [1, 2, 3, 4, 5]

    tracker, said = _open(tmp_path, resume_step=2)
    _log(tracker, [3])
    tracker.finish("finished")
    assert "shows rows that were since removed" in said[-1]
    second = next(path for path in _attempts(tmp_path) if path != first)
    assert second.name != first.name
    assert _steps(second) == [row["step"] for row in _recorded(tmp_path)] == [1, 2, 3]


def test_an_evaluation_that_the_resumed_run_makes_first_reaches_wandb(tmp_path):
    """Its step is one of which W&B has rows already."""
    tracker, _ = _open(tmp_path)
    _log(tracker, [4, 5])
    tracker.commit(5)
    tracker.finish("stopped")
    (first,) = _attempts(tmp_path)
    tracker, _ = _open(tmp_path, resume_step=5)
    tracker.log(step=5, examples=20, seconds=3.0, scalars={"eval/fid": 7.0})
    _log(tracker, [7])
    tracker.finish("finished")
    (second,) = [path for path in _attempts(tmp_path) if path != first]
    rows = [row["item"] for row in _shown(second)["history"]]
    assert [float(row["eval/fid"]) for row in rows if "eval/fid" in row] == [7.0]
    assert [int(row["frames"]) for row in rows] == [20, 28]


@pytest.mark.long
def test_wandb_dying_in_the_middle_costs_one_line_and_the_next_resume_mends_it(tmp_path):
    tracker, said = _open(tmp_path)
    _log(tracker, [1])
    tracker.commit(1)
    _wait(lambda: _attempts(tmp_path))
    for service in [
        item for item in gc.get_objects() if isinstance(item, subprocess.Popen) and "wandb-core" in str(item.args)
    ]:
        service.kill()
        service.wait()
    _log(tracker, range(2, 300))
    tracker.commit(299)
    tracker.finish("finished")
    assert len(said) == len({line.split(":")[1] for line in said}) >= 1  # one of each kind
    assert all(line.startswith("W&B: ") and "metrics.jsonl is complete" in line for line in said)
    assert len(_recorded(tmp_path)) == 299

    tracker, said = _open(tmp_path, resume_step=299)
    tracker.finish("finished")
    assert said == []
    assert sorted(step for path in _attempts(tmp_path) for step in _steps(path)) == list(range(1, 300))


def test_nothing_still_writes_the_record(tmp_path):
    tracker, said = _open(tmp_path, tracking.Nothing())
    _log(tracker, [1, 2])
    tracker.commit(2)
    tracker.finish("finished")
    assert (len(_recorded(tmp_path)), said) == (2, [])
    assert not (tmp_path / "wandb").exists()


def test_a_wandb_that_cannot_be_imported_costs_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_kill_service", lambda: None)  # the other tests' one
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker, said = _open(tmp_path)
    _log(tracker, [1])
    tracker.finish("finished")
    (line,) = said
    assert line.startswith("W&B: stopped mirroring: ")
    assert len(_recorded(tmp_path)) == 1


def test_a_wandb_that_hangs_delays_nothing_and_is_left_behind_after_the_stated_time(tmp_path, monkeypatch):
    hang = threading.Event()
    fake = modules.SimpleNamespace(
        Settings=dict, setup=lambda **_: None, teardown=lambda: None, init=lambda **_: hang.wait(30)
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(tracking, "_kill_service", lambda: None)  # the other tests' one
    began = time.monotonic()
    tracker, said = _open(tmp_path, tracking.Wandb(finish_seconds=0.3))
    report = types.Report(scalars={}, arrays={"eval/episode_returns": np.ones(3)})
    for step in range(1, 301):
        tracker.log(step=step, examples=step, seconds=0.0, scalars={"loss/td": 1.0}, report=report)
        tracker.commit(step)
    assert time.monotonic() - began < 1.0
    tracker.finish("finished")
    assert time.monotonic() - began < 2.0
    hang.set()
    assert said[0].startswith("W&B: not done after 0.3 s, left behind; ")
    assert said[1].startswith("W&B: media of 44 reports were not sent")  # 300 less the 256 that may wait
    assert len(_recorded(tmp_path)) == 300


KILLED = """
import pathlib, sys, threading, time, psutil
from core import tracking
tracking._SILENCE = 1.0
tracker = tracking.open(pathlib.Path(sys.argv[1]), unit="frames", config={}, backend=tracking.Wandb(finish_seconds=1))
starting = []
while not starting:
    starting = [child for child in psutil.Process().children() if child.name().startswith("wandb-core")]
starting[0].kill()
for step in range(1, 9):
    time.sleep(0.25)
    tracker.log(step=step, examples=step, seconds=0.0, scalars={"loss/td": 1.0})
    tracker.commit(step)
tracker.finish("finished")
"""


@pytest.mark.long
def test_a_wandb_whose_process_was_killed_while_it_started_is_told_of(tmp_path):
    """W&B waits forever for a lock that is its own; in a process of its own, which has no W&B afterwards."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    other = os.environ | {"WANDB_SERVICE": "3-1-unix-/another/process/socket"}  # such as a job inherits
    done = subprocess.run(command, env=other, capture_output=True, text=True, check=True, timeout=60)
    told, left = done.stdout.splitlines()
    assert told.startswith("W&B: rows wait: no answer for 1 s; ") and "left behind" in left
    assert len(_recorded(tmp_path)) == 8


UNREACHABLE = """
import json, pathlib, sys, time
from core import tracking
began = time.monotonic()
backend = tracking.Wandb(mode="online", **json.loads(sys.argv[2]))
tracker = tracking.open(pathlib.Path(sys.argv[1]), unit="frames", config={}, backend=backend)
for step in range(1, 6):
    tracker.log(step=step, examples=step, seconds=0.0, scalars={"loss/td": 1.0})
logged = time.monotonic()
tracker.finish("finished")
print(json.dumps([logged - began, time.monotonic() - logged]), flush=True)
"""


def _unreachable(folder: pathlib.Path, **settings: float) -> tuple[list[str], float, float]:
    """What it said, seconds to the first rows, seconds that `finish` took. A process of its own: its end counts."""
    kept = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    server = {
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_API_KEY": "a" * 40,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    warnings = ("-W", "error", "-W", "ignore::ResourceWarning")  # W&B's temporary folder, where its import is cut short
    command = [sys.executable, *warnings, "-c", UNREACHABLE, str(folder), json.dumps(settings)]
    done = subprocess.run(command, env=kept | server, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    *said, times = done.stdout.splitlines()
    logged, finished = json.loads(times)
    return said, logged, finished


def test_a_server_that_cannot_be_reached_does_not_hold_up_the_end(tmp_path):
    (line,), logged, finished = _unreachable(tmp_path, finish_seconds=1.0)
    assert "not done after 1 s, left behind" in line
    assert logged < 1.0
    assert finished < 4.0  # and the second that W&B's process has for its own end, on a busy machine
    assert len(_recorded(tmp_path)) == 5


@pytest.mark.long
def test_a_server_that_cannot_be_reached_makes_the_run_an_offline_one(tmp_path):
    (line,), logged, _ = _unreachable(tmp_path, init_seconds=1.0, finish_seconds=20.0)
    assert "no server, so this run is written offline" in line
    assert logged < 1.0
    (path,) = _attempts(tmp_path, "offline-run-*")
    assert _steps(path) == [1, 2, 3, 4, 5]


def test_no_login_is_needed_nor_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    tracker, said = _open(tmp_path, tracking.Wandb(mode="online", finish_seconds=60))
    _log(tracker, [1])
    tracker.finish("finished")
    assert "no API key; run `wandb login`, or set WANDB_API_KEY" in said[0]
    (path,) = _attempts(tmp_path, "offline-run-*")
    assert _steps(path) == [1]


def test_settings_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match="mode=on: must be offline or online"):
        tracking.Wandb(mode="on")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="finish_seconds=0: must be greater than 0"):
        tracking.Wandb(finish_seconds=0)


def _wandb(name: str, text: str) -> tracking.Wandb:
    settings: dict[str, Any] = {name: (text,) if name == "tags" else text}
    return tracking.Wandb(**settings)


def test_texts_that_wandb_refuses_are_refused_before_the_run_with_value_and_limit():
    for name, longest in tracking.LONGEST.items():
        _wandb(name, "x" * longest)
        with pytest.raises(ValueError, match=rf"^{name}=x+\.\.\.x+: {longest + 1} characters; .* at most {longest}$"):
            _wandb(name, "x" * (longest + 1))
        for empty in ("", "  "):
            with pytest.raises(ValueError, match=rf"^{name}={empty}: is empty"):
                _wandb(name, empty)
    with pytest.raises(ValueError, match=r"^project=team/x: .* / .*; the team goes into tracker.entity"):
        tracking.Wandb(project="team/x")
    tracking.Wandb(project="a b_c-d.é", tags=("a", "b c"), notes="")


@pytest.mark.parametrize("setting, field", [("project", "project"), ("run_tags", "tags")])
def test_what_the_installed_wandb_refuses_is_refused(setting, field):
    import wandb

    texts = ["x" * longest for longest in (63, 64, 65, 128, 129)] + [f"a{odd}b" for odd in "/\\#?%:-_ .,é"]
    for text in texts:
        try:
            given: dict[str, Any] = {setting: (text,) if field == "tags" else text}
            wandb.Settings(**given)
        except (ValueError, wandb.UsageError):  # pyright: ignore[reportAttributeAccessIssue]
            with pytest.raises(ValueError, match=f"^{field}="):
                _wandb(field, text)
        else:
            _wandb(field, text)


def test_the_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker: tracking.Tracker = tracking.Muted()
    _log(tracker, [1])
    tracker.commit(1)
    tracker.finish("finished")
    assert list(tmp_path.iterdir()) == []


def _wait(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_service_that_was_killed_does_not_decide_our_exit_status(monkeypatch):
    """W&B exits with its process's own status, -9 here, wherever it is torn down."""
    monkeypatch.setitem(sys.modules, "wandb", modules.SimpleNamespace(teardown=lambda: sys.exit(-9)))
    monkeypatch.setattr(tracking, "_kill_service", lambda: None)  # the one of this process serves other tests
    tracking._end_service()


def test_a_wandb_that_hangs_in_its_own_end_does_not_hold_ours(monkeypatch):
    """It does where its process was killed while it started: a lock that it waits for is its own."""
    never = threading.Event()
    monkeypatch.setitem(sys.modules, "wandb", modules.SimpleNamespace(teardown=never.wait))
    monkeypatch.setattr(tracking, "_kill_service", lambda: None)
    began = time.monotonic()
    tracking._end_service()
    assert time.monotonic() - began < 10
    never.set()
