"""The equations of the flow along a convex potential, solved: where a row that is at x at time t came from."""

from __future__ import annotations

import itertools

import torch

from .descent import Descent

# Descents solve so many parts of rows at once, as beginning an operation takes as long for few rows as for many.
_PARTS = 8
# Evaluations for all rows, and how many more there are at most, so many at a time, for those with residuals above this
# share of the spread.
_EVALUATIONS = 10
_MORE_EVALUATIONS = 100
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
    """The equations of the flow along a convex potential, solved with its `map`, `value`, `curvatures` and `double`.

    The metric of the solutions is that of `potential`.
    """

    def descent(self, q, t, z=None, step=None) -> Descent:
        """Gradient steps to the solutions, to be told the map where they lead."""
        return Descent(self.potential, q, t, z, step)

    def advance(self, descent, n_iter):
        """Let a descent take steps."""
        for _ in range(n_iter):
            descent.advance(self.map(descent.z))

    def pursue(self, descent, close, n_iter, n_between=1):
        """Let the rows of a descent go on that have residuals above `close`, until none has.

        There are at most `n_iter` more evaluations of the map; after every `n_between` those that are close are left.
        """
        if n_iter <= 0:
            return
        far = descent.far(close)
        if len(far):
            some = descent.rows(far)
            self.advance(some, n_between)
            self.pursue(some, close, n_iter - n_between, n_between)
            descent.put(far, some)

    def solve_fully(self, q, t, z=None, step=None):
        """Solve (1 - t) C0 z + t map(z) = q: where a row that is at x at time `t` came from (q = R x).

        Rows that gradient steps leave unsolved get Newton's method in float64: where the map is steep, as between two
        clumps of the target, gradient steps of any length may cycle.

        Parameters
        ----------
        q : Tensor of shape (n, n_features)
        t : Tensor of shape (n, 1)
        z : Tensor of shape (n, n_features), optional
            Where to start; by default at the solution for the linear map of the mean curvature.
        step : Tensor of shape (n, 1), optional
            Step lengths to start with, for example from an earlier call.

        Returns
        -------
        z : Tensor of shape (n, n_features)
        step : Tensor of shape (n, 1)
        """
        spread, n_rows = q.norm(dim=1).mean(), _PARTS * self.rows
        parts = (itertools.repeat(None) if x is None else x.split(n_rows) for x in (q, t, z, step))
        return tuple(map(torch.cat, zip(*(self._solved(spread, *part) for part in zip(*parts)))))

    def _solved(self, spread, q, t, z, step):
        descent = self.descent(q, t, z, step)
        self.advance(descent, _EVALUATIONS)
        self.pursue(descent, _CLOSE * spread, _MORE_EVALUATIONS, _EVALUATIONS_BETWEEN)
        z, unsolved = descent.seen, descent.far(_SOLVED * spread)
        if len(unsolved):
            precise = self.double()
            n_rows = _NEWTON_ROWS if not z.is_cuda else max(_NEWTON_ROWS, _NEWTON_NUMBERS // z.shape[1] ** 2)
            for rows in unsolved.split(n_rows):
                z[rows] = precise._newton(q[rows].double(), t[rows].double(), z[rows].double()).to(z.dtype)
        return z, descent.step

    def _newton(self, q, t, z):
        """Newton's method with backtracking on the convex function whose gradient is the equation's residual."""
        rows, found = torch.arange(len(z), device=z.device), z.clone()
        for _ in range(_NEWTON_STEPS):
            gradient = torch.lerp(z @ self.potential.covariance0, self.map(z), t) - q
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
        C0 = self.potential.covariance0

        def merit(z):
            return (1 - t[:, 0]) * (z @ C0 * z).sum(1) / 2 + t[:, 0] * self.value(z) - (q * z).sum(1)

        curvature = torch.lerp(C0.expand(len(z), -1, -1), self.curvatures(z), t[:, :, None])
        move = -torch.linalg.solve(curvature, gradient)
        slope, here = (gradient * move).sum(1), merit(z)
        length, moved = torch.ones_like(slope), torch.zeros_like(slope, dtype=torch.bool)
        for _ in range(_HALVINGS):
            moved = merit(z + length[:, None] * move) <= here + 1e-4 * length * slope
            if moved.all():
                break
            length = torch.where(moved, length, length / 2)
        return torch.where(moved[:, None], z + length[:, None] * move, z), moved
