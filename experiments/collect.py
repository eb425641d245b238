"""Collects frames of a game: `python -m experiments.collect source.game=pong [run=<run folder>] [frames=10000]`.

Exit status: 0 done, 2 a mistake in what was typed.
"""

import sys

from core import platform


def main() -> None:
    platform.tune(wanted="tune=false" not in sys.argv)
    from experiments import collecting, config  # after `tune`, which starts the process anew

    config.main(collecting.task, name="collect")


if __name__ == "__main__":
    main()
