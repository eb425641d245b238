"""What `make demo` runs: trains on a real Atari game for some minutes and shows what came of it.

`python -m experiments.demo [seed=1] [source.game=freeway] [...]` takes what `experiments.train` takes; the settings
are those of `conf/experiment/dqn/demo.yaml`, which says why that game.
"""

from experiments.config import start


def main() -> None:
    start.command("experiments.demos.atari", defaults=["experiment=dqn/demo"])


if __name__ == "__main__":
    main()
