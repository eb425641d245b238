"""What `make demo` runs: trains on a real Atari game for some minutes and shows what came of it.

`python -m experiments.demo [seed=1] [source.game=freeway] [...]` takes what `experiments.train` takes; the settings
are those of `conf/experiment/dqn/demo.yaml`, which says why that game.
"""

import sys

from core import platform

EXPERIMENT = "experiment=dqn/demo"


def main() -> None:
    platform.tune(wanted="tune=false" not in sys.argv)
    from experiments import config, demonstration  # after `tune`, which starts the process anew

    if not any(argument.startswith(("experiment=", "resume=")) for argument in sys.argv):
        sys.argv.insert(1, EXPERIMENT)
    config.main(demonstration.task)


if __name__ == "__main__":
    main()
