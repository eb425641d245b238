"""Statistics against hand-computed values, against scipy, and by simulation: what intervals promise they hold."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.comparing import coverage, statistics


def test_a_summary_by_hand():
    found = statistics.summary(np.array([1.0, 2.0, 3.0, 4.0, 10.0]))
    assert (found.n, found.mean, found.median, found.minimum, found.maximum) == (5, 4.0, 3.0, 1.0, 10.0)
    assert found.iqm == 3.0  # of 2, 3, 4
    # Variance (9 + 4 + 1 + 0 + 36) / 4 = 12.5; t(0.975, 4) = 2.7764451
    assert found.standard_error == pytest.approx((12.5 / 5) ** 0.5)
    assert found.mean_interval == pytest.approx((4 - 2.7764451 * 2.5**0.5, 4 + 2.7764451 * 2.5**0.5))


def test_the_bootstrap_of_two_scores_is_known():
    # Medians of two draws of {0, 1}: 0, 0.5 and 1 with chances 1/4, 1/2, 1/4.
    assert statistics.bootstrap(lambda drawn: np.median(drawn[0], axis=-1), [np.array([0.0, 1.0])]) == (0.0, 1.0)


def test_one_seed_and_no_spread_have_no_interval():
    one, same = statistics.summary(np.array([3.0])), statistics.summary(np.full(3, 500.0))
    for found in (one, same):
        assert found.mean_interval is found.median_interval is found.iqm_interval is None
    assert one.standard_error is None and one.warnings == ("one seed: no interval",)
    assert "all 3 seeds score the same" in same.warnings[0]


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


@pytest.mark.parametrize("n, m", [(3, 3), (5, 5), (10, 10), (3, 8)])
def test_welch_is_scipys_and_with_unlike_numbers_the_stricter_of_two(n: int, m: int):
    random = np.random.default_rng(n)
    first, second = random.normal(size=n), 1 + 3 * random.normal(size=m)
    found = statistics.compare(first, second, better="higher")
    both: Any = [stats.ttest_ind(second, first, equal_var=equal) for equal in (False, True)]
    assert found.p == pytest.approx(max(each.pvalue for each in both[: 1 if n == m else 2]))
    intervals = [each.confidence_interval(0.95) for each in both[: 1 if n == m else 2]]
    wider = max(intervals, key=lambda interval: interval.high - interval.low)
    assert found.interval == pytest.approx((wider.low, wider.high))
    assert found.difference == pytest.approx(second.mean() - first.mean())


def test_verdicts_follow_the_direction():
    low, high = np.array([1.0, 1.1, 0.9]), np.array([2.0, 2.1, 1.9])
    words = lambda first, second, better: statistics.compare(first, second, better=better).sentence
    assert [words(low, high, b) for b in ("higher", "lower")] == ["better", "worse"]
    assert [words(high, low, b) for b in ("higher", "lower")] == ["worse", "better"]


def test_the_chance_of_improvement_by_hand():
    # Pairs (1, 2) against (2, 3): 2 > 1, 2 = 2, 3 > 1, 3 > 2: (1 + 0.5 + 1 + 1) / 4
    first, second = np.array([1.0, 2.0]), np.array([2.0, 3.0])
    assert statistics.improvement(first, second) == 0.875
    assert statistics.improvement(first, second, better="lower") == 0.125
    u = stats.mannwhitneyu(second, first).statistic
    assert statistics.improvement(first, second) == u / 4


def test_groups_without_any_spread_are_told_apart_by_permutations():
    compare = lambda n: statistics.compare(np.full(n, 400.0), np.full(n, 500.0), better="higher")
    assert compare(3).p == pytest.approx(0.1) and compare(3).verdict == "cannot tell"  # 2 of 20 ways to divide six
    assert compare(5).p == pytest.approx(2 / 252) and compare(5).verdict == "better"
    assert statistics.compare(np.full(9, 1.0), np.full(9, 1.0), better="higher").p == 1


def test_fewer_than_three_seeds_have_no_verdict():
    found = statistics.compare(np.array([0.0, 1e-9]), np.array([1.0, 1.0 + 1e-9]), better="higher")
    assert found.p is not None and found.p < 1e-6
    assert found.sentence == "cannot tell yet: a verdict takes 3 seeds of each at least, better 5 or more"
    assert statistics.compare(np.array([0.0]), np.array([1.0]), better="higher").interval is None


def test_more_seeds_are_as_many_as_the_power_needs():
    """Scores one spread apart: 17 a group for 80 % (the textbooks' number); 5 are there."""
    first = np.array([-1.2649, -0.6325, 0, 0.6325, 1.2649])  # variance 1
    found = statistics.compare(first, first + 1, better="higher")
    assert found.more_seeds == (12, 12) and found.sentence == "cannot tell yet: about 12 more seeds of each"
    random = np.random.default_rng(0)
    one, two = random.normal(size=(2, 4000, 17))
    _, p = statistics.two_samples(one, two + 1)
    assert 0.78 < np.mean(p <= 0.05) < 0.84
    tiny = statistics.compare(first, first + 1e-3, better="higher")
    assert tiny.more_seeds is None and "1000 seeds of each would not show" in tiny.sentence


def test_paired_seeds_are_compared_by_their_differences():
    first = np.array([1.0, 5.0, 9.0, 3.0])
    second = first + np.array([1.0, 1.1, 0.9, 1.0])
    assert statistics.compare(first, second, better="higher").verdict == "cannot tell"
    found = statistics.compare_paired(first, second, better="higher")
    assert found.verdict == "better" and found.test == "paired t"
    assert found.p == pytest.approx(stats.ttest_rel(second, first)[1])


def test_figures_over_tasks_by_hand():
    tasks = [np.array([0.0, 2.0]), np.array([0.5, 0.5]), np.array([3.0, 5.0])]
    assert statistics.task_median(tasks) == 1.0  # of 1, 0.5, 4
    assert statistics.task_mean(tasks) == pytest.approx(5.5 / 3)
    # rliable cuts int(6 / 4) scores on each side of 0, .5, .5, 2, 3, 5.
    assert statistics.iqm(tasks) == pytest.approx((0.5 + 0.5 + 2 + 3) / 4)
    assert statistics.optimality_gap(tasks) == pytest.approx(1 - (0.5 + 0.5 + 1) / 3)
    found = statistics.suite(tasks)
    assert (found.iqm[0], found.median[0], found.optimality_gap[0]) == pytest.approx((1.5, 1.0, 1 / 3))


def test_seeds_are_drawn_within_their_tasks():
    """Tasks without spread of their own have none together, however far apart they are."""
    assert statistics.suite([np.full(3, 1.0), np.full(3, 9.0)]).mean[1] is None
    interval = statistics.suite([np.array([0.0, 0.1]), np.full(2, 9.0)]).mean[1]
    assert interval == pytest.approx((4.5, 4.55))


def test_a_groups_numbers_do_not_depend_on_what_else_is_shown():
    scores = np.random.default_rng(1).normal(size=7)
    before = statistics.summary(scores)
    statistics.summary(np.arange(50.0))
    assert statistics.summary(scores) == before


def test_a_thousand_seeds_fit_into_memory():
    first, second = np.random.default_rng(2).normal(size=(2, 400))
    low, high = statistics.compare(first, second, better="higher").improvement_interval or (0, 0)
    assert low < statistics.improvement(first, second) < high


# ---- what they promise ----


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_of_normal_means_hold(n: int):
    assert 0.94 < coverage.of_mean("normal", n) < 0.96


@pytest.mark.parametrize("n, m", coverage.PAIRS)
@pytest.mark.parametrize("name", coverage.DISTRIBUTIONS)
def test_equal_groups_are_rarely_called_better_or_worse(name: str, n: int, m: int):
    assert coverage.wrong_verdicts(name, n, m) <= 0.05


@pytest.mark.parametrize("n, m", coverage.PAIRS)
def test_unlike_spreads_are_no_difference(n: int, m: int):
    assert coverage.unlike_spreads(n, m) <= 0.07  # where fewer seeds have the wider spread


def test_what_cannot_hold_is_known():
    """A t interval at three seeds: lognormal means, and a fifth of the seeds failing."""
    assert coverage.of_mean("lognormal", 3) == pytest.approx(0.84, abs=0.01)
    assert coverage.of_mean("bimodal, a fifth of the seeds fail", 3) == pytest.approx(0.485, abs=0.015)


def test_welch_alone_would_not_hold_with_unlike_numbers():
    assert coverage.welch_alone("bimodal, half of the seeds fail", 3, 10) > 0.1


def test_intervals_over_suites_hold_nearly():
    held = coverage.of_suite(5, draws=100)
    assert all(share >= 0.87 for share in held.values()), held
