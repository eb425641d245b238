"""What images are seen through before FID and its like are computed: a network's features, and whose they are.

A number in one network's features says nothing beside a number in another's, so each tells its name and its digest.
"""

import dataclasses
import functools
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from core import mesh, network, types
from generative import calls
from generative.networks import classifiers

FASHION_MNIST = Path(__file__).parent / "data" / "fashion_mnist_lenet.npz"
NETWORKS = {"mlp": classifiers.MLP, "lenet": classifiers.LeNet, "resnet": classifiers.ResNet}


class Features(Protocol):
    """A frozen dataclass that reads its weights when first asked."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, 64 hexadecimal digits: two numbers compare where these are equal."""
        ...

    @property
    def image(self) -> tuple[int, int, int] | None:
        """The [H, W, C] that it sees; None for any."""
        ...

    @property
    def flops(self) -> float:
        """Floating-point operations for one image, 1 where that is not known: so many fit a call of the device."""
        ...

    def __call__(self, image: np.ndarray) -> Any:
        """Uint8 [B, H, W, C] -> float32 [B, D]."""
        ...


def extract(
    features: Features, images: np.ndarray, *, batch: int = 250, stop: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Features [N, D] float32 of uint8 [N, H, W, C], `batch` images at a time; the last batch is filled up.

    `stop` is called after each; what it raises ends the extraction.

    Raises: ValueError for images that are no bytes, or of a shape that the features do not see.
    """
    if images.dtype != np.uint8:
        raise ValueError(f"images of {images.dtype}: round them to uint8 first, as a person sees them")
    check(features, images.shape[1:])
    if not len(images):
        raise ValueError("0 images: nothing to see")
    seen = []
    for rows, kept in calls.cut(len(images), calls.rows(features.flops, min(batch, len(images)))):
        seen.append(np.asarray(features(images[rows]), np.float32)[:kept])
        stop()
    return np.concatenate(seen)


def check(features: Features, image: tuple[int, ...]) -> None:
    """Raises ValueError where images of this shape [H, W, C] cannot be seen, or the weights not be read."""
    digest = features.digest[:8]
    if features.image is not None and tuple(image) != tuple(features.image):
        raise ValueError(
            f"features={features.name} ({digest}): sees images of {tuple(features.image)}, these are {tuple(image)}; "
            "train a classifier on such images and name its run: features=<run folder> of experiments.evaluate, in a "
            "training experiments.evaluation.classifiers.Judge as evaluators.quality.features, or "
            "evaluators.quality=null for none"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A classifier in one file: by default this project's own for 28 x 28 grey images, a LeNet on Fashion-MNIST.

    Everybody who uses that file gets numbers that compare, as long as the reference images are the same.
    """

    file: str = str(FASHION_MNIST)

    @property
    def name(self) -> str:
        return Path(self.file).stem

    @property
    def digest(self) -> str:
        return _digest(self.file)

    @property
    def image(self) -> tuple[int, int, int]:
        return self._weights[0].sizes["image"]

    @property
    def flops(self) -> float:
        return calls.flops(self._see, jax.ShapeDtypeStruct((1, *self.image), np.uint8))

    def __call__(self, image: np.ndarray) -> jax.Array:
        return self._see(mesh.spread(image))

    @functools.cached_property
    def _weights(self) -> tuple[network.Network, types.Params]:
        return read(self.file)

    @functools.cached_property
    def _see(self) -> Callable[[np.ndarray], jax.Array]:
        net, params = self._weights
        see = jax.jit(lambda params, image: net.bind(params).features(image))
        return functools.partial(see, mesh.replicate(jax.device_put(params)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plugged:
    """Any other network whose weights lie in a local file, an Inception network for instance.

    `make(file)` returns a function uint8 [B, H, W, C] -> [B, D]; write it in a module of your own and name it in the
    config. For the TorchScript file that FID is by custom computed with (`inception-2015-12-05.pt`), and PyTorch:

        def inception(file):
            net = torch.jit.load(file).eval()
            def see(image):  # NHWC, grey or colour
                image = torch.from_numpy(np.repeat(image, 3 // image.shape[-1], axis=-1)).permute(0, 3, 1, 2)
                with torch.no_grad():
                    return net(image, return_features=True).numpy()
            return see
    """

    make: Callable[[str], Callable[[np.ndarray], Any]]
    file: str
    name: str
    image: tuple[int, int, int] | None = None

    @property
    def digest(self) -> str:
        return _digest(self.file)

    @property
    def flops(self) -> float:
        return 1.0

    def __call__(self, image: np.ndarray) -> np.ndarray:
        seen = np.asarray(self._see(image), np.float32)
        if seen.ndim != 2 or len(seen) != len(image):
            raise ValueError(f"make={self.name}: gave {list(seen.shape)} for {len(image)} images; [B, D] is wanted")
        return seen

    @functools.cached_property
    def _see(self) -> Callable[[np.ndarray], Any]:
        return self.make(self.file)


def write(path: Path, *, kind: str, options: Mapping[str, Any], sizes: types.Sizes, params: types.Params) -> None:
    """Writes a classifier as the one file that `Published` reads: weights in float16, and how to build it.

    `kind` is one of `NETWORKS`, `options` its keyword arguments beside `image` and `classes`, which are in `sizes`.
    """
    weights = {
        "/".join(str(part.key) for part in where): np.asarray(leaf, np.float16)
        for where, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    recipe = {"kind": kind, "options": dict(options), "image": list(sizes["image"]), "classes": sizes["classes"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, recipe=json.dumps(recipe, sort_keys=True), **weights)  # pyright: ignore[reportArgumentType]


def read(path: str | Path) -> tuple[network.Network, types.Params]:
    """What `write` wrote, with weights in float32. Raises ValueError for a file that is something else."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            recipe = json.loads(str(stored["recipe"]))
            weights = {name: stored[name].astype(np.float32) for name in stored.files if name != "recipe"}
        net = network.Network(
            make=functools.partial(NETWORKS[recipe["kind"]], **_tuples(recipe["options"])),
            sizes={"image": tuple(recipe["image"]), "classes": recipe["classes"]},
        )
        shapes = jax.eval_shape(net.init, jax.random.key(0))
        params = jax.tree_util.tree_map_with_path(lambda where, leaf: _weight(weights, where, leaf), shapes)
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"file={path}: no classifier that `experiments.evaluation.classifiers` has written ({error})"
        ) from error
    return net, params


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"file={path}: {error.strerror}; the weights must lie in a file on this machine") from error


def _weight(weights: Mapping[str, np.ndarray], where: Any, leaf: Any) -> np.ndarray:
    name = "/".join(str(part.key) for part in where)
    if weights[name].shape != leaf.shape:
        raise ValueError(f"{name}: of shape {weights[name].shape}, where {leaf.shape} is needed")
    return weights[name]


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
