"""Velocity fields: the affine one against its closed form, the gradient one against its promise."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from rfadapt._validation import check_samples
from rfadapt.geometry import moments
from rfadapt.paths import PATHS, LinearPath
from rfadapt.predictions import PREDICTIONS, convert
from rfadapt.schedules import uniform_time_grid
from rfadapt.solvers import Dopri5
from rfadapt.velocity import (
    AffineVelocity,
    FlowVelocity,
    GradientVelocity,
    MLPVelocity,
    PhasedVelocity,
    gaussian_map,
    shrunk_covariances,
    varying_directions,
)

LEARNED = {
    "gradient": lambda: GradientVelocity(3, 32, sharpest=4.0, generator=torch.Generator().manual_seed(0)),
    "mlp": lambda: MLPVelocity(3, 32, generator=torch.Generator().manual_seed(0)),
}


@pytest.fixture
def covariances():
    """Two that do not commute."""
    rng = np.random.default_rng(0)
    return tuple(torch.from_numpy(root @ root.T + 0.1 * np.eye(3)) for root in rng.normal(size=(2, 3, 3)))


@pytest.fixture(params=LEARNED)
def perturbed(request):
    """A learned field away from its start, as training would leave it."""
    field = LEARNED[request.param]()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return request.param, field


def closed_form(covariance0, covariance1):
    C0, C1 = covariance0.numpy(), covariance1.numpy()
    root = sqrtm(C0).real
    inverse_root = np.linalg.inv(root)
    return torch.from_numpy(inverse_root @ sqrtm(root @ C1 @ root).real @ inverse_root)


def sample_moments(X):
    return moments(check_samples(X, "X"), torch.ones(X.shape[1]))


def jacobian(field, x, t):
    return torch.autograd.functional.jacobian(lambda point: field(point[None], torch.tensor([t]))[0], x)


def test_gaussian_map_is_the_closed_form(covariances):
    A = gaussian_map(*covariances)
    torch.testing.assert_close(A, closed_form(*covariances))
    torch.testing.assert_close(A @ covariances[0] @ A, covariances[1])


@pytest.mark.parametrize("name", PATHS)
def test_affine_flow_is_the_gaussian_map_at_every_time(name, covariances):
    path, times = PATHS[name](), uniform_time_grid(4)
    v = AffineVelocity(*covariances, path)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    A = closed_form(*covariances).float()
    a, b, _, _ = path.coefficients(times.float())
    for state, a_t, b_t in zip(Dopri5(1e-6, 1e-6).states(v, x, times), a, b):
        torch.testing.assert_close(state, x @ (a_t * A + b_t * torch.eye(3)), atol=3e-3, rtol=1e-3)


def test_affine_flow_between_equal_covariances_stands_still(covariances):
    v = AffineVelocity(covariances[0], covariances[0], LinearPath())
    assert v(torch.randn(9, 3), torch.rand(9)).abs().max() < 1e-5


@pytest.mark.parametrize("name", LEARNED)
def test_learned_fields_start_at_zero(name):
    v = LEARNED[name]()(torch.randn(10, 3), torch.rand(10))
    assert v.shape == (10, 3) and not v.any()


@pytest.mark.parametrize("name", LEARNED)
def test_learned_fields_start_as_their_generator_says(name):
    first, second = (dict(LEARNED[name]().named_parameters()) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_rows_do_not_see_each_other(perturbed):
    _, field = perturbed
    x, t = torch.randn(6, 3), torch.rand(6)
    alone = torch.cat([field(x[i : i + 1], t[i : i + 1]) for i in range(6)])
    together = field(x, t)
    assert together.shape == (6, 3) and together.abs().min() > 0
    torch.testing.assert_close(together, alone)


def test_velocity_depends_on_time(perturbed):
    _, field = perturbed
    x = torch.randn(6, 3)
    assert (field(x, torch.zeros(6)) - field(x, torch.ones(6))).abs().max() > 0.01


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_only_the_gradient_field_is_a_gradient(perturbed, t):
    name, field = perturbed
    J = jacobian(field, torch.tensor([0.3, -1.0, 0.7]), t)
    asymmetry = (J - J.T).norm() / J.norm()
    assert J.norm() > 0.01
    assert asymmetry < 1e-5 if name == "gradient" else asymmetry > 1e-2


def test_affine_velocity_is_a_gradient(covariances):
    J = jacobian(AffineVelocity(*covariances, LinearPath()), torch.randn(3), 0.4)
    torch.testing.assert_close(J, J.T)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("form", ["v", "x1", "x0"])
def test_flow_velocity_adds_the_learned_field_to_the_base_in_its_prediction_form(form, path, perturbed, covariances):
    _, field = perturbed
    path, prediction = path(), PREDICTIONS[form]()
    base = AffineVelocity(*covariances, path)
    x, t = torch.randn(5, 3), torch.rand(5) * 0.8 + 0.1
    sum_ = FlowVelocity(base, field, path, prediction)(x, t)
    a, b, _, _ = (c.unsqueeze(1) for c in path.coefficients(t))
    factor = {"v": 1.0, "x1": b, "x0": -a}[form]
    value, fixed = (convert(v, x, t, path, source="v", target=form) for v in (sum_, base(x, t)))
    torch.testing.assert_close(value - fixed, factor * field(x, t), atol=1e-3, rtol=1e-3)
    alone = FlowVelocity(None, field, path, prediction)(x, t)
    torch.testing.assert_close(alone, sum_ - base(x, t), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(FlowVelocity(base, None, path, prediction)(x, t), base(x, t))


@pytest.mark.parametrize("n_rows", [5, 20, 60])
def test_few_rows_of_one_distribution_give_nearly_the_identity(n_rows):
    rng = np.random.default_rng(n_rows)
    x0, x1 = rng.normal(size=(2, n_rows, 20))
    A = gaussian_map(*shrunk_covariances(sample_moments(x0), sample_moments(x1)))
    assert torch.linalg.matrix_norm(A - torch.eye(20, dtype=A.dtype), 2) < 0.6
    if n_rows > 20:
        # Without shrinkage the map follows the noise: this is what the test would see.
        raw = gaussian_map(sample_moments(x0).covariance, sample_moments(x1).covariance)
        assert torch.linalg.matrix_norm(raw - torch.eye(20, dtype=A.dtype), 2) > 0.6


@pytest.mark.parametrize("sizes", [(1, 200), (200, 1), (2, 200), (200, 2), (2, 2)])
def test_a_sample_too_small_to_have_a_covariance_does_not_blow_up_the_map(sizes):
    rng = np.random.default_rng(0)
    x0, x1 = (rng.normal(size=(n, 4)) for n in sizes)
    stretch = torch.linalg.eigvalsh(gaussian_map(*shrunk_covariances(sample_moments(x0), sample_moments(x1))))
    assert stretch.min() > 0.1 and stretch.max() < 10


@pytest.mark.parametrize("sizes", [(1, 1), (30, 30)])
def test_domains_without_any_variance_map_by_the_identity(sizes):
    x0, x1 = (np.full((n, 3), value) for n, value in zip(sizes, (1.0, 5.0)))
    A = gaussian_map(*shrunk_covariances(sample_moments(x0), sample_moments(x1)))
    torch.testing.assert_close(A, torch.eye(3, dtype=A.dtype))


def test_many_rows_give_the_empirical_covariances(covariances):
    rng = np.random.default_rng(0)
    samples = [rng.multivariate_normal(np.zeros(3), C.numpy(), size=50_000) for C in covariances]
    shrunk = shrunk_covariances(*(sample_moments(X) for X in samples))
    for C, X in zip(shrunk, samples):
        np.testing.assert_allclose(C, np.cov(X.T, bias=True), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("time", [0.0, 0.4, 1.0])
def test_a_gradient_field_at_one_time_is_itself_there(time, perturbed):
    name, field = perturbed
    if name != "gradient":
        return
    still = field.at(time)
    x = torch.randn(7, 3)
    assert still.width == field.width and still.degree == 0
    torch.testing.assert_close(still(x, torch.rand(7)), field(x, torch.full((7,), time)), atol=1e-5, rtol=1e-4)


def test_a_gradient_field_at_one_time_is_what_it_is_at_many():
    generator = torch.Generator().manual_seed(0)
    field = GradientVelocity(3, width=16, sharpest=4.0, generator=generator)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    x = torch.randn(50, 3, generator=generator)
    for time in (0.0, 0.3, 1.0):
        shared = field(x, torch.tensor(time).expand(50))
        assert torch.allclose(shared, field(x, torch.full((50,), time)), atol=1e-5)


def test_ridge_functions_rise_as_sharply_as_they_say():
    field = GradientVelocity(1, width=5, degree=0, sharpest=16.0, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        field.weight.fill_(0.5)  # the length that they are drawn with
        field.offset.zero_()
    x, t = torch.zeros(1, 1), torch.zeros(1)
    slopes = []
    for k in range(5):
        with torch.no_grad():
            field.height.zero_()[0, k] = 1.0
        slopes.append(torch.autograd.functional.jacobian(lambda x: field(x, t), x).item())
    np.testing.assert_allclose(slopes, np.array([1, 2, 4, 8, 16]) / 2, rtol=1e-5)


def test_each_phase_has_a_field_of_its_own():
    field = PhasedVelocity(GradientVelocity(2, 8), 3)
    with torch.no_grad():
        for k, own in enumerate(field.fields):
            own.constant[0] = k
    t = torch.tensor([0.9, 0.0, 1 / 3, 0.2, 0.5, 1.0])
    x = torch.randn(6, 2)
    torch.testing.assert_close(field(x, t)[:, 0], torch.tensor([2.0, 0.0, 1.0, 0.0, 1.0, 2.0]))
    for time, expected in ((0.0, 0.0), (1 / 3, 1.0), (1.0, 2.0)):
        assert (field(x, torch.tensor([time]).expand(6)) == expected).all()
    assert field.width == 8 and field.learning_rate == field.fields[0].learning_rate


def test_directions_in_which_some_row_varies():
    # The first two features are copies, the third is constant, and the fifth varies in one domain only.
    rng = np.random.default_rng(0)
    domains = [np.c_[a := rng.normal(size=40), a, np.full(40, 3.0), rng.normal(size=(40, 2))] for _ in range(2)]
    domains[1][:, 4] = -1.0
    def found(columns):
        X = [check_samples(rows[:, columns], "X") for rows in domains]
        return varying_directions(*(moments(rows, torch.ones(len(columns))) for rows in X))

    expected = np.diag([0.0, 0, 0, 1, 1])
    expected[:2, :2] = 0.5
    np.testing.assert_allclose(found([0, 1, 2, 3, 4]), expected, atol=1e-7)
    assert torch.equal(found([0, 3, 4]), torch.eye(3, dtype=torch.float64))
