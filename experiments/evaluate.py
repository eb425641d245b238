"""Judges a run of any kind: `python -m experiments.evaluate run=<run folder> [episodes=30] [count=10000] [...]`.

Exit status: 0 done, 2 a mistake in what was typed.
"""

import sys

from core import platform


def main() -> None:
    platform.tune(wanted="tune=false" not in sys.argv)
    from experiments import config, evaluating  # after `tune`, which starts the process anew

    config.main(evaluating.task, name="evaluate")


if __name__ == "__main__":
    main()
