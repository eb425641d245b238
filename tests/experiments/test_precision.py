"""`network.compute=bfloat16`, for every learner: products in bfloat16, everything that lasts in float32."""

from collections.abc import Iterator
from typing import Any

import jax
import pytest
from jax.extend import core

from experiments.config import build, command_line

PRODUCTS = ("dot_general", "conv_general_dilated")
LEARNERS = [  # a command, and how many products of float32s it keeps on purpose: those of the last layer
    (("experiment=dqn/cartpole",), 5),  # this state's value, the next one's by both networks; two in the gradient
    (("experiment=dqn/demo",), 10),  # dueling: two last layers
    (("experiment=classifier/mlp", "source=digits", "network.make.widths=[64,64]"), 3),
    (("experiment=vae/fashion_mnist", "source=digits"), 0),
    (("experiment=gan/fashion_mnist", "source=digits"), 21),  # logits, and R1 and R2 of them
    (("experiment=demo/diffusion", "source=digits"), 0),
]


@pytest.mark.parametrize(("overrides", "exact"), LEARNERS, ids=lambda part: part[0] if isinstance(part, tuple) else "")
def test_products_are_bfloat16_and_what_lasts_is_float32(overrides: tuple[str, ...], exact: int):
    found = {}
    for compute in ("float32", "bfloat16"):
        settings = command_line.compose(*overrides, "+debug=tiny", "tracker=none", f"network.compute={compute}")
        run = build.run(settings)
        run.source.attach(run.learner)
        try:
            state = jax.eval_shape(lambda run=run: run.learner.init(jax.random.key(0), run.source.spec))
            program = jax.make_jaxpr(run.learner.step)(state, run.source.spec)
        finally:
            run.source.close()
        assert "bfloat16" not in {str(value.dtype) for value in (*jax.tree.leaves(state), *program.out_avals)}
        found[compute] = [{str(side.aval.dtype) for side in product.invars} for product in products(program.jaxpr)]
    single = [sides == {"float32"} for sides in found["bfloat16"]]
    assert all(sides == {"float32"} for sides in found["float32"])
    assert sum(single) == exact and len(single) > 2 * exact


def products(jaxpr: Any) -> Iterator[Any]:
    """The matrix products and convolutions of a program and of the programs inside it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRODUCTS:
            yield equation
        for inside in core.jaxprs_in_params(equation.params):
            yield from products(inside)
