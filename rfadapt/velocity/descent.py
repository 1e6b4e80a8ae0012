"""Gradient steps to where rows came from, every row with step lengths of its own."""

from __future__ import annotations

import copy
import math

import torch

# Lengths of steps at least and at most. Short ones are for rows between two clumps of the target: the map is steep.
_SHORTEST, _LONGEST = 1e-3, 8.0
# No step goes further than this share of where the row began and of the usual distance from the mean, in whitened
# coordinates.
_REACH = 0.1


class Descent:
    """Gradient steps to the solutions of (1 - t) C0 z + t map(z) = q, one equation for each row.

    They are taken in the metric of the mean curvature, with Barzilai and Borwein's lengths, one for each row. At t = 1
    this inverts the map, that is, evaluates the gradient of the convex conjugate.

    What the last step has led to is not known. So none goes far, and what has not come close is best taken from before:
    one row of thousands that is flung out would make training steepen the map there without end.

    Parameters
    ----------
    potential : ConvexPotential
        In whose metric steps are taken.
    q : Tensor of shape (n, n_features)
    t : Tensor of shape (n, 1), or None
        None stands for 1, and is quicker.
    z : Tensor of shape (n, n_features), optional
        Where to start; by default at the solutions for the linear map of the mean curvature.
    step : Tensor of shape (n, 1), optional
        Step lengths to start with, for example of an earlier descent.

    Attributes
    ----------
    z, step : Tensor
        Where the rows are, and the lengths of their last steps.
    residual : Tensor of shape (n, n_features)
        What was left of the equations before the last step.
    seen : Tensor of shape (n, n_features)
        Where the rows were then.

    References
    ----------
    Barzilai, Borwein, "Two-point step size gradient methods", IMA Journal of Numerical Analysis 1988.
    """

    def __init__(self, potential, q, t, z=None, step=None):
        self._potential, self._q, self._t = potential, q, t
        if t is None:  # there is one metric for all rows, and one product with it
            self._metric = potential.modes / potential.stretches @ potential.modes.T
        self.z = self._precondition(q) if z is None else z
        self.step = q.new_ones(len(q), 1) if step is None else step
        self._reach = _REACH * (math.sqrt(q.shape[1]) + self.z.norm(dim=1, keepdim=True))
        self.residual = self._direction = self._move = None

    def advance(self, moved):
        """Take a step; `moved`, of shape (n, n_features), is the map at `z`."""
        here = moved if self._t is None else torch.lerp(self.z @ self._potential.covariance0, moved, self._t)
        residual = self._q - here
        direction = self._precondition(residual)
        if self.residual is not None:
            change = self.residual - residual
            gain = (self._move * change).sum(1, keepdim=True)
            curvature = (change * (self._direction - direction)).sum(1, keepdim=True)
            usable = torch.minimum(gain, curvature) > 1e-12
            self.step = torch.where(usable, gain / curvature, self.step / 2).clamp_(_SHORTEST, _LONGEST)
        move = self.step * direction
        move *= (self._reach / move.norm(dim=1, keepdim=True)).clamp_max_(1.0)
        self.residual, self._direction, self._move = residual, direction, move
        self.z = self.z + move

    @property
    def seen(self):
        return self.z - self._move

    def far(self, close):
        """Positions of the rows whose residuals had norms above `close`."""
        return (self.residual.norm(dim=1) > close).nonzero().squeeze(1)

    def rows(self, index):
        """The descent of some rows, to go on with; `put` brings them back."""
        some = copy.copy(self)
        for name in ("_q", "_t", "z", "step", "residual", "_reach", "_direction", "_move"):
            if getattr(self, name) is not None:
                setattr(some, name, getattr(self, name).index_select(0, index))
        return some

    def put(self, index, some):
        """Take the rows at `index` to where `some` has brought them; this descent is not to advance after that."""
        for name in ("z", "step", "residual", "_move"):
            getattr(self, name).index_copy_(0, index, getattr(some, name))

    def _precondition(self, residual):
        if self._t is None:
            return residual @ self._metric
        modes, stretches = self._potential.modes, self._potential.stretches
        return (residual @ modes / (1 - self._t + self._t * stretches)) @ modes.T
