"""Solvers against equations with known solutions, and the orders that their names promise."""

import math

import numpy as np
import pytest
import torch

from rfadapt.paths import LinearPath
from rfadapt.schedules import uniform_time_grid
from rfadapt.solvers import DDIM, RK4, SOLVERS, Dopri5, Euler, Heun, Midpoint

ORDERS = {Euler: 1, DDIM: 1, Midpoint: 2, Heun: 2, RK4: 4}


def field(x, t):
    """Logistic growth in a running time: nonlinear in x, and it depends on t."""
    return (1 + 2 * t).unsqueeze(1) * x * (1 - x)


field.path = LinearPath()


def solution(x0, t):
    return x0 / (x0 + (1 - x0) * math.exp(-t - t**2))


def rotation(x, t):
    return torch.stack([-x[:, 1], x[:, 0]], dim=1)


rotation.path = LinearPath()


@pytest.fixture
def start():
    return torch.linspace(0.1, 1.5, 12, dtype=torch.float64).reshape(6, 2)


@pytest.mark.parametrize("kind", ORDERS)
def test_observed_order(kind, start):
    steps = np.array([32, 64, 128])
    errors = [
        (kind().solve(field, start, uniform_time_grid(n)) - solution(start, 1.0)).abs().max().item() for n in steps
    ]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(ORDERS[kind], abs=0.15)


def test_orders_are_tested_for_every_fixed_step_solver():
    assert set(SOLVERS.values()) == {*ORDERS, Dopri5}


def test_higher_order_is_more_accurate_on_the_same_grid(start):
    grid = uniform_time_grid(16)
    errors = [(kind().solve(field, start, grid) - solution(start, 1.0)).norm() for kind in (Euler, Midpoint, RK4)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7, 1e-10])
def test_dopri5_meets_its_tolerance(tolerance, start):
    solver = Dopri5(rtol=tolerance, atol=tolerance)
    end = solver.solve(field, start, uniform_time_grid(1))
    # The tolerance bounds the error of a step; a handful of steps are taken.
    assert (end - solution(start, 1.0)).abs().max() < 20 * tolerance


@pytest.mark.parametrize("name", SOLVERS)
def test_flipped_grid_inverts(name, start):
    grid = uniform_time_grid(64)
    solver = SOLVERS[name]()
    there = solver.solve(rotation, start, grid)
    back = solver.solve(rotation, there, grid.flip(0))
    angle = torch.tensor(1.0, dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])])
    first_order = 0.05 if name in ("euler", "ddim") else 1e-3
    torch.testing.assert_close(there, start @ turn, atol=first_order, rtol=0)
    torch.testing.assert_close(back, start, atol=first_order, rtol=0)
    # Backwards means backwards: the same grid once more would turn by another radian instead.
    assert (solver.solve(rotation, there, grid) - start).norm() > 0.5


@pytest.mark.parametrize("name", SOLVERS)
def test_states_are_those_of_every_time_of_the_grid(name, start):
    grid = torch.tensor([0.0, 0.1, 0.3, 0.35, 0.6, 0.8, 1.0], dtype=torch.float64)
    states = list(SOLVERS[name]().states(field, start, grid))
    assert len(states) == len(grid)
    torch.testing.assert_close(states[0], start)
    for state, t in zip(states, grid.tolist()):
        torch.testing.assert_close(state, solution(start, t), atol=0.15 if name in ("euler", "ddim") else 0.02, rtol=0)
    torch.testing.assert_close(states[-1], SOLVERS[name]().solve(field, start, grid), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SOLVERS)
def test_time_has_one_entry_a_row_and_dtype_of_x_is_kept(name):
    seen = []

    def v(x, t):
        seen.append((t.shape, t.dtype))
        return x

    v.path = LinearPath()
    x = torch.ones(3, 2, dtype=torch.float32)
    assert SOLVERS[name]().solve(v, x, uniform_time_grid(2)).dtype == torch.float32
    assert set(seen) == {((3,), torch.float32)}


@pytest.mark.parametrize(("name", "evaluations"), [("euler", 4), ("midpoint", 8), ("heun", 8), ("rk4", 16)])
def test_evaluations_per_solve(name, evaluations):
    calls = []
    SOLVERS[name]().solve(lambda x, t: calls.append(t) or x, torch.ones(1, 1), uniform_time_grid(4))
    assert len(calls) == evaluations


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun", "rk4", "ddim"])
def test_a_velocity_may_jump_where_a_step_ends(name):
    class Jump:
        path = LinearPath()

        def __call__(self, x, t):
            return torch.where(t < 1 / 3, 1.0, torch.where(t < 2 / 3, 4.0, 1.0)).unsqueeze(1).expand_as(x)

    grid, x = torch.linspace(0, 1, 4, dtype=torch.float64), torch.zeros(2, 1)
    for times, end in ((grid, 2.0), (grid.flip(0), -2.0)):
        torch.testing.assert_close(SOLVERS[name]().solve(Jump(), x, times), torch.full((2, 1), end))
