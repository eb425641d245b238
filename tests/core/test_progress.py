"""What a person sees: a bar that is redrawn in place, or spaced plain lines."""

import io

import pytest

from core import progress


class Clock:
    """Stands still until it is told."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def _plain(clock, total=1000, **options):
    stream = io.StringIO()
    return progress.Progress(total, "frames", stream=stream, terminal=False, clock=clock, **options), stream


def test_plain_lines_come_soon_and_then_spaced(clock):
    bar, stream = _plain(clock, every_seconds=10)
    for second in range(1, 32):
        clock.now = 100.0 + second
        bar.update(second * 10, {})
    lines = stream.getvalue().splitlines()
    assert [line.split("/")[0] for line in lines] == ["10", "110", "210", "310"]  # after 1, 11, 21 and 31 s


def test_a_line_says_how_far_how_fast_how_long_and_the_metrics_asked_for(clock):
    bar, stream = _plain(clock, total=10_000, metrics=("eval/episode_return", "loss/td", "absent"))
    clock.now += 20.0
    bar.update(4000, {"loss/td": 0.0123456, "eval/episode_return": -20.5, "grad/norm": 3.0})
    expected = "4,000/10,000 frames (40%)  200 frames/s  0:30 left  eval/episode_return -20.5  loss/td 0.01235\n"
    assert stream.getvalue() == expected


def test_a_resumed_run_does_not_count_the_frames_of_before_as_speed(clock):
    bar, stream = _plain(clock, total=10_000, start=8000)
    clock.now += 10.0
    bar.update(8100, {})
    assert "10 frames/s  3:10 left" in stream.getvalue()


def test_the_speed_follows_the_last_lines_not_the_whole_run(clock):
    bar, stream = _plain(clock, total=10**9, every_seconds=10)
    for _ in range(30):  # fast while the memory fills
        clock.now += 10.0
        bar.update(bar._examples + 100_000, {})
    for _ in range(30):
        clock.now += 10.0
        bar.update(bar._examples + 10_000, {})
    assert "1,000 frames/s" in stream.getvalue().splitlines()[-1]


def test_evaluations_are_no_part_of_the_speed_and_all_of_the_time_left(clock):
    """Ten frames a second, and after every 1,000 frames 100 s of evaluation: as much again."""
    bar, stream = _plain(clock, total=10_000, every_seconds=10)
    for frames in range(1_000, 5_001, 1_000):
        clock.now += 100.0
        bar.update(frames, {})
        clock.now += 100.0
        bar.aside(100.0)
    bar.update(5_000, {})
    assert "10 frames/s  16:40 left" in stream.getvalue().splitlines()[-1]  # 500 s of training and 500 s of evaluations


def test_close_shows_the_end_once(clock):
    bar, stream = _plain(clock)
    with bar:
        clock.now += 2.0
        bar.update(500, {})
        clock.now += 2.0
        bar.update(1000, {})
    bar.close()
    assert stream.getvalue().splitlines()[-1].startswith("1,000/1,000 frames (100%)")
    assert len(stream.getvalue().splitlines()) == 2


def test_most_updates_write_nothing(clock):
    bar, stream = _plain(clock)
    for i in range(1000):
        bar.update(i, {"loss/td": 1.0})
    assert stream.getvalue() == ""


def test_messages_stand_on_their_own_line_with_their_brackets(clock):
    bar, stream = _plain(clock)
    bar.message("checkpoint [step 5] written")
    assert stream.getvalue() == "checkpoint [step 5] written\n"
    terminal = io.StringIO()
    with progress.Progress(100, "images", stream=terminal, terminal=True, clock=clock) as drawn:
        drawn.update(10, {})
        drawn.message("checkpoint [step 5] written")
    assert "checkpoint [step 5] written\n" in terminal.getvalue()


def test_a_terminal_gets_a_bar_that_is_redrawn_in_place(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = io.StringIO()
    with progress.Progress(100, "images", stream=stream, terminal=True, clock=clock, metrics=("loss/td",)) as bar:
        clock.now += 1.0
        bar.update(50, {"loss/td": 0.5})
    text = stream.getvalue()
    assert "50/100 images (50%)" in text
    assert "td 0.5" in text
    assert "\x1b[2K" in text  # erases the line it draws again


def test_a_dumb_terminal_gets_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = io.StringIO()
    with progress.Progress(100, "images", stream=stream, terminal=True, clock=clock) as bar:
        clock.now += 1.0
        bar.update(50, {})
    assert "\x1b" not in stream.getvalue()
    assert "50/100 images" in stream.getvalue()


@pytest.mark.parametrize(
    "seconds,text", [(9.6, "0:10"), (125, "2:05"), (7325, "2:02:05"), (360_000, "100:00:00"), (9e6, "104 days")]
)
def test_time_left_is_readable(seconds, text):
    assert progress._duration(seconds) == text
