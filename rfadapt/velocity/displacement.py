"""The equations of the flow along a convex potential, solved: where a row that is at x at time t came from."""

from __future__ import annotations

import itertools

import torch

from .descent import Descent
from .quasi_newton import QuasiNewton

# So many parts of rows at once, as beginning an operation takes as long for few rows as for many.
_PARTS = 8
# Evaluations for all rows, and how many more there are at most, so many at a time, for those with residuals above this
# share of the spread.
_EVALUATIONS = 10
_MORE_EVALUATIONS = 200
_EVALUATIONS_BETWEEN = 5
_CLOSE = 2e-5
# Rows that then have residuals above this share are left to Newton's method, and how long it tries.
_SOLVED = 2e-4
_NEWTON_STEPS = 60
_HALVINGS = 12
# What Newton's method leaves of an equation, relative to its right-hand side: below the rounding of float32.
_EXACT = 1e-8
# Rows that it takes at once: on a CPU, as much as stays in the caches; on a GPU, where each of its steps waits for the
# host, as many as have curvatures of this many numbers.
_NEWTON_ROWS = 256
_NEWTON_NUMBERS = 2**25


class DisplacementEquations:
    """The equations of the flow along a convex potential, (1 - t) C0 z + t map(z) = q, and their solutions.

    Subclasses have the potential's `value`, `map`, both in one (`value_and_map`), `curvatures`, and the same in float64
    (`double`). The metric of the solutions is that of `potential`.
    """

    def descent(self, q, z, step) -> Descent:
        """Gradient steps to where the rows `q` came from (t = 1), which begin at `z`."""
        return Descent(self.potential, q, None, z, step)

    def residual(self, z, q, t):
        """What is left of the equations at `z`, of shape (n, n_features); `t` may be None, for 1."""
        moved = self.map(z)
        return q - (moved if t is None else torch.lerp(z @ self.potential.covariance0, moved, t))

    def merit(self, z, q, t):
        """The convex functions that have their minima at the solutions, of shape (n,), and minus their gradients."""
        value, moved = self.value_and_map(z)
        linear = z @ self.potential.covariance0
        value = (1 - t[:, 0]) * (z * linear).sum(1) / 2 + t[:, 0] * value - (q * z).sum(1)
        return value, q - torch.lerp(linear, moved, t)

    def advance(self, solver, n_iter):
        """Let a `RowSolver` take steps."""
        for _ in range(n_iter):
            solver.advance(self)

    def pursue(self, solver, close, n_iter, n_between=1):
        """Let the rows of a solver go on that have residuals above `close`, until none has.

        There are at most `n_iter` more evaluations of the map; after every `n_between` those that are close are left.
        """
        some, index = solver, None
        for _ in range(0, n_iter, n_between):
            far = some.far(close)
            if not len(far):
                break
            if len(far) < len(some.z):
                if index is not None:
                    solver.put(index, some)
                some, index = some.rows(far), far if index is None else index[far]
            self.advance(some, n_between)
        if index is not None:
            solver.put(index, some)

    def solve_fully(self, q, t, z=None):
        """Solve (1 - t) C0 z + t map(z) = q: where a row that is at x at time `t` came from (q = R x).

        Rows that quasi-Newton steps leave unsolved get Newton's method, in float64.

        Parameters
        ----------
        q : Tensor of shape (n, n_features)
        t : Tensor of shape (n, 1)
        z : Tensor of shape (n, n_features), optional
            Where to start; by default at the solution for the linear map of the mean curvature.

        Returns
        -------
        Tensor of shape (n, n_features)
        """
        spread, n_rows = q.norm(dim=1).mean(), _PARTS * self.rows
        parts = (itertools.repeat(None) if x is None else x.split(n_rows) for x in (q, t, z))
        return torch.cat([self._solved(spread, *part) for part in zip(*parts)])

    def _solved(self, spread, q, t, z):
        solver = QuasiNewton(self.potential, q, t, z)
        self.advance(solver, _EVALUATIONS)
        self.pursue(solver, _CLOSE * spread, _MORE_EVALUATIONS, _EVALUATIONS_BETWEEN)
        z, unsolved = solver.z, solver.far(_SOLVED * spread)
        if len(unsolved):
            precise = self.double()
            n_rows = _NEWTON_ROWS if not z.is_cuda else max(_NEWTON_ROWS, _NEWTON_NUMBERS // z.shape[1] ** 2)
            for rows in unsolved.split(n_rows):
                z[rows] = precise._newton(q[rows].double(), t[rows].double(), z[rows].double()).to(z.dtype)
        return z

    def _newton(self, q, t, z):
        """Newton's method with backtracking on the convex function whose gradient is the equation's residual."""
        rows, found = torch.arange(len(z), device=z.device), z.clone()
        for _ in range(_NEWTON_STEPS):
            gradient = -self.residual(z, q, t)
            left = gradient.norm(dim=1) > _EXACT * q.norm(dim=1)
            if not left.any():
                break
            rows, q, t, z, gradient = (values[left] for values in (rows, q, t, z, gradient))
            z, moved = self._newton_step(q, t, z, gradient)
            found[rows] = z
            if not moved.any():
                break
            # Where no step leads down any more, none will.
            rows, q, t, z = (values[moved] for values in (rows, q, t, z))
        return found

    def _newton_step(self, q, t, z, gradient):
        """Where one step leads, the same place where none leads down, and whether one does."""
        curvature = torch.lerp(self.potential.covariance0.expand(len(z), -1, -1), self.curvatures(z), t[:, :, None])
        move = -torch.linalg.solve(curvature, gradient)
        slope, here = (gradient * move).sum(1), self.merit(z, q, t)[0]
        length, moved = torch.ones_like(slope), torch.zeros_like(slope, dtype=torch.bool)
        for _ in range(_HALVINGS):
            moved = self.merit(z + length[:, None] * move, q, t)[0] <= here + 1e-4 * length * slope
            if moved.all():
                break
            length = torch.where(moved, length, length / 2)
        return torch.where(moved[:, None], z + length[:, None] * move, z), moved
