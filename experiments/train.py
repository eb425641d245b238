"""Trains whatever a config describes: `python -m experiments.train experiment=dqn/pong`.

Exit status: 0 done, 2 a mistake in what was typed, 75 stopped by SIGTERM or SIGUSR1 and 130 by SIGINT, in both cases
with a checkpoint written: `resume=<run folder>` goes on. 69: of several processes one was waited for in vain. Anything
else is an error, with its traceback.
"""

from experiments.config import start


def main() -> None:
    start.command("experiments.training")


if __name__ == "__main__":
    main()
