"""Final evaluations, as `experiments.evaluate` really writes them."""

import json
import os

import numpy as np
import pytest

from agents import evaluation
from experiments.comparing.forms import tables
from experiments.comparing.numbers import statistics
from experiments.evaluation import agents
from tests.experiments.comparing import folders


def _scores(returns, **protocol):
    return evaluation.Scores(
        returns=np.asarray(returns, np.float64),
        frames=np.full(len(returns), 10),
        truncated=np.zeros(len(returns), bool),
        human_normalised=None,
        protocol={"sticky": 0.0, "episodes": len(returns), **protocol},
    )


def test_agents_evaluations_are_averaged_by_protocol(tmp_path):
    base = folders.settings("experiment=dqn/cartpole", "tracker=none")
    judged = [([1.0, 3.0], {"seed": 0}), ([4.0, 6.0], {"seed": 7}), ([50.0, 70.0], {"sticky": 0.25}), (None, {})]
    for seed, (returns, protocol) in enumerate(judged):
        place = folders.write(tmp_path / str(seed), base, [1.0], seed=seed)
        if returns is not None:
            content = agents.content({"trained": _scores(returns, **protocol), "random": _scores([0.0])})
            (place / "evaluation.json").write_text(json.dumps({"frames": 640 + seed, "step": 3, **content}))
    found = folders.compared(*sorted(tmp_path.iterdir()))
    plain, sticky = found.finals
    assert plain.summary and sticky.summary
    assert (plain.metric, plain.at, plain.summary.mean, sticky.summary.mean) == (
        "final/episode_return",
        (640, 641),
        3.5,
        60,
    )
    assert plain.summary.mean_interval == statistics.mean_interval(np.asarray([2.0, 5.0]))
    assert [(folder.name, why) for folder, why in plain.missing][-1] == ("3", "has no such evaluation")
    assert plain.judged == {"sticky": 0.0, "episodes": 2} and plain.protocol != sticky.protocol
    (table,) = [each for each in tables.tables(found) if each.name == "evaluations"]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["n"], row["at"], row["judged by"]) == (2, "640 to 641", "sticky 0, episodes 2")
    (forced,) = folders.compared(*sorted(tmp_path.iterdir()), protocols="any").finals
    assert forced.summary and forced.summary.n == 3
    assert found.metrics == {"eval/episode_return": "higher"}  # of the rows alone


def test_models_of_images_have_every_figure_of_every_part(tmp_path):
    base = folders.settings("experiment=diffusion/fashion_mnist", "tracker=none")
    place = folders.write(tmp_path / "run", base, {"eval/fid": [3.0]}, unit="images")
    parts = {
        "held_out": {"loss": 1.5, "protocol": {"split": "test", "seed": 0}},
        "quality": {"fid": 2.5, "recall": 0.5, "protocol": {"samples": 10_000, "features_sha256": "ab"}},
        "data": {"images": 60_000},
    }
    (place / "evaluation.json").write_text(json.dumps({"images": 100, "command": "x", **parts}))
    found = folders.compared(place)
    assert {each.metric: each.summary.mean for each in found.finals if each.summary} == {
        "final/loss": 1.5,
        "final/fid": 2.5,
        "final/recall": 0.5,
    }


@pytest.mark.parametrize("protocols", ["apart", "any"])
def test_figures_of_one_name_in_two_parts_are_two(protocols, tmp_path):
    base = folders.settings("experiment=vae/fashion_mnist", "tracker=none")
    for seed in range(2):
        place = folders.write(tmp_path / str(seed), base, {"eval/elbo": [3.0]}, unit="images", seed=seed)
        parts = {
            "held_out": {"bits_per_dim": 4.0 + seed, "elbo": 1.0, "protocol": {"split": "test"}},
            "likelihood": {"bits_per_dim": 3.0 + seed, "protocol": {"samples": 100}},
        }
        (place / "evaluation.json").write_text(json.dumps({"images": 100, **parts}))
    found = folders.compared(*sorted(tmp_path.iterdir()), metrics=("eval/elbo",), protocols=protocols)
    assert {each.metric: (each.summary.n, each.summary.mean) for each in found.finals if each.summary} == {
        "final/held_out/bits_per_dim": (2, 4.5),
        "final/likelihood/bits_per_dim": (2, 3.5),
        "final/elbo": (2, 1.0),
    }


def test_a_pipe_and_deep_nesting_are_told(tmp_path):
    base = folders.settings("experiment=dqn/cartpole")
    pipe = folders.write(tmp_path / "pipe", base, [1.0], seed=0)
    os.mkfifo(pipe / "evaluation.json")
    deep = folders.write(tmp_path / "deep", base, [1.0], seed=1)
    nested = '{"a": ' * 990 + "1" + "}" * 990
    (deep / "evaluation.json").write_text(f'{{"frames": 1, "x": {{"protocol": {nested}}}}}')
    found = folders.compared(pipe, deep)
    assert f"{pipe / 'evaluation.json'}: cannot be read: is not a regular file" in found.notes
    assert any(note.startswith(f"{deep / 'evaluation.json'}: cannot be read: Recursion") for note in found.notes)


@pytest.mark.parametrize("content", ["{", "[]", '{"frames": null}', '{"frames": 1, "agents": {}}', '{"images": 1}'])
def test_files_of_every_other_kind_are_told(content, tmp_path):
    place = folders.write(tmp_path / "run", folders.settings("experiment=dqn/cartpole"), [1.0])
    (place / "evaluation.json").write_text(content)
    found = folders.compared(place)
    assert found.finals == () and any("evaluation.json: cannot be read" in note for note in found.notes)


def test_unfinished_runs_are_apart(tmp_path):
    base = folders.settings("experiment=dqn/cartpole", "tracker=none")
    for seed, budget in enumerate([100, 900]):
        place = folders.write(tmp_path / str(seed), base, [1.0], seed=seed, budget=budget)
        content = agents.content({"trained": _scores([1.0 + seed])})
        (place / "evaluation.json").write_text(json.dumps({"frames": 100, **content}))
    (apart,) = folders.compared(*sorted(tmp_path.iterdir()), group=("learner",)).finals
    assert apart.summary and apart.summary.n == 1 and "running at 100 of 900 frames" in apart.missing[0][1]
    (counted,) = folders.compared(*sorted(tmp_path.iterdir()), group=("learner",), unfinished="counted").finals
    assert counted.summary and counted.summary.n == 2


def test_a_group_of_which_no_run_is_done_stays(tmp_path):
    base = folders.settings("experiment=dqn/cartpole", "tracker=none")
    place = folders.write(tmp_path / "0", base, [1.0], budget=900)
    content = agents.content({"trained": _scores([1.0])})
    (place / "evaluation.json").write_text(json.dumps({"frames": 100, **content}))
    found = folders.compared(place)
    (final,) = found.finals
    assert (final.summary, final.values, final.at) == (None, (), (100, 100))
    (table,) = [each for each in tables.tables(found) if each.name == "evaluations"]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["n"] == 0 and f"not in it: {place}, running at 100 of 900 frames" in row["to know"]
