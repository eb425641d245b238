"""What a run's folder says of the run, also to later versions."""

import re
from pathlib import Path

import pytest

from experiments.config import build, command_line, resume, saved

BEFORE = {  # now -> as earlier versions called it
    "core.images.stream.Stream": "core.data.Stream",
    "core.images.datasets.": "core.datasets.",
    "experiments.evaluation.classifiers.Judge": "experiments.judges.Judge",
}


@pytest.mark.parametrize("typed", ["vae/fashion_mnist", "gan/fashion_mnist source=npz source.path=x.npz", "dqn/pong"])
def test_runs_of_earlier_versions_are_read_with_the_names_of_today(tmp_path: Path, typed: str):
    judge = "++evaluators.quality={_target_: experiments.evaluation.classifiers.Judge, run: runs/classifier}"
    settings = command_line.compose(f"experiment={typed.split()[0]}", *typed.split()[1:], judge, "name=x")
    saved.save(tmp_path, settings)
    text = (tmp_path / saved.FILE).read_text()
    for now, before in BEFORE.items():
        text = text.replace(now, before)
    assert "experiments.judges.Judge" in text and not re.search(r"core\.images|experiments\.evaluation", text)
    (tmp_path / saved.FILE).write_text(text)
    assert saved.load(tmp_path) == settings
    build.plan(saved.load(tmp_path)["source"], "source")


def test_an_object_that_has_moved_is_told():
    judge = {"_target_": "experiments.judges.Judge", "run": "runs/classifier"}
    with pytest.raises(build.ConfigError, match=r"it is experiments\.evaluation\.classifiers\.Judge now"):
        build.plan(judge, "features")


def test_a_run_says_what_was_chosen_of_each_group(tmp_path: Path):
    settings = command_line.compose("experiment=diffusion/fashion_mnist", "learner/weighting=min_snr", "tracker=none")
    assert settings["choices"] == {
        "evaluators": "images",
        "experiment": "diffusion/fashion_mnist",
        "learner": "edm",
        "learner/noise": "log_normal",
        "learner/weighting": "min_snr",
        "mesh": "data",
        "network": "dit_small",
        "optimizer": "adamw",
        "sampler": "heun",
        "source": "fashion_mnist",
        "tracker": "none",
    }
    saved.save(tmp_path, settings)
    typed = [f"resume={tmp_path}", "mesh=fsdp", "log_every=7"]
    after = resume.merged(command_line.compose(*resume.arguments(typed)), typed)["choices"]
    assert after == settings["choices"] | {"mesh": "fsdp"}


@pytest.mark.parametrize(
    "written",
    [
        *(
            "1e-3",
            "-2.5E+8",
            "1e5",
            "1.5",
            ".5",
            ".5e-3",
            "1_000",
            "1_0.5",
            "+1e3",
            "0x1f",
            "0o17",
            "017",
            "1:30",
            "1:30.5",
        ),
        *(
            ".inf",
            "-.INF",
            ".nan",
            "yes",
            "off",
            "~",
            "",
            "null",
            "2026-11-27",
            "2026-11-27 10:00:00",
            "e5",
            "1e",
            "1.2.3",
        ),
        *("'1e-3'", '"yes"', "[1e-3, {a: 2e4}]", "é", "1e-3e", "12e03", "0.0", "1."),
    ],
)
def test_it_is_read_quickly_as_it_is_loaded(tmp_path: Path, written: str):
    (tmp_path / saved.FILE).write_text(f"budget: 1\nvalue: {written}\n")
    assert repr(saved.read(tmp_path)[0]) == repr(saved.load(tmp_path))
