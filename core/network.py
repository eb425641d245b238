"""Flax modules seen as functions of plain dicts, so that a target network or an EMA is just another dict."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from core import types


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A recipe for an `nnx.Module` whose parameters live outside it.

    `make(**sizes, rngs=...)` builds the module; `sizes` is what it must know of the data, such as
    `observation=(4, 84, 84), actions=6`. With `compute="bfloat16"` its layers (whatever in it has a `dtype` that its
    author left open) compute in bfloat16; parameters, their gradients and what comes out stay float32.
    """

    make: Callable[..., nnx.Module]
    sizes: types.Sizes = dataclasses.field(default_factory=dict, hash=False)
    compute: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        if self.compute not in ("float32", "bfloat16"):
            raise ValueError(f"compute={self.compute}: must be float32 or bfloat16")

    def init(self, key: jax.Array) -> types.Params:
        """Fresh parameters as a nested dict with string keys.

        Raises:
          ValueError: the module has variables that are no `nnx.Param` (batch statistics, say) or a path
            with a key that is no string (`nnx.List` has such): a checkpoint could not hold them.
        """
        _, params, rest = nnx.split(self._build(nnx.Rngs(key)), nnx.Param, ...)
        dropped = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(rest)]
        if dropped:
            raise ValueError(f"network: variables {dropped} are no parameters and would be lost; keep them in `aux`")
        odd = [path for path, _ in nnx.to_flat_state(params) if not all(isinstance(key, str) for key in path)]
        if odd:
            raise ValueError(f"network: parameter path {odd[0]} has a key that is no string; name submodules instead")
        return nnx.to_pure_dict(params)

    def bind(self, params: types.Params) -> Any:
        """A live module over `params`; call it inside the jitted function, it costs nothing at run time."""
        graph, state = _structure(self)
        state = jax.tree.map(lambda leaf: leaf, state)  # a copy: the cached one stays abstract
        nnx.replace_by_pure_dict(state, params)
        module = nnx.merge(graph, state)
        return module if self.compute == "float32" else _Float32Outside(module)

    def _build(self, rngs: nnx.Rngs) -> nnx.Module:
        return self.make(**self.sizes, rngs=rngs)


@functools.cache
def _structure(network: Network) -> tuple[Any, Any]:
    module = nnx.eval_shape(lambda: network._build(nnx.Rngs(0)))
    lowered = nnx.iter_modules(module) if network.compute != "float32" else ()
    for _, layer in lowered:
        if getattr(layer, "dtype", False) is None:
            setattr(layer, "dtype", jnp.dtype(network.compute))  # noqa: B010  modules have no such attribute by type
    return nnx.split(module)


class _Float32Outside:
    """A module, or a method of one, whose floats come out as float32."""

    def __init__(self, inside: Any):
        self._inside = inside

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        widened = lambda leaf: leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        return jax.tree.map(widened, self._inside(*inputs, **options))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inside, name)
        return _Float32Outside(value) if callable(value) else value
