"""Measures speed, memory, compilation: `python -m experiments.benchmark suite=dqn|generative|core|compile|compare|gpu`.

What is measured runs in processes of its own, with and without what `core/platform.py` sets. Exit status: 0 done, 2 a
mistake in what was typed.
"""


def main() -> None:
    from experiments.benchmarks import command
    from experiments.config import command_line

    command_line.main(command.task, name="benchmark")


if __name__ == "__main__":
    main()
