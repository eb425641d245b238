"""Judges a run of any kind: `python -m experiments.evaluate run=<run folder> [episodes=30] [count=10000] [...]`.

Exit status: 0 done, 2 a mistake in what was typed.
"""

from experiments.config import start


def main() -> None:
    start.command("experiments.evaluation.command", name="evaluate")


if __name__ == "__main__":
    main()
