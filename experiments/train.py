"""Trains whatever a config describes: `python -m experiments.train experiment=dqn/pong`.

Exit status: 0 done, 2 a mistake in what was typed, 75 stopped by SIGTERM or SIGUSR1 and 130 by SIGINT, in both cases
with a checkpoint written: `resume=<run folder>` goes on. 69: of several processes one was waited for in vain. Anything
else is an error, with its traceback.
"""

import sys

from core import platform


def main() -> None:
    platform.tune(wanted="tune=false" not in sys.argv)
    from experiments import config, training  # after `tune`, which starts the process anew

    config.main(training.task)


if __name__ == "__main__":
    main()
