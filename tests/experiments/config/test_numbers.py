"""Numbers beyond 32 bits: one range of seeds for every command, and counts that are told before a run starts."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from agents import atari, screen
from experiments import training
from experiments.config import build, command_line

TOP = 2**32 - 1
WANTED = {
    "command": {"run": "run"},
    "samples": {"run": "run", "count": 1},
    "frames": {"source": {"game": "pong"}},
}


def check(command: str, seed: int) -> Any:
    if command == "train":
        return build.check(command_line.compose("experiment=dqn/cartpole", f"seed={seed}"))
    node = {**WANTED[command], "seed": seed, "_target_": f"experiments.evaluation.{command}.Wanted"}
    return build.objects(node)


@pytest.mark.parametrize("command", ["train", *WANTED])
def test_every_command_takes_the_same_seeds(command: str):
    check(command, 0)
    check(command, TOP)
    for seed in (-1, TOP + 1, 2**63, 10**30):
        with pytest.raises(build.ConfigError, match=rf"seed={seed}: must lie in 0\.\.{TOP}"):
            check(command, seed)


def test_seeds_at_both_ends_make_keys_of_their_own():
    seeds = [0, 1, 2**31 - 1, 2**31, TOP - 1, TOP]
    assert len({tuple(np.asarray(jax.random.key_data(jax.random.key(seed)))) for seed in seeds}) == len(seeds)


def test_the_seeds_of_many_images_stay_within_the_range():
    node = {"run": "run", "_target_": "experiments.evaluation.samples.Wanted", "count": 64}
    build.objects(node | {"seed": TOP - 63})
    with pytest.raises(build.ConfigError, match=rf"seed={TOP - 62}: must be at most {TOP - 63}, for 64 seeds"):
        build.objects(node | {"seed": TOP - 62})
    with pytest.raises(build.ConfigError, match=r"count=10000000000: must be at most 4294967296"):
        build.objects(node | {"count": 10**10})


@pytest.mark.parametrize("seed", [0, 2**31 - 1, 2**31, TOP])
def test_an_emulator_takes_every_seed(seed: int):
    recipe = atari.Atari(game="freeway", threads=1)
    two, one = recipe.make(2), recipe.make(1)
    first = two.reset(seed)
    np.testing.assert_array_equal(two.reset(seed), first)
    np.testing.assert_array_equal(one.reset(seed)[0], first[0])
    np.testing.assert_array_equal(screen.Screen(recipe, seed=seed).reset(), first[0])
    two.close()
    one.close()


def train(tmp_path: Path, *typed: str) -> None:
    settings = command_line.compose("experiment=dqn/cartpole", "+debug=tiny", "tracker=none", "evaluators=none", *typed)
    training.train(settings, tmp_path / "run", stop=None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "typed, told",
    [
        ("budget=1e14", r"^budget=100000000000000: at most 17,179,869,176 frames, 2\^31 learner steps"),
        ("learner.batch=1e12", r"^learner\.batch=1000000000000: more than replay\.capacity=256 ever holds"),
        ("learner.replay.capacity=1e12", r"^learner\.replay\.capacity=1000000000000: at most 2,147,483,647 transit"),
        ("learner.target.period=1e12", r"^learner\.target\.period=1000000000000: must be less than 2\^31"),
        ("learner.replay.read.n_step=1e12", r"too few for 1 x 2 games"),
        ("source.steps=1e12", r"replay\.capacity=256: too few for .* rollouts of 1000000000000"),
    ],
)
def test_what_a_count_cannot_hold_is_told_before_the_start(tmp_path: Path, typed: str, told: str):
    with pytest.raises(build.ConfigError, match=told):
        train(tmp_path, typed)
    assert not (tmp_path / "run").exists()
