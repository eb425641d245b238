"""FID, KID, precision and recall: against closed forms, NumPy and SciPy, and by hand."""

import functools

import numpy as np
import pytest
import scipy.linalg

from generative import metrics


def gaussian(count: int, size: int, *, mean: float = 0.0, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (mean + scale * np.random.default_rng(seed).standard_normal((count, size))).astype(np.float32)


def chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def exactly(mean: np.ndarray, covariance: np.ndarray, count: int = 10**6) -> metrics.Moments:
    return metrics.Moments(count=count, mean=mean, covariance=covariance)


def test_moments_are_those_of_numpy_in_float64_whatever_the_chunks():
    # A mean a thousand times the spread, where float32 sums of squares keep no digit of the variance.
    rows = gaussian(3_000, 20, seed=1) * np.linspace(0.5, 2, 20, dtype=np.float32) + 1_000
    exact = rows.astype(np.float64)
    for size in (3_000, 256, 7):
        found = metrics.moments(chunks(rows, size))
        assert found.count == 3_000
        np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(found.covariance, np.cov(exact, rowvar=False), atol=2e-5)


def test_moments_refuse_one_row_and_what_is_not_finite():
    with pytest.raises(ValueError, match="1 images: a covariance needs at least 2"):
        metrics.moments([gaussian(1, 3)])
    with pytest.raises(ValueError, match="some are not finite"):
        metrics.moments([np.array([[1.0, np.nan], [0.0, 1.0]], np.float32)])


def test_fid_of_two_known_gaussians():
    """Pitfall 16."""
    # FID(N(0, I), N(μ, s² I)) = |μ|² + d (1 - s)².
    size, mean, scale = 6, np.arange(6) / 3, 1.7
    one, other = exactly(np.zeros(size), np.eye(size)), exactly(mean, scale**2 * np.eye(size))
    expected = np.sum(mean**2) + size * (1 - scale) ** 2
    assert metrics.frechet(one, other) == pytest.approx(expected, rel=1e-12)
    assert metrics.frechet(other, one) == pytest.approx(expected, rel=1e-12)
    assert metrics.frechet(one, one) == pytest.approx(0, abs=1e-12)


def test_fid_of_samples_comes_near_the_closed_form():
    one, other = gaussian(40_000, 4), gaussian(40_000, 4, mean=0.5, scale=2.0, seed=1)
    found = metrics.frechet(metrics.moments(chunks(one, 1_000)), metrics.moments(chunks(other, 1_000)))
    assert found == pytest.approx(4 * 0.25 + 4 * 1.0, rel=0.03)


def test_fid_is_scipys_also_for_covariances_that_do_not_commute():
    rng = np.random.default_rng(2)
    sides = [rng.standard_normal((300, 12)) @ rng.standard_normal((12, 12)) + rng.standard_normal(12) for _ in "ab"]
    (m1, c1), (m2, c2) = [(side.mean(axis=0), np.cov(side, rowvar=False)) for side in sides]
    expected = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * np.real(scipy.linalg.sqrtm(c1 @ c2)))
    found = metrics.frechet(*(metrics.moments(chunks(side.astype(np.float32), 64)) for side in sides))
    assert found == pytest.approx(expected, rel=1e-5)


@functools.cache
def many(size: int, count: int) -> metrics.Moments:
    return metrics.moments(gaussian(count // 10, size, seed=10 + part) for part in range(10))


@pytest.mark.parametrize(
    ("size", "count", "floor"),
    [
        *((84, count, floor) for count, floor in [(1_000, 1.82), (5_000, 0.40), (10_000, 0.22)]),
        *((128, count, floor) for count, floor in [(1_000, 4.40), (5_000, 0.92), (10_000, 0.49)]),
        *((512, count, floor) for count, floor in [(1_000, 74.0), (5_000, 16.7), (10_000, 9.9)]),
    ],
)
def test_fid_of_a_distribution_against_itself_is_not_zero(size: int, count: int, floor: float):
    """Pitfall 16: what finitely many samples cost, against 50,000 of the same distribution (20,000 in 512 features)."""
    reference = many(size, 20_000 if size == 512 else 50_000)
    found = metrics.frechet(metrics.moments(chunks(gaussian(count, size, seed=1), 1_000)), reference)
    assert found == pytest.approx(floor, rel=0.07)


def test_fid_warns_of_fewer_images_than_features():
    """Pitfall 16."""
    few, many = metrics.moments([gaussian(8, 8)]), metrics.moments([gaussian(100, 8, seed=1)])
    with pytest.warns(UserWarning, match="FID of 8 images in 8 features: fewer"):
        assert np.isfinite(metrics.frechet(few, many))
    metrics.frechet(metrics.moments([gaussian(9, 8)]), many)  # warnings are errors here
    with pytest.raises(ValueError, match="8 and of 9"):
        metrics.frechet(few, metrics.moments([gaussian(100, 9)]))


def slow_kid(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
    m = len(x)
    within = lambda a: (kernel(a, a).sum() - np.trace(kernel(a, a))) / (m * (m - 1))
    return within(x) + within(y) - 2 * kernel(x, y).mean()


def test_kid_is_the_mean_of_unbiased_blocks():
    # Features as a network with ReLU gives them, far from zero.
    x, y = np.abs(gaussian(230, 16, mean=8.0)), np.abs(gaussian(205, 16, mean=8.1, seed=1))
    blocks = [slow_kid(x[i : i + 50], y[i : i + 50]) for i in range(0, 200, 50)]
    found = metrics.kernel_distance(x, y, block=50)
    assert (found.blocks, found.block) == (4, 50)
    assert found.value == pytest.approx(np.mean(blocks), rel=2e-3)
    assert found.standard_error == pytest.approx(np.std(blocks, ddof=1) / 2, rel=2e-3)


def test_kid_of_a_distribution_against_itself_is_zero_within_its_error_and_may_be_negative():
    """Pitfall 16."""
    found = [metrics.kernel_distance(gaussian(400, 8, seed=2 * i), gaussian(400, 8, seed=2 * i + 1)) for i in range(12)]
    values = [kid.value for kid in found]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values, ddof=1) / np.sqrt(12)
    assert {kid.blocks for kid in found} == {2}  # 400 images make two blocks of 200, not one of 250
    far = metrics.kernel_distance(gaussian(400, 8), gaussian(400, 8, mean=1.0, seed=1))
    assert far.value > 5 * far.standard_error > 0


def test_kid_needs_two_blocks_of_two():
    assert metrics.kernel_distance(gaussian(4, 3), gaussian(5, 3, seed=1)).blocks == 2
    with pytest.raises(ValueError, match="3 images: KID and its error need at least 4"):
        metrics.kernel_distance(gaussian(3, 3), gaussian(5, 3))


def test_precision_and_recall_by_hand():
    # On a line, k = 1. Real: 0, 1, 3; their balls reach 1, 1 and 2 far. Generated: 0.5, 5.5 and 6; they reach 5, 0.5
    # and 0.5 far. 0.5 is inside a ball of the real ones and so precise; the ball about 0.5 covers all real ones.
    real = np.array([[0.0], [1.0], [3.0]], np.float32)
    generated = np.array([[0.5], [5.5], [6.0]], np.float32)
    assert metrics.precision_recall(generated, real, neighbours=1) == (pytest.approx(1 / 3), 1.0)
    assert metrics.precision_recall(real, generated, neighbours=1) == (1.0, pytest.approx(1 / 3))


@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall_are_those_of_numpy_in_any_chunks(neighbours: int):
    real, generated = gaussian(120, 3, mean=50.0), gaussian(90, 3, mean=50.5, scale=0.8, seed=1)
    distance = lambda a, b: np.linalg.norm(a[:, None].astype(np.float64) - b[None], axis=-1)
    radius = lambda a: np.sort(distance(a, a), axis=1)[:, neighbours]  # column 0 is the row itself
    across = distance(generated, real)
    expected = (
        np.mean((across <= radius(real)[None]).any(axis=1)),
        np.mean((across <= radius(generated)[:, None]).any(axis=0)),
    )
    assert min(expected) > 0.1 and max(expected) < 1
    for chunk in (512, 32):
        found = metrics.precision_recall(generated, real, neighbours=neighbours, chunk=chunk)
        assert found == pytest.approx(expected, abs=1e-9)


def test_a_collapsed_generator_is_precise_and_recalls_nothing():
    real = gaussian(300, 4)
    collapsed = real[:1] + 1e-3 * gaussian(300, 4, seed=1)
    precision, recall = metrics.precision_recall(collapsed, real)
    assert precision > 0.95 and recall < 0.02
    noise = gaussian(300, 4, mean=30.0)
    assert metrics.precision_recall(noise, real) == (0.0, 0.0)


def test_copies_do_not_shrink_a_ball_below_the_neighbours_asked_for():
    # Each row's nearest other row is its own copy; with k = 2 the ball reaches on to the next pair.
    real = np.repeat(np.array([[0.0], [2.0]], np.float32), 2, axis=0)
    generated = np.array([[1.0], [1.1], [1.2], [40.0]], np.float32)
    assert metrics.precision_recall(generated, real, neighbours=1)[0] == 0
    assert metrics.precision_recall(generated, real, neighbours=2)[0] == 0.75
    with pytest.raises(ValueError, match="neighbours=4: must be at least 1 and less than the 4 images"):
        metrics.precision_recall(generated, real, neighbours=4)
