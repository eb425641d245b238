"""What the README shows is what there is: its commands compose, its example runs, its links lead somewhere."""

import importlib
import pathlib
import re
import shlex
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import build, command_line, overrides, resume, saved
from experiments.launching import command

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, flags=re.DOTALL)
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines() if line.strip()]
DATE = "2026-01-31_12-00-00"  # in place of <date-time>


def lines(module: str) -> list[str]:
    return [line for line in LINES if line.startswith(f"python -m experiments.{module} ")]


def typed_in(line: str) -> list[str]:
    """What follows the module's name, without options, comments and sweeps (the first of their values)."""
    words = shlex.split(line.replace("<date-time>", DATE), comments=True)[3:]
    return [re.sub(r"=([^,\[]+),.*", r"=\1", word) for word in words if not word.startswith("-")]


@pytest.mark.parametrize("line", [line for line in lines("train") if " resume=" not in line])
def test_training_commands_compose(line: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    write_example(tmp_path, monkeypatch)
    build.plan({**command_line.compose(*typed_in(line)), "_target_": "experiments.config.build.Run"})


@pytest.mark.parametrize("line", [line for line in lines("train") if " resume=" in line])
def test_runs_go_on_with_what_is_typed_and_all_else_as_it_was(line: str, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    settings = command_line.compose("experiment=dqn/pong")
    saved.save(tmp_path / "runs/dqn/pong" / DATE, settings)
    typed = typed_in(line)
    merged = resume.merged(command_line.compose(*resume.arguments(typed)), typed)
    build.plan({**merged, "_target_": "experiments.config.build.Run"})
    assert {key for key in settings if merged[key] != settings[key]} == overrides.keys(typed) > {"resume"}


@pytest.mark.parametrize("line", lines("launch"))
def test_launches_compose(line: str, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    typed = command.split([*typed_in(line), "dry_run=true"])
    plain = command_line.compose(*typed.own, name="launch")
    if plain["status"]:  # of what the line before it would have launched
        with pytest.raises(build.ConfigError, match=rf"^status=runs/dqn/pong/{DATE}: nothing was launched here"):
            typed.task(plain, tmp_path)
    else:
        typed.task(plain, tmp_path)
        assert "#SBATCH --partition=gpu" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["evaluate", "compare", "sample", "collect"])
def test_other_commands_compose(name: str):
    assert lines(name)
    for line in lines(name):
        command_line.compose(*typed_in(line), name=name)


def test_every_command_is_one_of_ours():
    modules = [shlex.split(line, comments=True)[2] for line in LINES if line.startswith("python -m")]
    assert modules
    for module in modules:
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, flags=re.MULTILINE):
        assert target in targets


def test_the_yaml_shown_is_a_learner(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    bootstrap = write_example(tmp_path, monkeypatch)
    (tmp_path / "mine/conf/learner").mkdir(parents=True)
    shown = next(block for language, block in BLOCKS if language == "yaml")
    (tmp_path / "mine/conf/learner/mixed.yaml").write_text(shown)
    typed = [f"hydra.searchpath=[file://{tmp_path}/mine/conf]", "experiment=dqn/cartpole", "learner=mixed"]
    settings = command_line.compose(*typed)
    assert build.check(settings).arguments["learner"].arguments["bootstrap"] is bootstrap
    double = command_line.compose("experiment=dqn/cartpole", "learner=double_dqn")["learner"]
    assert settings["learner"] == double | {"bootstrap": "mine.td.mixed_bootstrap"}


def test_the_python_example_runs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    bootstrap = write_example(tmp_path, monkeypatch)
    target, online = jnp.array([[1.0, 5.0]]), jnp.array([[2.0, 0.0]])
    np.testing.assert_allclose(bootstrap(target, online), [3.0])


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((?!https?://)([^)#]+)\)", TEXT):
        assert (ROOT / link).exists(), link


def write_example(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """The README's `mine/td.py`, importable."""
    code = next(block for language, block in BLOCKS if language == "python" and "mixed_bootstrap" in block)
    (folder / "mine").mkdir()
    (folder / "mine" / "td.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("mine", "mine.td"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("mine.td").mixed_bootstrap
