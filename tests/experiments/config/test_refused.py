"""A refused start changes nothing: neither a run's folder, which goes on as before, nor an empty one."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.checkpoints import checkpoint
from experiments import training
from experiments.config import command_line, saved

TINY = ("experiment=dqn/cartpole", "+debug=tiny", "tracker=none", "budget=64", "hydra.run.dir=run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in `run`."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(*TINY)
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def train(*typed: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *typed])
        command_line.main(training.task)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture):
    """What standard error says of a training that exits with status 2."""

    def run(*typed: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            train(*typed)
        assert left.value.code == command_line.EXIT_MISTAKE
        return capsys.readouterr().err.strip()

    return run


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def edited(old: str, new: str) -> Callable[[], None]:
    def edit() -> None:
        path = Path("run/config.yaml")
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


def damaged() -> None:
    for path in checkpoint.complete("run/checkpoints"):
        for file in (path / "source").iterdir():
            file.write_bytes(bytes(file.stat().st_size))


def nothing() -> None: ...


KINDS = [
    (nothing, ["mesh.data=64"], r"mesh.*64"),
    (nothing, ["mesh=fsdp", "mesh.data=5", "budget=128"], r"mesh.*5"),
    (nothing, ["tracker=wandb", "tracker.init_seconds=0"], r"tracker\.init_seconds=0"),
    (nothing, ["checkpoint.metric=eval/fid"], r"checkpoint\.metric=eval/fid: no evaluation gives it"),
    (edited("capacity: 256", "capacity: 2000000000"), ["budget=128"], r"memory: the state needs"),
    (edited("- 120\n        - 84", "- 24\n        - 8"), ["budget=128"], r"params/.* is float32\[84,2\]"),
    (edited("id: CartPole-v1", "id: Acrobot-v1"), ["budget=128"], r"params/.* is .*float32\[3\] in this run"),
    (damaged, ["budget=128"], r"all 1 checkpoints are damaged"),
]


@pytest.mark.filterwarnings("ignore:skipping a damaged checkpoint")
def test_a_refused_resume_changes_nothing(trained: Path, refused):
    for before, typed, told in KINDS:
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(trained / "run", "run")
        before()
        there = content(Path("run"))
        assert re.search(told, refused("resume=run", *typed))
        assert content(Path("run")) == there
    shutil.rmtree("run")
    shutil.copytree(trained / "run", "run")
    refused("resume=run", "mesh.data=64")
    train("resume=run", "budget=96")
    assert saved.load("run")["budget"] == 96


def test_a_refused_start_leaves_no_folder(refused):
    for typed in ("mesh.data=64", "learner.replay.capacity=10_000_000_000_000", "network=nature", "seed=-1"):
        refused(*TINY, typed)
        assert not Path("run").exists()


def test_a_start_in_the_folder_of_another_run_changes_nothing(trained: Path, refused):
    there = content(trained)
    assert "holds a run already" in refused(*TINY, f"hydra.run.dir={trained}/run")
    assert content(trained) == there


def test_a_start_that_was_killed_before_its_config_is_made_again():
    Path("run/checkpoints/best").mkdir(parents=True)
    train(*TINY, "evaluators=none")
    assert len(checkpoint.complete("run/checkpoints")) == 1


def test_a_start_that_was_killed_after_its_config_goes_on(trained: Path):
    Path("run").mkdir()
    shutil.copy(trained / "run" / saved.FILE, "run")
    train("resume=run")
    assert len(checkpoint.complete("run/checkpoints")) == 1
