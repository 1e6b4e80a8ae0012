"""A convex potential at fixed parameters: its gradient, its curvature, and the equations with its gradient solved."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

# Intermediate results of this many numbers stay in a core's cache. Far larger ones made an evaluation three times
# slower.
_CACHED_NUMBERS = 131072
# Numbers in the largest intermediate result where curvatures are computed, which have one matrix for each row.
_CURVATURE_NUMBERS = 2**23
# Residual, relative to the spread, up to which a row is solved; how often gradient steps go on, twenty at a time,
# for the rows above it; and how long Newton's method tries for what is then left.
_SOLVED = 2e-4
_TRIES = 5
_NEWTON_STEPS = 15
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

    def solve(self, q, t, z=None, step=None, *, n_iter):
        """Solve (1 - t) C0 z + t map(z) = q: where a row that is at x at time `t` came from (q = R x).

        Gradient steps in the metric of the mean curvature, with Barzilai and Borwein's lengths, one for each row.
        At t = 1 this inverts the map, that is, evaluates the gradient of the convex conjugate.

        Parameters
        ----------
        q : Tensor of shape (n, n_features)
        t : Tensor of shape (n, 1), or None for 1
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
        potential = self.potential
        if t is None:  # one metric for all rows, and one product with it
            metric = potential.modes / potential.stretches @ potential.modes.T
        else:
            inverse = 1 / (1 - t + t * potential.stretches)

        def precondition(residual):
            return residual @ metric if t is None else (residual @ potential.modes * inverse) @ potential.modes.T

        def left(z):
            return q - (self.map(z) if t is None else torch.lerp(z @ potential.covariance0, self.map(z), t))

        z = precondition(q) if z is None else z
        step = q.new_ones(len(q), 1) if step is None else step
        residual = left(z)
        direction = precondition(residual)
        for _ in range(n_iter - 1):
            move = step * direction
            z = z + move
            new_residual = left(z)
            new_direction = precondition(new_residual)
            change = residual - new_residual
            gain = (move * change).sum(1, keepdim=True)
            curvature = (change * (direction - new_direction)).sum(1, keepdim=True)
            usable = (gain > 0) & (curvature > 1e-12)
            step = torch.where(usable, gain / curvature.clamp_min(1e-12), step / 2).clamp(0.02, 8.0)
            residual, direction = new_residual, new_direction
        return z + step * direction, step, residual.norm(dim=1)

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


class FrozenPotential(DisplacementEquations):
    """A `ConvexPotential` at fixed parameters, in whitened coordinates, with what evaluations share computed once.

    The linear functions see, in this order, the ridge functions times two, z, and a one: their offsets are a column of
    `linear`. As the shares of a group add up to one, what is the same for all members can be added to their weights.
    """

    @torch.no_grad()
    def __init__(self, potential):
        self.potential = potential
        root = math.sqrt(potential.directions.shape[1])
        self.ridge_directions = potential.ridge_directions @ potential.varying / root
        self.ridge_offsets = potential.ridge_offsets.detach()
        ridge_heights = nn.functional.softplus(potential.log_ridge_heights) / 2
        n_ridges, constant = len(ridge_heights), potential.constant @ potential.varying
        weights = nn.functional.softplus(potential.log_weights - math.log(n_ridges)) / 2
        directions = potential.directions @ potential.varying / root
        self.linear = torch.cat([weights, directions, potential.offsets[:, None]], dim=1)
        self.heights = nn.functional.softplus(potential.log_heights)
        # Members of a group lie len(heights) apart, so that the sums over a group run along contiguous memory.
        self.member_heights = self.heights.repeat(potential.group_size)
        self.one = torch.ones((), dtype=self.linear.dtype, device=self.linear.device)
        # The potential is linear in the inputs with these slopes, beside the soft maxima.
        self.slope = torch.cat([ridge_heights, constant, constant.new_zeros(1)])
        self.weighted = self.linear * self.member_heights[:, None] + self.slope / len(self.heights)
        learned = potential.varying @ potential.factor
        still = potential.curvature - potential.varying @ potential.curvature @ potential.varying
        self.quadratic = learned @ learned.T + (1 - potential.min_curvature) * still
        self.quadratic += potential.min_curvature * potential.curvature
        on_cpu = self.linear.device.type == "cpu"
        self.rows = max(32, _CACHED_NUMBERS // len(self.linear)) if on_cpu else 65536
        self._space = []

    def double(self):
        """The same in float64."""
        return FrozenPotential(copy.deepcopy(self.potential).double())

    def map(self, z):
        """Gradient of the potential, of shape (n, n_features)."""
        out = z @ self.quadratic
        for rows, part in zip(z.split(self.rows), out.split(self.rows)):
            _, slopes, _, shares = self._layers(rows)
            ridge_pulls, moves = self._backwards(shares)
            part.add_(moves).addmm_(ridge_pulls.mul_(slopes), self.ridge_directions)
        return out

    def value(self, z):
        """The potential, of shape (n,)."""
        convex = []
        for rows in z.split(self.rows):
            inputs, _, scores, shares = self._layers(rows)
            convex.append(self._maxima(scores, shares) @ self.heights + inputs @ self.slope)
        return torch.cat(convex) + (z @ self.quadratic * z).sum(1) / 2

    def mean_derivatives(self, z):
        """Means over rows of the potential's derivatives in what it is computed with, by name."""
        n_ridges, n_groups = len(self.ridge_offsets), len(self.heights)
        linear, heights = torch.zeros_like(self.linear), torch.zeros_like(self.heights)
        ridges = z.new_zeros(n_ridges, z.shape[1] + 1)
        for rows in z.split(self.rows):
            inputs, slopes, scores, shares = self._layers(rows)
            linear.addmm_(shares.T, inputs)
            heights += self._maxima(scores, shares).sum(0)
            ridges.addmm_(self._backwards(shares)[0].mul_(slopes).T, inputs[:, n_ridges:])
        sums = {"linear": self.member_heights[:, None] * linear, "slope": linear.sum(0) / n_groups, "heights": heights}
        sums |= {"ridges": ridges, "quadratic": z.T @ z / 2}
        return {name: total / len(z) for name, total in sums.items()}

    def curvatures(self, z):
        """Second derivative at every row, of shape (n, n_features, n_features)."""
        n_rows = max(1, _CURVATURE_NUMBERS // (len(self.linear) * z.shape[1]))
        return torch.cat([self._curvatures(rows) for rows in z.split(n_rows)])

    def _curvatures(self, z):
        _, slopes, _, shares = self._layers(z)
        n_ridges, n_groups = slopes.shape[1], len(self.heights)
        # The gradients of the linear functions at each row, and how much they differ within a group.
        gradients = self.linear[:, :n_ridges] @ (slopes[:, :, None] * self.ridge_directions)
        gradients += self.linear[:, n_ridges:-1]
        weighted = (shares * self.member_heights)[:, :, None] * gradients
        means = (shares[:, :, None] * gradients).view(len(z), -1, n_groups, z.shape[1]).sum(1)
        within = weighted.mT @ gradients - (means * self.heights[:, None]).mT @ means
        u = torch.addmm(self.ridge_offsets, z, self.ridge_directions.T)
        bends = self._backwards(shares)[0] / (1 + u.square()) ** 1.5
        return self.quadratic + within + (bends[:, :, None] * self.ridge_directions).mT @ self.ridge_directions

    def mean_curvature(self, z):
        """Mean over rows of the second derivative, of shape (n_features, n_features)."""
        return self.curvatures(z).mean(0)

    def _layers(self, z):
        """What all derivatives are made of, at rows `z`, in memory that the next call takes again.

        Returns
        -------
        inputs : Tensor of shape (n, n_ridges + n_features + 1)
            Ridge functions 2 s(u) = u + sqrt(1 + u^2), z, and ones.
        slopes : Tensor of shape (n, n_ridges)
            Derivatives 2 s'(u).
        scores, shares : Tensor of shape (n, width)
            The linear functions, and their shares in their groups (softmax).
        """
        ridges, slopes, inputs, scores, shares, _ = self._memory(len(z))
        torch.addmm(self.ridge_offsets, z, self.ridge_directions.T, out=ridges)
        torch.addcmul(self.one, ridges, ridges, out=slopes).sqrt_()  # sqrt(1 + u^2), to begin with
        torch.div(ridges.add_(slopes), slopes, out=slopes)
        inputs[:, : ridges.shape[1]], inputs[:, ridges.shape[1] : -1] = ridges, z
        torch.mm(inputs, self.linear.T, out=scores)
        torch.softmax(self._in_groups(scores), 1, out=self._in_groups(shares))
        return inputs, slopes, scores, shares

    def _memory(self, n):
        """Where the results for `n` rows go: the same places again and again, as others are not in the caches."""
        if not self._space or len(self._space[0]) < n:
            n_ridges, (width, n_inputs) = len(self.ridge_offsets), self.linear.shape
            columns = (n_ridges, n_ridges, n_inputs, width, width, n_inputs)
            self._space = [self.linear.new_ones(n, number) for number in columns]
        return [place[:n] for place in self._space]

    def _maxima(self, scores, shares):
        """Soft maxima of the groups, of shape (n, n_groups): the largest share is exp(largest score - soft maximum)."""
        return self._in_groups(scores).amax(1) - self._in_groups(shares).amax(1).log()

    def _in_groups(self, values):
        return values.view(len(values), -1, len(self.heights))

    def _backwards(self, shares):
        """Derivatives in the ridge functions and, but for the quadratic part, through the inputs z, at each row."""
        n_ridges, pulls = len(self.ridge_offsets), self._memory(len(shares))[-1]
        torch.mm(shares, self.weighted, out=pulls)
        return pulls[:, :n_ridges], pulls[:, n_ridges:-1]


class FrozenMean(DisplacementEquations):
    """The mean of frozen potentials in the same coordinates; equations are solved in the metric of the first."""

    def __init__(self, members):
        self.members, self.potential = members, members[0].potential

    def map(self, z):
        """Gradient of the potential, of shape (n, n_features)."""
        return self._mean("map", z)

    def value(self, z):
        """The potential, of shape (n,)."""
        return self._mean("value", z)

    def curvatures(self, z):
        """Second derivative at every row, of shape (n, n_features, n_features)."""
        return self._mean("curvatures", z)

    def double(self):
        """The same in float64."""
        return FrozenMean([member.double() for member in self.members])

    def _mean(self, name, z):
        return sum(getattr(member, name)(z) for member in self.members) / len(self.members)
