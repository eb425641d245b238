"""Run by test_classifier.py on eight simulated devices: the same numbers as on one."""

import functools

import jax
import numpy as np
import optax

from core import mesh, network, optim, types
from generative import averaging, classifier
from generative.networks import classifiers

UPDATES, BATCH = 10, 16


def train(devices: int) -> dict:
    learner = classifier.Classifier(
        network=network.Network(
            make=functools.partial(classifiers.ResNet, widths=(4,)), sizes={"image": (8, 8, 1), "classes": 3}
        ),
        optimizer=optim.optimizer(rule=optax.sgd, learning_rate=0.1),
        averages={"ema": averaging.HalfLife(images=64)},
    )
    rng = np.random.default_rng(0)
    batches = [
        types.Images(
            image=rng.integers(0, 256, (BATCH, 8, 8, 1), dtype=np.uint8),
            label=rng.integers(0, 3, BATCH).astype(np.int32),
        )
        for _ in range(UPDATES)
    ]
    placement = mesh.Placement(data=devices)
    over = placement.mesh()
    shardings = placement.shardings(jax.eval_shape(learner.init, jax.random.key(0), batches[0]), over)
    state = jax.jit(lambda key: learner.init(key, batches[0]), out_shardings=shardings)(jax.random.key(0))
    step = jax.jit(learner.step, donate_argnums=0, out_shardings=(shardings, None))
    metrics = {}
    for batch in batches:
        state, metrics = step(state, mesh.globalize(batch, over))
        jax.block_until_ready(state)
    return jax.device_get({"params": state.params, "ema": state.ema_params, "metrics": metrics})


def main() -> None:
    assert jax.device_count() == 8
    one, eight = train(1), train(8)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), one, eight)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
