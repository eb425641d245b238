"""A metric against settings: shares of variance by hand and against scipy, bins, what moves together."""

import numpy as np
import pytest
from scipy import stats
from scipy.stats import contingency

from experiments.comparing.forms import tables
from experiments.comparing.numbers import statistics
from experiments.comparing.parts import parameters
from tests.experiments.comparing import folders


@pytest.fixture(scope="module")
def base():
    return folders.settings("experiment=dqn/cartpole", "tracker=none")


def test_shares_by_hand():
    share, raw = parameters.explained([np.asarray([1.0, 3.0]), np.asarray([5.0, 7.0])])
    assert raw == pytest.approx(16 / 20) and share == pytest.approx((16 - 1 * 4 / 2) / 20)
    rng = np.random.default_rng(0)
    inside = [rng.normal(size=n) for n in (4, 5, 6)]
    share, raw = parameters.explained(inside)
    f = stats.f_oneway(*inside).statistic
    assert raw == pytest.approx(2 * f / (2 * f + 12)) and share == pytest.approx(max(0, (2 * f - 2) / (2 * f + 12)))


def test_a_setting_that_does_nothing_explains_nothing():
    rng = np.random.default_rng(0)
    shares = np.asarray([parameters.explained([*rng.normal(size=(3, 4))]) for _ in range(2000)])
    assert np.mean(shares[:, 1]) == pytest.approx(2 / 11, abs=0.01)  # η² of noise
    assert np.mean(shares[:, 0] == 0) > 0.5 and np.median(shares[:, 0]) == 0


def test_together_is_cramers_v():
    rng = np.random.default_rng(0)
    first, second = rng.integers(3, size=40), rng.integers(2, size=40)
    table = np.histogram2d(first, second, bins=(3, 2))[0].astype(int)
    assert parameters.cramer(first, second) == pytest.approx(contingency.association(table, method="cramer"))
    crossed = np.asarray([0, 0, 1, 1]), np.asarray([0, 1, 0, 1])
    assert parameters.cramer(*crossed) == 0 and parameters.cramer(crossed[0], 1 - crossed[0]) == 1


def test_levels_pool_what_else_differs(base, tmp_path):
    values = {}
    for batch in (16, 8):
        for lag in (0, 1):
            for seed in range(3):
                values[batch, lag, seed] = 100.0 * (batch == 16) + 10 * lag + [0, 3, 9][seed]
                changes = {"learner.batch": batch, "lag": lag, "seed": seed, "source.shards": batch}
                folders.write(tmp_path / f"{batch}-{lag}-{seed}", base, [values[batch, lag, seed]], **changes)
    found = folders.compared(*sorted(tmp_path.iterdir()))
    by_key = {each.key: each for each in found.parameters}
    assert set(by_key) == {"lag", "learner.batch", parameters.ALL} or set(by_key) == {
        "lag",
        "source.shards",
        parameters.ALL,
    }
    batch = by_key.get("learner.batch") or by_key["source.shards"]
    assert {batch.key, *batch.also} == {"learner.batch", "source.shards"} and batch.together == ()
    assert [(level.value, level.number, level.n) for level in batch.levels] == [("8", 8.0, 6), ("16", 16.0, 6)]
    own = np.asarray([value for (size, _, _), value in values.items() if size == 8])
    assert batch.levels[0].mean == pytest.approx(own.mean()) and batch.levels[0].median == np.median(own)
    assert batch.levels[0].interval == pytest.approx(statistics.mean_interval(own))
    other = np.asarray([value for (size, _, _), value in values.items() if size == 16])
    assert batch.share == pytest.approx(parameters.explained([own, other])[0]) and (batch.share or 0) > 0.9
    everything = by_key[parameters.ALL]
    assert len(everything.levels) == 4 and everything.share is not None and everything.share > (batch.share or 0)
    written = {table.name: table for table in tables.tables(found)}
    assert written["importance"].rows[0][3] == batch.key and written["importance"].rows[-1][3] == parameters.ALL
    assert len(written["parameters"].rows) == 4


def test_too_few_runs_and_settings_that_move_together_are_said(base, tmp_path):
    for number, (lag, batch) in enumerate([(0, 8), (0, 8), (1, 16), (1, 16), (1, 8)]):
        changes = {"lag": lag, "learner.batch": batch, "seed": number}
        folders.write(tmp_path / str(number), base, [float(number)], **changes)
    by_key = {each.key: each for each in folders.compared(*sorted(tmp_path.iterdir())).parameters}
    assert by_key["lag"].together == ("learner.batch (V 0.67)",) and by_key["lag"].share is not None
    assert by_key[parameters.ALL].share is None
    assert by_key[parameters.ALL].told == "needs 6 runs for 3 levels, 3 more than levels; there are 5"


def test_many_numbers_are_put_into_bins(base, tmp_path):
    rates = 10.0 ** np.linspace(-5, -2, 12)
    for number, rate in enumerate(rates):
        folders.write(tmp_path / str(number), base, [float(number >= 6)], **{"optimizer.learning_rate": float(rate)})
    (found,) = folders.compared(*sorted(tmp_path.iterdir())).parameters
    assert [level.n for level in found.levels] == [3, 3, 3, 3] and found.share is not None and found.share > 0.9
    assert [level.mean for level in found.levels] == [0, 0, 1, 1]
    assert found.levels[0].value == f"{rates[0]:.4g} to {rates[2]:.4g}"
    assert found.levels[0].number == pytest.approx(rates[1])


@pytest.mark.parametrize(
    "others, counts",
    [([*range(1, 9)], [30, 8]), ([*range(-8, 0)], [8, 30]), ([*range(-4, 0), *range(1, 6)], [4, 30, 5])],
)
def test_a_value_of_most_runs_has_a_bin_of_its_own(others, counts):
    names, numbers, codes = parameters._levels([0.0] * 30 + [float(n) for n in others])
    assert np.bincount(codes).tolist() == counts
    assert names[codes[0]] == "0" and numbers[codes[0]] == 0 and set(codes[:30]) == {codes[0]}


def test_a_setting_that_most_runs_leave_at_its_least_is_in_the_tables(base, tmp_path):
    for number, value in enumerate([0.0] * 30 + [float(n) for n in range(1, 9)]):
        folders.write(tmp_path / str(number), base, [float(value > 0)], seed=number, gamma=value)
    (found,) = folders.compared(*sorted(tmp_path.iterdir())).parameters
    assert [(level.n, level.mean) for level in found.levels] == [(30, 0.0), (8, 1.0)] and (found.share or 0) > 0.9


def test_values_of_every_kind_are_levels(base, tmp_path):
    odd = [None, True, "a", [1, 2], {"b": 1}, 3, 0.5, "3"]
    for number, value in enumerate(odd):
        folders.write(tmp_path / str(number), base, [1.0], **{"learner.loss": value}, seed=number)
    found = [each for each in folders.compared(*sorted(tmp_path.iterdir())).parameters if each.key == "learner.loss"]
    names = [level.value for level in found[0].levels]
    assert names[:2] == ["0.5", "3"] and {'"3"', "null", "true", "a", "[1, 2]"} <= set(names)
    assert found[0].share is None


def test_vast_scores_have_no_share(base, tmp_path):
    for number, value in enumerate([1e200, -1e200, 1e200, 0.0, 1.0, 1e190]):
        folders.write(tmp_path / str(number), base, [value], lag=number % 2, seed=number)
    (found,) = [
        each for each in folders.compared(*sorted(tmp_path.iterdir()), group=("seed",)).parameters if each.key == "lag"
    ]
    assert found.share is None and "too far apart" in found.told
