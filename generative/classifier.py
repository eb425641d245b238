"""A classifier of images. It stands for itself, and its features are what generated images are judged in."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from core import network, optim, types
from generative import descent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
    """Cross-entropy; `network` maps uint8 [B, H, W, C] to logits [B, classes], its `features` to [B, D]."""

    network: network.Network
    optimizer: optax.GradientTransformation
    averages: descent.Averages = dataclasses.field(default_factory=dict, hash=False)
    accumulate: int = 1  # parts of a batch whose gradients are taken one after the other

    def warmup(self, spec: types.Images) -> int:
        return 0

    def init(self, key: jax.Array, spec: types.Images) -> descent.State:
        optim.check_parts(self.accumulate, spec.image.shape[0])
        return descent.begin(key, self.network.init(jax.random.fold_in(key, 0)), self.optimizer, self.averages)

    def loss(self, params: types.Params, batch: types.Images, key: jax.Array) -> tuple[jax.Array, types.Metrics]:
        judged = self.judge({"params": params}, batch, key)
        return jnp.mean(judged["loss"]), {"train/accuracy": jnp.mean(judged["accuracy"])}

    def step(self, state: descent.State, batch: types.Images) -> tuple[descent.State, types.Metrics]:
        return descent.descend(state, self.loss, batch, self.optimizer, self.averages, accumulate=self.accumulate)

    def absorb(self, state: descent.State, batch: types.Images) -> descent.State:
        return dataclasses.replace(state, step=state.step + 1)

    def view(self, state: descent.State) -> dict[str, Any]:
        return descent.chosen(state, self.averages)

    def judge(self, view: dict[str, Any], batch: types.Images, key: jax.Array) -> dict[str, jax.Array]:
        """Figures of each image [B]: its cross-entropy in nats and whether its label was found."""
        logits = self.network.bind(view["params"])(batch.image)
        return {
            "loss": optax.softmax_cross_entropy_with_integer_labels(logits, batch.label),
            "accuracy": (jnp.argmax(logits, axis=-1) == batch.label).astype(jnp.float32),
        }

    def features(self, view: dict[str, Any], image: jax.Array) -> jax.Array:
        """Uint8 [B, H, W, C] -> float32 [B, D], the layer before the logits."""
        return self.network.bind(view["params"]).features(image)
