"""Published scores of random play and of a human tester, and scores measured against them.

The figures lie in `data/atari57_random_human.csv`, as published with google-deepmind/dqn_zoo
(`dqn_zoo/atari_data.py`): the mean raw score of a uniformly random agent and of a professional human tester
on the 57 games, episodes begun with 1 to 30 no-ops and capped at 108,000 frames.
"""

import csv
import functools
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

_TABLE = pathlib.Path(__file__).parent / "data" / "atari57_random_human.csv"


class Published(NamedTuple):
    """Mean raw scores of one game."""

    random: float
    human: float


@functools.cache
def published() -> Mapping[str, Published]:
    """Game (ALE's name, such as `ms_pacman`) -> its two published scores, 57 games."""
    with _TABLE.open(newline="") as file:
        return {row["game"]: Published(float(row["random"]), float(row["human"])) for row in csv.DictReader(file)}


def human_normalised(game: str | None, score: float) -> float | None:
    """(score - random) / (human - random): 0 is random play, 1 the human tester; None for a game not in the table."""
    reference = published().get(game or "")
    if reference is None:
        return None
    return (score - reference.random) / (reference.human - reference.random)
