"""Curves against hand-computed values: interpolation, n at each x, intervals, thinning."""

import numpy as np
import pytest

from experiments.comparing.numbers import statistics
from experiments.comparing.parts import curves
from tests.experiments.comparing import folders


def test_a_group_is_averaged_where_its_seeds_have_rows_and_n_says_how_many(tmp_path):
    config = folders.settings("experiment=dqn/cartpole")
    one = folders.write(tmp_path / "one", config, [1.0, 2.0, 3.0, 4.0], seed=0)
    two = folders.write(tmp_path / "two", config, [3.0, None, 5.0], seed=1)
    other = folders.write(tmp_path / "other", config, [10.0, 30.0], seed=2, every=200)
    (curve,) = folders.compared(one, two, other, group=("learner",)).curves
    band = curve.bands["frames"]
    np.testing.assert_array_equal(band.x, [100, 200, 300, 400])
    np.testing.assert_array_equal(band.n, [2, 2, 3, 2])
    np.testing.assert_allclose(band.center["mean"], [2.0, 6.0, (3 + 5 + 20) / 3, 17.0])
    low, high = statistics.t_interval(np.asarray([3.0, 5.0, 20.0]))
    np.testing.assert_allclose([band.low["mean"][2], band.high["mean"][2]], [low, high])
    assert set(curve.bands) == {"frames", "updates", "hours"}
    np.testing.assert_allclose(curve.lines[0].axes["hours"], np.arange(4) / 3600)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 10])
def test_intervals_along_a_curve_are_those_of_the_tables(n):
    scores = np.random.default_rng(n).normal(size=(3, n))
    values = np.concatenate([scores, np.full((3, 2), np.nan)], axis=1)
    found = statistics.along(values)
    for place, own in enumerate(scores):
        told = statistics.summary(own)
        for name, figure, interval in (
            ("mean", told.mean, told.mean_interval),
            ("median", told.median, told.median_interval),
            ("iqm", told.iqm, told.iqm_interval),
        ):
            np.testing.assert_allclose(found["center"][name][place], figure)
            np.testing.assert_allclose([found["low"][name][place], found["high"][name][place]], np.asarray(interval))


def test_a_run_without_a_row_of_the_metric_is_named_at_the_figure(tmp_path):
    config = folders.settings("experiment=dqn/cartpole")
    one = folders.write(tmp_path / "one", config, [1.0, 2.0], seed=0)
    two = folders.write(tmp_path / "two", config, {"loss/td": [1.0, 2.0]}, seed=1)
    (curve,) = folders.compared(one, two).curves
    ((folder, why),) = curve.short
    assert folder == two and why.startswith("no row of it; done at 200 of 200 frames")


def averaged(lines) -> curves.Band:
    return curves._averaged([{"frames": curves._together(lines, 60)}])[0]["frames"]


@pytest.mark.parametrize("limit", [{"PLACES": 100}, {"CELLS": 3 * 100}])
def test_of_more_x_than_places_the_extremes_of_each_run_stay(monkeypatch, limit):
    for name, value in limit.items():
        monkeypatch.setattr(curves, name, value)
    x, value = np.arange(5_000), np.zeros(5_000)
    spike = value.copy()
    spike[1_234] = 9.0
    band = averaged([(x, spike), (x + 0.5, value), (x + 0.25, value)])
    assert band.places == 15_000 and len(band.x) < 200
    assert band.center["mean"].max() == 3.0 and band.x[np.argmax(band.center["mean"])] == 1_234


def test_an_extreme_of_the_median_stays_where_the_mean_has_none():
    x = np.arange(4_000)
    values = np.stack([np.sin(x / 100), np.sin(x / 100), -3 * np.ones(4_000)])
    values[:, 2_345] = [-6.0, 4.0, values[:2, 2_345].sum() - 1]  # the same mean
    band = averaged([(x, own) for own in values])
    assert 2_345 in band.x and len(band.x) < 200


def test_thinning_keeps_extremes_and_gaps():
    values = np.sin(np.arange(10_000) / 500)
    values[4321], values[7777], values[6000:6003] = 40.0, -40.0, np.nan
    kept = curves.thin(values, 200)
    assert len(kept) < 300 and {0, 4321, 7777, 9999} <= set(kept.tolist())
    assert np.isnan(values[kept]).any()
    np.testing.assert_array_equal(curves.thin(values[:50], 200), np.arange(50))


def test_device_hours_follow_the_devices_of_each_attempt(tmp_path):
    folder = folders.write(tmp_path / "run", folders.settings("experiment=dqn/cartpole"), [1.0, 2.0, 3.0, 4.0])
    lines = [
        '{"step": 0, "hardware": {"devices": {"kinds": {"H100": 8}}}}',
        '{"step": 2, "hardware": {"devices": {"kinds": {"H100": 4}}}}',
    ]
    (folder / "provenance.jsonl").write_text("\n".join(lines) + "\n")
    (curve,) = folders.compared(folder).curves
    np.testing.assert_allclose(curve.lines[0].axes["device hours"] * 3600, [0, 8, 12, 16])
    assert curve.lines[0].seams["frames"] == (300.0,) and curve.lines[0].seams["updates"] == (3.0,)
