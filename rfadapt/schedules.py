"""Time grids for the solvers: which times of [0, 1] a solver stops at."""

from __future__ import annotations

import numpy as np
import torch

#: Steps of the fine grid that Bellman's is chosen from: divisible by most small numbers, whose uniform grids it holds.
N_FINE_STEPS = 48
# Rows that are moved at once.
_ROWS_AT_ONCE = 4096


def uniform_time_grid(n_steps: int) -> torch.Tensor:
    """The times 0, 1/n, ..., 1, of shape (n_steps + 1,). Flip it to integrate backwards.

    Examples
    --------
    >>> from rfadapt.schedules import uniform_time_grid
    >>> uniform_time_grid(4).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return torch.linspace(0.0, 1.0, n_steps + 1, dtype=torch.float64)


@torch.no_grad()
def step_costs(v, x: torch.Tensor, solver, n_fine: int = N_FINE_STEPS) -> np.ndarray:
    r"""What one big step between any two times of a fine uniform grid costs at the end of the flow,

    .. math:: c_{jk} = E \|\Phi_k(x_k) - \Phi_k(x_j + (t_k - t_j)\, v(x_j, t_j))\|^2, \qquad j < k,

    along the solver's own path through all times of the grid, whose rest, from t_k to 1, is the map :math:`\Phi_k` (for
    another solver than Euler's: its step in place of the straight one).

    The published cost is that of the step where it ends, without :math:`\Phi_k`. A flow that draws rows apart makes an
    early step's error larger on the way, and one that draws them together makes it smaller.

    Parameters
    ----------
    v : callable
        v(x, t) -> Tensor of shape (n, n_features), with `t` of shape (n,). Called for about n_fine^3 / 6 times the rows
        of `x`.
    x : Tensor of shape (n, n_features)
        Rows at t = 0; a few dozen suffice.
    solver : FixedStepSolver
        One that evaluates the velocity once a step, at its beginning: `Euler()`, or `DDIM()` for curved paths.
    n_fine : int, default=48

    Returns
    -------
    costs : ndarray of shape (n_fine + 1, n_fine + 1)
        Infinite where j >= k: no step leads there.

    References
    ----------
    Nguyen, Nguyen, Nguyen, "Bellman Optimal Stepsize Straightening of Flow-Matching Models", ICLR 2024.

    Examples
    --------
    >>> import torch
    >>> from rfadapt.schedules import step_costs
    >>> from rfadapt.solvers import Euler
    >>> step_costs(lambda x, t: 2 * t.unsqueeze(1), torch.zeros(1, 1), Euler(), n_fine=2)[0].round(4).tolist()
    [inf, 0.0, 0.25]
    """
    times = uniform_time_grid(n_fine).tolist()
    states, slopes = [x], []
    strayed = x.new_empty(0, x.shape[1])  # rows that have made one big step, and those of later ones after them
    for k, (start, end) in enumerate(zip(times[:-1], times[1:]), start=1):
        slopes.append(_Constant(v, v(states[-1], x.new_full((1,), start).expand(len(x)))))
        states.append(solver.step(slopes[-1], states[-1], start, end - start))
        moved = [solver.step(v, part, start, end - start) for part in strayed.split(_ROWS_AT_ONCE) if len(part)]
        landed = [solver.step(slopes[j], states[j], times[j], end - times[j]) for j in range(k - 1)]
        strayed = torch.cat([*moved, *landed, strayed[:0]])
    errors = (strayed.view(-1, *x.shape) - states[-1]).square().sum(2).mean(1)
    costs = np.full((n_fine + 1, n_fine + 1), np.inf)
    costs[np.arange(n_fine), np.arange(1, n_fine + 1)] = 0.0  # the fine path's own steps
    for k in range(2, n_fine + 1):
        costs[: k - 1, k] = errors[(k - 1) * (k - 2) // 2 :][: k - 1].cpu().numpy()
    return costs


class _Constant:
    """A velocity that has been evaluated."""

    def __init__(self, v, value):
        self.path, self._value = getattr(v, "path", None), value

    def __call__(self, x, t):
        return self._value


def optimal_time_grid(costs, n_steps: int) -> torch.Tensor:
    r"""The grid of `n_steps` steps with the least sum of costs, by dynamic programming,

    .. math:: V(k, m) = \min_{j < k} V(j, m - 1) + c_{jk}.

    Parameters
    ----------
    costs : array-like of shape (n_fine + 1, n_fine + 1)
        Costs of steps between the times of a fine uniform grid, for example from `step_costs`. Those below the
        diagonal are not looked at.
    n_steps : int
        At least 1 and at most n_fine.

    Returns
    -------
    grid : Tensor of shape (n_steps + 1,)
        Times from 0 to 1, float64. Flip it to integrate backwards.

    Raises
    ------
    ValueError
        If the costs are not a square matrix of numbers, or there are not so many steps.

    References
    ----------
    Nguyen, Nguyen, Nguyen, "Bellman Optimal Stepsize Straightening of Flow-Matching Models", ICLR 2024.

    Examples
    --------
    A step costs its length to the fourth power, ten times so in the first half of the time.

    >>> import numpy as np
    >>> from rfadapt.schedules import optimal_time_grid
    >>> start, end = np.meshgrid(np.arange(9), np.arange(9), indexing="ij")
    >>> optimal_time_grid((end - start) ** 4 * np.where(start < 4, 10, 1), 3).tolist()
    [0.0, 0.25, 0.5, 1.0]
    """
    costs = np.asarray(costs, dtype=np.float64)
    if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or len(costs) < 2:
        raise ValueError(f"costs must have shape (n_fine + 1, n_fine + 1), n_fine at least 1; got {costs.shape}.")
    n_fine = len(costs) - 1
    ahead = np.triu(np.ones(costs.shape, bool), 1)
    if np.isnan(costs[ahead]).any():
        raise ValueError("costs contains NaN: the velocity was not finite.")
    if not 1 <= n_steps <= n_fine:
        raise ValueError(f"n_steps must lie between 1 and {n_fine}, the steps of the fine grid; got {n_steps}.")
    costs = np.where(ahead, costs, np.inf)
    value, came_from = costs[0], []
    for _ in range(1, n_steps):
        totals = value[:, None] + costs
        came_from.append(totals.argmin(axis=0))
        value = totals.min(axis=0)
    stops = [n_fine]
    for best in reversed(came_from):
        stops.append(int(best[stops[-1]]))
    return torch.tensor([0, *reversed(stops)], dtype=torch.float64) / n_fine
