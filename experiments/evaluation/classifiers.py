"""Trained classifiers as the eyes of FID and its like: by their run, or as one file that everybody can have.

`python -m experiments.evaluation.classifiers <run folder> <file.npz>` writes that file, as it did
generative/data/fashion_mnist_lenet.npz.
"""

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from core import mesh
from experiments import runs
from experiments.config import build
from generative import calls, features


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """A `generative.features.Features`: the classifier that a run has trained. Its run is read when first asked."""

    run: str
    which: Literal["latest", "best"] = "latest"

    @property
    def name(self) -> str:
        return f"{self.run} ({self.which}, step {self._trained.step})"

    @property
    def digest(self) -> str:
        """SHA-256 of the weights that are looked through, in the order of their names."""
        whole = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._trained.view):
            whole.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
            whole.update(np.ascontiguousarray(leaf).tobytes())
        return whole.hexdigest()

    @property
    def image(self) -> tuple[int, int, int]:
        return self._trained.sizes["image"]

    @property
    def flops(self) -> float:
        return calls.flops(self._see, jax.ShapeDtypeStruct((1, *self.image), np.uint8))

    def __call__(self, image: np.ndarray) -> jax.Array:
        return self._see(mesh.spread(image))

    @functools.cached_property
    def _trained(self) -> runs.Trained:
        return _classifier(self.run, self.which)

    @functools.cached_property
    def _see(self) -> Callable[[np.ndarray], jax.Array]:
        trained = self._trained
        return functools.partial(jax.jit(trained.learner.features), mesh.replicate(trained.view))


def publish(run: str, path: Path, which: Literal["latest", "best"] = "latest") -> features.Published:
    """Writes the run's classifier as the one file that `generative.features.Published` reads."""
    trained = _classifier(run, which)
    make = trained.learner.network.make
    known = {maker: kind for kind, maker in features.NETWORKS.items()}
    maker, options = (make.func, make.keywords) if isinstance(make, functools.partial) else (make, {})
    if maker not in known:
        raise build.ConfigError("run", f"={run}: only {', '.join(sorted(features.NETWORKS))} can be published")
    features.write(
        path, kind=known[maker], options=options, sizes=trained.learner.network.sizes, params=trained.view["params"]
    )
    return features.Published(file=str(path))


def _classifier(run: str, which: Literal["latest", "best"]) -> runs.Trained:
    """Raises ValueError where there is no run, or one that has no features."""
    trained = runs.load(run, which)
    if not hasattr(trained.learner, "features"):
        raise build.ConfigError(
            "run", f"={run}: {type(trained.learner).__name__} has no features; name the run of a classifier"
        )
    return trained


def main(arguments: list[str]) -> Any:
    if len(arguments) != 2 or not arguments[1].endswith(".npz"):
        return "usage: python -m experiments.evaluation.classifiers <run folder of a classifier> <file.npz>"
    try:
        judge = publish(arguments[0], Path(arguments[1]))
    except build.ConfigError as error:
        return str(error)
    size = Path(judge.file).stat().st_size
    print(f"{judge.file}: {size:,} bytes, for images of {judge.image}; SHA-256 {judge.digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
