"""Which pairs of groups have a verdict where there are too many for all."""

import pytest

from experiments.comparing import report, scoring
from experiments.comparing.parts import pairs
from experiments.comparing.runs import reading
from tests.experiments.comparing import folders


@pytest.fixture(scope="module")
def base():
    return folders.settings("experiment=dqn/cartpole", "tracker=none")


def _report(folder, **asked):
    return folders.compared(*sorted(folder.iterdir()), **asked)


def _write(folder, base, group, values, *, sticky=0.0, metric=folders.METRIC):
    for seed, value in enumerate(values):
        place = folder / f"{group}-{sticky}-{seed}"
        folders.write(place, base, {metric: [value]}, protocol={"sticky": sticky}, lag=group, seed=seed)


def test_of_too_many_each_is_compared_with_the_best_of_enough_runs_by_its_protocol(base, tmp_path, monkeypatch):
    _write(tmp_path, base, 0, [1.0, 2.0, 3.0])
    _write(tmp_path, base, 1, [4.0, 5.0, 6.0])
    _write(tmp_path, base, 2, [99.0])  # one lucky run
    _write(tmp_path, base, 3, [7.0, 8.0, 9.0], sticky=0.25)
    _write(tmp_path, base, 4, [1.0, 2.0, 3.0], sticky=0.25)
    _write(tmp_path, base, 1, [4.0, 5.5, 6.0], sticky=0.25)
    monkeypatch.setattr(pairs, "MOST", 14)
    found = _report(tmp_path)
    against = {(each.first, each.second) for each in found.verdicts}
    assert against == {("lag=1", "lag=0"), ("lag=1", "lag=2"), ("lag=3", "lag=1"), ("lag=3", "lag=4")}
    assert not any(each.told.startswith("not compared") for each in found.verdicts)
    (note,) = [note for note in found.notes if "make more than 14 pairs" in note]
    assert "5 groups by several protocols (6 in all) make" in note and "the best mean only" in note


def test_where_none_has_enough_runs_the_best_is_of_all(base, tmp_path, monkeypatch):
    for group in range(3):
        _write(tmp_path, base, group, [float(group)])
    monkeypatch.setattr(pairs, "MOST", 2)
    assert {each.first for each in _report(tmp_path).verdicts} == {"lag=2"}
    assert {each.first for each in _report(tmp_path, better="lower").verdicts} == {"lag=0"}


def test_where_no_direction_is_known_it_is_the_highest_and_that_is_said(base, tmp_path, monkeypatch):
    for group in range(3):
        _write(tmp_path, base, group, [float(group)], metric="grad/norm")
    monkeypatch.setattr(pairs, "MOST", 2)
    runs = [reading.read(place, ["grad/norm"]) for place in sorted(tmp_path.iterdir())]
    kept = [run for run in runs if isinstance(run, reading.Run)]
    found = report.make(kept, [], scoring.Asked(metrics=("grad/norm",)))
    assert {each.first for each in found.verdicts} == {"lag=2"}
    assert any("3 groups make more than 2 pairs" in note and "the highest mean only" in note for note in found.notes)
