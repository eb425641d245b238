"""Samplers with exact denoisers of one Gaussian: the numbers that their formulas give, and what they share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generative import noise, samplers

SHAPE = (2, 2, 1)
RULES = {
    "ancestral": samplers.Ancestral(),
    "ancestral large": samplers.Ancestral(variance="large"),
    "ddim": samplers.DDIM(),
    "ddim half": samplers.DDIM(eta=0.5),
    "euler": samplers.Euler(),
    "heun": samplers.Heun(),
    "dpm": samplers.DPMSolver(),
    "euler churn": samplers.Euler(churn=samplers.Churn(amount=10, inflation=1.0)),
    "heun churn": samplers.Heun(churn=samplers.Churn(amount=10, inflation=1.0)),
}
GRIDS = {
    "linear": noise.Chain(),
    "cosine": noise.Chain(betas=noise.cosine_betas),
    "karras": noise.Karras(),
    "flow": noise.Flow(),
}


def gaussian(mean: float, variance: float):
    """E[x₀ | x] for x₀ ~ N(mean, variance): right at every level, on every curve."""

    def denoise(x, level):
        alpha, sigma = level
        return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x - alpha * mean)

    return denoise


@functools.partial(jax.jit, static_argnums=0)
def responses(rule: samplers.Rule, path: noise.Level) -> jax.Array:
    """What each normal that a sampler of N(0, 0.25) draws is multiplied with in the end: all is linear.

    One pixel each: the first has only the noise that it starts with, pixel k + 1 only that of step k.
    """
    pixel = jnp.arange(len(path.sigma))[None, :, None, None]
    draw = lambda index: (pixel == index + 1).astype(jnp.float32)
    evaluate = lambda number, carry: rule.evaluate(gaussian(0.0, 0.25), draw, path, carry, number)
    carry = rule.begin(path, path.sigma[0] * (pixel == 0))
    return jax.lax.fori_loop(0, rule.evaluations(len(path.sigma) - 1), evaluate, carry)[0]


def final_variance(rule: samplers.Rule, grid: noise.Path, steps: int) -> float:
    path = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), grid.path(steps))
    return float(np.sum(np.square(np.asarray(responses(rule, path), np.float64))))


@pytest.mark.parametrize(
    "betas, steps, small, large",
    [
        (noise.linear_betas, 50, 0.786, 1.065),
        (noise.cosine_betas, 50, 0.875, 1.030),
        (noise.linear_betas, 1000, 0.9845, 1.0030),
        (noise.cosine_betas, 1000, 0.9920, 1.0017),
    ],
    ids=["linear 50", "cosine 50", "linear 1000", "cosine 1000"],
)
def test_ddpms_chain_ends_with_the_known_variances(betas, steps, small, large):
    """Pitfall 6."""
    chain = noise.Chain(timesteps=steps, betas=betas)
    digits = 3 if steps == 50 else 4
    for variance, expected in (("small", small), ("large", large)):
        found = final_variance(samplers.Ancestral(variance=variance), chain, steps) / 0.25  # pyright: ignore
        assert found == pytest.approx(expected, abs=0.6 * 10**-digits)


@pytest.mark.parametrize(
    "steps, heun, euler", [(18, 0.5276, 0.4230), (40, 0.5049, 0.4649), (80, 0.5011, 0.4823), (160, 0.5003, 0.4911)]
)
def test_edms_orders(steps, heun, euler):
    """Pitfall 8."""
    assert np.sqrt(final_variance(samplers.Heun(), noise.Karras(), steps)) == pytest.approx(heun, abs=6e-5)
    assert np.sqrt(final_variance(samplers.Euler(), noise.Karras(), steps)) == pytest.approx(euler, abs=6e-5)


def test_posterior_variances_are_ddpms():
    """Pitfall 6: β̃ = (1 - ᾱ before) / (1 - ᾱ) β, which is 0 in the last step, and β."""
    betas = noise.linear_betas(10)
    kept = np.cumprod(1 - betas)
    path = noise.Chain(timesteps=10).path(10)
    now, then = (noise.Level(path.alpha[part], path.sigma[part]) for part in (slice(None, -1), slice(1, None)))
    small, large = samplers.posterior_variances(now, then)
    np.testing.assert_allclose(large[::-1], betas, rtol=1e-9)
    np.testing.assert_allclose(small[::-1], (1 - np.append(1, kept[:-1])) / (1 - kept) * betas, rtol=1e-9)
    assert small[-1] == 0


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_converges_along_every_path(rule):
    for name, grid in GRIDS.items():
        found = final_variance(RULES[rule], grid, 400) / 0.25
        assert found == pytest.approx(1, abs=0.005 if "heun" in rule or rule == "dpm" else 0.05), name


@pytest.mark.parametrize("grid", ["linear", "karras"])
def test_second_order_rules_are_of_second_order(grid):
    """Four times the steps: a quarter of Euler's error, a sixteenth of the others', less what the ends take."""
    error = lambda rule, steps: abs(np.sqrt(final_variance(RULES[rule], GRIDS[grid], steps)) - 0.5)
    assert 3 < error("euler", 40) / error("euler", 160) < 5
    for rule in ("heun", "dpm"):
        assert error(rule, 40) / error(rule, 160) > 7
        assert error(rule, 160) < error("euler", 160) / 3


def run(rule, grid=GRIDS["linear"], *, seeds=(0, 1, 2), steps=7, mean=0.3, **options):
    sampler = samplers.Sampler(rule=rule, steps=steps, grid=grid, **options)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    return jax.jit(lambda keys: sampler(gaussian(mean, 0.25), grid.path(steps), keys, SHAPE))(keys)


@pytest.mark.long
def test_ddim_between_euler_and_ddpm():
    """η = 0 is Euler along any path, η = 1 the ancestral step with the small variance."""
    for grid in GRIDS.values():
        np.testing.assert_array_equal(run(samplers.DDIM(eta=0.0), grid), run(samplers.Euler(), grid))
        np.testing.assert_allclose(run(samplers.DDIM(eta=1.0), grid), run(samplers.Ancestral(), grid), atol=1e-6)
        assert not np.allclose(run(samplers.DDIM(eta=0.5), grid), run(samplers.DDIM(), grid), atol=1e-2)


def test_one_step_gives_the_mean_of_all_images():
    """From noise alone: α is 0, so that nothing else is known."""
    for rule in RULES.values():
        np.testing.assert_allclose(run(rule, noise.Flow(), steps=1), 0.3, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_an_image_depends_on_its_own_seed_alone(rule):
    """Pitfall 15."""
    of = lambda *seeds: np.asarray(run(RULES[rule], seeds=seeds))
    both = of(5, 9, 7)
    np.testing.assert_array_equal(of(1, 9, 2)[1], both[1])
    np.testing.assert_allclose(of(9)[0], both[1], atol=1e-6)
    assert not np.allclose(both[0], both[1], atol=0.05)


def test_more_steps_begin_from_the_same_noise():
    few, many = (run(samplers.Heun(), GRIDS["karras"], steps=steps) for steps in (20, 40))
    np.testing.assert_allclose(few, many, atol=0.05)


@pytest.mark.parametrize("rule, evaluations", [("ancestral", 6), ("ddim", 6), ("euler", 6), ("heun", 11), ("dpm", 6)])
def test_the_denoiser_is_asked_as_often_as_said(rule, evaluations):
    count, grid = [], GRIDS["linear"]
    sampler = samplers.Sampler(rule=RULES[rule], steps=6, grid=grid)

    def denoise(x, level):
        jax.debug.callback(lambda: count.append(1))
        return gaussian(0.3, 0.25)(x, level)

    sampler(denoise, grid.path(6), jax.random.split(jax.random.key(0)), SHAPE)
    jax.effects_barrier()
    assert len(count) == evaluations == sampler.evaluations


@pytest.mark.parametrize("rule", RULES)
def test_parts_of_a_path_are_the_whole_to_the_last_bit(rule):
    sampler = samplers.Sampler(rule=RULES[rule], steps=6, clip=True)
    denoise, path, keys = gaussian(0.3, 0.25), GRIDS["karras"].path(6), jax.random.split(jax.random.key(0))
    advance = jax.jit(lambda carry, first, count: sampler.advance(denoise, path, keys, carry, first, count))
    carry = begun = sampler.begin(path, keys, SHAPE)
    for first, count in ((0, 1), (1, 3), (4, sampler.evaluations - 4)):
        carry = advance(carry, first, count)
    np.testing.assert_array_equal(carry[0], advance(begun, 0, sampler.evaluations)[0])
    np.testing.assert_allclose(carry[0], sampler(denoise, path, keys, SHAPE), atol=5e-6)


def test_churn_adds_noise_where_it_is_told_to():
    churn = samplers.Churn(amount=1.0, least=0.5, greatest=2.0, inflation=1.0)
    x, fresh = jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1))
    moved, level = churn(x, noise.Level(jnp.float32(1), jnp.float32(1)), 4, fresh)
    np.testing.assert_allclose([moved[0, 0, 0, 0], level.sigma], [np.sqrt(1.25**2 - 1), 1.25], rtol=1e-6)
    for sigma in (0.4, 2.1):
        moved, level = churn(x, noise.Level(jnp.float32(1), jnp.float32(sigma)), 4, fresh)
        np.testing.assert_allclose([moved[0, 0, 0, 0], level.sigma], [0, sigma], rtol=1e-6)
    strong = samplers.Churn(amount=100.0)(x, noise.Level(jnp.float32(1), jnp.float32(1)), 4, fresh)[1]
    np.testing.assert_allclose(strong.sigma, np.sqrt(2), rtol=1e-6)  # at most that much


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: samplers.Sampler(rule=samplers.Heun(), steps=0), r"steps=0: must be at least 1"),
        (lambda: samplers.Sampler(rule=samplers.Heun(), guidance=-1.0), r"guidance=-1\.0: must be at least 0"),
        (lambda: samplers.Ancestral(variance="middle"), r"variance=middle: must be small or large"),  # pyright: ignore
        (lambda: samplers.DDIM(eta=2.0), r"eta=2\.0: must lie in \[0, 1\]"),
        (lambda: samplers.Churn(amount=-1.0), r"amount=-1\.0"),
    ],
)
def test_refuses_what_cannot_work(make, message):
    with pytest.raises(ValueError, match=message):
        make()
