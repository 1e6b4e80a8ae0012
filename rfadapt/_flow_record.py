"""What a fit notes of a flow: its cost, how straight and how first-order it is, and which solver is enough for it."""

from __future__ import annotations

import math
import warnings

import torch

from . import metrics
from .paths import LinearPath
from .schedules import uniform_time_grid
from .solvers import SOLVERS
from .velocity import PotentialVelocity

# Ways to solve a flow, by the number of evaluations of the velocity, and the mean squared deviation (relative to
# the spread of the result) up to which one is good enough.
_CHEAPEST_FIRST = (
    [("first order", 1), ("midpoint", 1), ("midpoint", 2), ("rk4", 1), ("midpoint", 3)]
    + [("rk4", 2), ("rk4", 3), ("rk4", 4), ("rk4", 8), ("rk4", 16)]
)
_EVALUATIONS = {"first order": 1, "midpoint": 2, "rk4": 4}
_SOLVER_TOLERANCE = 2.5e-5
# Steps of RK4 that follow a flow closely: along straight lines, and along curved paths.
_STRAIGHT_STEPS, _CURVED_STEPS = 4, 12


def first_order_solver(path) -> str:
    """Name of the solver of one evaluation a step that is exact for a first-order flow along `path`."""
    return "euler" if isinstance(path, LinearPath) else "ddim"


def fine_solver(velocity):
    """A solver and a time grid that follow the field closely."""
    if isinstance(velocity.learned, PotentialVelocity):
        return SOLVERS["euler"](), uniform_time_grid(1)  # exact along straight lines
    n_steps = _STRAIGHT_STEPS if isinstance(velocity.path, LinearPath) else _CURVED_STEPS
    return SOLVERS["rk4"](), _whole_phases(velocity, n_steps)


def _whole_phases(velocity, n_steps):
    """A uniform grid of at least so many steps, none of them in two phases."""
    return uniform_time_grid(-(-n_steps // velocity.n_phases) * velocity.n_phases)


def solve_finely(velocity, x, backwards=False):
    """Rows at the end of the flow that begins with them; from t = 1 to 0 if `backwards`."""
    solver, grid = fine_solver(velocity)
    return solver.solve(velocity, x, grid.flip(0) if backwards else grid)


@torch.no_grad()
def measured(velocity, geometry, x, target) -> dict:
    """One entry of a flow's history, from rows of the two domains in the geometry's units."""
    path = velocity.path
    solver, grid = fine_solver(velocity)
    states = torch.stack(list(solver.states(velocity, x, grid)))
    moved, unit = states[-1], target.square().sum(1).mean().clamp_min(1e-30)
    one_step = SOLVERS[first_order_solver(path)]().solve(velocity, x, uniform_time_grid(1))
    start, end = (geometry.frame(t, path).leave(z, z) for t, z in ((0.0, x), (1.0, moved)))
    cost = (end - start).square().sum(1).double()
    return {
        "transport_cost": cost.mean().item(),
        "transport_cost_standard_error": cost.std(unbiased=False).item() / math.sqrt(len(cost)),
        "straightness": float(metrics.straightness(states, grid) / unit.item()),
        "first_orderness": float(metrics.first_orderness(states, path, grid) / unit.item()),
        "one_step_error": ((one_step - moved).square().sum(1).mean() / unit).item(),
        "energy_distance": metrics.energy_distance(moved, target),
    }


def warn_if_cost_rose(before, after):
    rise = after["transport_cost"] - before["transport_cost"]
    if rise > 2 * before["transport_cost_standard_error"]:
        warnings.warn(
            f"Reflow round {after['round']} raised the transport cost by {rise:.3g} to {after['transport_cost']:.3g}, "
            "more than its sampling error: the field does not fit its own pairs. Raise max_iter or width, or use "
            "fewer rounds.",
            RuntimeWarning,
            stacklevel=2,
        )


@torch.no_grad()
def cheapest_solver(velocity, x) -> tuple[str, int]:
    """The solver and number of steps of the fewest evaluations that still end where many steps end.

    A flow that was made first-order in phases is tried with a step for each, too.
    """
    if isinstance(velocity.learned, PotentialVelocity):
        return "euler", 1  # exact along straight lines
    exact = SOLVERS["rk4"]().solve(velocity, x, _whole_phases(velocity, 16))
    unit = exact.square().sum(1).mean().clamp_min(1e-30)
    candidates = [*_CHEAPEST_FIRST, *[("first order", velocity.n_phases)] * (velocity.n_phases > 1)]
    for name, n_steps in sorted(candidates, key=lambda way: _EVALUATIONS[way[0]] * way[1]):
        name = first_order_solver(velocity.path) if name == "first order" else name
        end = SOLVERS[name]().solve(velocity, x, uniform_time_grid(n_steps))
        if (end - exact).square().sum(1).mean() <= _SOLVER_TOLERANCE * unit:
            break
    return name, n_steps


def energy_terms(x, y):
    """Terms for every row of two samples, whose two means add to the energy distance and vary as it does.

    The row's share of the statistic to first order, as in the theory of U-statistics.
    """
    between, within_x, within_y = torch.cdist(x, y), torch.cdist(x, x).mean(1), torch.cdist(y, y).mean(1)
    influences = 2 * (between.mean(1) - within_x), 2 * (between.mean(0) - within_y)
    energy = (influences[0].mean() + influences[1].mean()) / 2
    return tuple(influence - energy / 2 for influence in influences)
