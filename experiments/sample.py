"""Draws images from a trained model: `python -m experiments.sample run=<run folder> count=64 out=samples.npz`.

Exit status: 0 done, 2 a mistake in what was typed.
"""

from experiments.config import start


def main() -> None:
    start.command("experiments.evaluation.samples", name="sample")


if __name__ == "__main__":
    main()
