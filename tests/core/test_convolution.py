"""The convolution with CPU-friendly gradients is lax's own, in every way JAX may use it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from core import convolution

NHWC = ("NHWC", "HWIO", "NHWC")
CASES = {  # input size, kernel size, strides, padding, other arguments
    "nature_1": ((20, 20), (8, 8), (4, 4), "VALID", {}),
    "nature_2": ((10, 10), (4, 4), (2, 2), "VALID", {}),
    "nature_3": ((7, 7), (3, 3), (1, 1), "VALID", {}),
    "tiled_unevenly": ((12, 10), (6, 4), (3, 2), ((0, 0), (0, 0)), {}),
    "valid_untiled": ((9, 9), (4, 4), (2, 2), "VALID", {}),
    "valid_atrous": ((8, 8), (2, 2), (1, 1), "VALID", {"rhs_dilation": (2, 2)}),
    "same": ((9, 8), (3, 3), (1, 1), "SAME", {}),
    "stride_leaves_a_rest": ((11, 12), (3, 4), (2, 3), "SAME", {}),
    "uneven_padding": ((10, 7), (3, 2), (3, 2), ((2, 0), (-1, 3)), {}),
    "atrous": ((11, 9), (3, 3), (2, 1), "SAME", {"rhs_dilation": (2, 1)}),
    "transposed": ((5, 4), (4, 3), (1, 1), ((2, 2), (1, 1)), {"lhs_dilation": (2, 3)}),
    "transposed_with_little_padding": ((4, 5), (3, 5), (1, 1), ((0, 1), (3, 6)), {"lhs_dilation": (3, 2)}),
    "one_by_one": ((4, 5), (1, 1), (1, 1), "VALID", {}),
}

# The input's gradient as a convolution, and as a product.
FORMS = pytest.mark.parametrize(
    ("size", "kernel", "padding"),
    [((9, 8), (3, 3), "SAME"), ((8, 6), (4, 2), "VALID")],
    ids=["convolution", "product"],
)


def both(strides, padding, options):
    """Ours and lax's: functions of (input, kernel)."""

    def apply(function):
        return lambda x, k: function(x, k, strides, padding, dimension_numbers=NHWC, **options)

    return apply(convolution.conv_general_dilated), apply(lax.conv_general_dilated)


def arrays(size, kernel, dtype=jnp.float32, channels=3, features=5, batch=2):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (batch, *size, channels), dtype)
    return x, jax.random.normal(keys[1], (*kernel, channels, features), dtype)


def gradients(function):
    return jax.grad(lambda x, k: jnp.sum(jnp.sin(function(x, k).astype(jnp.float32))), argnums=(0, 1))


def assert_close(ours, lax_own, tolerance=1e-5):
    def check(a, b):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())

    jax.tree.map(check, ours, lax_own)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_are_laxs(case):
    size, kernel, *rest = CASES[case]
    x, k = arrays(size, kernel)
    ours, lax_own = both(*rest)
    assert_close(jax.jit(ours)(x, k), jax.jit(lax_own)(x, k))
    assert_close(jax.jit(gradients(ours))(x, k), jax.jit(gradients(lax_own))(x, k))


@pytest.mark.long
@pytest.mark.parametrize("case", ["same", "valid_atrous", "transposed"])
def test_more_channels_inward_than_outward(case):
    size, kernel, *rest = CASES[case]
    x, k = arrays(size, kernel, channels=6, features=2)
    ours, lax_own = both(*rest)
    assert_close(jax.jit(gradients(ours))(x, k), jax.jit(gradients(lax_own))(x, k))


@pytest.mark.parametrize(("size", "padding"), [((9, 8), "SAME"), ((7, 7), "VALID")])
def test_bfloat16_gradients_are_laxs_and_stay_bfloat16(size, padding):
    ours, lax_own = both((1, 1) if padding == "VALID" else (2, 2), padding, {})
    x, k = arrays(size, (3, 3), jnp.bfloat16)
    assert_close(jax.jit(gradients(ours))(x, k), jax.jit(gradients(lax_own))(x, k), tolerance=2**-7)


def test_mixed_precision_returns_the_preferred_type():
    ours, lax_own = both((2, 2), "SAME", {"preferred_element_type": jnp.float32})
    x, k = arrays((9, 8), (3, 3), jnp.bfloat16)
    assert ours(x, k).dtype == jnp.float32
    assert_close(jax.jit(ours)(x, k), jax.jit(lax_own)(x, k))


@FORMS
def test_gradients_inside_scan(size, kernel, padding):
    ours, lax_own = both((2, 2), padding, {})
    x, k = arrays(size, kernel)

    def descend(function):
        def step(k, _):
            return k - 0.01 * gradients(function)(x, k)[1], None

        return jax.jit(lambda k: lax.scan(step, k, length=4)[0])(k)

    assert_close(descend(ours), descend(lax_own))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
@FORMS
def test_gradients_under_vmap(axes, size, kernel, padding):
    ours, lax_own = both((2, 2), padding, {})
    x, k = arrays(size, kernel)
    x, k = (jnp.stack([a, 2 * a]) if axis == 0 else a for a, axis in zip((x, k), axes, strict=True))
    ours, lax_own = (jax.jit(jax.vmap(gradients(f), axes)) for f in (ours, lax_own))
    assert_close(ours(x, k), lax_own(x, k))


@FORMS
def test_gradient_penalty_reverse_over_reverse(size, kernel, padding):
    ours, lax_own = both((2, 2), padding, {})
    x, k = arrays(size, kernel)

    def penalty(function):
        return jax.jit(jax.grad(lambda x, k: jnp.sum(gradients(function)(x, k)[0] ** 2), argnums=(0, 1)))

    assert_close(penalty(ours)(x, k), penalty(lax_own)(x, k), tolerance=1e-4)


@FORMS
def test_forward_mode_and_forward_over_reverse(size, kernel, padding):
    ours, lax_own = both((2, 2), padding, {})
    x, k = arrays(size, kernel)
    tangents = (jnp.cos(x), jnp.sin(k))
    assert_close(jax.jvp(ours, (x, k), tangents), jax.jvp(lax_own, (x, k), tangents))
    hessian_vector = [
        jax.jit(lambda x, k, f=f: jax.jvp(gradients(f), (x, k), tangents)[1])(x, k) for f in (ours, lax_own)
    ]
    assert_close(*hessian_vector, tolerance=1e-4)


def test_gradients_are_in_the_layout_of_the_fast_kernels():
    ours, _ = both((2, 2), "SAME", {})
    text = jax.jit(gradients(ours)).lower(*arrays((9, 8), (3, 3))).as_text()
    numbers = [line.split("dim_numbers = ")[1] for line in text.splitlines() if "dim_numbers" in line]
    assert len(numbers) == 3
    assert all(number.startswith("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]") for number in numbers)


@pytest.mark.parametrize("stride, kernel", [(2, (4, 2)), (1, (3, 3))])
def test_the_input_gradient_is_a_product_where_strides_divide_the_sizes(stride, kernel):
    ours, _ = both((stride, stride), "VALID", {})
    text = jax.jit(gradients(ours)).lower(*arrays((8, 6), kernel)).as_text()
    assert text.count("stablehlo.convolution") == 2
    assert text.count("stablehlo.dot_general") == 1


def test_a_transposed_convolution_is_a_product_and_its_gradients_meet_no_zeros_between_numbers():
    ours, lax_own = both((1, 1), ((2, 2), (2, 2)), {"lhs_dilation": (2, 2)})
    x, k = arrays((7, 6), (4, 4))
    assert_close(jax.jit(gradients(ours))(x, k), jax.jit(gradients(lax_own))(x, k))
    text = jax.jit(gradients(ours)).lower(x, k).as_text()
    lines = [line for line in text.splitlines() if "dim_numbers" in line]
    assert len(lines) == 2  # the gradients
    assert all("dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line for line in lines)
    assert "lhs_dilate = [2, 2]" not in text
    assert text.count("stablehlo.dot_general") == 1


def test_the_input_gradient_of_strides_that_do_not_divide_the_sizes_meets_no_zeros_between_numbers():
    ours, _ = both((2, 2), "SAME", {})
    text = jax.jit(gradients(ours)).lower(*arrays((9, 8), (3, 3))).as_text()
    assert text.count("stablehlo.convolution") == 3
    assert "lhs_dilate = [2, 2]" not in text


@FORMS
def test_gradients_of_a_directional_derivative_are_in_that_layout_too(size, kernel, padding):
    """And nothing is computed for the input that has no tangent: a gradient penalty is two plain updates."""
    ours, lax_own = both((2, 2), padding, {})
    x, k = arrays(size, kernel)

    def slope(function):
        along = lambda k: jax.jvp(lambda x: jnp.sin(function(x, k)), (x,), (jnp.cos(x),))[1]
        return jax.jit(jax.grad(lambda k: jnp.sum(along(k) ** 2)))

    assert_close(slope(ours)(k), slope(lax_own)(k), tolerance=1e-4)
    numbers = [
        line.split("dim_numbers = ")[1] for line in slope(ours).lower(k).as_text().splitlines() if "dim_numbers" in line
    ]
    assert len(numbers) == 4  # of x and of its tangent, forward and for the kernel
    assert all(number.startswith("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]") for number in numbers)


@pytest.mark.parametrize("reason", ["accelerator", "groups", "layout", "one dimension"])
def test_everything_else_is_left_to_lax(reason, monkeypatch):
    if reason == "accelerator":
        monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    x, k = arrays((8, 8), (3, 3), channels=4, features=4)
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": NHWC}
    if reason == "groups":
        k, options["feature_group_count"] = k[:, :, :1], 4
    elif reason == "layout":
        x, k, options["dimension_numbers"] = x.transpose(0, 3, 1, 2), k.transpose(3, 2, 0, 1), None
    elif reason == "one dimension":
        x, k, options["dimension_numbers"] = x[:, 0], k[0], ("NWC", "WIO", "NWC")
        options["window_strides"] = (1,)
    jaxpr = jax.make_jaxpr(lambda x, k: convolution.conv_general_dilated(x, k, **options))(x, k)
    assert [equation.primitive.name for equation in jaxpr.eqns] == ["conv_general_dilated"]


def test_flax_layer_takes_it():
    x = jnp.ones((2, 9, 8, 3))
    plain, quick = (
        nnx.Conv(3, 5, (3, 3), strides=2, conv_general_dilated=f, rngs=nnx.Rngs(0))
        for f in (lax.conv_general_dilated, convolution.conv_general_dilated)
    )
    assert_close(quick(x), plain(x))
