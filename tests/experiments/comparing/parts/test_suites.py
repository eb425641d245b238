"""Figures over games against rliable 1.2, hand-computed values, and by simulation."""

import importlib.util
import pathlib
import sys
import types
from typing import Any

import numpy as np
import pytest

from agents import scores as reference
from experiments.comparing import coverage, scoring
from experiments.comparing.numbers import overall, statistics
from experiments.comparing.parts import pairs, suites


@pytest.fixture(scope="module")
def rliable():
    """Its metrics and library. Of arch they load the bootstrap alone: arch 7's models do not load with pandas 3."""
    pytest.importorskip("rliable", reason="rliable is in the dev extra")
    spec = importlib.util.find_spec("arch")
    assert spec is not None
    package = types.ModuleType("arch")
    package.__path__ = list(spec.submodule_search_locations or ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "arch", package)
        from rliable import library, metrics

        yield types.SimpleNamespace(library=library, metrics=metrics)


@pytest.fixture(scope="module")
def groups() -> tuple[np.ndarray, np.ndarray]:
    """Two groups, [seeds, games] as rliable has them: 5 and 8 seeds of 7 games."""
    random = np.random.default_rng(5)
    centres = np.array([-0.1, 0.2, 0.4, 0.8, 1.1, 2.0, 6.0])
    return centres + 0.3 * random.normal(size=(5, 7)), centres + 0.1 + 0.3 * random.normal(size=(8, 7))


def tasks(scores: np.ndarray) -> list[np.ndarray]:
    return list(scores.T)


def test_figures_are_rliables(rliable: Any, groups):
    for scores in groups:
        found = overall.figures(tasks(scores))
        for name, told in (
            ("median", rliable.metrics.aggregate_median),
            ("iqm", rliable.metrics.aggregate_iqm),
            ("mean", rliable.metrics.aggregate_mean),
            ("optimality_gap", rliable.metrics.aggregate_optimality_gap),
        ):
            assert getattr(found, name)[0] == pytest.approx(told(scores)), name


@pytest.mark.parametrize("name", ["median", "iqm", "optimality_gap"])
def test_bootstrap_intervals_are_rliables(rliable: Any, groups, name: str):
    """But for chance: each end is known to a few percent of the width. Rliable draws from numpy's own state."""
    np.random.seed(0)  # noqa: NPY002
    told = getattr(rliable.metrics, f"aggregate_{name}")
    both = rliable.library.get_interval_estimates({"a": groups[0]}, lambda x: np.array([told(x)]), reps=2000)
    low, high = both[1]["a"][:, 0]
    found = getattr(overall.figures(tasks(groups[0])), name)[1]
    np.testing.assert_allclose(found, (low, high), atol=0.08 * (high - low))


def test_the_chance_of_improvement_is_rliables(rliable: Any, groups):
    np.random.seed(0)  # noqa: NPY002
    chance = rliable.metrics.probability_of_improvement
    first, second = groups
    point, both = rliable.library.get_interval_estimates(
        {"a": [second, first]}, lambda x, y: np.array([chance(x, y)]), reps=150
    )
    found = suites.contest("last", ("a", "b"), _named(first), _named(second))
    assert found.improvement[0] == pytest.approx(point["a"][0])
    low, high = both["a"][:, 0]
    np.testing.assert_allclose(found.improvement[1] or (), (low, high), atol=0.2 * (high - low))


def test_performance_profiles_are_rliables(rliable: Any, groups):
    np.random.seed(0)  # noqa: NPY002
    tau = np.array([-0.2, 0.0, 0.5, 1.0, 2.0, 5.0])
    share, both = rliable.library.create_performance_profile({"a": groups[0]}, tau, reps=1000)
    found = overall.profile(tasks(groups[0]), tau)
    np.testing.assert_allclose(found[0], share["a"])
    np.testing.assert_allclose(found[1:], both["a"], atol=1 / 35 + 1e-9)  # a step: one run of 35


def _named(scores: np.ndarray) -> dict[str, np.ndarray]:
    return {f"game {number}": own for number, own in enumerate(scores.T)}


# ---- by hand ----


def test_figures_over_tasks_by_hand():
    three = [np.array([0.0, 2.0]), np.array([0.5, 0.5]), np.array([3.0, 5.0])]
    assert overall.median(three) == 1.0  # of 1, 0.5, 4
    assert overall.mean(three) == pytest.approx(5.5 / 3)
    # rliable cuts int(6 / 4) scores on each side of 0, .5, .5, 2, 3, 5.
    assert overall.iqm(three) == pytest.approx((0.5 + 0.5 + 2 + 3) / 4)
    assert overall.optimality_gap(three) == pytest.approx(1 - (0.5 + 0.5 + 1) / 3)
    found = overall.figures(three)
    assert (found.iqm[0], found.median[0], found.optimality_gap[0]) == pytest.approx((1.5, 1.0, 1 / 3))
    # Variances 2, 0, 2 of two seeds: error (1 + 0 + 1)^½ / 3 with 2² / (1² + 1²) = 2 degrees of freedom; t is 4.302653.
    half = 4.302653 * 2**0.5 / 3
    assert found.mean[1] == pytest.approx((5.5 / 3 - half, 5.5 / 3 + half), rel=1e-5)
    assert found.warnings[0].startswith("2 seeds a game: bootstrap intervals")


def test_the_bootstrap_of_iqms_is_that_of_sorted_resamples():
    """Draws seeds by the same counts, sorts them, and takes the middle half of each resample."""
    random = np.random.default_rng(0)
    own = [random.normal(size=4), random.normal(size=7)]
    found = overall.resampled(own)["iqm"]
    counts = [statistics.counts(4, 0), statistics.counts(7, 2)]
    for number in range(20):
        drawn = [np.repeat(scores, each[:, number].astype(int)) for scores, each in zip(own, counts, strict=True)]
        assert found[number] == pytest.approx(overall.iqm(drawn))


def test_seeds_are_drawn_within_their_tasks():
    """Tasks without spread of their own have none together, however far apart they are."""
    found = overall.figures([np.full(3, 1.0), np.full(3, 9.0)])
    assert found.mean[1] is found.median[1] is found.iqm[1] is found.optimality_gap[1] is None
    assert overall.figures([np.array([0.0, 0.1]), np.full(2, 9.0)]).median[1] == pytest.approx((4.5, 4.55))


def test_games_of_one_seed_are_told():
    found = overall.figures([np.array([1.0]), np.array([1.0, 2.0, 3.0])])
    assert found.mean[1] is None and any(told.startswith("one seed in 1 of 2 games") for told in found.warnings)


def test_a_verdict_over_games_by_hand():
    """Two games, three seeds of each: variances 1, 4 and 1, 4; differences 3 and 5."""
    seeds = np.array([-1.0, 0, 1])
    first, second = {"a": seeds, "b": 2 * seeds, "c": seeds}, {"a": 3 + seeds, "b": 5 + 2 * seeds, "d": seeds}
    found = suites.contest("last", ("one", "two"), first, second)
    # Error ((1 + 4 + 1 + 4) / 3)^½ / 2 with 10² / ((1 + 16 + 1 + 16) / 2) = 5.88 degrees of freedom.
    half = statistics.critical(100 / 17) * (10 / 3) ** 0.5 / 2
    assert found.mean[0] == 4 and found.mean[1] == pytest.approx((4 - half, 4 + half))
    assert found.p == pytest.approx(statistics.two_sided(4 / ((10 / 3) ** 0.5 / 2), 100 / 17))
    assert (found.told, found.games, found.only_first, found.only_second) == ("better", ("a", "b"), ("c",), ("d",))
    assert suites.contest("last", ("two", "one"), second, first).told == "worse"


def test_verdicts_over_games_say_what_they_lack():
    seeds = np.array([-1.0, 0, 1])
    told = lambda second: suites.contest("last", ("x", "y"), {"a": seeds, "b": seeds}, second).told
    assert told({"a": seeds[:2] + 9, "b": seeds + 9}).endswith("3 seeds of each game at least; fewer of a")
    assert told({"a": seeds, "b": seeds}).endswith(
        "1000 seeds of each game would not show a difference as small as this one"
    )
    more = told({"a": seeds + 0.5, "b": seeds + 0.5})
    assert more.startswith("cannot tell yet: about ") and more.endswith(" seeds of each game instead of 3")
    wanted = int(more.split()[4])  # of which four of five trials tell
    random = np.random.default_rng(0)
    one, two = random.normal(size=(2, 2, 4000, wanted))
    assert 0.77 < np.mean(suites.apart(list(one), list(two + 0.5))[2] <= 0.05) < 0.85
    flat = {"a": np.ones(3), "b": np.ones(3)}
    assert suites.contest("last", ("x", "y"), flat, flat).told.endswith("all seeds of a game score the same")


# ---- which groups ----


def _scores(**own: dict[str, Any]) -> suites.Scores:
    """Of groups by name, the returns of each of their games: of seeds 0, 1, …, or pairs of a seed and its return."""
    pairs_of = lambda values: values if isinstance(values[0], tuple) else list(enumerate(values))
    cells = [
        scoring.Cell(
            metric=scoring.RETURN,
            which="last",
            group=group,
            task=game,
            protocol="one",
            values=tuple((seed, pathlib.Path(f"{group}-{game}-{seed}"), value) for seed, value in pairs_of(values)),
            missing=(),
            summary=statistics.summary(np.asarray([value for _, value in pairs_of(values)])),
            human_normalised=None,
            warnings=(),
        )
        for group, games in own.items()
        for game, values in games.items()
    ]
    return suites.Scores(cells, {"one": {}})


def test_seeds_are_paired_over_games_by_hand():
    """Each seed gains about 10 points of pong and 50 of breakout: far less than seeds spread."""
    one = {"pong": [(0, -20.0), (1, 0.0), (2, 18.0), (9, 5.0)], "breakout": [(0, 5.0), (1, 100.0), (2, 300.0)]}
    two = {"pong": [(2, 29.0), (1, 10.0), (0, -11.0)], "breakout": [(1, 150.0), (2, 350.0), (0, 52.0)]}
    found = _scores(one=one, two=two)
    (apart,), (paired,) = found.contests("last"), found.contests("last", paired=True)
    assert apart.verdict == "cannot tell"
    assert paired.told == "better (runs without one of the same seed, not in it: 1)" and paired.improvement[0] == 1
    human = {game: told.human - told.random for game, told in reference.published().items()}
    gains = [np.array([9.0, 10, 11]) / human["pong"], np.array([47.0, 50, 50]) / human["breakout"]]
    difference = np.mean([each.mean() for each in gains])
    variances = np.array([each.var(ddof=1) / 3 for each in gains])
    error, freedom = variances.sum() ** 0.5 / 2, variances.sum() ** 2 / (variances**2 / 2).sum()
    assert paired.mean[0] == pytest.approx(difference) and apart.mean[0] != pytest.approx(difference)
    half = statistics.critical(freedom) * error
    assert paired.mean[1] == pytest.approx((difference - half, difference + half))
    assert paired.p == pytest.approx(statistics.two_sided(difference / error, freedom))


def test_games_without_pairs_are_left_out_of_paired_verdicts_and_named():
    games = {"pong": [1.0, 2.0, 3.0], "breakout": [5.0, 6.0, 9.0]}
    other = {"pong": [2.0, 3.5, 4.0], "breakout": [7.0, 8.5, 11.0]}
    again = {"alien": [(0, 1.0), (0, 2.0), (1, 3.0)], "qbert": [(7, 1.0), (8, 2.0), (9, 3.0)]}
    (told,) = _scores(a={**games, **again}, b={**other, "alien": games["pong"], "qbert": [1.0, 2.0]}).contests(
        "last", paired=True
    )
    assert told.games == ("pong", "breakout")
    assert told.told.endswith("(not paired: alien (a seed more than once), qbert (no seed on both sides))")
    found = _scores(a=games, b={**other, "pong": again["alien"]})
    assert found.contests("last", paired=True) == []
    assert (
        "b against a is not compared: fewer than two games to pair (not paired: pong"
        in found.notes("last", paired=True)[0]
    )
    (same,) = _scores(a=games, b={game: [value + 1 for value in own] for game, own in games.items()}).contests(
        "last", paired=True
    )
    assert same.p is None and same.told.endswith("all seeds of a game differ by the same")


def test_a_group_of_one_game_removes_no_profiles_and_is_named():
    both = {"pong": [1.0, 2.0, 3.0], "breakout": [5.0, 6.0, 9.0]}
    found = _scores(a=both, b={**both, "qbert": [10.0]}, c={"qbert": [4.0]})
    profiles = found.profiles("last")
    assert [(each.group, each.games, each.apart) for each in profiles] == [
        ("a", ("pong", "breakout"), ()),
        ("b", ("pong", "breakout"), ("qbert",)),
    ]
    assert found.notes("last") == ["left out over games, with a single one: c (qbert)"]
    assert found.notes("at") == [] and _scores(a={"pong": [1.0]}, b={"qbert": [1.0]}).notes("last") == []


def test_groups_without_games_in_common_have_no_profiles_and_that_is_said():
    found = _scores(a={"pong": [1.0], "breakout": [5.0]}, b={"pong": [1.0], "qbert": [5.0]})
    assert found.profiles("last") == [] and found.contests("last") == []
    assert found.notes("last") == ["no performance profiles: the 2 groups of several games share fewer than two"]


def test_of_too_many_groups_each_meets_the_best_of_the_most_games(monkeypatch):
    games = lambda *values: {"pong": list(values), "breakout": list(values)}
    every = {"low": games(1.0, 2.0, 3.0), "good": games(4.0, 5.0, 6.0), "lucky": games(20.0), "other": games(2.0, 1.0)}
    found = _scores(**every, alone={"pong": [21.0, 21.0, 21.0]})
    assert len(found.contests("last")) == 6 and len(found.notes("last")) == 1
    monkeypatch.setattr(pairs, "MOST", 5)
    against = [(each.first, each.second) for each in found.contests("last")]
    assert against == [("good", "low"), ("good", "lucky"), ("good", "other")]
    assert "4 groups make more than 5 pairs, so each is compared with good only" in found.notes("last")[1]


# ---- what they promise ----


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("name", coverage.DISTRIBUTIONS)
def test_the_interval_of_the_mean_over_games_holds(name: str, n: int):
    least = 0.91 if name == "lognormal" else 0.93
    assert least < coverage.of_suite_mean(name, n, draws=3000) < 0.97


@pytest.mark.parametrize("games", coverage.GAMES)
@pytest.mark.parametrize("n, m", [(3, 3), (5, 5), (3, 10)])
def test_verdicts_over_games_are_rarely_wrong(n: int, m: int, games: int):
    """The standard error of 3,000 draws is 0.4 %."""
    for name in (*coverage.DISTRIBUTIONS, coverage.SCALES):
        assert coverage.wrong_over_games(name, n, m, games=games, draws=3000) <= 0.062, name


def test_bootstrap_intervals_over_games_hold_nearly_from_five_seeds_on():
    held = coverage.of_suite("normal", 5, draws=80)
    assert all(share >= 0.83 for share in held.values()), held
    assert coverage.bootstrap_over_games(3, draws=150) > 0.08  # which is why no verdict is made from it
