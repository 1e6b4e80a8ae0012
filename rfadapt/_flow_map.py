"""A fitted flow as a map of rows: coordinates, a field for each direction, a solver and a time grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .geometry import Geometry
from .solvers import Solver
from .velocity import FlowVelocity


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
