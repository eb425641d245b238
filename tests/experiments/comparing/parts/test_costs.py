"""What models of images reached and at what cost, by hand."""

import numpy as np
import pytest

from experiments.comparing import report, scoring
from experiments.comparing.forms import tables
from experiments.comparing.numbers import statistics
from experiments.comparing.runs import reading
from tests.experiments.comparing import folders

FID, PRECISION, RECALL = "eval/fid", "eval/precision", "eval/recall"


def test_costs_are_those_of_the_last_rows(tmp_path):
    base = folders.settings("experiment=diffusion/fashion_mnist", "tracker=none")
    origin = {"hardware": {"devices": {"kinds": {"H100": 4}}}, "parameters": 1_234_567}
    for seed, values in enumerate([{FID: [9.0, 5.0], RECALL: [0.1, 0.4]}, {FID: [8.0, 7.0], PRECISION: [0.5, 0.6]}]):
        place = tmp_path / "runs" / str(seed)
        folders.write(place, base, values, unit="images", every=1_000, seed=seed, origin=origin)
    short = tmp_path / "runs" / "2"
    folders.write(short, base, {FID: [1.0]}, unit="images", seed=2, budget=9_000)
    folders.write(tmp_path / "runs" / "3", base, {"loss/total": [1.0]}, unit="images", seed=3, lag=7)
    runs = [reading.read(place, None) for place in sorted((tmp_path / "runs").iterdir())]
    kept = [run for run in runs if isinstance(run, reading.Run)]
    found = report.make(kept, [], scoring.Asked(group=("learner",), metrics=(FID,)))
    (cost,) = found.costs
    assert (cost.n, cost.updates, cost.images) == (2, 2.0, 2_000.0)
    assert [(folder.name, why.partition(":")[0]) for folder, why in cost.missing] == [
        ("2", "running at 100 of 9,000 images"),
        ("3", "has no row of these figures"),
    ]
    assert cost.fewer == {PRECISION: 1, RECALL: 1}
    assert cost.figures[FID] == (6.0, statistics.mean_interval(np.asarray([5.0, 7.0])))
    assert cost.figures[PRECISION] == (0.6, None) and cost.figures[RECALL] == (0.4, None)
    assert cost.hours == pytest.approx(1 / 3600) and cost.device_hours == pytest.approx(4 / 3600)
    steps = base["learner"]["sampler"]["steps"]
    assert cost.sampler_steps == (steps,)
    (table,) = [each for each in tables.tables(found) if each.name == "costs"]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["n"], row["fid"], row["sampler steps"]) == (2, 6.0, str(steps)) and "kid" not in row
    assert row["parameters"] == 1_234_567 and not any(each.key == "parameters" for each in found.environments)
    assert row["mean of fewer"] == "precision 1 of 2 runs, recall 1 of 2 runs"
    assert f"{short}, running at 100" in row["not counted"] and "3, has no row of these figures" in row["not counted"]
    counted = report.make(kept, [], scoring.Asked(group=("learner",), metrics=(FID,), unfinished="counted"))
    assert counted.costs[0].n == 3 and counted.costs[0].figures[FID][0] == pytest.approx(13 / 3)


def test_figures_of_fewer_runs_say_so(tmp_path):
    base = folders.settings("experiment=diffusion/fashion_mnist", "tracker=none")
    for seed, last in enumerate([5.0, 5.0, None]):
        folders.write(tmp_path / str(seed), base, {FID: [9.0, last], RECALL: [0.1, 0.4]}, unit="images", seed=seed)
    runs = [reading.read(place, None) for place in sorted(tmp_path.iterdir())]
    made = report.make([run for run in runs if isinstance(run, reading.Run)], [], scoring.Asked(metrics=(FID,)))
    (cost,) = made.costs
    assert (cost.n, cost.figures[FID][0], cost.figures[RECALL][0]) == (3, 5.0, pytest.approx(0.4))
    assert cost.fewer == {FID: 2} and cost.parameters == ()  # runs of before that was noted
    assert not any("parameters" in each.columns for each in tables.tables(made) if each.name == "costs")


def test_a_group_of_which_no_run_is_done_stays(tmp_path):
    base = folders.settings("experiment=diffusion/fashion_mnist", "tracker=none")
    place = folders.write(tmp_path / "0", base, {FID: [9.0]}, unit="images", budget=900)
    run = reading.read(place, None)
    assert isinstance(run, reading.Run)
    found = report.make([run], [], scoring.Asked(metrics=(FID,)))
    (cost,) = found.costs
    assert (cost.n, cost.figures, cost.updates, cost.hours, cost.sampler_steps) == (0, {}, None, None, ())
    assert [(folder, why.partition(":")[0]) for folder, why in cost.missing] == [
        (place, "running at 100 of 900 images")
    ]
    (table,) = [each for each in tables.tables(found) if each.name == "costs"]
    assert dict(zip(table.columns, table.rows[0], strict=True))["n"] == 0


def test_agents_have_no_costs(tmp_path):
    folders.write(tmp_path / "run", folders.settings("experiment=dqn/cartpole"), [1.0])
    run = reading.read(tmp_path / "run", None)
    assert isinstance(run, reading.Run) and report.make([run], [], scoring.Asked()).costs == ()
