"""Published scores of random play and of a human tester, scores measured against them, and published learning curves.

The figures lie in `data/atari57_random_human.csv`, as published with google-deepmind/dqn_zoo
(`dqn_zoo/atari_data.py`): the mean raw score of a uniformly random agent and of a professional human tester
on the 57 games, episodes begun with 1 to 30 no-ops and capped at 108,000 frames. `data/README.md` tells where the
curves come from.
"""

import csv
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

_DATA = pathlib.Path(__file__).parent / "data"


class Published(NamedTuple):
    """Mean raw scores of one game."""

    random: float
    human: float


@functools.cache
def published() -> Mapping[str, Published]:
    """Game (ALE's name, such as `ms_pacman`) -> its two published scores, 57 games."""
    rows = _read("atari57_random_human.csv")
    return {row["game"]: Published(float(row["random"]), float(row["human"])) for row in rows}


def human_normalised(game: str | None, score: float) -> float | None:
    """(score - random) / (human - random): 0 is random play, 1 the human tester; None for a game not in the table."""
    reference = published().get(game or "")
    if reference is None:
        return None
    return (score - reference.random) / (reference.human - reference.random)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Where published curves come from and how their games were played."""

    file: str
    source: str
    score: str  # what a value is
    protocol: Mapping[str, float]  # by the names of this project's own protocols


_DOPAMINE = Study(
    file="dopamine_atari.csv",
    source="google/dopamine, baselines/atari/data, as at commit 8842298",
    score="training scores, no separate evaluation: mean episode return within a million frames",
    protocol={"sticky": 0.25, "epsilon": 0.01, "frame_cap": 108_000},
)
_BTR = Study(
    file="btr_atari.csv",
    source="VIPTankz/BeyondTheRainbowICML results.csv, commit 86ee767 (arXiv:2411.03820)",
    score="evaluation: mean of 100 episodes",
    protocol={"sticky": 0.25, "epsilon": 0.01, "episodes": 100},
)
# What they are asked for by -> (label, study, the agent's name in its file).
CURVES: Mapping[str, tuple[str, Study, str]] = {
    "dqn": ("Dopamine DQN", _DOPAMINE, "DQN"),
    "dqn_adam": ("Dopamine DQN (Adam, squared error)", _DOPAMINE, "DQN (Adam + MSE in JAX)"),
    "c51": ("Dopamine C51", _DOPAMINE, "C51"),
    "rainbow": ("Dopamine Rainbow", _DOPAMINE, "Rainbow"),
    "qr_dqn": ("Dopamine QR-DQN", _DOPAMINE, "Quantile (JAX)"),
    "iqn": ("Dopamine IQN", _DOPAMINE, "IQN"),
    "btr": ("Beyond the Rainbow", _BTR, "BTR"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """One published learning curve of one game; raw scores."""

    label: str
    study: Study
    frames: tuple[int, ...]  # [n]
    mean: tuple[float, ...]  # [n], over runs
    std: tuple[float, ...] | None  # [n], over runs; None of one run
    runs: int


def curve(name: str, game: str) -> Curve | None:
    """One of `CURVES` on a game (ALE's name); None where it was not published."""
    label, study, agent = CURVES[name]
    rows = _curves(study.file).get((game, agent))
    if rows is None:
        return None
    several = "std_over_runs" in rows[0]
    return Curve(
        label=label,
        study=study,
        frames=tuple(round(float(row["frames_millions"]) * 1e6) for row in rows),
        mean=tuple(float(row["mean_return"]) for row in rows),
        std=tuple(float(row["std_over_runs"]) for row in rows) if several else None,
        runs=int(rows[0]["runs"]) if several else 1,
    )


@functools.cache
def _curves(file: str) -> Mapping[tuple[str, str], list[dict[str, str]]]:
    """(game, agent) -> its rows, by frames."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in sorted(_read(file), key=lambda row: float(row["frames_millions"])):
        found.setdefault((row["game"], row["agent"]), []).append(row)
    return found


def _read(file: str) -> list[dict[str, str]]:
    with (_DATA / file).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
