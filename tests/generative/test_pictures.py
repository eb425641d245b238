"""Pictures of autoencoders, of a toy that draws its code: where each picture must stand is known."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import types
from core.images import datasets
from generative import pictures

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Toy:
    """A code of the first two pixels, each 32 to a unit about 128, and a picture of it; pixel 2 shows the label."""

    prior: bool = True

    @property
    def sample(self) -> Any:
        if not self.prior:
            raise AttributeError
        return None

    def encode(self, view: Any, batch: types.Images, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        code = (batch.image.reshape(len(batch.image), -1)[:, :2].astype(jnp.float32) - 128) / 32
        return code, jnp.zeros_like(code)

    def decode(self, view: Any, code: jax.Array, label: jax.Array) -> jax.Array:
        pixels = jnp.concatenate([code * 32 + 128, label[:, None] * 50.0, jnp.zeros((len(code), 1))], axis=1)
        return jnp.round(pixels).astype(jnp.uint8).reshape(-1, 2, 2, 1)


def images(*codes: tuple[int, int]) -> types.Images:
    flat = np.array([[*code, 7, 9] for code in codes], np.uint8)
    return types.Images(image=flat.reshape(-1, 2, 2, 1), label=np.arange(len(codes), dtype=np.int32))


def cells(sheet: np.ndarray) -> np.ndarray:
    """A sheet of 2 x 2 pictures -> [rows, columns, 4] bytes."""
    rows, columns = (sheet.shape[0] + 2) // 4, (sheet.shape[1] + 2) // 4
    cut = [[sheet[4 * r : 4 * r + 2, 4 * c : 4 * c + 2, 0].ravel() for c in range(columns)] for r in range(rows)]
    return np.array(cut)


def test_reconstructions_stand_below_their_images():
    found = cells(pictures.reconstructions(Toy(), {}, images((10, 20), (30, 40), (50, 60)), KEY))
    np.testing.assert_array_equal(found[0], [[10, 20, 7, 9], [30, 40, 7, 9], [50, 60, 7, 9]])
    np.testing.assert_array_equal(found[1], [[10, 20, 0, 0], [30, 40, 50, 0], [50, 60, 100, 0]])


def test_interpolations_lead_straight_from_one_image_to_the_other():
    batch = images((0, 100), (40, 20), (8, 8), (8, 16), (1, 1))  # the last one has no partner
    found = cells(pictures.interpolations(Toy(), {}, batch, KEY, steps=3))
    assert found.shape == (2, 5, 4)
    np.testing.assert_array_equal(found[0, :, :2], [[0, 100], [0, 100], [20, 60], [40, 20], [40, 20]])
    np.testing.assert_array_equal(found[1, 1:4, 2], [100] * 3)  # the first one's label, 2


def test_traversals_move_one_dimension_at_a_time_the_most_telling_first():
    batch = images((120, 64), (136, 192))  # means of ±0.25 and ±2: the second dimension tells more
    found = cells(pictures.traversals(Toy(), {}, batch, KEY, steps=3, reach=1))
    np.testing.assert_array_equal(found[0, :, :2], [[120, 96], [120, 128], [120, 160]])
    np.testing.assert_array_equal(found[1, :, :2], [[96, 64], [128, 64], [160, 64]])
    assert len(cells(pictures.traversals(Toy(), {}, batch, KEY, latents=1))) == 1
    plain = cells(pictures.traversals(Toy(prior=False), {}, batch, KEY, steps=3, reach=1))  # by its own spread
    np.testing.assert_array_equal(plain[0, :, 1], [64, 128, 192])


def test_the_manifold_is_a_grid_of_quantiles():
    found = cells(pictures.manifold(Toy(), {}, side=4, label=3)).astype(int)
    by_hand = [round(128 + 32 * z) for z in (-1.1503, -0.3186, 0.3186, 1.1503)]  # at 1/8, 3/8, 5/8, 7/8
    np.testing.assert_array_equal(found[0, :, 0], by_hand)
    np.testing.assert_array_equal(found[:, 0, 1], by_hand[::-1])
    assert (found[..., 2] == 150).all()


@dataclasses.dataclass(frozen=True)
class Few:
    def load(self, split: datasets.Split) -> datasets.Dataset:
        few = images(*[(i, i) for i in range(5)])
        return datasets.Dataset(image=np.asarray(few.image), label=np.asarray(few.label), classes=10)


def test_the_evaluator_shows_what_the_model_has():
    judge = pictures.Pictures(data=Few(), images=4, steps=3, grid=4)
    judge.prepare(Toy())
    report = judge.report(Toy(), {})
    assert set(report.media) == {"reconstructions", "interpolations", "traversals", "manifold"}
    assert all(image.pixels.dtype == np.uint8 and image.pixels.shape[-1] == 3 for image in report.media.values())  # pyright: ignore
    assert "manifold" not in judge.report(Toy(prior=False), {}).media


def test_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="steps=1: must be at least 2"):
        pictures.Pictures(data=Few(), steps=1)
    with pytest.raises(ValueError, match="object has no `encode`"):
        pictures.Pictures(data=Few()).prepare(object())
    with pytest.raises(ValueError, match="images=12: validation has 5"):
        pictures.Pictures(data=Few(), images=12).prepare(Toy())
