"""Features: a published classifier from its file, a network of one's own, and what does not fit either."""

import hashlib
import pathlib

import jax
import numpy as np
import pytest

from core import network
from generative import features
from generative.networks import classifiers

SIZES = {"image": (12, 14, 1), "classes": 3}
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 12, 14, 1), dtype=np.uint8)


def published(path: pathlib.Path, **options) -> tuple[features.Published, network.Network, dict]:
    net = network.Network(make=lambda **sizes: classifiers.MLP(widths=(6, 5), **sizes), sizes=SIZES)
    params = net.init(jax.random.key(0))
    features.write(path, kind="mlp", options={"widths": [6, 5]} | options, sizes=SIZES, params=params)
    return features.Published(file=str(path)), net, params


def sums(file: str):
    weight = np.load(file)
    return lambda image: image.reshape(len(image), -1).sum(axis=1, keepdims=True) * weight


def test_a_published_file_sees_as_the_classifier_that_was_written(tmp_path: pathlib.Path):
    path = tmp_path / "deep" / "small.npz"
    judge, net, params = published(path)
    halved = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16).astype(np.float32), params)
    expected = net.bind(halved).features(IMAGES)
    assert judge.image == (12, 14, 1) and judge.name == "small"
    assert judge.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    seen = features.extract(judge, IMAGES)
    assert seen.shape == (7, 5) and seen.dtype == np.float32
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(seen - net.bind(params).features(IMAGES)).max() < 0.01  # float16 costs next to nothing


def test_batches_and_their_filling_change_nothing(tmp_path: pathlib.Path):
    judge, _, _ = published(tmp_path / "a.npz")
    whole = features.extract(judge, IMAGES, batch=100)
    for batch in (7, 3, 1):
        np.testing.assert_allclose(features.extract(judge, IMAGES, batch=batch), whole, rtol=1e-5)


def test_what_cannot_be_seen_is_refused_with_a_remedy(tmp_path: pathlib.Path):
    """Pitfall 16."""
    judge, _, _ = published(tmp_path / "a.npz")
    refusal = r"features=a \([0-9a-f]{8}\): sees images of \(12, 14, 1\), these are \(8, 8, 3\); train"
    with pytest.raises(ValueError, match=refusal):
        features.extract(judge, np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="images of float64: round them to uint8 first"):
        features.extract(judge, IMAGES / 255)
    with pytest.raises(ValueError, match="0 images"):
        features.extract(judge, IMAGES[:0])


@pytest.mark.parametrize("fault", ["other", "text", "shape", "kind"])
def test_a_file_that_holds_something_else_is_named(tmp_path: pathlib.Path, fault: str):
    path = tmp_path / "a.npz"
    if fault == "other":
        np.savez(path, image=IMAGES)
    elif fault == "text":
        path.write_text("no archive")
    elif fault == "shape":
        published(path, widths=[7, 5])
    else:
        features.write(path, kind="transformer", options={}, sizes=SIZES, params={})
    with pytest.raises(ValueError, match=r"a.npz: no classifier that `experiments.evaluation.classifiers` has written"):
        features.extract(features.Published(file=str(path)), IMAGES)
    with pytest.raises(ValueError, match=r"file=.*none.npz: No such file or directory; the weights must"):
        features.extract(features.Published(file=str(tmp_path / "none.npz")), IMAGES)


def test_a_network_of_ones_own_is_plugged_in_by_a_function_and_a_file(tmp_path: pathlib.Path):
    path = tmp_path / "weights.npy"
    np.save(path, np.array([[1.0, -2.0]]))
    judge = features.Plugged(make=sums, file=str(path), name="sums")
    seen = features.extract(judge, IMAGES, batch=4)
    total = IMAGES.reshape(7, -1).sum(axis=1)
    np.testing.assert_array_equal(seen, np.stack([total, -2.0 * total], axis=1).astype(np.float32))
    assert judge.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    features.extract(judge, np.zeros((2, 8, 8, 3), np.uint8))  # it sees images of any shape
    flat = features.Plugged(make=lambda file: lambda image: image, file=str(path), name="flat")
    with pytest.raises(ValueError, match=r"make=flat: gave \[7, 12, 14, 1\] for 7 images"):
        features.extract(flat, IMAGES)
    with pytest.raises(ValueError, match=r"file=nowhere.npy: No such file or directory; the weights must"):
        features.extract(features.Plugged(make=sums, file="nowhere.npy", name="sums"), IMAGES)


def test_the_file_that_comes_with_the_project_sees_fashion_mnist():
    judge = features.Published()
    assert judge.image == (28, 28, 1)
    assert pathlib.Path(judge.file).stat().st_size < 500_000
    seen = features.extract(judge, np.zeros((2, 28, 28, 1), np.uint8))
    assert seen.shape == (2, 84) and np.isfinite(seen).all()
