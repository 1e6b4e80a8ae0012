"""The equations of the flow along a convex potential, solved: where a row that is at x at time t came from."""

from __future__ import annotations

import itertools

import torch

from .descent import Descent

# Residual, relative to the spread, up to which a row is solved; how often gradient steps go on, twenty at a time,
# for the rows above it; and how long Newton's method tries for what is then left.
_SOLVED = 2e-4
_TRIES = 5
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

    def solve(self, q, t, z=None, step=None, *, n_iter):
        """Solve (1 - t) C0 z + t map(z) = q: where a row that is at x at time `t` came from (q = R x).

        Parameters
        ----------
        q : Tensor of shape (n, n_features)
        t : Tensor of shape (n, 1)
        z : Tensor of shape (n, n_features), optional
            Where to start; by default at the solution for the linear map of the mean curvature.
        step : Tensor of shape (n, 1), optional
            Step lengths to start with, for example from an earlier call.
        n_iter : int
            Evaluations of the map.

        Returns
        -------
        z : Tensor of shape (n, n_features)
        step : Tensor of shape (n, 1)
        residual : Tensor of shape (n,)
            Norm of what is left of the equation, one step before the last.
        """
        found = []
        for part in zip(*(itertools.repeat(None) if x is None else x.split(self.rows) for x in (q, t, z, step))):
            # In parts whose intermediate results stay in a core's cache.
            descent = self.descent(*part)
            for _ in range(n_iter):
                descent.advance(self.map(descent.z))
            found.append((descent.z, descent.step, descent.residual.norm(dim=1)))
        return found[0] if len(found) == 1 else tuple(map(torch.cat, zip(*found)))

    def solve_fully(self, q, t, z=None, step=None):
        """As `solve`, to the end: rows that the first steps leave unsolved get Newton's method in float64.

        Where the map is steep, as between two clumps of the target, gradient steps of any length may cycle.

        Returns
        -------
        z : Tensor of shape (n, n_features)
        step : Tensor of shape (n, 1)
        """
        spread = q.norm(dim=1).mean()
        z, step, residual = self.solve(q, t, z, step, n_iter=20)
        for _ in range(_TRIES):
            unsolved = (residual > _SOLVED * spread).nonzero().squeeze(1)
            if not len(unsolved):
                return z, step
            z[unsolved], step[unsolved], residual[unsolved] = self.solve(
                q[unsolved], t[unsolved], z[unsolved], step[unsolved], n_iter=20
            )
        unsolved = (residual > _SOLVED * spread).nonzero().squeeze(1)
        if len(unsolved):
            precise = self.double()
            n_rows = _NEWTON_ROWS if not z.is_cuda else max(_NEWTON_ROWS, _NEWTON_NUMBERS // z.shape[1] ** 2)
            for rows in unsolved.split(n_rows):
                z[rows] = precise._newton(q[rows].double(), t[rows].double(), z[rows].double()).to(z.dtype)
        return z, step

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
