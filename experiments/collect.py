"""Collects frames of a game: `python -m experiments.collect source.game=pong [run=<run folder>] [frames=10000]`.

Exit status: 0 done, 2 a mistake in what was typed.
"""

from experiments.config import start


def main() -> None:
    start.command("experiments.evaluation.frames", name="collect")


if __name__ == "__main__":
    main()
