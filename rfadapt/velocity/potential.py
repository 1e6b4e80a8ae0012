"""A convex potential whose gradient is an optimal map, and the exact velocity of the flow along that map."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from .affine import gaussian_map

# Intermediate results of this many numbers stay in a core's cache; larger ones made an evaluation three times slower.
_CACHED_NUMBERS = 65536
# Residual, relative to the spread, up to which a row is solved; how often gradient steps go on, twenty at a time,
# for the rows above it; and how long Newton's method tries for what is then left.
_SOLVED = 2e-4
_TRIES = 5
_NEWTON_STEPS = 15
_HALVINGS = 12


class ConvexPotential(nn.Module):
    r"""A convex function whose gradient is a candidate for the optimal map between two centred domains,

    .. math:: \varphi(x) = \sum_g h_g \log \sum_k \exp(w_{gk} \cdot z + b_{gk}) + \tfrac12 z^\top Q z + c \cdot z,
              \qquad z = P x,\; h_g > 0,\; Q \succeq \varepsilon B,

    a sum of soft maxima of linear functions in whitened coordinates z, where B is the curvature of the potential
    of the optimal map between Gaussians. Every group divides the space softly into cells and moves each cell its
    own way. The gradients in z and in the parameters are written out, two matrix products each.

    Parameters
    ----------
    covariance0, covariance1 : Tensor of shape (n_features, n_features)
        Positive definite covariances of the two domains, float64.
    width : int
        Number of linear functions, a multiple of `group_size`.
    generator : torch.Generator, optional
        Source of the initial weights.
    """

    #: Smallest curvature of the map, as a share of the Gaussian one: every conjugate has one solution.
    min_curvature = 0.1
    #: Variances below this share of their mean are raised before whitening, which would only amplify their noise.
    whitening_floor = 0.1
    #: Linear functions in a soft maximum. Two would be a ridge function; eight fitted better at every dimension.
    group_size = 8
    #: Adam step size that suits this parametrisation.
    learning_rate = 0.24

    def __init__(self, covariance0, covariance1, width, generator=None):
        super().__init__()
        n_features = len(covariance0)
        gaussian = gaussian_map(covariance0, covariance1)
        covariance0 = covariance0 + self.whitening_floor * covariance0.diagonal().mean() * torch.eye(n_features)
        eigenvalues, basis = torch.linalg.eigh(covariance0)
        root = (basis * eigenvalues.sqrt()) @ basis.T
        curvature = root @ gaussian @ root
        inverse_root = (basis / eigenvalues.sqrt()) @ basis.T
        buffers = {
            "covariance0": covariance0,
            "whitening": inverse_root,
            "unwhitening": root,
            "curvature": (curvature + curvature.T) / 2,
            "modes": torch.empty_like(root),
            "stretches": torch.empty(n_features),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.to(torch.float32).contiguous())
        self._set_metric(self.curvature)
        # Directions are stored times sqrt(n_features), so that one step size suits every number of features.
        self.directions = nn.Parameter(2.0 * torch.randn(width, n_features, generator=generator))
        self.offsets = nn.Parameter(torch.randn(width, generator=generator))
        self.log_heights = nn.Parameter(torch.full((width // self.group_size,), -5.0))
        self.factor = nn.Parameter(torch.linalg.cholesky((1 - self.min_curvature) * self.curvature))
        self.constant = nn.Parameter(torch.zeros(n_features))

    def _set_metric(self, curvature):
        """Let solutions be looked for in the metric of this curvature of the potential.

        For any t, the inverse of (1 - t) C0 + t curvature is then modes diag(1 / (1 - t + t stretches)) modes'.
        """
        inner = self.whitening @ curvature @ self.whitening
        stretches, directions = torch.linalg.eigh(((inner + inner.T) / 2).double())
        self.stretches.copy_(stretches.clamp_min(1e-6 * stretches[-1]))
        self.modes.copy_(self.whitening.double() @ directions)

    @torch.no_grad()
    def calibrate(self, z):
        """Take the mean curvature at rows `z` (in whitened coordinates) as the metric of the solutions."""
        curvature = self.frozen().mean_curvature(z)
        if torch.isfinite(curvature).all():
            self._set_metric(curvature)

    @torch.no_grad()
    def make_affine(self):
        """Switch the soft maxima off: the map is then that between Gaussians, as the factor starts."""
        self.log_heights.fill_(-30.0)
        return self

    def frozen(self) -> FrozenPotential:
        """The potential at its present parameters, for evaluation."""
        return FrozenPotential(self)

    @torch.no_grad()
    def set_gradients(self, at: FrozenPotential, z0, z1) -> None:
        """Set the parameters' `grad` to that of mean phi(z0) - mean phi(z1)."""
        d_direction, offset, height, quadratic, constant = (
            a - b for a, b in zip(at.mean_features(z0), at.mean_features(z1))
        )
        self.directions.grad = at.member_heights[:, None] * d_direction / math.sqrt(len(constant))
        self.offsets.grad = at.member_heights * offset
        self.log_heights.grad = torch.sigmoid(self.log_heights) * height
        self.factor.grad = quadratic @ self.factor
        self.constant.grad = constant


class FrozenPotential:
    """A `ConvexPotential` at fixed parameters, in whitened coordinates, with what evaluations share computed once."""

    @torch.no_grad()
    def __init__(self, potential):
        self.potential = potential
        self.directions = (potential.directions / math.sqrt(potential.directions.shape[1])).T.contiguous()
        self.offsets, self.constant = potential.offsets.detach(), potential.constant.detach()
        self.heights = nn.functional.softplus(potential.log_heights)
        # Members of a group lie len(heights) apart, so that the sums over a group run along contiguous memory.
        self.member_heights = self.heights.repeat(potential.group_size)
        self.weighted = self.directions.T * self.member_heights[:, None]
        self.quadratic = potential.factor @ potential.factor.T + potential.min_curvature * potential.curvature
        on_cpu = self.directions.device.type == "cpu"
        self.rows = max(32, _CACHED_NUMBERS // len(self.offsets)) if on_cpu else 65536

    def map(self, z):
        """Gradient of the potential, of shape (n, n_features)."""
        out = torch.addmm(self.constant, z, self.quadratic)
        for rows, part in zip(z.split(self.rows), out.split(self.rows)):
            shares, _ = self._soft_maxima(rows)
            part.addmm_(shares, self.weighted)
        return out

    def value(self, z):
        """The potential, of shape (n,)."""
        maxima = torch.cat([self._soft_maxima(rows)[1] @ self.heights for rows in z.split(self.rows)])
        return maxima + (z @ self.quadratic * z).sum(1) / 2 + z @ self.constant

    def mean_features(self, z):
        """Means over rows of what the derivatives in directions, offsets, heights, factor and constant are made of."""
        direction = z.new_zeros(len(self.offsets), z.shape[1])
        offset, height = torch.zeros_like(self.offsets), torch.zeros_like(self.heights)
        for rows in z.split(self.rows):
            shares, maxima = self._soft_maxima(rows)
            height += maxima.sum(0)
            offset += shares.sum(0)
            direction.addmm_(shares.T, rows)
        n = len(z)
        return direction / n, offset / n, height / n, z.T @ z / n, z.mean(0)

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
            precise = FrozenPotential(copy.deepcopy(self.potential).double())
            for rows in unsolved.split(256):
                z[rows] = precise._newton(q[rows].double(), t[rows].double(), z[rows].double()).to(z.dtype)
        return z, step

    def _newton(self, q, t, z):
        """Newton's method with backtracking on the convex function whose gradient is the equation's residual."""
        C0 = self.potential.covariance0

        def merit(z):
            return (1 - t[:, 0]) * (z @ C0 * z).sum(1) / 2 + t[:, 0] * self.value(z) - (q * z).sum(1)

        here = merit(z)
        for _ in range(_NEWTON_STEPS):
            gradient = torch.lerp(z @ C0, self.map(z), t) - q
            curvature = torch.lerp(C0.expand(len(z), -1, -1), self.curvatures(z), t[:, :, None])
            move = -torch.linalg.solve(curvature, gradient)
            slope = (gradient * move).sum(1)
            length, moved = torch.ones_like(slope), torch.zeros_like(slope, dtype=torch.bool)
            for _ in range(_HALVINGS):
                there = merit(z + length[:, None] * move)
                moved = there <= here + 1e-4 * length * slope
                if moved.all():
                    break
                length = torch.where(moved, length, length / 2)
            z = torch.where(moved[:, None], z + length[:, None] * move, z)
            here = merit(z)
        return z

    def curvatures(self, z):
        """Second derivative at every row, of shape (n, n_features, n_features)."""
        shares = self._soft_maxima(z)[0]
        directions = self.directions.T
        means = torch.einsum(
            "nkg,kgd->ngd",
            shares.view(len(z), -1, len(self.heights)),
            directions.reshape(-1, len(self.heights), z.shape[1]),
        )
        spread = torch.einsum("nw,wd,we->nde", shares * self.member_heights, directions, directions)
        return self.quadratic + spread - torch.einsum("ngd,nge,g->nde", means, means, self.heights)

    def mean_curvature(self, z):
        """Mean over rows of the second derivative, of shape (n_features, n_features)."""
        members = self._soft_maxima(z)[0].view(len(z), -1, len(self.heights))
        spread = torch.diag_embed(members.mean(0).T) - torch.einsum("nkg,nlg->gkl", members, members) / len(z)
        directions = self.directions.T.reshape(-1, len(self.heights), z.shape[1])
        within = torch.einsum("gkl,lgd->kgd", spread * self.heights[:, None, None], directions)
        return self.quadratic + torch.einsum("kgd,kge->de", within, directions)

    def _soft_maxima(self, z):
        """Shares of the members in their groups (softmax), of shape (n, width), and the groups' soft maxima."""
        logits = torch.addmm(self.offsets, z, self.directions)
        members = logits.view(len(z), -1, len(self.heights))
        largest = members.amax(1, keepdim=True)
        total = members.sub_(largest).exp_().sum(1, keepdim=True)
        members.div_(total)
        return logits, (largest + total.log_()).squeeze(1)

    def solve(self, q, t, z=None, step=None, *, n_iter):
        """Solve (1 - t) C0 z + t map(z) = q: where a row that is at x at time `t` came from (q = R x).

        Gradient steps in the metric of the mean curvature, with Barzilai and Borwein's lengths, one for each row.
        At t = 1 this inverts the map, that is, evaluates the gradient of the convex conjugate.

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
        potential = self.potential
        inverse = 1 / (1 - t + t * potential.stretches)

        def precondition(residual):
            return (residual @ potential.modes * inverse) @ potential.modes.T

        def left(z):
            return q - torch.lerp(z @ potential.covariance0, self.map(z), t)

        z = precondition(q) if z is None else z
        step = torch.ones_like(t) if step is None else step
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


class PotentialVelocity(nn.Module):
    r"""Exact velocity of the straight flow x_t = (1 - t) x0 + t grad phi(x0) along the gradient of a convex potential.

    Since phi is convex the paths do not cross, so that the row at x at time t came from one x0, and moves with

    .. math:: v(x, t) = \nabla\varphi(x_0) - x_0, \qquad (1 - t) x_0 + t \nabla\varphi(x_0) = x

    (McCann's displacement interpolation). At t = 0 this is one evaluation of the map; at other times the equation
    is solved. One Euler step is exact.

    Parameters
    ----------
    potential : ConvexPotential

    References
    ----------
    McCann, "A convexity principle for interacting gases", Advances in Mathematics 1997.
    """

    def __init__(self, potential):
        super().__init__()
        self.potential = potential

    @property
    def width(self):
        return len(self.potential.offsets)

    def forward(self, x, t):
        at = self.potential.frozen()
        z = x @ self.potential.whitening
        if t.any():
            z, _ = at.solve_fully(x @ self.potential.unwhitening, t.unsqueeze(1))
        return at.map(z) @ self.potential.whitening - z @ self.potential.unwhitening
