"""Choices on top of experiments: other files of a group, the commands that comments in conf/ give, what is best."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from core.images import stream
from experiments import training
from experiments.config import build, command_line

EXPERIMENTS = sorted(
    file.relative_to(command_line.CONF / "experiment").with_suffix("").as_posix()
    for file in (command_line.CONF / "experiment").rglob("*.yaml")
)
FILES = {file.relative_to(command_line.CONF).as_posix(): file for file in sorted(command_line.CONF.rglob("*.yaml"))}
FRAMES = "source.path=frames.npz"


@pytest.mark.parametrize(
    "typed",
    [
        "experiment=diffusion/fashion_mnist network=unet",
        "experiment=diffusion/fashion_mnist optimizer=adam",
        "experiment=diffusion/flow_dit network=unet",
        "experiment=demo/diffusion network=unet",
        f"experiment=diffusion/atari_frames {FRAMES} network=dit",
        f"experiment=diffusion/atari_frames {FRAMES} learner=ddpm",
        "experiment=diffusion/edm_unet optimizer=adam",
        "experiment=diffusion/edm_unet learner/weighting=min_snr",
        f"experiment=gan/atari_frames {FRAMES} network=dcgan",
        "experiment=gan/wgan_gp optimizer=rmsprop",
        "experiment=classifier/resnet optimizer=rmsprop",
        "experiment=classifier/mlp optimizer=adamw",
        "experiment=dqn/pong optimizer=rmsprop",
        "experiment=vae/autoencoder learner/likelihood=bernoulli",
        "experiment=dqn/demo learner=double_dqn network=impala",
    ],
)
def test_an_experiment_sets_nothing_that_another_choice_of_the_group_has_not(typed: str):
    *rest, choice = typed.split()
    settings = command_line.compose(*rest, choice)
    build.check(settings)
    group, name = choice.split("=")
    node = settings
    for part in group.split("/"):
        node = node[part]
    # What the file says came through, whatever the experiment had chosen.
    targets = re.findall(r"^ *_target_: (\S+)$", FILES[f"{group}/{name}.yaml"].read_text(), re.MULTILINE)
    assert targets and all(target in str(node) for target in targets)
    if group == "optimizer":
        assert node["rule"] == command_line.compose(choice)["optimizer"]["rule"]
        assert node["learning_rate"] == command_line.compose(*rest)["optimizer"]["learning_rate"]


def test_an_optimiser_that_wants_to_know_how_far_a_run_is_is_refused_where_nobody_says():
    for experiment in ("vae/fashion_mnist", "diffusion/fashion_mnist", "dqn/pong"):
        settings = command_line.compose(f"experiment={experiment}", "optimizer=adam_cosine", "optimizer.clip_norm=1")
        with pytest.raises(build.ConfigError, match=r"^optimizer: \w+ does not tell .*'progress'.* optimizer=adam"):
            build.check(settings)
    build.check(command_line.compose("experiment=gan/fashion_mnist", "optimizer.clip_norm=1"))


def test_an_experiments_rules_are_those_of_the_optimiser_that_they_name(tmp_path: Path):
    rule = lambda *typed: command_line.compose(*typed)["optimizer"]["rule"]
    recipe, own = rule("experiment=diffusion/edm_unet"), rule("optimizer=rmsprop")
    assert (recipe["b1"], recipe["weight_decay"]) == (0.95, 1e-3)
    assert rule("experiment=diffusion/edm_unet", "optimizer=adamw") == recipe
    typed = ("experiment=diffusion/edm_unet", "optimizer=rmsprop")
    assert rule(*typed) == own and rule(*typed, "optimizer.rule.decay=0.5") == own | {"decay": 0.5}
    build.check(command_line.compose(*typed))
    with pytest.raises(build.ConfigError, match=r"^rules\.adamw\.b1: nothing uses it, as no other"):
        command_line.compose(*typed, "rules.adamw.b1=0.5", fits=True)
    assert rule("experiment=diffusion/edm_unet", "rules.adamw.b1=0.5") == recipe | {"b1": 0.5}
    # An experiment on top of another one, with an optimiser of its own.
    (tmp_path / "experiment").mkdir()
    lines = ["defaults: [diffusion/edm_unet, override /optimizer: adam, _self_]", "rules: {adam: {b1: 0.8}}", ""]
    (tmp_path / "experiment/mine.yaml").write_text("\n".join(["# @package _global_", *lines]))
    mine = (f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine")
    assert rule(*mine) == rule("optimizer=adam") | {"b1": 0.8}
    assert rule(*mine, "optimizer=adamw") == recipe


def test_numbers_of_another_optimiser_are_told(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/optimizer").mkdir(parents=True)
    mine = "_target_: core.optim.optimizer\nrule: {_target_: optax.sgd, _partial_: true}\nlearning_rate: 0.1\n"
    (tmp_path / "conf/optimizer/mine.yaml").write_text(mine)
    path = f"hydra.searchpath=[file://{tmp_path}/conf]"
    for typed in (["optimizer=adam"], ["optimizer=mine", path]):
        monkeypatch.setattr(sys, "argv", ["train", "experiment=classifier/mlp", *typed])
        command_line.main(lambda settings, folder: build.check(settings))
        line = f"rules.rmsprop: not used, as {typed[0]} has numbers of its own\n"
        assert line in capsys.readouterr().out


# A recipe is read in two files


def content(file: str) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(FILES[file]), resolve=False)  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name != "custom"])
def test_a_recipe_is_an_experiment_and_its_learner(experiment: str):
    recipe = content(f"experiment/{experiment}.yaml")
    if "dqn/atari" in recipe["defaults"]:  # a game: the same hyperparameters
        assert recipe["defaults"] == ["dqn/atari", "_self_"]
        assert recipe.keys() == {"defaults", "budget", "source"} and recipe["source"].keys() == {"game"}
        recipe = content("experiment/dqn/atari.yaml")
    chosen = {key.removeprefix("override /"): choice for entry in recipe["defaults"] for key, choice in entry.items()}
    assert len(chosen) == len(recipe["defaults"]) and {"network", "optimizer", "source", "learner"} <= chosen.keys()
    # The learner begins from no other one: what it takes from elsewhere are parts.
    for entry in content(f"learner/{chosen['learner']}.yaml").get("defaults", ["_self_"]):
        assert entry == "_self_" or re.fullmatch(
            r"noise|weighting|likelihood|objective|/sampler@_global_.sampler", *entry
        )
    assert recipe["rules"].keys() == {chosen["optimizer"]}  # the optimiser's numbers are the recipe's own
    assert "budget" in recipe


def test_optimisers_networks_and_parts_of_learners_are_read_in_one_file():
    for file in FILES:
        if re.match(r"(optimizer|network|sampler|learner/\w+)/", file):
            assert "defaults" not in content(file), file


# What the READMEs of the groups say


@pytest.mark.parametrize("group", sorted(command_line.GROUPS - {"hydra"}))
def test_a_groups_readme_names_its_choices(group: str):
    text = (command_line.CONF / group / "README.md").read_text()
    named = re.findall(r"^\| `([\w/]+)` \|", text, re.MULTILINE)
    choices = [file.removeprefix(f"{group}/").removesuffix(".yaml") for file in FILES if file.startswith(f"{group}/")]
    assert sorted(named) == sorted(choices)
    for other, choice in re.findall(r"`(\w+)=(\w[\w/]*)", text):  # experiment=gan/dcgan, say
        assert other not in command_line.GROUPS or choice == "mine" or f"{other}/{choice}.yaml" in FILES


# What comments say


def comments(file: str) -> str:
    """All comments of a file of conf/ as one line."""
    return " ".join(re.findall(r"(?:^|\s)#\s+(.*)", FILES[file].read_text()))


def commands() -> list[tuple[str, str, str]]:
    """(file, command, its arguments) of every `python -m experiments.<command> key=value ...` in a comment."""
    return [
        (file, name, typed)
        for file in FILES
        for name, typed in re.findall(r"python -m experiments\.(\w+)((?: \[?[\w./]+=[^\s;,`]+)+)", comments(file))
        if name in ("train", "collect", "sample", "evaluate")
    ]


@pytest.mark.parametrize("file, name, typed", commands())
def test_a_command_in_a_comment_is_understood(file: str, name: str, typed: str):
    settings = command_line.compose(*re.sub(r"[\[\]]", "", typed).split(), name=name)
    if name == "train":
        build.check(settings)
    if name == "train" and file.startswith("experiment/"):
        assert settings["name"] == file.removeprefix("experiment/").removesuffix(".yaml")


OVERRIDES = [  # file, where it is typed, what its comment gives
    (
        "evaluators/images.yaml",
        "experiment=gan/fashion_mnist",
        "'++evaluators.quality.features={_target_: experiments.evaluation.classifiers.Judge, "
        "run: runs/classifier/...}'",
    ),
    *(
        (
            f"experiment/{family}/atari_frames.yaml",
            f"experiment={family}/atari_frames {FRAMES}",
            "'evaluators.quality={_target_: generative.evaluation.Quality, data: ${source.data}, features: "
            "{_target_: experiments.evaluation.classifiers.Judge, run: runs/classifier/...}}'",
        )
        for family in ("gan", "diffusion")
    ),
    (
        "learner/ddpm.yaml",
        "experiment=diffusion/fashion_mnist",
        "~learner.averages.ema '+learner.averages.power={_target_: generative.averaging.Power, std: 0.05}'",
    ),
    *(
        ("learner/ddpm.yaml", f"experiment=diffusion/{experiment}", typed)
        for experiment in ("ddpm_unet", "edm_unet")
        for typed in ("learner/weighting=min_snr", "learner.prediction=generative.preconditioning.v", "sampler=heun")
    ),
    ("learner/ddpm.yaml", "experiment=diffusion/ddpm_unet", "learner/noise=cosine"),
    ("learner/vae.yaml", "experiment=vae/fashion_mnist", "learner/likelihood=gaussian"),
    ("learner/vae.yaml", "experiment=vae/fashion_mnist", "learner/objective=iwae"),
    ("learner/r3gan.yaml", "experiment=gan/dcgan learner=r3gan", "optimizer=adam_cosine"),
    ("learner/dcgan.yaml", "experiment=gan/fashion_mnist learner=dcgan", "network=dcgan"),
    ("learner/wgan_gp.yaml", "experiment=gan/fashion_mnist learner=wgan_gp", "source.batches=5"),
    (
        "sampler/heun.yaml",
        "experiment=diffusion/fashion_mnist",
        "'sampler.grid={_target_: generative.noise.Karras, least: 0.002, greatest: 80, rho: 7}'",
    ),
]


@pytest.mark.parametrize("file, where, typed", OVERRIDES)
def test_an_override_in_a_comment_is_understood(file: str, where: str, typed: str):
    assert typed in comments(file)
    build.check(command_line.compose(*where.split(), *shlex.split(typed)))


def test_every_quoted_override_in_a_comment_is_among_these():
    for file in FILES:
        for quoted in re.findall(r"'[+~]*[\w./]+=[^']*'", comments(file)):
            assert any(quoted in typed for listed, _, typed in OVERRIDES if listed == file), (file, quoted)


# The best checkpoint's metric


def run_of(*typed: str) -> build.Run:
    """The objects of a run on images that need not be there."""
    settings = command_line.compose(*typed, "+debug=tiny")
    source = settings["source"]
    size = (64, 64, 3) if FRAMES in typed else (28, 28, 1)
    shape = stream.Shape(image=size, classes=10, batch=source["batch"], batches=source["batches"])
    return build.run(settings, source=shape)


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if not name.startswith(("dqn/", "custom"))])
def test_an_evaluation_gives_the_metric_that_the_best_checkpoint_is_kept_by(experiment: str):
    run = run_of(f"experiment={experiment}", *[FRAMES] * experiment.endswith("/atari_frames"))
    training._check_metric(run)
    better = "lower" if run.checkpoint.metric in ("eval/loss", "eval/fid") else "higher"
    assert run.checkpoint.metric is None or run.checkpoint.better == better


@pytest.mark.parametrize(
    "typed, told",
    [
        (["experiment=diffusion/ddpm_unet", "checkpoint.metric=eval/episode_return"], "eval/fid, .*eval/loss, "),
        (["experiment=gan/atari_frames", FRAMES, "checkpoint.metric=eval/fid"], "nothing$"),
        (["experiment=vae/fashion_mnist", "checkpoint.metric=eval/los"], "eval/elbo, .*eval/loss, "),
    ],
)
def test_a_metric_that_no_evaluation_gives_is_refused(typed: list[str], told: str):
    with pytest.raises(
        build.ConfigError, match=rf"^checkpoint.metric=eval/\w+: no evaluation gives it.* what there is: {told}"
    ):
        training._check_metric(run_of(*typed))


def test_it_is_refused_before_anything_is_written(tmp_path: Path):
    typed = ("experiment=demo/vae", "evaluators=images", "evaluators.quality=null", "checkpoint.metric=eval/fid")
    with pytest.raises(build.ConfigError, match=r"^checkpoint\.metric=eval/fid"):
        training.train(command_line.compose(*typed, "tracker=none", "+debug=tiny"), tmp_path, stop=None)  # pyright: ignore
    assert not list(tmp_path.iterdir())
