"""Compares runs: `python -m experiments.compare runs=[<folder or pattern>,...] [group=[learner]] [metric=...] [...]`.

Exit status: 0 done, 2 a mistake in what was typed.
"""


def main() -> None:
    # Here, because the processes that read runs import this module, too.
    from experiments.comparing import command
    from experiments.config import command_line

    command_line.main(command.task, name="compare")


if __name__ == "__main__":
    main()
