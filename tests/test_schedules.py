"""Time grids: the dynamic programme against brute force, and the costs that it takes."""

import itertools

import numpy as np
import pytest
import torch

from rfadapt.paths import TrigonometricPath
from rfadapt.schedules import N_FINE_STEPS, optimal_time_grid, step_costs, uniform_time_grid
from rfadapt.solvers import DDIM, Euler


def random_costs(n_fine, seed):
    return np.random.default_rng(seed).random((n_fine + 1, n_fine + 1)) ** 3


def total(costs, grid):
    stops = (np.asarray(grid) * (len(costs) - 1)).round().astype(int)
    return sum(costs[j, k] for j, k in zip(stops[:-1], stops[1:]))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n_fine", "n_steps"), [(1, 1), (2, 2), (7, 1), (7, 2), (8, 3), (9, 4), (8, 8)])
def test_the_programme_equals_brute_force(n_fine, n_steps, seed):
    costs = random_costs(n_fine, seed)
    grid = optimal_time_grid(costs, n_steps)
    assert grid.shape == (n_steps + 1,) and grid[0] == 0 and grid[-1] == 1 and (grid.diff() > 0).all()
    inner = itertools.combinations(range(1, n_fine), n_steps - 1)
    best = min(total(costs, np.array([0, *stops, n_fine]) / n_fine) for stops in inner)
    assert total(costs, grid) == pytest.approx(best)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 6, 8, 16])
def test_never_worse_than_the_uniform_grid(n_steps):
    for seed in range(3):
        costs = random_costs(N_FINE_STEPS, seed)
        assert total(costs, optimal_time_grid(costs, n_steps)) <= total(costs, uniform_time_grid(n_steps))


@pytest.mark.parametrize(
    ("costs", "n_steps", "message"),
    [
        (np.zeros((3, 4)), 1, r"costs must have shape .* got \(3, 4\)"),
        (np.zeros((1, 1)), 1, "n_fine at least 1"),
        (np.full((3, 3), np.nan), 1, "costs contains NaN"),
        (np.zeros((4, 4)), 0, "n_steps must lie between 1 and 3, .* got 0"),
        (np.zeros((4, 4)), 4, "n_steps must lie between 1 and 3, .* got 4"),
    ],
)
def test_costs_that_are_none(costs, n_steps, message):
    with pytest.raises(ValueError, match=message):
        optimal_time_grid(costs, n_steps)


def field(x, t):
    return torch.sin(3 * x) + (t**2).unsqueeze(1)


def test_costs_are_those_of_one_big_step_at_the_end_of_the_fine_path():
    x = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2)
    costs, grid = step_costs(field, x, Euler(), n_fine=6), uniform_time_grid(6)
    states = list(Euler().states(field, x, grid))
    for j, k in itertools.product(range(7), range(7)):
        if j >= k:
            assert costs[j, k] == np.inf
            continue
        slope = field(states[j], torch.full((5,), j / 6, dtype=torch.float64))
        end = Euler().solve(field, states[j] + (k - j) / 6 * slope, grid[k:])
        expected = (states[-1] - end).square().sum(1).mean().item()
        assert costs[j, k] == pytest.approx(expected, abs=1e-15)


def test_costs_take_as_many_evaluations_as_they_say():
    rows = []
    step_costs(lambda x, t: rows.append(len(x)) or x, torch.ones(2, 1), Euler(), n_fine=12)
    # Each time of the path itself, and all big steps that have ended before it.
    assert sum(rows) == 2 * sum(1 + (k - 1) * (k - 2) // 2 for k in range(1, 13))


def test_a_first_order_flow_costs_nothing_along_its_own_path():
    # Every row follows the path of its own pair (x, A x): a quarter of an ellipse.
    path = TrigonometricPath()

    def v(x, t):
        a, b, da, db = (c.unsqueeze(1) for c in path.coefficients(t))
        return (3 * da + db) / (3 * a + b) * x

    v.path = path
    x = torch.ones(3, 2, dtype=torch.float64)
    ahead = np.triu(np.ones((13, 13), bool), 1)
    assert step_costs(v, x, DDIM(), n_fine=12)[ahead].max() < 1e-20
    assert step_costs(v, x, Euler(), n_fine=12)[0, 12] > 0.1


def test_the_grid_spends_its_steps_where_the_velocity_changes():
    def v(x, t):
        return 1 / (0.05 + t.unsqueeze(1))  # fast, and slowing down, at the start

    x = torch.zeros(4, 1, dtype=torch.float64)
    costs = step_costs(v, x, Euler())
    grid = optimal_time_grid(costs, 4)
    assert grid[1] < 0.1
    exact = np.log(1.05 / 0.05)
    uniform, bellman = (Euler().solve(v, x, g)[0].item() - exact for g in (uniform_time_grid(4), grid))
    assert abs(bellman) < 0.5 * abs(uniform)
