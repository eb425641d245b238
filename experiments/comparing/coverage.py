"""What the intervals of `statistics.py` are worth: `python -m experiments.comparing.coverage` prints a table of it.

Scores are drawn, intervals made, and counted. Everything is drawn from one seed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from experiments.comparing import statistics

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

SIZES = (3, 5, 10)
PAIRS = ((3, 3), (5, 5), (10, 10), (3, 5), (3, 10), (10, 3), (5, 30))


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


def of_mean(name: str, n: int, *, draws: int = 20_000, seed: int = 0) -> float:
    """How often the t interval of n scores holds their true mean."""
    draw, mean = DISTRIBUTIONS[name]
    low, high = statistics.t_interval(draw(np.random.default_rng(seed), (draws, n)))
    return float(np.mean((low <= mean) & (mean <= high)))


def wrong_verdicts(name: str, n: int, m: int, *, draws: int = 20_000, seed: int = 0) -> float:
    """How often `better` or `worse` is said of n and m scores of one distribution."""
    draw, _ = DISTRIBUTIONS[name]
    random = np.random.default_rng(seed)
    _, p = statistics.two_samples(draw(random, (draws, n)), draw(random, (draws, m)))
    return float(np.mean(p <= 1 - statistics.LEVEL))


def welch_alone(name: str, n: int, m: int, *, draws: int = 20_000, seed: int = 0) -> float:
    """How often Welch's test by itself would tell the same scores apart."""
    draw, _ = DISTRIBUTIONS[name]
    random = np.random.default_rng(seed)
    first, second = draw(random, (draws, n)), draw(random, (draws, m))
    found: Any = stats.ttest_ind(first, second, axis=1, equal_var=False)
    return float(np.mean(found.pvalue <= 1 - statistics.LEVEL))


def unlike_spreads(n: int, m: int, *, ratio: float = 3.0, draws: int = 20_000, seed: int = 0) -> float:
    """How often a verdict is given on normal scores of one mean, the second's spread `ratio` times the first's."""
    random = np.random.default_rng(seed)
    _, p = statistics.two_samples(random.standard_normal((draws, n)), ratio * random.standard_normal((draws, m)))
    return float(np.mean(p <= 1 - statistics.LEVEL))


def of_suite(n: int, *, tasks: int = 20, draws: int = 300, seed: int = 0) -> dict[str, float]:
    """How often stratified bootstrap intervals over `tasks` hold what infinitely many seeds would show.

    Task i has normal scores around i / tasks with a spread of a fifth; the true IQM is that of a great many seeds.
    """
    random = np.random.default_rng(seed)
    centres = np.arange(tasks) / tasks
    many = [centre + 0.2 * random.standard_normal(20_000) for centre in centres]
    truth = {"median": float(np.median(centres)), "mean": float(centres.mean()), "iqm": statistics.iqm(many)}
    held = dict.fromkeys(truth, 0)
    for _ in range(draws):
        found = statistics.suite([centre + 0.2 * random.standard_normal(n) for centre in centres])
        for name, true in truth.items():
            interval = getattr(found, name)[1]
            held[name] += interval is not None and interval[0] <= true <= interval[1]
    return {name: count / draws for name, count in held.items()}


def table() -> str:
    """All of it as Markdown."""
    lines = ["How often the 95 % t interval holds the true mean:", ""]
    lines += _rows(
        ["scores", *(f"n = {n}" for n in SIZES)], [[of_mean(name, n) for n in SIZES] for name in DISTRIBUTIONS]
    )
    lines += [
        "",
        "How often two groups of the same scores are called better or worse (at most 5 % are meant to be):",
        "",
    ]
    wrong = [[wrong_verdicts(name, n, m) for n, m in PAIRS] for name in DISTRIBUTIONS]
    wrong += [[unlike_spreads(n, m) for n, m in PAIRS]]
    names = [*DISTRIBUTIONS, "normal, the second's spread three times the first's"]
    lines += _rows(["scores", *(f"{n} and {m} seeds" for n, m in PAIRS)], wrong, names)
    lines += ["", "And how often Welch's test alone would:", ""]
    alone = [[welch_alone(name, n, m) for n, m in PAIRS] for name in DISTRIBUTIONS]
    lines += _rows(["scores", *(f"{n} and {m} seeds" for n, m in PAIRS)], alone)
    lines += ["", "How often the 95 % bootstrap intervals over 20 tasks hold the true figure (300 draws):", ""]
    suites = [of_suite(n) for n in SIZES]
    names = list(suites[0])
    lines += _rows(
        ["figure", *(f"{n} seeds a task" for n in SIZES)], [[found[name] for found in suites] for name in names], names
    )
    return "\n".join(lines)


def _rows(
    head: Sequence[str], shares: Sequence[Sequence[float]], names: Sequence[str] = tuple(DISTRIBUTIONS)
) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return lines + [
        f"| {name} | {' | '.join(f'{share:.1%}' for share in row)} |" for name, row in zip(names, shares, strict=True)
    ]


if __name__ == "__main__":
    print(table())
