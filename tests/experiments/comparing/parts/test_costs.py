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
    origin = {"hardware": {"devices": {"kinds": {"H100": 4}}}}
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
    assert (cost.n, cost.missing, cost.updates, cost.images) == (2, 1, 2.0, 2_000.0)
    assert cost.figures[FID] == (6.0, statistics.mean_interval(np.asarray([5.0, 7.0])))
    assert cost.figures[PRECISION] == (0.6, None) and cost.figures[RECALL] == (0.4, None)
    assert cost.hours == pytest.approx(1 / 3600) and cost.device_hours == pytest.approx(4 / 3600)
    steps = base["learner"]["sampler"]["steps"]
    assert cost.sampler_steps == (steps,)
    (table,) = [each for each in tables.tables(found) if each.name == "costs"]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["fid"], row["sampler steps"], row["not counted"]) == (6.0, str(steps), "1 runs that are not done")
    assert "kid" not in row
    counted = report.make(kept, [], scoring.Asked(group=("learner",), metrics=(FID,), unfinished="counted"))
    assert counted.costs[0].n == 3 and counted.costs[0].figures[FID][0] == pytest.approx(13 / 3)


def test_agents_have_no_costs(tmp_path):
    folders.write(tmp_path / "run", folders.settings("experiment=dqn/cartpole"), [1.0])
    run = reading.read(tmp_path / "run", None)
    assert isinstance(run, reading.Run) and report.make([run], [], scoring.Asked()).costs == ()
