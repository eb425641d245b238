"""Which runs belong together."""

import pathlib

import pytest

from experiments.comparing import groups
from experiments.comparing.runs import reading
from experiments.config import build
from tests.experiments.comparing import folders


@pytest.fixture(scope="module")
def learners():
    return {name: folders.settings("experiment=dqn/cartpole", f"learner={name}") for name in ("dqn", "double_dqn")}


def table(*written: pathlib.Path) -> groups.Table:
    runs = [reading.read(folder, None) for folder in written]
    assert all(isinstance(run, reading.Run) for run in runs), runs
    return groups.Table([run for run in runs if isinstance(run, reading.Run)])


def test_by_default_all_that_differs_but_the_seed(learners, tmp_path: pathlib.Path):
    number = iter(range(99))
    make = lambda name, **changes: folders.write(tmp_path / str(next(number)), learners[name], [1.0], **changes)
    found = table(
        *(make("dqn", seed=seed, **{"source.seed": seed}) for seed in range(2)),
        make("double_dqn", log_every=7, tune=False, **{"tracker.project": "other"}),
        make("dqn", **{"optimizer.learning_rate": 1e-2, "learner.optimizer.learning_rate": 1e-2}),
    )
    assert found.default_keys() == ["learner", "optimizer.learning_rate"]
    assert found.labels(found.default_keys()) == [
        {"learner": "dqn", "optimizer.learning_rate": 1e-3},
        {"learner": "dqn", "optimizer.learning_rate": 1e-3},
        {"learner": "double_dqn", "optimizer.learning_rate": 1e-3},
        {"learner": "dqn", "optimizer.learning_rate": 1e-2},
    ]
    (chosen,) = found.chosen()
    assert (chosen.key, chosen.values) == ("learner", ("dqn", "dqn", "double_dqn", "dqn"))
    differ = {each.key: each.also for each in found.differences()}
    assert differ == {"learner.bootstrap": (), "optimizer.learning_rate": ("learner.optimizer.learning_rate",)}


def test_the_learner_names_a_group_before_what_only_goes_with_it(tmp_path: pathlib.Path):
    configs = [folders.settings(f"experiment={name}/fashion_mnist") for name in ("gan", "vae")]
    found = table(*(folders.write(tmp_path / str(n), config, [1.0]) for n, config in enumerate(configs)))
    assert found.default_keys() == ["learner"]
    assert [each.key for each in found.chosen()] == ["learner", "network", "optimizer", "evaluators", "experiment"]


def test_a_choices_content_decides_and_not_its_name(learners, tmp_path: pathlib.Path):
    """Runs of before `choices` were saved belong to those of today."""
    old = {**learners["dqn"], "choices": {}}
    found = table(folders.write(tmp_path / "new", learners["dqn"], [1.0]), folders.write(tmp_path / "old", old, [1.0]))
    assert found.differences() == found.chosen() == found.default_keys() == []
    assert found.labels(["learner"]) == [{"learner": "dqn"}, {"learner": None}]


def test_a_missing_key_is_null_and_one_is_no_text(learners, tmp_path: pathlib.Path):
    base = learners["dqn"]
    without = {**base, "learner": {k: v for k, v in base["learner"].items() if k != "reward_clip"}}
    writes = [("0", base, {"lag": 1}), ("1", base, {"lag": 1.0}), ("2", base, {"lag": "1"}), ("3", without, {"lag": 1})]
    found = table(*(folders.write(tmp_path / name, config, [1.0], **changes) for name, config, changes in writes))
    assert found.labels(["learner.reward_clip"])[3] == found.labels(["learner.reward_clip"])[0]
    assert found.default_keys() == ["lag"]
    assert [groups.shown(own["lag"]) for own in found.labels(["lag"])] == ["1", "1", '"1"', "1"]


def test_a_node_groups_by_all_that_differs_below_it(learners, tmp_path: pathlib.Path):
    base = learners["dqn"]
    make = lambda name, frames: folders.write(tmp_path / name, base, [1.0], **{"source.exploration.frames": frames})
    found = table(make("a", 10), make("b", 20))
    assert found.labels(["source.exploration"]) == [{"source.exploration": f"frames={n}"} for n in (10, 20)]


def test_a_key_that_no_run_has_is_answered_with_near_ones(learners, tmp_path: pathlib.Path):
    with pytest.raises(build.ConfigError, match=r"^group=learnr: no run has such a setting; did you mean learner"):
        table(folders.write(tmp_path / "a", learners["dqn"], [1.0])).labels(["learnr"])


def test_the_code_is_a_key_when_asked_for(learners, tmp_path: pathlib.Path):
    make = lambda name, revision: folders.write(
        tmp_path / name, learners["dqn"], [1.0], origin={"git": {"revision": revision, "dirty": False}}
    )
    found = table(make("a", "abc"), make("b", "def"))
    assert found.default_keys() == [] and found.differences() == []
    key = "provenance.git.revision"
    assert found.labels([key]) == [{key: "abc"}, {key: "def"}]


def test_tasks_are_games_environments_and_data(tmp_path: pathlib.Path):
    atari = folders.settings("experiment=dqn/pong")
    images = folders.settings("experiment=vae/fashion_mnist")
    own = folders.settings("experiment=vae/fashion_mnist", "source=npz", f"source.path={tmp_path}/data.npz")
    write = lambda name, config: folders.write(tmp_path / name, config, [1.0])
    found = table(*(write(str(number), config) for number, config in enumerate([atari, images, own])))
    assert found.tasks == ["pong", "fashion_mnist", "npz data.npz"]


def test_games_are_no_groups(tmp_path: pathlib.Path):
    config = folders.settings("experiment=dqn/atari", "source.game=pong")
    keys = ("source.game", "source.environments.game", "evaluators.episodes.environments.game")
    other = dict.fromkeys(keys, "breakout")
    found = table(folders.write(tmp_path / "0", config, [1.0]), folders.write(tmp_path / "1", config, [1.0], **other))
    assert found.tasks == ["pong", "breakout"] and found.default_keys() == []
    assert found.labels(["learner", "source.game"]) == [{"learner": "dueling"}] * 2


def test_a_protocol_is_the_same_wherever_its_data_lie_and_whatever_the_seed(learners, tmp_path: pathlib.Path):
    told = lambda place, digest, seed: {"data": {"path": place, "sha256": digest}, "seed": seed}
    make = lambda name, *told_, seed: folders.write(
        tmp_path / name, learners["dqn"], [1.0], protocol=told(*told_), seed=seed
    )
    runs = table(
        make("a", "/x/data.npz", "1f", 0, seed=0),
        make("b", "/y/data.npz", "1f", 1, seed=1),
        make("c", "/x/data.npz", "2e", 0, seed=0),
    ).runs
    a, b, c = map(groups.protocol, runs)
    assert groups.digest(a) == groups.digest(b) != groups.digest(c)
    assert groups.protocol_differences([a, b, c]) == {"data.sha256": ["1f", "2e"]}
