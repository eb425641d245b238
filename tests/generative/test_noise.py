"""Noise levels: the ends of every schedule, chains without gaps, and distributions that are what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from generative import noise

CHAINS = {"linear": noise.linear_betas, "cosine": noise.cosine_betas}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("timesteps", [50, 1000])
def test_a_chain_begins_at_the_image_and_ends_in_noise(name, timesteps):
    """Pitfall 6."""
    betas = CHAINS[name](timesteps)
    assert betas.shape == (timesteps,) and betas.min() > 0 and betas.max() <= 0.999
    path = noise.Chain(timesteps=timesteps, betas=CHAINS[name]).path(timesteps)
    assert (path.alpha[-1], path.sigma[-1]) == (1, 0)  # before t = 0 nothing is noise
    np.testing.assert_allclose(path.alpha**2 + path.sigma**2, 1, rtol=1e-12)
    assert path.alpha[0] < 0.01 and (np.diff(path.sigma) < 0).all()
    np.testing.assert_allclose(path.alpha[-2] ** 2, 1 - betas[0], rtol=1e-12)


def test_chains_are_the_papers():
    linear, cosine = noise.linear_betas(1000), noise.cosine_betas(1000)
    np.testing.assert_allclose(linear[[0, -1]], [1e-4, 0.02], rtol=1e-12)
    assert cosine[-1] == 0.999
    kept = np.cumprod(1 - cosine)
    f = lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(kept[499], f(0.5) / f(0), rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 13, 1000])
def test_each_step_ends_where_the_next_begins(steps):
    """Pitfall 7: from the last timestep down to the first, none twice; a step ends where the next one begins."""
    chain = noise.Chain(timesteps=1000)
    whole, path = chain.path(1000), chain.path(steps)
    assert path.sigma.shape == (steps + 1,)
    visited = [int(np.flatnonzero(whole.sigma == sigma)[0]) for sigma in path.sigma]
    assert visited[0] == 0 and visited[-1] == 1000 and len(set(visited)) == steps + 1
    assert visited == sorted(visited)
    if steps > 1:
        assert visited[-2] == 999  # the first timestep of training, with the least noise
        assert np.ptp(np.diff(visited[:-1])) <= 1  # evenly


def test_a_chain_refuses_more_steps_than_it_has():
    with pytest.raises(ValueError, match=r"steps=51: a chain of timesteps=50 has 50 to take"):
        noise.Chain(timesteps=50).path(51)


def test_karras_levels():
    path = noise.Karras().path(18)
    np.testing.assert_allclose(path.sigma[[0, 17, 18]], [80, 0.002, 0], rtol=1e-12)
    np.testing.assert_allclose(
        path.sigma[1], (80 ** (1 / 7) + (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 17) ** 7, rtol=1e-12
    )
    assert (path.alpha == 1).all()
    within = noise.Karras().path(5, (0.01, 20))
    np.testing.assert_allclose(within.sigma[[0, 4, 5]], [20, 0.01, 0])
    with pytest.raises(ValueError, match=r"greatest=80\.0: the model knows noise between 100 and 200 only"):
        noise.Karras().path(5, (100, 200))


def test_paths_keep_to_what_a_model_has_seen():
    limits = (0.05, 4.0)
    for grid in (noise.Chain(), noise.Karras(), noise.LogNormal(), noise.Flow()):
        path = grid.path(40, limits)
        ratio = path.sigma[:-1] / path.alpha[:-1]
        assert ratio.max() <= 4 * (1 + 1e-9) and ratio.min() >= 0.05 * (1 - 1e-9)
        assert (np.diff(path.sigma / path.alpha) < 0).all()
        assert (path.alpha[-1], path.sigma[-1]) == (1, 0)


def test_flow_goes_from_pure_noise_in_a_straight_line():
    path = noise.Flow().path(4)
    np.testing.assert_allclose(path.sigma, [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(path.alpha + path.sigma, 1)


@pytest.mark.parametrize(
    "distribution, value, expected",
    [
        (noise.LogNormal(), lambda level: jnp.log(level.sigma), stats.norm(-1.2, 1.2)),
        (noise.Flow(), lambda level: level.sigma, stats.uniform()),
        (
            noise.Flow(time="logit_normal", mean=0.5, std=0.8),
            lambda level: jnp.log(level.sigma / level.alpha),
            stats.norm(0.5, 0.8),
        ),
    ],
    ids=["log-normal", "uniform t", "logit-normal t"],
)
def test_levels_are_quantiles(distribution, value, expected):
    u = np.linspace(0.001, 0.999, 999)
    found = value(distribution.levels(jnp.asarray(u, jnp.float32)))
    np.testing.assert_allclose(found, expected.ppf(u), rtol=1e-4, atol=1e-4)


def test_a_chain_draws_each_timestep_alike():
    chain = noise.Chain(timesteps=20, betas=noise.cosine_betas)
    level = chain.levels((jnp.arange(60, dtype=jnp.float32) + 0.5) / 60)
    table = chain.path(20)
    np.testing.assert_allclose(level.alpha, np.repeat(table.alpha[-2::-1], 3), rtol=1e-6)
    np.testing.assert_allclose(level.sigma, np.repeat(table.sigma[-2::-1], 3), rtol=1e-6)


def test_one_draw_in_each_stratum_and_uniform_by_itself():
    u = np.stack([noise.stratified(jax.random.key(seed), 8) for seed in range(300)])
    assert (np.sort(np.floor(u * 8), axis=1) == np.arange(8)).all()
    for slot in (0, 5):
        assert stats.kstest(u[:, slot], "uniform").pvalue > 0.01


def test_the_noise_to_signal_ratio_does_not_depend_on_the_scale_and_is_bounded():
    level = noise.Level(jnp.array([0.5, 1.0, 0.0, 1.0]), jnp.array([1.0, 2.0, 1.0, 0.0]))
    ratio = noise.log_ratio(level)
    np.testing.assert_allclose(ratio, [np.log(2), np.log(2), np.log(1e4), -np.log(1e4)], rtol=1e-6)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: noise.Chain(timesteps=0), r"timesteps=0: must be at least 1"),
        (lambda: noise.Karras(least=2.0, greatest=1.0), r"least=2\.0: must lie between 0 and greatest=1\.0"),
        (lambda: noise.Karras(rho=0.0), r"rho=0\.0"),
        (lambda: noise.LogNormal(std=-1.0), r"std=-1\.0"),
        (lambda: noise.Flow(time="cosine"), r"time=cosine: must be uniform or logit_normal"),  # pyright: ignore
    ],
)
def test_refuses_what_cannot_work(make, message):
    with pytest.raises(ValueError, match=message):
        make()
