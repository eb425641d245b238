"""Run by test_processes.py in each of two processes: what crosses them at an update, read from the compiled step."""

from collections import Counter

import jax

from core import distributed
from experiments.benchmarks import core_parts, programs

# Beside the gradients, once an update: the means that are told, and the largest weight of a sample from replay.
SCALARS = {"dqn": ("loss/td", "value/mean", "value/error", "largest weight"), "dit": ("loss/total", "squared_error")}
OPERATIONS = {"dqn": 2, "dit": 1}  # the gradients and the means in one, the largest weight


def main() -> None:
    distributed.start()
    assert jax.process_count() == jax.device_count() == 2
    for model, scalars in SCALARS.items():
        run = core_parts.described(model, batch=8, devices=2)
        params = jax.eval_shape(run.learner.init, jax.random.key(0), run.source.spec).params
        crossing = programs.crossings(programs.compiled(run).as_text() or "")
        assert {each.operation for each in crossing} == {"all-reduce"}, crossing
        assert len(crossing) == OPERATIONS[model], crossing
        elements = Counter(size for each in crossing for size in each.elements)
        assert elements == Counter(leaf.size for leaf in jax.tree.leaves(params)) + Counter({1: len(scalars)}), crossing
        parameter_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
        assert sum(each.bytes for each in crossing) == parameter_bytes + 4 * len(scalars)


if __name__ == "__main__":
    main()
