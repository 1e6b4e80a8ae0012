"""A fitted flow as a map of rows: coordinates, a field for each direction, a solver and a time grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._flow_options import check_options
from ._flow_record import first_order_solver
from .geometry import Geometry
from .schedules import optimal_time_grid, uniform_time_grid
from .solvers import SOLVERS, Solver
from .velocity import FlowVelocity, PotentialVelocity

_NAMED_SOLVER_STEPS = 8


@dataclass(frozen=True)
class FlowMap:
    """Moves rows in the data's units along a flow.

    Parameters
    ----------
    geometry : Geometry
    forward, backward : FlowVelocity
        The fields that are followed from t = 0 to 1, and back. The same one for a flow; two for its students.
    solver : Solver
    grid : Tensor of shape (n_times,)
        Times from 0 to 1.
    """

    geometry: Geometry
    forward: FlowVelocity
    backward: FlowVelocity
    solver: Solver
    grid: torch.Tensor

    @torch.no_grad()
    def move(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of domain 0, of shape (n, n_features), moved to domain 1."""
        return self._leave(self.solver.solve(self.forward, self._enter(x, 0.0), self.grid), 1.0, x)

    @torch.no_grad()
    def move_back(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of domain 1 moved to domain 0."""
        return self._leave(self.solver.solve(self.backward, self._enter(x, 1.0), self.grid.flip(0)), 0.0, x)

    @torch.no_grad()
    def positions(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Rows at `times`, on the way that `move` goes: whole steps of its grid, then a part of one."""
        grid, z = self.grid, self._enter(x, 0.0)
        done, positions = 0, []
        for time in times:
            while done + 1 < len(grid) and grid[done + 1] <= time:
                z = self.solver.solve(self.forward, z, grid[done : done + 2])
                done += 1
            here = z if grid[done] == time else self.solver.solve(self.forward, z, torch.stack([grid[done], time]))
            positions.append(self._leave(here, float(time), x))
        return torch.stack(positions)

    def _enter(self, x, t):
        return self.geometry.frame(t, self.forward.path).enter(x, device_of(self.forward))

    def _leave(self, z, t, like):
        return self.geometry.frame(t, self.forward.path).leave(z, like)


def device_of(velocity) -> torch.device:
    """Where a field computes."""
    return next(velocity.buffers(), next(velocity.parameters(), torch.empty(0))).device


def flow_map(flow) -> FlowMap:
    """How a fitted RectifiedFlowTransport moves rows, by its parameters as they are now."""
    check_options(flow)
    if not (flow.distill or flow.straighten):
        return FlowMap(flow.geometry_, flow.velocity_, flow.velocity_, chosen_solver(flow), _chosen_grid(flow))
    if flow.student_ is None:
        raise ValueError(
            "distill=True and straighten=True follow students, which this flow was fitted without. Fit it with that "
            "parameter, or set it to False."
        )
    grid = torch.tensor(flow.distillation_["grid"], dtype=torch.float64)
    if not torch.equal(grid, few_step_grid(flow)):
        raise ValueError(
            f"The students were trained for the times {[round(t, 3) for t in grid.tolist()]}; distill, straighten, "
            "n_steps and schedule now ask for others. Fit again, or set the parameters back."
        )
    return FlowMap(flow.geometry_, flow.student_, flow.inverse_student_, _first_order(flow), grid)


def few_step_grid(flow) -> torch.Tensor:
    """The times that the students of a flow are for."""
    return uniform_time_grid(1) if flow.distill else _chosen_grid(flow)


def chosen_solver(flow) -> Solver:
    """The solver of the flow itself."""
    if flow.solver == "auto":
        return SOLVERS[flow.solver_]() if _finds_steps(flow) else _first_order(flow)
    return SOLVERS[flow.solver]() if isinstance(flow.solver, str) else flow.solver


def _first_order(flow):
    return SOLVERS[first_order_solver(flow.velocity_.path)]()


def _chosen_grid(flow):
    n_steps = flow.n_steps or _NAMED_SOLVER_STEPS
    if flow.schedule == "uniform":
        return uniform_time_grid(flow.n_steps_ if _finds_steps(flow) else n_steps)
    if isinstance(flow.velocity_.learned, PotentialVelocity):
        return uniform_time_grid(flow.n_steps or 1)  # along straight lines, all grids are as good
    if flow.step_costs_ is None:
        raise ValueError('schedule="bellman" needs the costs of steps, which fit finds if it is set before.')
    return optimal_time_grid(flow.step_costs_, n_steps)


def _finds_steps(flow):
    """Whether the number of steps is the one that was found at the end of `fit`."""
    return flow.solver == "auto" and flow.schedule == "uniform" and not flow.straighten
