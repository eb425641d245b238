"""What intervals and verdicts are worth: `python -m experiments.comparing.coverage` prints tables of it.

Scores are drawn, intervals made, and counted. Everything is drawn from one seed.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from experiments.comparing.numbers import differences, overall, statistics
from experiments.comparing.parts import suites

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

SIZES = (3, 5, 10)
PAIRS = ((3, 3), (5, 5), (10, 10), (3, 5), (3, 10), (10, 3), (5, 30), (30, 5))
GAMES = (5, 20, 57)


def _failing(random: np.random.Generator, size: tuple[int, ...], *, share: float, spread: float) -> np.ndarray:
    """Scores around 1, and around 0 for the `share` of seeds that fail."""
    return (random.random(size) >= share) + spread * random.standard_normal(size)


# Name -> (draws, the true mean).
DISTRIBUTIONS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda random, size: random.standard_normal(size), 0.0),
    "exponential": (lambda random, size: random.exponential(size=size), 1.0),
    "lognormal": (lambda random, size: random.lognormal(size=size), float(np.exp(0.5))),
    "bimodal, half of the seeds fail": (lambda random, size: _failing(random, size, share=0.5, spread=0.1), 0.5),
    "bimodal, a fifth of the seeds fail": (lambda random, size: _failing(random, size, share=0.2, spread=0.01), 0.8),
}
UNLIKE = "normal, the second's spread three times the first's"
SCALES = "normal, games' spreads from a tenth to ten times"


def of_mean(name: str, n: int, *, draws: int = 20_000, seed: int = 0) -> float:
    """How often the t interval of n scores holds their true mean."""
    draw, mean = DISTRIBUTIONS[name]
    low, high = statistics.t_interval(draw(np.random.default_rng(seed), (draws, n)))
    return float(np.mean((low <= mean) & (mean <= high)))


def wrong_verdicts(name: str, n: int, m: int, *, draws: int = 20_000, seed: int = 0) -> float:
    """How often `better` or `worse` is said of n and m scores of one mean."""
    _, p = differences.two_samples(*_pairs(name, n, m, draws, seed))
    return float(np.mean(p <= 1 - statistics.LEVEL))


def welch_alone(name: str, n: int, m: int, *, draws: int = 20_000, seed: int = 0) -> float:
    """How often Welch's test by itself would tell the same scores apart."""
    p = differences.welch(*_pairs(name, n, m, draws, seed))
    return float(np.mean(p <= 1 - statistics.LEVEL))


def power(n: int, m: int, *, apart: float = 1.5, draws: int = 20_000, seed: int = 0) -> float:
    """How often n and m normal scores are told apart whose means differ by `apart` times their spread."""
    first, second = _pairs("normal", n, m, draws, seed)
    _, p = differences.two_samples(first, second + apart)
    return float(np.mean(p <= 1 - statistics.LEVEL))


def _pairs(name: str, n: int, m: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    if name == UNLIKE:
        return random.standard_normal((draws, n)), 3 * random.standard_normal((draws, m))
    draw, _ = DISTRIBUTIONS[name]
    return draw(random, (draws, n)), draw(random, (draws, m))


# ---- over games ----


def of_suite(name: str, n: int, *, games: int = 20, draws: int = 400, seed: int = 0) -> dict[str, float]:
    """How often the intervals over games hold what infinitely many seeds would show, n seeds a game.

    Game i has scores around i / games with a spread that is a fifth of the distribution's.
    """
    random = np.random.default_rng(seed)
    truth = _truth(name, games)
    held: dict[str, int] = dict.fromkeys(_FIGURES, 0)
    for _ in range(draws):
        found = overall.figures([scores[0] for scores in _games(random, name, n, games, 1)])
        for figure, true in truth.items():
            interval = getattr(found, figure)[1]
            held[figure] += interval is not None and interval[0] <= true <= interval[1]
    return {figure: count / draws for figure, count in held.items()}


def of_suite_mean(name: str, n: int, *, games: int = 20, draws: int = 10_000, seed: int = 0) -> float:
    """Of the mean alone, which is quick."""
    tasks = _games(np.random.default_rng(seed), name, n, games, draws)
    away = np.mean([scores.mean(axis=-1) for scores in tasks], axis=0) - _truth(name, games)["mean"]
    return float(np.mean(np.abs(away) <= overall.half_of_mean(tasks)))


def wrong_over_games(name: str, n: int, m: int, *, games: int, draws: int = 10_000, seed: int = 0) -> float:
    """How often a verdict over games is given on two groups of the same scores."""
    random = np.random.default_rng(seed)
    *_, p = suites.apart(_games(random, name, n, games, draws), _games(random, name, m, games, draws))
    return float(np.mean(p <= 1 - statistics.LEVEL))


def bootstrap_over_games(n: int, *, games: int = 20, draws: int = 400, seed: int = 0) -> float:
    """How often a bootstrap interval of the difference of IQMs would leave out 0, of two groups of the same scores."""
    random, wrong = np.random.default_rng(seed), 0
    for _ in range(draws):
        first, second = (
            overall.resampled([scores[0] for scores in _games(random, "normal", n, games, 1)], side)["iqm"]
            for side in (0, 1)
        )
        low, high = statistics.percentiles(second - first) or (0, 0)
        wrong += not low <= 0 <= high
    return wrong / draws


_FIGURES = ("median", "iqm", "mean", "optimality_gap")


def _games(random: np.random.Generator, name: str, n: int, games: int, draws: int) -> list[np.ndarray]:
    """[draws, n] a game."""
    draw, mean = DISTRIBUTIONS["normal" if name == SCALES else name]
    scales = np.geomspace(0.1, 10, games) if name == SCALES else np.ones(games)
    return [
        place / games + 0.2 * scale * (draw(random, (draws, n)) - mean)
        for place, scale in zip(range(games), scales, strict=True)
    ]


@functools.cache
def _truth(name: str, games: int) -> dict[str, float]:
    """Of a great many seeds."""
    many = [scores[0] for scores in _games(np.random.default_rng(99), name, 20_000, games, 1)]
    centres = np.arange(games) / games
    told = {"median": float(np.median(centres)), "mean": float(centres.mean())}
    return told | {"iqm": overall.iqm(many), "optimality_gap": overall.optimality_gap(many)}


def table() -> str:
    """All of it as Markdown."""
    lines = _table(
        "How often the 95 % t interval holds the true mean", SIZES, lambda name, n: of_mean(name, n), "n = {}"
    )
    seeds, names = "{0[0]} and {0[1]} seeds", (*DISTRIBUTIONS, UNLIKE)
    for title, told in (
        ("How often two groups of one mean are called better or worse (at most 5 % are meant to be)", wrong_verdicts),
        ("And how often Welch's test alone would", welch_alone),
    ):
        lines += _table(title, PAIRS, lambda name, pair, told=told: told(name, *pair), seeds, names)
    title = "How often normal scores 1.5 spreads apart are told apart"
    lines += _table(title, PAIRS, lambda _, pair: power(*pair), seeds, ["normal"])
    for name in DISTRIBUTIONS:
        every = {n: of_suite(name, n) for n in SIZES}
        title = f"How often the 95 % intervals over 20 games hold the true figure (400 draws), {name}"
        lines += _table(title, SIZES, lambda figure, n, every=every: every[n][figure], "{} seeds a game", _FIGURES)
    title = "How often the 95 % t interval of the mean over 20 games does"
    lines += _table(title, SIZES, lambda name, n: of_suite_mean(name, n), "{} seeds a game")
    pairs = [(n, m, games) for n, m in ((3, 3), (5, 5), (3, 10)) for games in GAMES]
    told = lambda name, each: wrong_over_games(name, each[0], each[1], games=each[2])
    title = "How often two groups of the same scores are called better or worse over games"
    lines += _table(title, pairs, told, "{0[0]} and {0[1]} seeds, {0[2]} games", (*DISTRIBUTIONS, SCALES))
    title = "And how often a bootstrap of the difference of IQMs over 20 games would (400 draws)"
    lines += _table(title, SIZES, lambda _, n: bootstrap_over_games(n), "{} seeds a game", ["normal"])
    return "\n".join(lines)


def _table(
    title: str, columns: Sequence, told: Callable[..., float], head: str, names: Sequence[str] = tuple(DISTRIBUTIONS)
) -> list[str]:
    lines = [
        f"{title}:",
        "",
        f"| scores | {' | '.join(map(head.format, columns))} |",
        f"|{' --- |' * (len(columns) + 1)}",
    ]
    lines += [f"| {name} | {' | '.join(f'{told(name, each):.1%}' for each in columns)} |" for name in names]
    return [*lines, ""]


if __name__ == "__main__":
    print(table())
