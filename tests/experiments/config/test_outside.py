"""What comes from outside the repository: a package of somebody's own that registers an environment."""

import sys
import textwrap
from pathlib import Path

import pytest

from core import record
from experiments import runs, training
from experiments.config import command_line, saved

FILES = {
    "corridors/__init__.py": """
        import gymnasium

        gymnasium.register("Corridor-v0", entry_point="corridors.games:Corridor", max_episode_steps=20)
        """,
    "corridors/games.py": """
        import gymnasium
        import numpy as np


        class Corridor(gymnasium.Env):
            def __init__(self, length=3):
                self.observation_space = gymnasium.spaces.Box(0, length, (2,), np.float32)
                self.action_space = gymnasium.spaces.Discrete(2)
                self.length = length

            def reset(self, *, seed=None, options=None):
                super().reset(seed=seed)
                self.at = 0
                return self.see(), {}

            def step(self, action):
                self.at = max(self.at + 2 * int(action) - 1, 0)
                return self.see(), float(self.at == self.length), self.at == self.length, False, {}

            def see(self):
                return np.array([self.at, self.length], np.float32)
        """,
    "broken/__init__.py": "import a_module_that_nobody_has\n",
}


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`experiments.train` with these arguments, beside two packages on the path."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text).lstrip())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def train(*arguments: str) -> None:
        tiny = ("+debug=tiny", "tracker=none", "hydra.run.dir=run")
        monkeypatch.setattr(sys, "argv", ["train", "experiment=dqn/cartpole", *tiny, *arguments])
        command_line.main(training.task)

    return train


@pytest.mark.long
def test_a_package_that_registers_an_environment_is_trained_on(typed):
    typed("source.id=corridors:Corridor-v0", "+source.environments.options.length=5", "budget=320")
    assert saved.protocol("run")["id"] == "Corridor-v0"
    assert saved.protocol("run")["max_steps"] == 200  # +debug=tiny's
    assert list(record.read(Path("run/metrics.jsonl")))[-1][0]["frames"] == 320
    assert runs.load("run").sizes["actions"] == 2


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["source.id=corridors:Corrido-v0"], "source.id=corridors:Corrido-v0: no such environment; did you mean corri"),
        (["source.id=broken:Any-v0"], "importing 'broken' failed: ModuleNotFoundError: No module named 'a_module_tha"),
        (["source.id=corridors:Corridor-v0", "+source.environments.options.size=5"], "unexpected keyword argument 's"),
    ],
)
def test_what_such_a_package_cannot_do_is_told_in_a_line(typed, capsys: pytest.CaptureFixture, arguments, told: str):
    with pytest.raises(SystemExit) as left:
        typed(*arguments)
    assert left.value.code == command_line.EXIT_MISTAKE
    error = capsys.readouterr().err
    assert told in error and len(error.splitlines()) == 1 and not Path("run").exists()
