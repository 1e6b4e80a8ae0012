"""Interpolation paths: where they begin and end, and that their velocities are their derivatives."""

import pytest
import torch

from rfadapt.paths import PATHS, LinearPath, SubVariancePreservingPath, VariancePreservingPath

TIMES = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)


@pytest.fixture(params=PATHS)
def path(request):
    return PATHS[request.param]()


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 25, 3, dtype=torch.float64, generator=generator).unbind()


@pytest.mark.parametrize("end", [0, 1])
def test_a_path_joins_its_pair(path, pair, end):
    x_t, _ = path.sample(*pair, torch.full((25,), float(end), dtype=torch.float64))
    torch.testing.assert_close(x_t, pair[end])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_exact_and_speeds_there_finite(path, dtype):
    a, b, da, db = path.coefficients(torch.tensor([0.0, 1.0], dtype=dtype))
    assert a.tolist() == [0.0, 1.0] and b.tolist() == [1.0, 0.0]
    assert torch.isfinite(da).all() and torch.isfinite(db).all()
    near = path.coefficients(torch.tensor([1e-3, 1 - 1e-3], dtype=dtype))
    torch.testing.assert_close(torch.stack([da, db]), torch.stack(near[2:]), atol=0.03, rtol=0.03)


def test_coefficients_and_their_derivatives(path):
    h = 1e-6
    a, b, da, db = path.coefficients(TIMES)
    ahead, behind = path.coefficients(TIMES + h), path.coefficients(TIMES - h)
    assert all(c.shape == TIMES.shape for c in (a, b, da, db))
    torch.testing.assert_close(da, (ahead[0] - behind[0]) / (2 * h), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(db, (ahead[1] - behind[1]) / (2 * h), atol=1e-7, rtol=1e-7)


def test_velocity_is_the_derivative_of_the_position(path, pair):
    h = 1e-6
    _, dx_t = path.sample(*pair, TIMES)
    ahead, behind = path.sample(*pair, TIMES + h)[0], path.sample(*pair, TIMES - h)[0]
    torch.testing.assert_close(dx_t, (ahead - behind) / (2 * h), atol=1e-7, rtol=1e-7)


def test_every_row_has_its_own_time(path, pair):
    x_t, dx_t = path.sample(*pair, TIMES)
    one_x, one_dx = path.sample(pair[0][7:8], pair[1][7:8], TIMES[7:8])
    torch.testing.assert_close(x_t[7:8], one_x)
    torch.testing.assert_close(dx_t[7:8], one_dx)


def test_linear_path_is_the_straight_line(pair):
    x0, x1 = pair
    x_t, dx_t = LinearPath().sample(x0, x1, torch.full((25,), 0.25, dtype=torch.float64))
    torch.testing.assert_close(x_t, 0.75 * x0 + 0.25 * x1)
    torch.testing.assert_close(dx_t, x1 - x0)


def test_what_a_path_preserves():
    a, b, _, _ = VariancePreservingPath().coefficients(TIMES)
    torch.testing.assert_close(a**2 + b**2, torch.ones_like(a))
    a, b, _, _ = SubVariancePreservingPath().coefficients(TIMES)
    assert (a**2 + b**2 < 1).all()


def test_vp_is_the_published_schedule_up_to_its_shift():
    # alpha(t) = exp(-(beta_max / 4) (1 - t)^2) with beta_min = 0 (Song et al. 2021, eq. 33).
    a, _, _, _ = VariancePreservingPath(beta_max=20.0).coefficients(TIMES)
    published = torch.exp(-5.0 * (1 - TIMES) ** 2)
    assert (a - published).abs().max() < 0.007


def test_position_and_velocity_tell_the_pair(path, pair):
    ends = path.endpoints(*path.sample(*pair, TIMES), TIMES)
    for end, expected in zip(ends, pair):
        torch.testing.assert_close(end, expected, atol=1e-9, rtol=1e-9)


def test_two_positions_tell_the_pair(path, pair):
    s, t = TIMES, TIMES.flip(0) + 0.005
    ends = path.endpoints_between(path.sample(*pair, s)[0], path.sample(*pair, t)[0], s, t)
    for end, expected in zip(ends, pair):
        torch.testing.assert_close(end, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VariancePreservingPath(beta_max=0.0), "beta_max must lie between 0.1 and 40; got 0.0"),
        (lambda: SubVariancePreservingPath(beta_min=0.0), "beta_min must be positive; got 0.0"),
        (lambda: SubVariancePreservingPath(beta_min=2.0, beta_max=1.0), "beta_max must lie between 2 and 40; got 1.0"),
    ],
)
def test_rates_that_make_no_path(make, message):
    with pytest.raises(ValueError, match=message):
        make()
