"""What does not belong together, or is typed and never used, is told in a line; so is what + would add."""

import sys
from pathlib import Path

import pytest

from experiments.config import build, command_line, fitting, overrides

IMAGES = "experiment=diffusion/fashion_mnist"
CARTPOLE = "experiment=dqn/cartpole"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


@pytest.fixture
def told(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """What standard error says of a command line that is checked and exits with status 2; "" where it is taken."""

    def run(*typed: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train", *typed])
        left = None
        try:
            command_line.main(lambda settings, folder: build.check(settings))
        except SystemExit as error:
            left = error.code
        line = capsys.readouterr().err.strip()
        assert left == (command_line.EXIT_MISTAKE if line else None)
        return line

    return run


CHOICES = [
    (group, file.stem)
    for group in ("source", "evaluators")
    for file in sorted((command_line.CONF / group).glob("*.yaml"))
    if (group, file.stem) != ("evaluators", "none")
]
CHOICES += [
    ("learner", "r3gan"),
    ("learner", "edm"),
    ("network", "dit"),
    ("network", "impala"),
    ("network", "gan_resnet"),
]


@pytest.mark.long
def test_a_choice_alone_is_taken_or_told_what_it_does_not_go_with(told):
    games = {"atari", "gymnasium", "episodes", "impala"}
    for group, choice in CHOICES:
        line = told(f"{group}={choice}")
        assert (line == "") == (choice in games), (group, choice, line)
        if line:
            assert f"{group}={choice} is for images" in line and " for games, " in f"{line}, " and "\n" not in line
            assert line.endswith(
                "or begin with experiment=vae/fashion_mnist (or another of vae/, gan/, diffusion/ or classifier/)"
            )
    assert told("learner=vae", "source=digits", "evaluators=images", "network=vae_mlp") == ""
    assert "begin with experiment=dqn/atari" in told(IMAGES, "network=nature")
    assert told(CARTPOLE, "evaluators=[episodes,images]").startswith(
        "source=gymnasium and learner=double_dqn and network=mlp and evaluators.episodes are for games, "
        "evaluators.samples and evaluators.held_out and evaluators.quality are for images, which do not go together; "
    )
    assert "for games, evaluators.samples and " in told(CARTPOLE, "evaluators=[images,classifier]")


def test_the_same_is_told_of_a_config_that_is_only_shown(told):
    assert told("source=npz", "--cfg", "job", "--resolve").startswith(
        "source=npz is for images, learner=dqn and network="
    )
    assert told("seed=${sed}", "--cfg", "job", "--resolve") == "the config: Interpolation key 'sed' not found"
    assert told(IMAGES, "--cfg", "job", "--resolve") == ""


ADDED = "not in this config; + adds it: "


@pytest.mark.parametrize(
    "typed, message",
    [
        (
            [CARTPOLE, "source.environments.options.is_slippery=false"],
            f"source.environments.options.is_slippery: {ADDED}+source.environments.options.is_slippery=false",
        ),
        ([CARTPOLE, "optimizer.rule.nesterov=true"], f"optimizer.rule.nesterov: {ADDED}+optimizer.rule.nesterov=true"),
        (
            [CARTPOLE, "optimizer.rule.eps_root=1e-8"],
            f"optimizer.rule.eps_root: {ADDED}+optimizer.rule.eps_root=1e-8 (or did you mean optimizer.rule.eps?)",
        ),
        ([IMAGES, "network.make.mlp_ratio=2"], "network.make.mlp_ratio: no such key; network.make has patch, width"),
        ([CARTPOLE, "optimizer.schedule.end=0.1"], "optimizer.schedule.end: no such key"),
        (["debug=tiny"], "debug=tiny: no debug was chosen yet; + adds one: +debug=tiny"),
        (["debug=tinny"], "debug=tinny: no such choice; did you mean tiny?"),
        (
            ["learner/noise=cosine"],
            "learner/noise=cosine: the learner chosen has no noise; those of ddpm, ddpm_cosine, edm",
        ),
        (
            ["sampler=heun"],
            "sampler=heun: the learner chosen has no sampler; those of ddpm, ddpm_cosine, edm, edm_frames, flow, v_",
        ),
        (["~optimizer.foo"], "optimizer.foo: no such key; optimizer has rule, learning_rate, clip_norm"),
        (["~source.gam"], "source.gam: no such key; did you mean source.game?"),
        (["+learner.batch=3"], "+learner.batch: is there already, and + only adds; take learner.batch=3"),
        (["+learner=dqn"], "+learner: is there already, and + only adds; take learner=dqn"),
        (["learner=null"], "learner=null: no such choice; name one, or take the whole group out: ~learner"),
    ],
)
def test_the_argument_that_was_meant_is_told(told, typed: list[str], message: str):
    line = told(*typed)
    assert line.startswith(message) and "\n" not in line
    if "+ adds" in line:  # and what is told is taken
        right = line.partition("adds it: ")[2] or line.partition("adds one: ")[2]
        assert told(*typed[:-1], right.partition(" (")[0]) == ""


@pytest.mark.parametrize(
    "typed, message",
    [
        (
            ["learner=[dqn,prioritized]"],
            "learner=[dqn,prioritized]: one is wanted, as the files of several would mix; take ",
        ),
        (["experiment=[dqn/pong,dqn/cartpole]"], "experiment=[dqn/pong,dqn/cartpole]: one is wanted"),
        (["-m", "learner=[dqn,prioritized],dqn"], "learner=[dqn,prioritized]: one is wanted"),
        (["-m", "learner=choice([dqn, prioritized],dqn)"], "learner=[dqn,prioritized]: one is wanted"),
        ([IMAGES, "learner/noise=[cosine,linear]"], "learner/noise=[cosine,linear]: one is wanted"),
        (["+sampler=heun"], "sampler: nothing uses it, as the learner has no sampler"),
        (
            ["source.environments.game=pong", "source.game=breakout"],
            "source.game: nothing uses it, as no other setting refers to source.game; leave it out",
        ),
        (
            ["evaluators=none", "+evaluators.episodes.every=3"],
            "evaluators.episodes.every: nothing uses it, as evaluators is off; leave it out",
        ),
        (["experiment=diffusion/ddpm_unet", "learner.data=0.3"], "learner.data: nothing uses it"),
        (
            [CARTPOLE, "learner.optimizer={_target_: optax.sgd, learning_rate: 0.1}", "optimizer.learning_rate=1"],
            "optimizer.learning_rate: nothing uses it, as the learner has no optimizer, or one of its own",
        ),
    ],
)
def test_what_is_typed_and_not_used_is_refused(told, typed: list[str], message: str):
    assert told(*typed).startswith(message)


def test_a_launch_checks_the_same():
    with pytest.raises(build.ConfigError, match=r"^learner="):
        command_line.compose("learner=[dqn,prioritized]", fits=True)
    with pytest.raises(build.ConfigError, match="do not go together"):
        command_line.compose("source=digits", fits=True)
    command_line.compose(IMAGES, "learner.data=0.3", "sampler=euler", fits=True)


def test_what_an_experiment_overrules_is_said_in_a_line(monkeypatch, capsys: pytest.CaptureFixture):
    line = "learner=prioritized has optimizer.learning_rate=6.25e-05, which experiment=dqn/atari made 0.00025; "
    monkeypatch.setattr(sys, "argv", ["train", "experiment=dqn/atari", "learner=prioritized"])
    command_line.main(lambda settings, folder: None)
    assert line + "optimizer.learning_rate=6.25e-05 makes it so again\n" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*sys.argv, "optimizer.learning_rate=1e-4"])
    command_line.main(lambda settings, folder: None)
    monkeypatch.setattr(sys, "argv", ["train", "experiment=dqn/demo"])
    command_line.main(lambda settings, folder: None)
    assert " made " not in capsys.readouterr().out


def test_several_evaluators_lie_side_by_side():
    typed = ["evaluators=[images,classifier]", "learner.network.widths=[8,8]", "budget=3", "seed=1,[2]"]
    fitting.check_single(overrides.lists(typed), command_line.GROUPS)


def test_a_file_of_ones_own_names_one_choice_of_a_group(told, tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    for group, choice in (("learner", "[dqn, prioritized]"), ("evaluators", "[episodes]")):
        lines = ["# @package _global_", "defaults:", "  - dqn/cartpole", f"  - override /{group}: {choice}", ""]
        (tmp_path / f"experiment/own_{group}.yaml").write_text("\n".join(lines))
    search = f"hydra.searchpath=[file://{tmp_path}]"
    assert told(search, "experiment=own_learner").startswith("learner=[dqn,prioritized]: one is wanted, as ")
    assert told(search, "experiment=own_evaluators") == ""
