"""Trains on a Slurm cluster: `python -m experiments.launch experiment=dqn/pong [time=12:00:00] [-m seed=0,1,2]`.

`status=<folder>` shows how the runs of a launch are, `retry=<folder>` submits those again that did not end well. Exit
status: 0 done; 1 from `status=` where a run has failed; 2 a mistake in what was typed, or a job that Slurm refuses.
"""

import sys


def main() -> None:
    from experiments.config import build, command_line
    from experiments.launching import command

    try:
        typed = command.split(sys.argv[1:])
    except build.ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(command_line.EXIT_MISTAKE)
    sys.argv[1:] = typed.own
    command_line.main(typed.task, name="launch")


if __name__ == "__main__":
    main()
