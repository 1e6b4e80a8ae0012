"""A convex potential whose gradient is an optimal map, and the exact velocity of the flow along that map."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from .affine import gaussian_map
from .frozen import FrozenMean, FrozenPotential


class ConvexPotential(nn.Module):
    r"""A convex function whose gradient is a candidate for the optimal map between two centred domains,

    .. math:: \varphi(x) = \sum_g h_g \log \sum_k \exp(w_{gk} \cdot z + v_{gk} \cdot s(z) + b_{gk})
              + a \cdot s(z) + \tfrac12 z^\top Q z + c \cdot z, \qquad z = P x,\; Q \succeq \varepsilon B,

    .. math:: s_j(z) = \sigma(r_j \cdot z + o_j), \quad \sigma(u) = (u + \sqrt{1 + u^2}) / 2, \qquad
              h_g, v_{gk}, a > 0,

    soft maxima of functions that are linear in whitened coordinates z and increasing in convex ridge functions s(z),
    where B is the curvature of the potential of the optimal map between Gaussians. Every group divides the space
    softly into cells, whose walls the ridge functions bend, and moves each cell its own way. The gradients in z and
    in the parameters are written out.

    Parameters
    ----------
    covariance0, covariance1 : Tensor of shape (n_features, n_features)
        Positive definite covariances of the two domains, float64.
    width : int
        Number of functions in the soft maxima, a multiple of `group_size`. Each has an offset, and as many slopes as it
        takes to make max(128, 3 n_features) inputs (of up to 8 features 96), or up to 15 more: there are n_features
        coordinates, and the other inputs are ridge functions, at most half as many as `width`.
    generator : torch.Generator, optional
        Source of the initial weights.
    varying : Tensor of shape (n_features, n_features), optional
        Projection onto the directions in which rows vary (`varying_directions`), all by default. In the others the map
        stays the one between Gaussians: no row would show that it had moved there.

    References
    ----------
    Amos, Xu, Kolter, "Input Convex Neural Networks", ICML 2017.
    """

    #: Variances below this share of their mean are raised before whitening, which would only amplify their noise.
    whitening_floor = 0.1
    #: Functions in a soft maximum; eight fitted better than two, four or sixteen.
    group_size = 8
    #: Adam step size of the directions that suits this parametrisation.
    learning_rate = 0.24

    def __init__(self, covariance0, covariance1, width, generator=None, *, varying=None):
        super().__init__()
        n_features = len(covariance0)
        # Smallest curvature of the map, as a share of the Gaussian one, so that every conjugate has one solution. In
        # few features there are rows enough to show where the map is flatter.
        self.min_curvature = 0.1 * min(1.0, n_features / 16)
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
            "varying": torch.eye(n_features) if varying is None else varying,
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.to(torch.float32).contiguous())
        self._set_metric(self.curvature)
        # Directions are stored times sqrt(n_features), so that one step size suits every number of features.
        self.directions = nn.Parameter(2.0 * torch.randn(width, n_features, generator=generator))
        self.offsets = nn.Parameter(torch.randn(width, generator=generator))
        n_inputs = max(96 if n_features <= 8 else 128, 3 * n_features)
        n_inputs += -n_inputs % 16  # products with other numbers of columns are up to a tenth slower
        n_ridges = min(width // 2, n_inputs - n_features - 1)
        self.ridge_directions = nn.Parameter(2.0 * torch.randn(n_ridges, n_features, generator=generator))
        self.ridge_offsets = nn.Parameter(torch.randn(n_ridges, generator=generator))
        self.log_ridge_heights = nn.Parameter(torch.full((n_ridges,), -5.0))
        self.log_weights = nn.Parameter(torch.randn(width, n_ridges, generator=generator))
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
        """Leave the quadratic part alone: the map is then that between Gaussians, as the factor starts."""
        self.log_heights.fill_(-30.0)
        self.log_ridge_heights.fill_(-30.0)
        return self

    @torch.no_grad()
    def shrunk(self, share) -> ConvexPotential:
        """The mean of this potential and of one whose map is that between Gaussians.

        Parameters
        ----------
        share : float
            Weight of this potential, from 0 to 1.

        Returns
        -------
        ConvexPotential
            Another one, whose value, map and curvatures are the weighted means of those of the two.
        """
        shrunk = copy.deepcopy(self)
        for parameter in (shrunk.log_heights, shrunk.log_ridge_heights):
            heights = (share * nn.functional.softplus(parameter)).clamp_min(1e-30)
            parameter.copy_(heights + torch.log(-torch.expm1(-heights)))  # of which they are the softplus
        shrunk.constant.mul_(share)
        gaussian = (1 - self.min_curvature) * self.curvature
        quadratic = share * self.factor @ self.factor.T + (1 - share) * gaussian
        shrunk.factor.copy_(torch.linalg.cholesky(quadratic.double()))
        root = self.unwhitening @ self.unwhitening @ self.modes
        shrunk._set_metric(share * root * self.stretches @ root.T + (1 - share) * self.curvature)
        return shrunk

    def frozen(self) -> FrozenPotential:
        """The potential at its present parameters, for evaluation."""
        return FrozenPotential(self)

    @torch.no_grad()
    def set_gradients(self, at: FrozenPotential, z0, z1) -> None:
        """Set the parameters' `grad` to that of mean phi(z0) - mean phi(z1)."""
        change = at.mean_differences(z0, z1)
        n_ridges, root = len(self.ridge_offsets), math.sqrt(len(self.constant))
        # (The frozen potential has half the weights and heights, of ridge functions times two.)
        inputs = [n_ridges, len(self.constant), 1]
        weights, directions, offsets = change["linear"].split(inputs, dim=1)
        ridge_heights, constant, _ = change["slope"].split(inputs)
        self.directions.grad = directions @ self.varying / root
        self.log_weights.grad = torch.sigmoid(self.log_weights - math.log(n_ridges)) * weights / 2
        self.offsets.grad = offsets.squeeze(1)
        self.log_heights.grad = torch.sigmoid(self.log_heights) * change["heights"]
        self.ridge_directions.grad = change["ridges"][:, :-1] @ self.varying / root
        self.ridge_offsets.grad = change["ridges"][:, -1]
        self.log_ridge_heights.grad = torch.sigmoid(self.log_ridge_heights) * ridge_heights / 2
        self.factor.grad = 2 * self.varying @ change["quadratic"] @ self.varying @ self.factor
        self.constant.grad = constant @ self.varying

    def parameter_groups(self):
        """Groups for the optimiser, with step sizes relative to that of the directions."""
        fast = [self.directions, self.ridge_directions]
        known = {id(value) for value in (*fast, self.log_weights, self.factor)}
        others = [value for value in self.parameters() if id(value) not in known]
        n_features = len(self.constant)
        rate = 1 / math.sqrt(n_features)
        weights_rate = max(1.0, 4 * rate)
        # The logarithms of the weights wander by the noise of the gradients, and a map with large weights is steep:
        # the more features there are, the harder they are pulled back to where they began.
        decay = 6e-4 * math.sqrt(n_features) / weights_rate
        return [
            {"params": fast, "relative_rate": 1.0},
            {"params": [self.log_weights], "relative_rate": weights_rate, "weight_decay": decay},
            {"params": others, "relative_rate": rate},
            # If all of its entries move alike, its largest singular value moves n_features times as far as they do.
            {"params": [self.factor], "relative_rate": min(rate, 4 / n_features)},
        ]


class PotentialVelocity(nn.Module):
    r"""Exact velocity of the straight flow x_t = (1 - t) x0 + t grad phi(x0) along the gradient of a convex potential.

    Since phi is convex the paths do not cross, so that the row at x at time t came from one x0, and moves with

    .. math:: v(x, t) = \nabla\varphi(x_0) - x_0, \qquad (1 - t) x_0 + t \nabla\varphi(x_0) = x

    (McCann's displacement interpolation). At t = 0 this is one evaluation of the map; at other times the equation
    is solved. One Euler step is exact.

    Parameters
    ----------
    *potentials : ConvexPotential
        Between the same two domains, of one width; phi is their mean, whose gradient is the mean of their maps.

    References
    ----------
    McCann, "A convexity principle for interacting gases", Advances in Mathematics 1997.
    """

    def __init__(self, *potentials):
        super().__init__()
        self.potentials = nn.ModuleList(potentials)

    @property
    def width(self):
        return len(self.potentials[0].offsets)

    @property
    def n_estimators(self):
        return len(self.potentials)

    def forward(self, x, t):
        whitening, unwhitening = self.potentials[0].whitening, self.potentials[0].unwhitening
        frozen = [potential.frozen() for potential in self.potentials]
        at = FrozenMean(frozen) if len(frozen) > 1 else frozen[0]
        if not t.any():
            return torch.addmm(x, at.map(x @ whitening), whitening, beta=-1)
        t = t.unsqueeze(1)
        z0 = at.solve_fully(x @ unwhitening, t)
        x0 = z0 @ unwhitening
        # The two differ by what is left of the equation. Late, it must not move rows off x0: the map may be steep.
        return torch.where(t < 0.5, at.map(z0) @ whitening - x0, (x - x0) / t)
