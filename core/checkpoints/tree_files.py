"""A nest of dicts, lists and tuples of arrays, numbers, strings and None as one .npz file: what a source remembers."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np


def save(file: pathlib.Path, tree: Any) -> None:
    """Writes `tree`. Dicts have string keys; NumPy scalars come back as arrays [], dataclasses as dicts.

    Raises: TypeError, naming the path, for anything else.
    """
    arrays: dict[str, np.ndarray] = {}

    def encode(value: Any, path: str) -> Any:
        if dataclasses.is_dataclass(value):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {"dict": {key: encode(item, f"{path}/{key}") for key, item in value.items()}}
        if isinstance(value, list | tuple):
            return {
                "list" if isinstance(value, list) else "tuple": [
                    encode(item, f"{path}/{i}") for i, item in enumerate(value)
                ]
            }
        if isinstance(value, np.ndarray | np.generic | jax.Array) and value.dtype != object:
            arrays[str(len(arrays))] = np.asarray(value)
            return {"array": str(len(arrays) - 1), "dtype": value.dtype.name}
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise TypeError(f"source state{path}: cannot store a {type(value).__name__}; use arrays, numbers and strings")

    content = json.dumps(encode(tree, ""))
    members: dict[str, Any] = {f"array{key}": value for key, value in arrays.items()}
    np.savez(file, tree=np.asarray(content), **members)


def load(file: pathlib.Path) -> Any:
    """What `save` wrote."""
    with np.load(file, allow_pickle=False) as stored:

        def decode(value: Any) -> Any:
            match value:
                case {"dict": items}:
                    return {key: decode(item) for key, item in items.items()}
                case {"list": items}:
                    return [decode(item) for item in items]
                case {"tuple": items}:
                    return tuple(decode(item) for item in items)
                case {"array": key, "dtype": dtype}:
                    array = stored[f"array{key}"]
                    return array if array.dtype.kind != "V" else array.view(dtype)  # bfloat16 is void to NumPy
            return value

        return decode(json.loads(str(stored["tree"])))
