"""Flax modules seen as functions of plain dicts, so that a target network or an EMA is just another dict."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from core import types


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A recipe for an `nnx.Module` whose parameters live outside it.

    `make(**sizes, rngs=...)` builds the module; `sizes` is what it must know of the data, such as
    `observation=(4, 84, 84), actions=6`.
    """

    make: Callable[..., nnx.Module]
    sizes: types.Sizes = dataclasses.field(default_factory=dict, hash=False)

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
        return nnx.merge(graph, state)

    def _build(self, rngs: nnx.Rngs) -> nnx.Module:
        return self.make(**self.sizes, rngs=rngs)


@functools.cache
def _structure(network: Network) -> tuple[Any, Any]:
    module = nnx.eval_shape(lambda: network._build(nnx.Rngs(0)))
    return nnx.split(module)
