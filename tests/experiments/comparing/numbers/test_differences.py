"""Two groups: differences and verdicts against scipy and by simulation, with the scores that lead tests astray."""

import pathlib
import time
from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.comparing import coverage
from experiments.comparing.numbers import differences
from experiments.comparing.parts import pairs


def sentence(first: list[float], second: list[float], better: str = "higher") -> str:
    return differences.compare(np.array(first), np.array(second), better=better, names=("A", "B")).sentence


@pytest.mark.parametrize("n", [3, 5, 10])
def test_equally_many_seeds_are_compared_by_scipys_welch(n: int):
    random = np.random.default_rng(n)
    first, second = random.normal(size=n), 1 + 3 * random.normal(size=n)
    found = differences.compare(first, second, better="higher")
    welch: Any = stats.ttest_ind(second, first, equal_var=False)
    between = welch.confidence_interval(0.95)
    assert found.p == pytest.approx(welch.pvalue) and found.test == "Welch"
    assert found.interval == pytest.approx((between.low, between.high))
    assert found.difference == pytest.approx(second.mean() - first.mean())


def test_unlike_numbers_of_seeds_take_both_tests_by_hand():
    """Variances 1 of 3 and 4 of 5 seeds: Welch's error (1/3 + 4/5)^½, freedom (17/15)² / (1/18 + 4/25) = 5.9587."""
    first, second = np.array([-1.0, 0, 1]), np.array([-2.0, -2, 0, 2, 2]) + 5
    welch = stats.t.sf(5 / (17 / 15) ** 0.5, 2 + (5.9587 - 2) / 4)
    student = stats.t.sf(5 / (3 * (1 / 3 + 1 / 5)) ** 0.5, 6)  # pooled variance (2 · 1 + 4 · 4) / 6 = 3
    found = differences.compare(first, second, better="higher")
    assert found.p == pytest.approx(2 * max(welch, student), rel=1e-4) and found.test == "Welch and Student"
    low, high = found.interval or (0, 0)
    assert found.p is not None and (low > 0) == (found.p <= 0.05) and (low + high) / 2 == pytest.approx(5)
    turned = differences.compare(second, first, better="higher")
    assert turned.p == pytest.approx(found.p) and turned.difference == -5


def test_verdicts_follow_the_direction():
    low, high = [1.0, 1.1, 0.9], [2.0, 2.1, 1.9]
    assert [sentence(low, high, b) for b in ("higher", "lower", "unknown")] == ["better", "worse", "higher"]
    assert [sentence(high, low, b) for b in ("higher", "lower", "unknown")] == ["worse", "better", "lower"]


def test_the_chance_of_improvement_by_hand():
    # Pairs (1, 2) against (2, 3): 2 > 1, 2 = 2, 3 > 1, 3 > 2: (1 + 0.5 + 1 + 1) / 4
    first, second = np.array([1.0, 2.0]), np.array([2.0, 3.0])
    assert differences.improvement(first, second) == 0.875
    assert differences.improvement(first, second, better="lower") == 0.125
    u = stats.mannwhitneyu(second, first).statistic
    assert differences.improvement(first, second) == u / 4
    _, between = differences.improvements(first, second, better="higher")
    assert between == (0.5, 1.0)  # 0.5 where both draw 2, with a chance of 1/16; 1 where they draw 1 or 3 twice


def test_a_thousand_seeds_fit_into_memory():
    first, second = np.random.default_rng(2).normal(size=(2, 1000))
    low, high = differences.compare(first, second, better="higher").improvement_interval or (0, 0)
    assert low < differences.improvement(first, second) < high


# ---- scores that lead tests astray ----


def test_groups_without_any_spread_are_told_apart_by_permutations():
    compare = lambda n: differences.compare(np.full(n, 400.0), np.full(n, 500.0), better="higher")
    assert compare(3).p == pytest.approx(0.1) and compare(3).verdict == "cannot tell"  # 2 of 20 ways to divide six
    assert compare(3).sentence == "cannot tell yet: about 1 more seed of each"  # 2 of 70 ways to divide eight
    assert compare(5).p == pytest.approx(2 / 252) and compare(5).verdict == "better"


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_scores_that_are_all_the_same_are_no_difference(value: float):
    """Rounding is none either: 0.1 + 0.2 is not 0.3."""
    same = [value + (0.1 + 0.2 - 0.3)] * 9 if value else [0.0] * 9
    found = differences.compare(np.full(9, value), np.array(same), better="higher")
    assert found.p == 1 and found.sentence == "cannot tell yet: all seeds score the same"


def test_one_side_without_spread():
    assert sentence([500.0] * 3, [480.0, 470.0, 490.0]).startswith("cannot tell yet: about")
    assert sentence([500.0] * 3, [499.0, 498.0, 499.5], "higher") == "cannot tell yet: about 3 more seeds of each"
    assert sentence([0.0] * 5, [1.0, 1.1, 0.9, 1.0, 1.05]) == "better"
    assert sentence([0.0] * 5, [1.0, 1.1, 0.9, 1.0, 1.05], "lower") == "worse"


def test_outliers_and_infinite_squares_are_not_told_apart():
    assert sentence([1.0, 2.0, 3.0], [1.0, 2.0, 1e9]).startswith("cannot tell yet: about")
    found = differences.compare(np.array([1e200, 2e200, 3e200]), np.array([1.0, 2.0, 3.0]), better="higher")
    assert found.p is None and found.verdict == "cannot tell"


def test_fewer_than_three_seeds_have_no_verdict():
    found = differences.compare(np.array([0.0, 1e-9]), np.array([1.0, 1.0 + 1e-9]), better="higher")
    assert found.p is not None and found.p < 1e-6
    assert found.sentence == "cannot tell yet: a verdict takes 3 seeds of each at least, better 5 or more"
    one = differences.compare(np.array([0.0]), np.array([1.0]), better="higher")
    assert one.interval is None and one.improvement_interval is None and one.sentence == found.sentence


# ---- more seeds ----


def test_more_seeds_are_as_many_as_the_power_needs():
    """Scores one spread apart: 17 a group for 80 % (the textbooks' number); 5 are there."""
    first = np.array([-1.2649, -0.6325, 0, 0.6325, 1.2649])  # variance 1
    found = differences.compare(first, first + 1, better="higher")
    assert found.more_seeds == (12, 12) and found.sentence == "cannot tell yet: about 12 more seeds of each"
    tiny = differences.compare(first, first + 1e-3, better="higher")
    assert tiny.more_seeds is None and "1000 seeds of each would not show" in tiny.sentence
    assert differences.compare(first, first[::-1], better="higher").more_seeds is None


@pytest.mark.parametrize(
    "n, m, apart, spread", [(3, 3, 1.5, 1), (5, 5, 1, 3), (12, 4, 1, 1), (4, 12, 1.4, 2), (30, 3, 1, 1)]
)
def test_so_many_more_seeds_tell_in_four_of_five_trials(n: int, m: int, apart: float, spread: float):
    """Of normal scores whose means and spreads are those that were seen; one seed less of each tells in fewer."""
    exact = lambda k: np.sqrt((k - 1) / k) * stats.zscore(np.arange(k))  # k scores of mean 0 and variance 1
    more = differences.seeds_needed(exact(n), apart + spread * exact(m))
    assert more is not None
    random, told = np.random.default_rng(0), []
    for less in (0, 1):
        a, b = (there + max(further - less, 0) for there, further in zip((n, m), more, strict=True))
        one, two = random.normal(size=(8000, a)), apart + spread * random.normal(size=(8000, b))
        told.append(np.mean(differences.two_samples(one, two)[1] <= 0.05))
    assert told[1] < 0.815 and 0.78 < told[0] < 0.9


def test_more_seeds_of_one_group_are_named():
    first, second = np.array([-1.0, 0, 1] * 8), np.array([0.1, 1, 1.9])
    assert (
        sentence(list(first), list(second)).endswith(" more seeds of B")
        or sentence(list(first), list(second)) == "better"
    )
    told = sentence([0.0, 1, 2, 3, 4, 5], [2.0, 3, 4, 5])
    assert told.startswith("cannot tell yet: about ") and " of A and " in told and told.endswith(" of B")


# ---- seeds in pairs ----


def test_paired_seeds_are_compared_by_their_differences():
    first = np.array([1.0, 5.0, 9.0, 3.0])
    second = first + np.array([1.0, 1.1, 0.9, 1.0])
    assert differences.compare(first, second, better="higher").verdict == "cannot tell"
    found = differences.compare_paired(first, second, better="higher")
    assert found.verdict == "better" and found.test == "paired t" and found.improvement == 1
    assert found.p == pytest.approx(stats.ttest_rel(second, first)[1])


def test_more_pairs_are_as_many_as_their_differences_need():
    """Differences one spread from 0: 10 pairs for 80 % (the textbooks' number), however far the seeds are apart."""
    apart = 1 + np.array([-1.2649, -0.6325, 0, 0.6325, 1.2649])
    first = np.array([0.0, 100, 200, 300, 400])
    found = differences.compare_paired(first, first + apart, better="lower")
    assert found.more_seeds == (5, 5) and found.sentence == "cannot tell yet: about 5 more seeds on both sides"
    assert found.improvement == pytest.approx(1 / 5)  # only -0.26 is lower


def test_pairs_that_all_differ_by_the_same():
    first = np.array([1.0, 2.0, 7.0, 3.0, 4.0, 9.0])
    assert differences.compare_paired(first, first + 1, better="higher").p == 2 / 2**6
    assert differences.compare_paired(first[:3], first[:3] + 1, better="higher").verdict == "cannot tell"
    assert (
        differences.compare_paired(first, first, better="higher").sentence
        == "cannot tell yet: all seeds score the same"
    )
    assert "3 seeds of each at least" in differences.compare_paired(first[:1], first[:1], better="higher").sentence


# ---- many pairs ----


def test_holms_correction_by_hand():
    # Ordered .01, .02, .03, .04: times 4, 3, 2, 1 is .04, .06, .06, .04; never less than the one before.
    np.testing.assert_allclose(pairs.holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(pairs.holm([0.9, 0.8]), [1, 1])
    assert len(pairs.holm([])) == 0


def test_a_pair_takes_little_time():
    """30 learners on 57 games are 25,000 pairs: 0.6 ms each were measured, with the machine busy."""
    first, second = np.random.default_rng(0).normal(size=(2, 5))
    differences.compare(first, second, better="higher")
    before = time.process_time()
    for _ in range(200):
        differences.compare(first, second, better="higher")
    assert time.process_time() - before < 200 * 4e-3


# ---- what they promise ----


@pytest.mark.parametrize("n, m", [*coverage.PAIRS, (3, 30), (10, 5), (30, 30)])
@pytest.mark.parametrize("name", [*coverage.DISTRIBUTIONS, coverage.UNLIKE])
def test_equal_groups_are_rarely_called_better_or_worse(name: str, n: int, m: int):
    """The standard error of 10,000 draws is 0.2 %."""
    assert coverage.wrong_verdicts(name, n, m, draws=10_000) <= 0.055


def test_more_seeds_of_one_group_do_not_cost_much_power():
    assert coverage.power(3, 10) > coverage.power(3, 3) and coverage.power(5, 30) > coverage.power(5, 5) + 0.1
    assert coverage.power(5, 5) == pytest.approx(0.52, abs=0.02)


def test_welch_alone_would_not_hold_with_unlike_numbers():
    assert coverage.welch_alone("bimodal, half of the seeds fail", 3, 10) > 0.1
    assert coverage.welch_alone(coverage.UNLIKE, 10, 3) > 0.06


@pytest.mark.parametrize("name", [*coverage.DISTRIBUTIONS, coverage.UNLIKE])
def test_the_documents_table_is_what_is_measured(name: str):
    row = " | ".join(f"{coverage.wrong_verdicts(name, n, m):.1%}".replace("%", " %") for n, m in coverage.PAIRS)
    text = (pathlib.Path(__file__).parents[4] / "docs" / "comparing.md").read_text()
    assert f"| {name} | {row} |" in text
