"""How soon runs reach a score, by hand: seeds that never do count as later than all others."""

import pathlib

import numpy as np
import pytest

from experiments.comparing import report, scoring
from experiments.comparing.forms import tables
from experiments.comparing.parts import efficiency
from experiments.comparing.runs import reading
from tests.experiments.comparing import folders


@pytest.fixture
def six(tmp_path: pathlib.Path) -> list[pathlib.Path]:
    """Three seeds of two lags: their last returns are 4, 5, 6 (mean 5) and 7, 8, 3 (mean 6)."""
    config = folders.settings("experiment=dqn/cartpole", "tracker=none")
    rows = {
        0: ([1.0, 5.0, 4.0], [5.5, None, 5.0], [1.0, 2.0, 6.0]),
        1: ([5.0, 6.0, 7.0], [1.0, 9.0, 8.0], [1.0, 2.0, 3.0]),
    }
    return [
        folders.write(tmp_path / f"{lag}-{seed}", config, values, lag=lag, seed=seed, every=1200)
        for lag, own in rows.items()
        for seed, values in enumerate(own)
    ]


def made(places: list[pathlib.Path], **asked) -> report.Report:
    return folders.compared(*places, **asked)


def test_the_threshold_is_the_least_good_of_the_groups_means(six):
    slow, fast = made(six).efficiency
    assert (slow.group, slow.threshold, slow.n, slow.reached) == ("lag=0", 5.0, 3, 3)
    assert slow.costs["frames"] == (2400, 1200, 3600) and not slow.never
    assert slow.costs["hours"] == pytest.approx((1 / 3600, 0, 2 / 3600))
    assert (fast.group, fast.reached, fast.n) == ("lag=1", 2, 3)
    assert fast.costs["frames"] == (2400, 1200, None)
    ((seed, folder, told),) = fast.never
    assert (seed, folder, told) == (2, six[5], "done at 3,600 of 3,600 frames")


def test_a_score_that_half_of_the_seeds_miss_has_no_median(six):
    slow, fast = made(six, reach=8).efficiency
    assert (slow.threshold, slow.reached, slow.costs, len(slow.never)) == (8, 0, {}, 3)
    assert fast.reached == 1 and fast.costs["frames"] == (None, 2400, None)
    (table,) = [table for table in tables.tables(made(six, reach=8)) if table.name == "efficiency"]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["reached"] for row in rows] == ["0 of 3", "1 of 3"]
    assert rows[1]["frames: soonest and latest"] == "2400 to never" and "seed 2" in rows[1]["never"]


def test_a_run_that_failed_before_its_first_score_never_reached_it(six, tmp_path: pathlib.Path):
    config = folders.settings("experiment=dqn/cartpole", "tracker=none")
    dead = folders.write(tmp_path / "dead", config, {"loss/td": [1.0] * 3}, lag=0, seed=3, every=1200)
    slow, _ = made([*six, dead]).efficiency
    assert (slow.n, slow.reached) == (4, 3) and slow.costs["frames"] == (3000, 1200, None)
    assert [folder for _, folder, _ in slow.never] == [dead]


def test_lower_scores_are_reached_from_above():
    values = np.array([9.0, np.nan, 4.0, 5.0, 3.0])
    assert efficiency.first(values, 4.0, "lower") == 2 and efficiency.first(values, 9.0, "higher") == 0
    assert efficiency.first(values, 2.0, "lower") is None and efficiency.first(np.full(3, np.nan), 0.0, "lower") is None


def test_a_metric_without_direction_has_no_threshold(six):
    config = folders.settings("experiment=dqn/cartpole", "tracker=none")
    for lag in (0, 1):
        for seed in range(3):
            place = six[0].parent / f"n{lag}{seed}"
            folders.write(place, config, {"grad/norm": [1.0, 2.0 + lag + seed / 10]}, lag=lag, seed=seed)
    runs = [reading.read(six[0].parent / f"n{lag}{seed}", ["grad/norm"]) for lag in (0, 1) for seed in range(3)]
    found = report.make(
        [run for run in runs if isinstance(run, reading.Run)], [], scoring.Asked(metrics=("grad/norm",))
    )
    assert found.metrics == {"grad/norm": "unknown"} and not found.efficiency
    assert [verdict.told for verdict in found.verdicts] == ["higher"]
    assert {cell.which for cell in found.cells} == {"last"}
    assert any("no direction is known of grad/norm" in note for note in found.notes)
