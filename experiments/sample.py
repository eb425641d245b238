"""Draws images from a trained model: `python -m experiments.sample run=<run folder> count=64 out=samples.npz`.

Exit status: 0 done, 2 a mistake in what was typed.
"""

import sys

from core import platform


def main() -> None:
    platform.tune(wanted="tune=false" not in sys.argv)
    from experiments import config, sampling  # after `tune`, which starts the process anew

    config.main(sampling.task, name="sample")


if __name__ == "__main__":
    main()
