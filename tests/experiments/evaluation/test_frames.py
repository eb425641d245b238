"""`python -m experiments.collect`: frames of games become images to train on."""

import dataclasses
import itertools
import json
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from agents import atari, screen
from core import stopping
from core.images import datasets
from experiments import training
from experiments.config import command_line
from experiments.evaluation import frames


@pytest.fixture
def collect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run(*typed: str) -> dict[str, np.ndarray]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", ["collect", *typed])
        command_line.main(frames.task, name="collect")
        out = next((word.removeprefix("out=") for word in typed if word.startswith("out=")), "frames.npz")
        with np.load(tmp_path / out) as found:
            return dict(found)

    return run


SMALL = ("frames=60", "size=16", "envs=3", "source.max_frames=80")


def test_random_play_becomes_images_to_learn_from(collect, tmp_path: Path, capsys):
    found = collect("source.game=pong", *SMALL)
    assert found["image"].shape == (60, 16, 16, 3) and found["image"].dtype == np.uint8
    assert len(np.unique(found["group"])) == 3 and found["group"].dtype == np.int32
    provenance = json.loads(str(found["provenance"]))
    wanted = {"game": "pong", "seed": 0, "agent": "random", "epsilon": 1.0, "every": 4, "color": "rgb", "envs": 3}
    assert wanted.items() <= provenance.items()
    assert provenance["protocol"]["frame_cap"] == 80 and "collect source.game=pong" in provenance["command"]
    assert len(np.unique(found["image"].reshape(-1, 3), axis=0)) > 10  # in colour
    assert [path.name for path in tmp_path.iterdir()] == ["frames.npz"]
    shown = capsys.readouterr().out
    assert "60/60 frames" in shown and "in 3 games: frames.npz" in shown and "source.path=frames.npz" in shown
    parts = {split: datasets.Npz(path=str(tmp_path / "frames.npz")).load(split) for split in datasets.SPLITS}
    assert [len(part.image) for part in parts.values()] == [20, 20, 20]  # a game each
    assert parts["train"].classes == 0 and parts["train"].provenance["game"] == "pong"


def test_the_same_seed_gives_the_same_frames(collect):
    first, same, other = (
        collect("source.game=breakout", *SMALL, "color=grey", f"seed={seed}", f"out={name}.npz")
        for seed, name in ((1, "a"), (1, "b"), (2, "c"))
    )
    assert first["image"].shape == (60, 16, 16, 1)
    np.testing.assert_array_equal(first["image"], same["image"])
    assert (first["image"] != other["image"]).any()
    games = [first["image"][first["group"] == game] for game in range(3)]
    assert (games[0] != games[1]).any() and (games[1] != games[2]).any()


def test_what_is_there_stays_unless_forced(collect, tmp_path: Path, capsys):
    (tmp_path / "frames.npz").write_text("mine")
    with pytest.raises(SystemExit):
        collect("source.game=pong", *SMALL)
    assert "out=frames.npz: exists already; force=true writes over it" in capsys.readouterr().err
    assert (tmp_path / "frames.npz").read_text() == "mine"
    assert collect("source.game=pong", *SMALL, "force=true")["image"].shape[0] == 60


@pytest.mark.parametrize(
    "typed, told",
    [
        ((), "source.game: missing; name a game, as in source.game=pong"),
        (("source.game=pongg",), "source.game=pongg: no such game; did you mean pong?"),
        (("source.game=pong", "source.sticky=2"), "source.sticky=2.0: must lie in 0.0..1.0"),
        (("source.game=pong", "epsilon=0.1"), "epsilon=0.1: a random agent has none"),
        (("source.game=pong", "frames=0"), "frames=0: must be at least 1"),
        (("source.game=pong", "every=0"), "every=0: must be at least 1"),
        (("source.game=pong", "envs=0"), "envs=0: must be at least 1"),
        (("source.game=pong", "seed=-1"), "seed=-1: must lie in 0..4294967295"),
        (("source.game=pong", "size=0"), "size=0: must be a side"),
        (("source.game=pong", "size=[300,300]"), "at most at its own size"),
        (("source.game=pong", "color=blue"), "color=blue: should be 'rgb' or 'grey'"),
        (("source.game=pong", "out=frames.npy"), "out=frames.npy: must end with .npz"),
        (("source.game=pong", "out=no/frames.npz"), "out=no/frames.npz: there is no folder no"),
        (("run=nowhere",), "nowhere: no run here"),
        (("source.gam=pong",), "did you mean source.game?"),
    ],
)
def test_a_mistake_is_told_and_leaves_nothing(collect, tmp_path: Path, capsys, typed: tuple[str, ...], told: str):
    with pytest.raises(SystemExit) as left:
        collect(*typed)
    assert left.value.code == command_line.EXIT_MISTAKE
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# ---- a run's agent ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pong"
    typed = (
        "experiment=dqn/pong",
        "evaluators=none",
        "network.make.torso.width=2",
        "source.sticky=0.25",
        "tracker=none",
    )
    short = ("budget=64", "learner.learning_starts=200")  # it plays and learns nothing: weights are weights
    training.train(command_line.compose(*typed, *short, "+debug=tiny"), folder, stop=stopping.Stop())
    return folder


@pytest.mark.long
def test_a_runs_agent_plays_as_it_was_trained(collect, trained: Path):
    found = collect(f"run={trained}", "frames=30", "size=[20,16]", "envs=2", "seed=3")
    assert found["image"].shape == (30, 20, 16, 3)
    provenance = json.loads(str(found["provenance"]))
    wanted = {"game": "pong", "agent": str(trained), "checkpoint": "000000000002", "trained_on": "64 frames"}
    assert wanted.items() <= provenance.items() and provenance["epsilon"] == 0.01
    assert (provenance["protocol"]["sticky"], provenance["protocol"]["frame_cap"]) == (0.25, 200)
    changed = collect(f"run={trained}", "frames=30", "epsilon=1", "source.sticky=0", "out=other.npz", "envs=2")
    assert json.loads(str(changed["provenance"]))["protocol"]["sticky"] == 0


def test_a_run_keeps_to_its_game(collect, trained: Path, capsys):
    with pytest.raises(SystemExit):
        collect(f"run={trained}", "source.game=breakout")
    assert "source.game=breakout: the run plays pong" in capsys.readouterr().err


# ---- what the camera sees ----


class Scripted:
    """Games of 3 steps of 4 frames. Frame n is full of n, and its corner is 255 where n is odd, as if it flickered."""

    made: list[int] = []  # noqa: RUF012  seeds

    def __init__(self, recipe: atari.Atari, *, seed: int):
        self.made.append(seed)
        self.steps = 0

    def reset(self) -> np.ndarray:
        return np.zeros((4, 2, 2), np.uint8)

    def step(self, action: int) -> screen.Seen:
        self.steps += 1
        pictures = []
        for n in range(4 * self.steps - 3, 4 * self.steps + 1):
            pictures.append(np.full((2, 2, 3), n, np.uint8))
            pictures[-1][0, 0] = 255 if n % 2 else 0
        return screen.Seen(np.full((4, 2, 2), action, np.uint8), 0.0, self.steps == 3, pictures)


@dataclasses.dataclass(frozen=True)
class Counting:
    """Its action is how many steps ago, by its carry, each game began."""

    def carry(self, envs: int):
        return jnp.zeros(envs, jnp.int32)

    def act(self, view, carry, observation, first, key, epsilon):
        carry = jnp.where(first, 0, carry + 1)
        return carry, carry, ()


def filmed(monkeypatch: pytest.MonkeyPatch, count: int, **settings: Any) -> list[tuple[np.ndarray, int]]:
    monkeypatch.setattr(screen, "Screen", Scripted)
    Scripted.made.clear()
    wanted = frames.Wanted(source=frames.Game(), size=2, **settings)
    player = frames.Player(agent=Counting(), view=(), recipe=atari.Atari(), epsilon=0.0, about={})
    return list(itertools.islice(frames.play(player, wanted), count))


@pytest.mark.parametrize(
    "every, kept", [(1, range(1, 13)), (2, range(2, 13, 2)), (3, range(3, 13, 3)), (4, [4, 8, 12]), (5, [5, 10])]
)
def test_every_so_many_frames_are_kept_with_what_flickers(monkeypatch, every: int, kept):
    found = [image for image, game in filmed(monkeypatch, 30, every=every, envs=1) if game == 0]
    assert [int(image[1, 1, 0]) for image in found] == list(kept)
    if every > 1:
        assert all(image[0, 0, 0] == 255 for image in found)


def test_games_are_told_apart_and_each_has_a_seed_of_its_own(monkeypatch):
    games = [game for _, game in filmed(monkeypatch, 24, envs=2)]
    assert games == [0, 1] * 3 + [2, 3] * 3 + [4, 5] * 3 + [6, 7] * 3
    assert len(set(Scripted.made)) == len(Scripted.made)


def test_the_agent_is_told_of_a_new_game(monkeypatch):
    actions = []
    step = Scripted.step
    monkeypatch.setattr(Scripted, "step", lambda self, action: (actions.append(action), step(self, action))[1])
    filmed(monkeypatch, 9, envs=1)
    assert actions == [0, 1, 2] * 3


# ---- writing ----


def pictures(count: int, fail: bool = False):
    for i in range(count):
        yield np.full((64, 64, 3), i % 256, np.uint8), i // 10
    if fail:
        raise KeyboardInterrupt


def test_memory_stays_bounded(tmp_path: Path):
    tracemalloc.start()
    games = frames.write(tmp_path / "x.npz", pictures(1_000), count=500, provenance={})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert games == 50 and peak < 1_500_000  # 500 images are 6 MB
    with np.load(tmp_path / "x.npz") as found:
        assert found["image"].shape == (500, 64, 64, 3) and found["image"][-1, 0, 0, 0] == 499 % 256
        assert found["group"][-1] == 49


def test_an_interrupted_collection_leaves_what_was_there(tmp_path: Path):
    (tmp_path / "x.npz").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        frames.write(tmp_path / "x.npz", pictures(5, fail=True), count=10, provenance={})
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"] and (tmp_path / "x.npz").read_text() == "old"


def test_files_are_compressed(tmp_path: Path):
    frames.write(tmp_path / "x.npz", pictures(100), count=100, provenance={"game": "pong"})
    assert (tmp_path / "x.npz").stat().st_size < 100 * 64 * 64 * 3 / 20
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.testzip() is None and archive.namelist() == ["image.npy", "group.npy", "provenance.npy"]


def test_help_tells_every_key(collect, capsys):
    with pytest.raises(SystemExit):
        collect("--help")
    page = capsys.readouterr().out
    settings = command_line.compose(name="collect")
    for key in [*(key for key in settings if key != "source"), *(f"source.{key}" for key in settings["source"])]:
        assert f"\n  {key} " in page, key
