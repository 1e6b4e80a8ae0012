"""Steps to where rows came from, every row by itself; gradient steps with lengths of their own."""

from __future__ import annotations

import copy
import math

import torch

# Lengths of steps at least and at most. Short ones are for rows between two clumps of the target: the map is steep.
_SHORTEST, _LONGEST = 1e-3, 8.0
# No step goes further than this share of where the row began and of the usual distance from the mean, in whitened
# coordinates.
_REACH = 0.1


class RowSolver:
    """The equations (1 - t) C0 z + t map(z) = q, one for each row, on the way to being solved.

    No step goes far at once.

    Parameters
    ----------
    potential : ConvexPotential
        In whose metric steps are taken.
    q : Tensor of shape (n, n_features)
    t : Tensor of shape (n, 1), or None
        None stands for 1, and is quicker.
    z : Tensor of shape (n, n_features), optional
        Where to start; by default at the solutions for the linear map of the mean curvature.

    Attributes
    ----------
    z : Tensor of shape (n, n_features)
        Where the rows are.
    residual : Tensor of shape (n, n_features)
        What was left of the equations when they were last looked at.
    """

    #: What is known of every row, and what of it `put` brings back.
    _kept = "_q", "_t", "_reach", "z", "residual"
    _brought_back = "z", "residual"

    def __init__(self, potential, q, t, z=None):
        self._potential, self._q, self._t = potential, q, t
        if t is None:  # there is one metric for all rows, and one product with it
            self._metric = potential.modes / potential.stretches @ potential.modes.T
        self.z = self._precondition(q) if z is None else z
        self._reach = _REACH * (math.sqrt(q.shape[1]) + self.z.norm(dim=1, keepdim=True))
        self.residual = None

    def advance(self, equations):
        """Evaluate `equations`, the `DisplacementEquations` to solve, once, and take a step."""
        raise NotImplementedError

    def far(self, close):
        """Positions of the rows whose residuals had norms above `close`."""
        return (self.residual.norm(dim=1) > close).nonzero().squeeze(1)

    def rows(self, index):
        """Some rows, to go on with; `put` brings them back."""
        some = copy.copy(self)
        for name in self._kept:
            if getattr(self, name) is not None:
                setattr(some, name, getattr(self, name).index_select(0, index))
        return some

    def put(self, index, some):
        """Take the rows at `index` to where `some` has brought them; the others are not to advance after that."""
        for name in self._brought_back:
            getattr(self, name).index_copy_(0, index, getattr(some, name))

    def _bounded(self, move):
        return move.mul_((self._reach / move.norm(dim=1, keepdim=True)).clamp_max_(1.0))

    def _precondition(self, residual):
        if self._t is None:
            return residual @ self._metric
        modes, stretches = self._potential.modes, self._potential.stretches
        return (residual @ modes / (1 - self._t + self._t * stretches)) @ modes.T


class Descent(RowSolver):
    """Gradient steps in the metric of the mean curvature, with Barzilai and Borwein's lengths, one for each row.

    At t = 1 this inverts the map, that is, evaluates the gradient of the convex conjugate.

    What the last step has led to is not known. So none goes far, and what has not come close is best taken from before:
    one row of thousands that is flung out would make training steepen the map there without end.

    Parameters
    ----------
    potential, q, t, z
        As for `RowSolver`.
    step : Tensor of shape (n, 1), optional
        Step lengths to start with, for example of an earlier descent.

    Attributes
    ----------
    step : Tensor
        Lengths of the last steps.
    seen : Tensor of shape (n, n_features)
        Where the rows were before them.

    References
    ----------
    Barzilai, Borwein, "Two-point step size gradient methods", IMA Journal of Numerical Analysis 1988.
    """

    _kept = (*RowSolver._kept, "step", "_direction", "_move")
    _brought_back = (*RowSolver._brought_back, "step", "_move")

    def __init__(self, potential, q, t, z=None, step=None):
        super().__init__(potential, q, t, z)
        self.step = q.new_ones(len(q), 1) if step is None else step
        self._direction = self._move = None

    def advance(self, equations):
        residual = equations.residual(self.z, self._q, self._t)
        direction = self._precondition(residual)
        if self.residual is not None:
            change = self.residual - residual
            gain = (self._move * change).sum(1, keepdim=True)
            curvature = (change * (self._direction - direction)).sum(1, keepdim=True)
            usable = torch.minimum(gain, curvature) > 1e-12
            self.step = torch.where(usable, gain / curvature, self.step / 2).clamp_(_SHORTEST, _LONGEST)
        move = self._bounded(self.step * direction)
        self.residual, self._direction, self._move = residual, direction, move
        self.z = self.z + move

    @property
    def seen(self):
        return self.z - self._move
