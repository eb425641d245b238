"""One group's statistics against hand-computed values and by simulation: what intervals promise they hold."""

import numpy as np
import pytest

from experiments.comparing import coverage
from experiments.comparing.numbers import statistics


def test_a_summary_by_hand():
    found = statistics.summary(np.array([1.0, 2.0, 3.0, 4.0, 10.0]))
    assert (found.n, found.mean, found.median, found.minimum, found.maximum) == (5, 4.0, 3.0, 1.0, 10.0)
    assert found.iqm == 3.0  # of 2, 3, 4
    # Variance (9 + 4 + 1 + 0 + 36) / 4 = 12.5; t(0.975, 4) = 2.7764451
    assert found.standard_error == pytest.approx((12.5 / 5) ** 0.5)
    assert found.mean_interval == pytest.approx((4 - 2.7764451 * 2.5**0.5, 4 + 2.7764451 * 2.5**0.5))


def test_the_bootstrap_of_two_scores_is_known():
    # Medians of two draws of {0, 1}: 0, 0.5 and 1 with chances 1/4, 1/2, 1/4.
    assert statistics.summary(np.array([0.0, 1.0])).median_interval == (0.0, 1.0)


def test_percentiles_are_numpys():
    drawn = np.random.default_rng(0).normal(size=(3, statistics.RESAMPLES))
    np.testing.assert_allclose(statistics.between(drawn), np.percentile(drawn, [2.5, 97.5], axis=1))
    assert statistics.percentiles(np.ones(statistics.RESAMPLES)) is None


@pytest.mark.parametrize("same", [np.full(3, 500.0), np.array([0.3, 0.1 + 0.2, 0.3]), np.zeros(3)])
def test_one_seed_and_no_spread_have_no_interval(same: np.ndarray):
    one, flat = statistics.summary(np.array([3.0])), statistics.summary(same)
    for found in (one, flat):
        assert found.mean_interval is found.median_interval is found.iqm_interval is None
    assert one.standard_error is None and one.warnings == ("one seed: no interval",)
    assert "all 3 seeds score the same" in flat.warnings[0]


def test_scores_whose_squares_are_infinite_have_no_interval_of_the_mean():
    found = statistics.summary(np.array([1e200, 2e200, 3e200]))
    assert found.mean == pytest.approx(2e200) and found.mean_interval is None and found.median_interval is not None


@pytest.mark.parametrize(
    "scores, told",
    [
        ([1.0, 2.0, 3.0], "3 seeds: the t interval holds for normal scores only"),
        ([500.0, 499.0, 498.0, 501.0, 20.0], "skewed spread"),
        ([1.0, 2.0, 3.0, 4.0, 5.0], None),
    ],
)
def test_few_and_skewed_seeds_are_warned_of(scores: list[float], told: str | None):
    found = statistics.warnings(np.array(scores))
    assert [each.startswith(told) for each in found] == [True] if told else not found


def test_a_groups_numbers_do_not_depend_on_what_else_is_shown():
    scores = np.random.default_rng(1).normal(size=7)
    before = statistics.summary(scores)
    statistics.summary(np.arange(50.0))
    assert statistics.summary(scores) == before


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_of_normal_means_hold(n: int):
    assert 0.94 < coverage.of_mean("normal", n) < 0.96


def test_what_cannot_hold_is_known():
    """A t interval at three seeds: lognormal means, and a fifth of the seeds failing."""
    assert coverage.of_mean("lognormal", 3) == pytest.approx(0.84, abs=0.01)
    assert coverage.of_mean("bimodal, a fifth of the seeds fail", 3) == pytest.approx(0.485, abs=0.015)
