"""Interpolation paths: where they begin and end, and that their velocities are their derivatives."""

import pytest
import torch

from rfadapt.paths import PATHS, LinearPath

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
