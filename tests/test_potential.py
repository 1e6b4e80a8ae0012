"""The convex potential: its derivatives against automatic ones, its convexity, and the equations with its gradient."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from rfadapt.velocity import ConvexPotential, PotentialVelocity, gaussian_map
from rfadapt.velocity.descent import Descent
from rfadapt.velocity.quasi_newton import QuasiNewton


@pytest.fixture(params=[2, 5])
def potential(request):
    """A potential away from its start, as training would leave it, in float64."""
    rng = np.random.default_rng(request.param)
    roots = rng.normal(size=(2, request.param, request.param))
    covariances = (torch.from_numpy(root @ root.T + np.eye(request.param)) for root in roots)
    generator = torch.Generator().manual_seed(0)
    potential = ConvexPotential(*covariances, 40, generator).double()
    with torch.no_grad():
        for value in potential.parameters():
            value += 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        potential.log_heights += 4
        potential.log_ridge_heights += 4
    return potential


def by_its_formula(potential, z):
    root = math.sqrt(z.shape[1])
    u = z @ potential.ridge_directions.T / root + potential.ridge_offsets
    ridges = (u + (1 + u**2).sqrt()) / 2
    weights = softplus(potential.log_weights - math.log(u.shape[1]))
    linear = z @ potential.directions.T / root + ridges @ weights.T + potential.offsets
    maxima = linear.view(len(z), potential.group_size, -1).logsumexp(1)
    Q = potential.factor @ potential.factor.T + potential.min_curvature * potential.curvature
    convex = maxima @ softplus(potential.log_heights) + ridges @ softplus(potential.log_ridge_heights)
    return convex + (z @ Q * z).sum(1) / 2 + z @ potential.constant


def rows(potential, n, seed=0):
    return 2 * torch.from_numpy(np.random.default_rng(seed).normal(size=(n, len(potential.constant))))


def test_value_gradient_and_curvature(potential):
    at, z = potential.frozen(), rows(potential, 70).requires_grad_()
    value = by_its_formula(potential, z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(at.value(z.detach()), value.detach())
    torch.testing.assert_close(at.map(z.detach()), gradient)
    for ours, expected in zip(at.value_and_map(z.detach()), (value.detach(), gradient), strict=True):
        torch.testing.assert_close(ours, expected)
    curvatures = torch.stack(
        [torch.autograd.functional.hessian(lambda x: by_its_formula(potential, x[None])[0], x) for x in z.detach()]
    )
    torch.testing.assert_close(at.curvatures(z.detach()), curvatures)
    torch.testing.assert_close(at.mean_curvature(z.detach()), curvatures.mean(0))


def test_refresh_takes_the_parameters_as_they_are_now(potential):
    at, z = potential.frozen(), rows(potential, 70)
    before = at.map(z)
    with torch.no_grad():
        for value in potential.parameters():
            value += 0.1
    torch.testing.assert_close(at.map(z), before)
    at.refresh()
    expected = potential.frozen().map(z)
    assert (expected - before).abs().max() > 1e-2
    torch.testing.assert_close(at.map(z), expected)


def test_rows_do_not_depend_on_those_before_them_or_beside_them(potential):
    at, z = potential.frozen(), rows(potential, 70)
    moved, values = potential.frozen().map(z), potential.frozen().value(z)
    for n in (70, 3, 51, 70):
        torch.testing.assert_close(at.map(z[:n]), moved[:n])
        torch.testing.assert_close(at.value(z[:n]), values[:n])
    t = torch.full((70, 1), 0.7, dtype=torch.float64)
    parted = potential.frozen()
    parted.rows = 3
    torch.testing.assert_close(parted.solve_fully(moved, t), at.solve_fully(moved, t), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solver, t", [(Descent, None), (Descent, 0.7), (QuasiNewton, 0.7)])
def test_some_rows_go_on_as_they_would_alone(potential, solver, t):
    at, n_rows, some = potential.frozen(), 60, torch.arange(5, 60, 3)
    q = at.map(rows(potential, n_rows))
    t = None if t is None else torch.full((n_rows, 1), t, dtype=torch.float64)

    def advanced(q, t, n_iter):
        solving = solver(potential, q, t)
        at.advance(solving, n_iter)
        return solving

    whole, alone = advanced(q, t, 3), advanced(q[some], t if t is None else t[some], 7)
    before = advanced(q, t, 3)
    part = whole.rows(some)
    at.advance(part, 4)
    whole.put(some, part)
    rest = torch.ones(n_rows, dtype=torch.bool)
    rest[some] = False
    for name in ("z", "residual", *(("step", "seen") if solver is Descent else ())):
        ours = getattr(whole, name)
        torch.testing.assert_close(ours[some], getattr(alone, name))
        torch.testing.assert_close(ours[rest], getattr(before, name)[rest])
        assert not torch.allclose(ours[some], getattr(before, name)[some])


@pytest.mark.parametrize("t", [0.3, 1.0])
def test_quasi_newton_steps_lead_down(potential, t):
    """Or to smaller residuals; and these are those of where the rows are."""
    at, q = potential.frozen(), potential.frozen().map(rows(potential, 100))
    t = torch.full((100, 1), t, dtype=torch.float64)
    solver = QuasiNewton(potential, q, t, rows(potential, 100, seed=1))
    at.advance(solver, 1)
    value, size = at.merit(solver.z, q, t)[0], solver.residual.norm(dim=1)
    for _ in range(80):
        at.advance(solver, 1)
        torch.testing.assert_close(solver.residual, at.residual(solver.z, q, t))
        lower = at.merit(solver.z, q, t)[0] <= value + 1e-6 * value.abs()
        assert (lower | (solver.residual.norm(dim=1) < size)).all()
        value, size = at.merit(solver.z, q, t)[0], solver.residual.norm(dim=1)
    assert size.max() < 1e-3 * q.norm(dim=1).mean()


def test_quasi_newton_steps_solve_where_gradient_steps_cycle(potential):
    """A map with cliffs between plateaus."""
    with torch.no_grad():
        potential.directions.normal_(std=600, generator=torch.Generator().manual_seed(0))
        potential.log_heights += 6
    at, z = potential.frozen(), rows(potential, 200)
    q, ones = at.map(z), torch.ones(200, 1, dtype=torch.float64)
    left = []
    for solver in (Descent(potential, q, ones), QuasiNewton(potential, q, ones)):
        at.advance(solver, 100)
        left.append((solver.residual.norm(dim=1) > 1e-3 * q.norm(dim=1).mean()).sum())
    assert left[0] > 50 and left[1] < left[0] / 4
    assert (at.map(at.solve_fully(q, ones)) - q).norm(dim=1).max() < 1e-3 * q.norm(dim=1).mean()


def test_a_descent_without_a_time_is_that_of_the_end(potential):
    at, z = potential.frozen(), rows(potential, 40)
    q = at.map(z)
    descent, expected = Descent(potential, q, None), Descent(potential, q, torch.ones(40, 1, dtype=torch.float64))
    at.advance(descent, 8)
    at.advance(expected, 8)
    torch.testing.assert_close(descent.z, expected.z)
    assert (descent.z - z).norm() < 0.1 * z.norm()


def test_residuals_of_a_descent_are_those_where_it_has_looked(potential):
    at = potential.frozen()
    q = at.map(rows(potential, 40))
    descent = Descent(potential, q, None)
    for n_iter in (1, 3):
        at.advance(descent, n_iter)
        torch.testing.assert_close(descent.residual, q - at.map(descent.seen))


def test_no_step_of_a_descent_goes_far(potential):
    """Not even with a length left from a time when the map was flatter."""
    at, z = potential.frozen(), rows(potential, 40)
    descent = Descent(potential, at.map(z + 10), None, z, torch.full((40, 1), 8.0, dtype=torch.float64))
    allowed = (math.sqrt(z.shape[1]) + z.norm(dim=1)) / 10
    at.advance(descent, 1)
    torch.testing.assert_close((descent.z - z).norm(dim=1), allowed)
    for _ in range(5):
        before = descent.z
        at.advance(descent, 1)
        assert ((descent.z - before).norm(dim=1) <= allowed * (1 + 1e-9)).all()
    some = descent.rows(torch.tensor([3, 30]))
    before = some.z
    at.advance(some, 1)
    assert ((some.z - before).norm(dim=1) <= allowed[[3, 30]] * (1 + 1e-9)).all()


def test_only_far_rows_go_on(potential):
    at = potential.frozen()
    q = at.map(rows(potential, 60))
    descent, before = Descent(potential, q, None), Descent(potential, q, None)
    for each in (descent, before):
        at.advance(each, 6)
    distances = before.residual.norm(dim=1)
    close = distances.median()
    at.pursue(descent, close, n_iter=200)
    torch.testing.assert_close(descent.z[distances <= close], before.z[distances <= close], rtol=0, atol=0)
    assert (descent.z[distances > close] != before.z[distances > close]).all()
    assert (descent.residual.norm(dim=1) <= close).all()

    evaluated, evaluate = [], at.map
    at.map = lambda z: evaluated.append(len(z)) or evaluate(z)
    at.pursue(before, close, n_iter=6, n_between=2)
    assert 1 <= len(evaluated) <= 6 and evaluated[0] == (distances > close).sum()
    assert evaluated == sorted(evaluated, reverse=True)


def test_gradients_of_the_parameters(potential):
    z0, z1 = rows(potential, 50), rows(potential, 60, seed=1)
    (by_its_formula(potential, z0).mean() - by_its_formula(potential, z1).mean()).backward()
    expected = {name: value.grad.clone() for name, value in potential.named_parameters()}
    potential.set_gradients(potential.frozen(), z0, z1)
    assert all(gradient.abs().max() > 1e-4 for gradient in expected.values())
    for name, value in potential.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], msg=lambda m, name=name: f"{name}: {m}")


def test_every_parameter_is_optimised_once(potential):
    groups = [id(value) for group in potential.parameter_groups() for value in group["params"]]
    assert sorted(groups) == sorted(id(value) for value in potential.parameters())


def test_convexity(potential):
    curvatures = potential.frozen().curvatures(rows(potential, 200))
    assert torch.linalg.eigvalsh(curvatures - potential.min_curvature * potential.curvature).min() > -1e-9


@pytest.mark.parametrize("t", [0.2, 1.0])
def test_the_equation_of_the_flow_is_solved(potential, t):
    z, times = rows(potential, 100), torch.full((100, 1), t, dtype=torch.float64)
    at = potential.frozen()
    q = (1 - t) * z @ potential.covariance0 + t * at.map(z)
    solution = at.solve_fully(q, times)
    assert (solution - z).norm() < 1e-2 * z.norm()
    # Newton's method alone solves it to the end.
    torch.testing.assert_close(at._newton(q, times, solution), z, rtol=1e-5, atol=1e-5)


def test_far_away_rows_are_finite(potential):
    at, z = potential.float().frozen(), 1e5 * rows(potential, 20).float()
    assert all(torch.isfinite(x).all() for x in (at.value(z), at.map(z), at.curvatures(z)))


def test_the_start_is_the_map_between_gaussians():
    C0, C1 = (torch.tensor(C, dtype=torch.float64) for C in ([[2.0, 0.5], [0.5, 1.0]], [[1.0, -0.3], [-0.3, 3.0]]))
    potential = ConvexPotential(C0, C1, 64, torch.Generator().manual_seed(0)).make_affine()
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    moved = x + PotentialVelocity(potential)(x, torch.zeros(30))
    torch.testing.assert_close(moved, x @ gaussian_map(C0, C1).float(), rtol=1e-4, atol=1e-4)
