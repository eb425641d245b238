"""The suite `gpu`: what only a GPU can show, in a few minutes, on a machine without a network. See docs/gpu.md."""

from experiments.benchmarks.gpu.suite import PARTS, run

__all__ = ["PARTS", "run"]
