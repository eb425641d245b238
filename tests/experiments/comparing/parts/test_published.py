"""Published curves: their numbers, where they stand beside ours, and what is said of their protocol."""

import numpy as np
import pytest

from agents import scores
from experiments.comparing.forms import tables
from experiments.comparing.numbers import statistics
from experiments.comparing.parts import published
from tests.experiments.comparing import folders

KEYS = ("source.game", "source.environments.game", "evaluators.episodes.environments.game")


@pytest.fixture(scope="module")
def base():
    return folders.settings("experiment=dqn/atari", "source.game=pong", "tracker=none")


def test_curves_hold_the_numbers_of_their_files():
    pong = scores.curve("dqn", "pong")
    assert pong is not None and pong.runs == 5 and pong.std is not None
    assert (pong.frames[0], pong.mean[0], pong.std[0]) == (1_000_000, -20.35, 0.12)
    assert pong.frames == tuple(n * 1_000_000 for n in (1, 2, 5, 10, 20, 40, 100, 199))
    btr = scores.curve("btr", "assault")
    assert btr is not None and (btr.mean[0], btr.std, btr.runs, btr.frames[-1]) == (382.83, None, 1, 11_000_000)
    assert scores.curve("btr", "montezuma_revenge") is None and scores.curve("dqn", "CartPole-v1") is None
    for name in scores.CURVES:
        assert scores.curve(name, "pong") is not None


def test_every_row_of_the_files_is_in_a_curve():
    games = {row["game"] for study in ("dopamine_atari.csv", "btr_atari.csv") for row in scores._read(study)}
    found = [curve for name in scores.CURVES for game in games if (curve := scores.curve(name, game))]
    assert sum(len(curve.mean) for curve in found) == sum(
        len(scores._read(study)) for study in ("dopamine_atari.csv", "btr_atari.csv")
    )


def test_groups_stand_beside_at_the_last_x_before(base, tmp_path):
    told = {"sticky": 0.0, "evaluators": {"episodes": {"sticky": 0.0, "epsilon": 0.01, "frame_cap": 108_000}}}
    for seed, every in enumerate([480_000, 950_000, 1_100_000]):  # rows at .48 .96 1.44, .95 1.9 2.85, 1.1 2.2 3.3 M
        values = [float(seed), 10.0 + seed, 20.0 + seed]
        folders.write(tmp_path / str(seed), base, values, every=every, seed=seed, protocol=told)
    found = folders.compared(*sorted(tmp_path.iterdir()), published=("dqn", "btr"), group=("learner",))
    dqn, btr = found.published
    assert (dqn.label, btr.label, dqn.axis, dqn.runs) == ("Dopamine DQN", "Beyond the Rainbow", "frames", 5)
    first, second = dqn.beside
    assert (first.at, first.x, first.most) == (1_000_000, 950_000, 960_000)
    assert (first.summary.n, first.missing) == (2, 1)  # the third seed has not begun
    ours = [10.0, 1.0]  # own values of seeds 0 and 1, nothing between two of them
    assert first.summary.mean == pytest.approx(np.mean(ours))
    assert first.summary.mean_interval == pytest.approx(statistics.mean_interval(np.asarray(ours)))
    # Seed 0 has ended too early, seed 2 has no value between 1.8 and 2 M.
    assert (second.at, second.x, second.most, second.summary.mean) == (2_000_000, 1_900_000, 1_900_000, 11.0)
    assert (second.summary.n, second.missing) == (1, 2)
    assert first.differs == ("training scores there, evaluations here", "sticky 0.25 there, 0 here")
    assert btr.beside[0].differs == ("sticky 0.25 there, 0 here", "episodes 100 there, not said here")
    assert "sticky 0.25, epsilon 0.01, frame_cap 108,000; mean of 5 runs" in dqn.protocol
    assert {cell.summary.n for cell in found.cells if cell.summary} == {3}  # nothing of theirs is among ours
    (table,) = [each for each in tables.tables(found) if each.name == "published"]
    assert len(table.rows) == 8 + 11
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["frames"], row["its mean"], row["its std"]) == (1_000_000, -20.35, 0.12)
    assert (row["at frames"], row["to frames"], row["runs without a value"]) == (950_000, 960_000, 1)
    assert table.rows[1][table.columns.index("to frames")] is None


def test_seeds_that_end_just_before_stay(base, tmp_path):
    for seed, (every, rows) in enumerate([(990_000, 1), (500_000, 3), (1_000_000, 1)]):
        folders.write(tmp_path / str(seed), base, [float(10 * seed)] * rows, every=every, seed=seed)
    folders.write(tmp_path / "3", base, {"loss/td": [1.0]}, seed=3)
    (dqn,) = folders.compared(*sorted(tmp_path.iterdir()), published=("dqn",), group=("learner",)).published
    (beside,) = dqn.beside
    assert (beside.x, beside.most, beside.summary.n, beside.missing) == (990_000, 1_000_000, 3, 1)
    assert beside.summary.mean == 10.0


def test_what_was_not_published_is_said(base, tmp_path):
    folders.write(tmp_path / "pong", base, [1.0])
    folders.write(tmp_path / "venture", base, [1.0], protocol={"game": "venture"}, **dict.fromkeys(KEYS, "venture"))
    found = folders.compared(*sorted(tmp_path.iterdir()), published=("dqn", "btr"))
    assert [(each.task, each.label) for each in found.published] == [
        ("pong", "Dopamine DQN"),
        ("pong", "Beyond the Rainbow"),
        ("venture", "Dopamine DQN"),
    ]
    assert "no published curve on venture of btr" in found.notes
    assert not folders.compared(*sorted(tmp_path.iterdir())).published
    other = folders.compared(*sorted(tmp_path.iterdir()), published=("dqn",), metrics=("eval/*",))
    assert other.published


def test_names_are_checked():
    assert published.names(True) == tuple(scores.CURVES) and published.names(None) == published.names(False) == ()
    assert published.names(("rainbow", "dqn", "dqn")) == ("rainbow", "dqn") and published.names("btr") == ("btr",)
    with pytest.raises(ValueError, match=r"published=rainbw: no such curve; did you mean rainbow\?"):
        published.names(["rainbw"])
