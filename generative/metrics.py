"""How far generated images are from real ones, in features [N, D]: FID, KID, precision and recall.

Sums and products run on the device in float32, a chunk of rows at a time and about a fixed point near the mean, where
float32 is exact enough; the host adds the chunks up, and takes roots, in float64. Nothing here is larger than a chunk
by N, or D by D.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

Stop = Callable[[], None]
_EXACT = jax.lax.Precision.HIGHEST  # float32 products where the device would take fewer bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
    """Of N rows of features."""

    count: int
    mean: np.ndarray  # [D] float64
    covariance: np.ndarray  # [D, D] float64, divided by N - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class KID:
    """A kernel distance and how sure it is."""

    value: float  # the mean over the blocks; unbiased, so that it may be negative
    standard_error: float  # of that mean
    blocks: int
    block: int  # rows of each side in a block


def moments(chunks: Iterable[np.ndarray | jax.Array]) -> Moments:
    """The moments of features that come in chunks [B, D] float32, seen once; the chunks may differ in size.

    Raises: ValueError for fewer than 2 rows in all, or for numbers that are not finite.
    """
    count, centre = 0, None
    total = product = np.zeros(())
    for chunk in chunks:
        chunk = jnp.asarray(chunk, jnp.float32)
        if centre is None:  # any point near the mean would do
            centre = jnp.mean(chunk, axis=0)
            total, product = np.zeros(chunk.shape[1]), np.zeros((chunk.shape[1],) * 2)
        sums, products = _about(chunk, centre)
        count, total, product = count + len(chunk), total + np.float64(sums), product + np.float64(products)
    if centre is None or count < 2:
        raise ValueError(f"{count} images: a covariance needs at least 2")
    if not np.isfinite(product).all():
        raise ValueError("features: some are not finite")
    offset = total / count
    covariance = (product - count * np.outer(offset, offset)) / (count - 1)
    return Moments(count=count, mean=np.float64(centre) + offset, covariance=covariance)


def frechet(left: Moments, right: Moments) -> float:
    """FID (1706.08500): |μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½), of Gaussians with these moments.

    Warns where rows are too few for a covariance of full rank: the number is then far too large.
    """
    size = len(left.mean)
    if len(right.mean) != size:
        raise ValueError(f"features of {size} and of {len(right.mean)} numbers: both sides need the same network")
    fewest = min(left.count, right.count)
    if fewest <= size:
        warnings.warn(
            f"FID of {fewest} images in {size} features: fewer images than features give a covariance without full "
            "rank, and a number that means little; take more images, or KID",
            stacklevel=2,
        )
    # tr (Σ1 Σ2)^½ = tr (Σ1^½ Σ2 Σ1^½)^½, whose matrix is symmetric.
    root = _root(left.covariance)
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ right.covariance @ root), 0, None)).sum()
    apart = np.sum((left.mean - right.mean) ** 2)
    return float(apart + np.trace(left.covariance) + np.trace(right.covariance) - 2 * shared)


def kernel_distance(left: np.ndarray, right: np.ndarray, *, block: int = 250, stop: Stop = lambda: None) -> KID:
    """KID (1801.01401): the squared MMD of the kernel (x·y / D + 1)³, unbiased, averaged over disjoint blocks.

    Args:
      left, right: features [N, D] and [M, D], each in an order that is random: blocks are taken as the rows come.
      block: rows of each side in a block; fewer where there are not enough rows for two blocks.
      stop: called after each block; what it raises ends the computation.
    """
    rows = min(len(left), len(right))
    block = min(block, rows // 2)
    if block < 2:
        raise ValueError(f"{rows} images: KID and its error need at least 4")
    blocks = rows // block
    cut = lambda side, i: jnp.asarray(side[i * block : (i + 1) * block], jnp.float32)
    values = []
    for i in range(blocks):
        values.append(_mmd(cut(left, i), cut(right, i)))
        stop()
    error = np.std(values, ddof=1) / np.sqrt(blocks)
    return KID(value=float(np.mean(values)), standard_error=float(error), blocks=blocks, block=block)


def precision_recall(
    generated: np.ndarray, real: np.ndarray, *, neighbours: int = 3, chunk: int = 512, stop: Stop = lambda: None
) -> tuple[float, float]:
    """Precision and recall (1904.06991) of features [N, D] against [M, D]; both depend on N and M, so state them.

    A side's manifold is the union of balls about its rows, each as wide as the distance to that row's k-th nearest
    other row, k being `neighbours`. Precision is the share of generated rows in the manifold of the real ones, recall
    the share of real rows in that of the generated ones. `stop` is called after each chunk of rows; what it raises ends
    the computation.
    """
    fewest = min(len(generated), len(real))
    if not 1 <= neighbours < fewest:
        raise ValueError(f"neighbours={neighbours}: must be at least 1 and less than the {fewest} images of a side")
    centre = np.mean(real, axis=0, dtype=np.float64)  # distances do not depend on it, but their rounding does
    drawn, true = (jnp.asarray(side - centre, jnp.float32) for side in (generated, real))
    drawn_radii, true_radii = _radii(drawn, neighbours, chunk, stop), _radii(true, neighbours, chunk, stop)
    precise, recalled = 0, np.zeros(len(real), bool)
    for rows, radii in _chunks(drawn, drawn_radii, size=chunk):
        inside, covered = _inside(rows, radii, true, true_radii)
        precise += int(np.sum(inside))
        recalled |= np.asarray(covered)
        stop()
    return precise / len(generated), float(np.mean(recalled))


@jax.jit
def _about(chunk: jax.Array, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum [D] and outer products [D, D] of rows [B, D] about a point."""
    rows = chunk - centre[None]
    return jnp.sum(rows, axis=0), jnp.matmul(rows.T, rows, precision=_EXACT)


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root; rounding may have made eigenvalues a little negative."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def _mmd(x: jax.Array, y: jax.Array) -> float:
    """The unbiased squared MMD of two blocks [B, D]."""
    size = len(x)
    within_x, within_y, across = (np.sum(np.float64(rows)) for rows in _kernel_sums(x, y))
    return (within_x + within_y) / (size * (size - 1)) - 2 * across / size**2


@jax.jit
def _kernel_sums(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Row sums [B] of k(x, x) and k(y, y) without their diagonals, and of k(x, y).

    All less a constant that cancels in the distance, so that float32 keeps the digits that matter.
    """
    kernel = lambda a, b: (jnp.matmul(a, b.T, precision=_EXACT) / a.shape[1] + 1) ** 3
    usual = jnp.mean(kernel(x, jnp.mean(y, axis=0, keepdims=True)))
    others = 1 - jnp.eye(len(x))
    within = lambda a: jnp.sum((kernel(a, a) - usual) * others, axis=1)
    return within(x), within(y), jnp.sum(kernel(x, y) - usual, axis=1)


def _chunks(*arrays: jax.Array, size: int) -> Iterator[tuple[jax.Array, ...]]:
    for start in range(0, len(arrays[0]), size):
        yield tuple(array[start : start + size] for array in arrays)


def _radii(rows: jax.Array, neighbours: int, chunk: int, stop: Stop) -> jax.Array:
    """Squared distance [N] of each row to its k-th nearest other row."""
    found = []
    for own, part in _chunks(jnp.arange(len(rows)), rows, size=chunk):
        distances = np.asarray(_to_others(part, own, rows))
        found.append(np.partition(distances, neighbours - 1, axis=1)[:, neighbours - 1])  # top_k is slow on CPUs
        stop()
    return jnp.asarray(np.concatenate(found))


@jax.jit
def _to_others(part: jax.Array, own: jax.Array, rows: jax.Array) -> jax.Array:
    """Squared distances [B, N] of some of the `rows`, which are those numbered `own` [B]; infinite to themselves."""
    itself = own[:, None] == jnp.arange(len(rows))[None]
    return jnp.where(itself, jnp.inf, _squared_distances(part, rows))


@jax.jit
def _inside(part: jax.Array, part_radii: jax.Array, rows: jax.Array, radii: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether each of `part` [B] lies in a ball about some of `rows`, and each of `rows` [N] about some of `part`."""
    distances = _squared_distances(part, rows)
    return jnp.any(distances <= radii[None], axis=1), jnp.any(distances <= part_radii[:, None], axis=0)


def _squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """[A, D], [B, D] -> [A, B]."""
    squares = lambda rows: jnp.sum(rows**2, axis=1)
    products = jnp.matmul(a, b.T, precision=_EXACT)
    return jnp.maximum(squares(a)[:, None] + squares(b)[None] - 2 * products, 0)
