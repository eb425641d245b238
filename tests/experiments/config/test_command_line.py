"""The command line: composing, mistakes, run folders, going on, and configs from outside the repository."""

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from core import stopping
from experiments import runs, training
from experiments.config import build, command_line, overrides, saved

EXPERIMENTS = sorted(
    file.relative_to(command_line.CONF / "experiment").with_suffix("").as_posix()
    for file in (command_line.CONF / "experiment").rglob("*.yaml")
)
Jobs = list[tuple[command_line.Config, Path]]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch):
    """Runs a command line whose task only writes down what it was given."""

    def run(*typed: str, task: Any = None) -> Jobs:
        jobs: Jobs = []

        def note(settings: command_line.Config, folder: Path) -> None:
            saved.save(folder, settings, protocol={"sticky": 0.0})
            jobs.append((settings, folder))

        monkeypatch.setattr(sys, "argv", ["train", *typed])
        command_line.main(task or note)
        return jobs

    return run


@pytest.fixture
def refused(start, capsys: pytest.CaptureFixture):
    """What standard error says of a command line that exits with status 2."""

    def run(*typed: str, task: Any = None) -> str:
        with pytest.raises(SystemExit) as left:
            start(*typed, task=task)
        assert left.value.code == command_line.EXIT_MISTAKE
        return capsys.readouterr().err.strip()

    return run


def build_only(settings: command_line.Config, folder: Path) -> None:
    build.plan(settings | {"_target_": "experiments.config.build.Run"})


# What the files say


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_names_real_settings_of_the_right_types(experiment: str):
    settings = command_line.compose(f"experiment={experiment}")
    build_only(settings, Path())
    # Tiny with its evaluators: `run_of` in test_choices.py, and below where +debug=tiny shrinks a game.
    build_only(command_line.compose(f"experiment={experiment}", "+debug=tiny", "evaluators=none"), Path())
    assert settings["name"] == experiment


@pytest.mark.parametrize("group", ["learner", "network", "optimizer", "sampler", "evaluators", "mesh", "tracker"])
def test_every_choice_of_a_group_fits(group: str):
    for file in (command_line.CONF / group).glob("*.yaml"):
        sign = "+" * (group == "sampler")
        build_only(command_line.compose(f"{sign}{group}={file.stem}", *companions(group, file.stem)), Path())


def companions(group: str, choice: str) -> list[str]:
    """What must be chosen beside it, where the default, Nature's DQN, does not fit."""
    if group == "evaluators" and choice not in ("episodes", "none"):
        return ["source=digits", "learner=vae"]
    if group == "learner" and "gan" in choice:
        return ["network=dcgan"]
    return ["learner=dcgan"] if group == "network" and "gan" in choice else []


def test_the_default_is_natures_dqn():
    settings = command_line.compose("experiment=dqn/nature")
    learner, source = settings["learner"], settings["source"]
    assert settings["budget"] == 200_000_000
    assert learner["optimizer"]["rule"] == {
        "_target_": "optax.rmsprop",
        "_partial_": True,
        "decay": 0.95,
        "eps": 0.01 / 32**2,
        "centered": True,
    }
    assert (learner["optimizer"]["learning_rate"], learner["optimizer"]["clip_norm"]) == (2.5e-4, None)
    assert (learner["batch"], learner["discount"], learner["update_every"], learner["reward_clip"]) == (32, 0.99, 4, 1)
    assert (learner["replay"]["capacity"], learner["learning_starts"]) == (1_000_000, 50_000)
    assert learner["target"]["period"] * learner["update_every"] == 10_000  # agent steps
    assert (learner["bootstrap"], learner["loss"]) == ("agents.td.max_bootstrap", "agents.td.huber")
    assert source["exploration"] == {
        "_target_": "core.optim.linear",
        "start": 1,
        "end": 0.1,
        "begin": 0,
        "frames": 4_000_000,
    }
    assert (source["sticky"], source["environments"]["life_terminal"], source["environments"]["noop_max"]) == (0, 1, 30)
    assert settings["evaluators"]["episodes"]["epsilon"] == 0.05
    unnamed, named = command_line.compose("name=x"), command_line.compose("name=x", "experiment=dqn/nature")
    told = {"choices": None, "rules": None}
    assert unnamed | told == named | told


def test_presets_change_what_they_name():
    assert command_line.compose("learner=double_dqn")["learner"]["bootstrap"] == "agents.td.double_bootstrap"
    dueling = command_line.compose("learner=dueling", "network=impala")["learner"]["network"]["make"]
    assert dueling["head"]["_target_"] == "agents.networks.DuelingHead"
    assert dueling["torso"]["_target_"] == "agents.networks.ImpalaResNet"


@pytest.mark.parametrize(
    ("overrides", "updates"),
    [
        ((), 12_500_000),
        (("experiment=dqn/pong",), 125_000),
        (("experiment=dqn/cartpole", "learner.update_every=4"), 25_000),
    ],
)
def test_priorities_are_annealed_over_the_budget(overrides: tuple[str, ...], updates: int):
    learner = command_line.compose(*overrides, "learner=prioritized")["learner"]
    sampler = build.objects(learner["replay"]["sampler"], "learner.replay.sampler")
    assert (sampler.alpha, sampler.beta, sampler.anneal) == (0.6, 0.4, updates)
    typed = command_line.compose("learner=prioritized", "learner.replay.sampler.anneal=7")["learner"]["replay"][
        "sampler"
    ]
    assert typed["anneal"] == 7


def test_one_recipe_for_all_games():
    def recipe(name: str, *overrides: str) -> command_line.Config:
        settings = command_line.compose(f"experiment=dqn/{name}", "budget=1", "name=x", *overrides)
        return settings | {"tracker": None, "choices": None}

    pong = recipe("pong")
    assert pong["source"]["environments"]["game"] == "pong"
    assert recipe("atari", "source.game=pong") == recipe("breakout", "source.game=pong") == pong
    assert recipe("road_runner", "source.game=pong") == pong


def test_short_keys_reach_the_games_and_their_judges():
    settings = command_line.compose("source.game=seaquest", "source.sticky=0.25", "budget=2e6")
    for games in (settings["source"]["environments"], settings["evaluators"]["episodes"]["environments"]):
        assert (games["game"], games["sticky"]) == ("seaquest", 0.25)


# Mistakes


@pytest.mark.parametrize(
    "typed, message",
    [
        ("bugdet=3", "bugdet: no such key; did you mean budget?"),
        ("learner.batc=3", "learner.batc: no such key; did you mean learner.batch?"),
        ("batch=3", "batch: no such key; did you mean learner.batch?"),
        ("lerner=dqn", "lerner: no such key; did you mean learner?"),
        ("learner=duelling", "learner=duelling: no such choice; did you mean dueling?"),
        ("experiment=dqn/png", "experiment=dqn/png: no such choice; did you mean dqn/pong?"),
        ("+debug=tinny", "debug=tinny: no such choice; did you mean tiny?"),
        ("learner.batch=many", "learner.batch=many: should be a valid integer, not text"),
        ("source.sticky=often", "source.sticky=often: should be a valid number, not text"),
        ("+learner.batc=3", "learner.batc: no such key; did you mean batch?"),
        ("budget=???", "budget: missing; give it a value"),
        ("seed=${sed}", "seed: Interpolation key 'sed' not found"),
        ("pong", "pong: not understood; write key=value or group=choice"),
        ("resume=nowhere", "nowhere: no run here (no config.yaml)"),
    ],
)
def test_a_mistake_is_told_in_a_line(refused, typed: str, message: str):
    assert refused(typed, task=build_only).splitlines()[-1] == message
    assert not list(Path("runs").rglob("*.yaml"))


def test_the_first_of_two_mistakes_is_told_beside_choices_that_fit(refused):
    assert refused("source=gymnasium", "source.idd=x", "learner.batc=3").startswith("source.idd: no such key; did you")


def test_an_odd_path_is_answered_with_its_quoting(refused):
    assert """'resume="/runs/a (1)"'""" in refused("resume=/runs/a (1)")


def test_a_game_is_named_by_the_key_that_people_type(refused):
    def task(settings: command_line.Config, folder: Path) -> None:
        build.objects(settings["source"], "source")

    assert refused("source.game=pongg", task=task).endswith("source.game=pongg: no such game; did you mean pong?")


def test_a_bug_inside_the_run_keeps_its_traceback(start):
    def task(settings: command_line.Config, folder: Path) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        start(task=task)


def test_help_is_a_page(start, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as left:
        start("--help")
    page = capsys.readouterr().out
    assert left.value.code in (0, None)
    for part in ("learner: autoencoder, beta_vae", "experiment/dqn: atari", "budget ", "-m seed=0,1,2", "resume="):
        assert part in page


OPTIONS = {
    "a=1 -m b=1,2": ["a=1", "b=1,2"],
    "-m a=1": ["a=1"],
    "a=1 --multirun": ["a=1"],
    "--help a=1": ["a=1"],
    "a=1 -h": ["a=1"],
    "--cfg job a=1": ["a=1"],
    "a=1 --cfg job --resolve ~b": ["a=1", "~b"],
    "-c hydra -p x.y +a=1 ++b=[1,2] ~c=3 --run": ["+a=1", "++b=[1,2]", "~c=3"],
    "--config-name=other a@b=--c -i defaults-tree d/e=f": ["a@b=--c", "d/e=f"],
    "-cn other --config-dir /x/y a=1 --info all": ["a=1"],
    "--config-dir /x/seed=1/y a=1 -p u=v": ["a=1"],
}


@pytest.mark.parametrize("line", OPTIONS)
def test_overrides_are_told_from_options_as_hydra_tells_them(line: str):
    found = overrides.among(line.split())
    assert found == OPTIONS[line]
    utils = pytest.importorskip("hydra._internal.utils", exc_type=ImportError)  # private: asked here alone
    parsed = utils.get_args_parser().parse_intermixed_args(line.split())
    assert (found, overrides.multirun(line.split())) == (parsed.overrides, parsed.multirun)


@pytest.mark.parametrize("typed", [("seed=1", "seeed"), ("seeed", "seed=1"), ("seed=1", "--seed=2")])
def test_what_is_neither_override_nor_option_is_told(start, capsys: pytest.CaptureFixture, typed: tuple[str, ...]):
    with pytest.raises(SystemExit) as left:
        start(*typed)
    assert left.value.code == command_line.EXIT_MISTAKE
    told = capsys.readouterr().err
    assert "seeed: not understood; write key=value" in told or "unrecognized arguments: --seed=2" in told


# Run folders


def test_a_run_has_a_folder_with_its_resolved_config(start):
    [(settings, folder)] = start("experiment=dqn/pong", "seed=3")
    assert folder.relative_to(Path.cwd()).match("runs/dqn/pong/*")
    assert os.listdir(folder) == ["config.yaml"]
    assert saved.load(folder) == settings
    text = (folder / "config.yaml").read_text()
    assert text.startswith("# python -m experiments.train experiment=dqn/pong seed=3\n")
    assert "protocol:\n  sticky: 0.0" in text
    assert "${" not in text


def test_a_sweep_has_one_folder_a_job(start):
    jobs = start("experiment=dqn/pong", "-m", "seed=0,1")
    assert [(settings["seed"], folder.name) for settings, folder in jobs] == [(0, "0"), (1, "1")]
    assert jobs[0][1].parent == jobs[1][1].parent
    assert jobs[0][1].relative_to(Path.cwd()).match("runs/dqn/pong/*/0")


def test_a_folder_holds_one_run(start, refused):
    start("hydra.run.dir=mine")
    assert "mine: holds a run already; resume=" in refused("hydra.run.dir=mine")


def test_a_resumed_run_keeps_its_config_but_for_what_may_change(start):
    start("experiment=dqn/pong", "seed=3", "learner.batch=64", "hydra.run.dir=first")
    before = saved.load("first")
    [(settings, folder)] = start("resume=first", "budget=5e6", "evaluators.episodes.every=7", "tracker=none")
    assert folder == Path("first").absolute()
    assert settings["budget"] == 5e6
    assert settings["evaluators"]["episodes"] == before["evaluators"]["episodes"] | {"every": 7}
    assert settings["tracker"] == {"_target_": "core.tracking.Nothing"}
    unchanged = ("seed", "name", "learner", "source", "checkpoint")
    assert [settings[key] for key in unchanged] == [before[key] for key in unchanged]
    assert saved.load("first")["budget"] == 5e6
    first, then, *_ = (folder / "config.yaml").read_text().splitlines()
    assert first.endswith("train experiment=dqn/pong seed=3 learner.batch=64")
    assert "train resume=first ++evaluators" in then or "train resume=first budget=5e6" in then


def test_a_resumed_run_refuses_other_settings_by_name(start, refused):
    start("experiment=dqn/pong", "hydra.run.dir=first")
    told = refused("resume=first", "learner.batch=64")
    assert told.startswith("learner.batch: stays as the run began with it; a resumed run takes budget, log_every")
    assert refused("resume=first", "experiment=dqn/breakout").startswith("experiment: stays")
    assert refused("resume=first", "hydra.run.dir=second").startswith("hydra.run.dir: stays")
    assert "did you mean first?" in refused("resume=frist")
    assert refused("resume=first", "evaluators.episode.every=3").endswith("did you mean episodes?")


# A package outside the repository


@pytest.mark.long
def test_an_algorithm_from_outside_is_found_through_the_search_path(start, tmp_path: Path, monkeypatch, capsys):
    files = {
        "elsewhere/shy.py": """
            import dataclasses
            from agents import dqn

            @dataclasses.dataclass(frozen=True, kw_only=True)
            class Shy(dqn.DQN):
                share: float  # of the reward that is believed

                def step(self, state, batch):
                    return super().step(state, dataclasses.replace(batch, reward=self.share * batch.reward))
            """,
        "elsewhere/conf/learner/shy.yaml": """
            defaults:
              - double_dqn
            _target_: elsewhere.shy.Shy
            share: 0.9
            """,
        "elsewhere/conf/experiment/shy.yaml": """
            # @package _global_
            defaults:
              - dqn/cartpole
              - override /learner: shy
            """,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text).lstrip())
    monkeypatch.syspath_prepend(tmp_path)
    ended = []
    task = lambda settings, folder: ended.append(training.train(settings, folder, stop=stopping.Stop()))
    search = f"hydra.searchpath=[file://{tmp_path}/elsewhere/conf]"
    tiny = ("+debug=tiny", "tracker=none", "evaluators=none", "checkpoint.metric=null")
    start(search, "experiment=shy", "learner.share=0.8", "hydra.run.dir=run", *tiny, task=task)
    assert int(ended[0].state.updates) > 2
    learner: Any = runs.load("run").learner
    assert (type(learner).__name__, learner.share) == ("Shy", 0.8)
    with pytest.raises(SystemExit):
        start(search, "experiment=shi", task=task)
    assert "did you mean shy?" in capsys.readouterr().err


def test_debug_shrinks_what_there_is_and_leaves_what_was_typed():
    full = command_line.compose("experiment=dqn/pong")
    tiny = command_line.compose("experiment=dqn/pong", "+debug=tiny", "learner.batch=8", "seed=3")
    assert (full["source"]["envs"], tiny["source"]["envs"]) == (8, 2)
    assert (tiny["learner"]["batch"], tiny["seed"]) == (8, 3)
    build_only(tiny, Path())
    cartpole = command_line.compose("experiment=dqn/cartpole", "+debug=tiny")
    assert cartpole.keys() == full.keys()  # no `debug` left
    assert "sticky" not in cartpole["source"]  # nothing that the run has no use for


def test_places_are_saved_as_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("judge", "mnist", "data.npz"):
        Path(name).mkdir()
    content = {"init_from": "judge", "data": [{"path": "data.npz", "name": "mnist"}], "features": {"run": "./judge"}}
    saved.save(tmp_path / "run", content | {"source": {"folder": "gone", "file": None}}, protocol={"path": "data.npz"})
    written = saved.load("run")
    assert written["init_from"] == written["features"]["run"] == str(tmp_path / "judge")
    assert written["data"] == [{"path": str(tmp_path / "data.npz"), "name": "mnist"}]
    assert written["source"] == {"folder": "gone", "file": None}
    assert saved.protocol("run") == {"path": str(tmp_path / "data.npz")}
