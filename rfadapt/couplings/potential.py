"""A convex potential whose gradient is the optimal map, fitted through Kantorovich's semi-dual."""

from __future__ import annotations

import math

import torch

# Intermediate results of this many numbers stay in a core's cache; larger ones made an evaluation three times slower.
_CACHED_NUMBERS = 65536


class ConvexPotential:
    r"""A convex function whose gradient is a candidate for the optimal map,

    .. math:: \varphi(x) = \sum_i h_i \sqrt{1 + (w_i \cdot z + b_i)^2} + \tfrac12 z^\top Q z + c \cdot z,
              \qquad z = P x,\; h_i > 0,\; Q \succeq \varepsilon B,

    a sum of ridge functions in whitened coordinates z. It starts near the potential of the optimal map between
    Gaussians, whose matrix in these coordinates is B. Gradients in x and in the parameters are written out,
    since they are two matrix products each.

    Parameters
    ----------
    covariance0, covariance1 : Tensor of shape (n_features, n_features)
        Positive definite covariances of the two (centred) domains, float64.
    width : int
        Number of ridge functions.
    generator : torch.Generator
        Source of the initial weights.
    device : torch.device
    """

    #: Smallest curvature of the map, as a share of the Gaussian one: keeps every conjugate well defined.
    min_curvature = 0.03

    def __init__(self, covariance0, covariance1, width, generator, device):
        n_features = len(covariance0)
        root, inverse_root = _roots(_raised(covariance0))
        gaussian = inverse_root @ _roots(root @ covariance1 @ root)[0] @ inverse_root
        curvature = root @ gaussian @ root

        def number(x):
            return x.to(device=device, dtype=torch.float32)

        self.whitening, self.unwhitening = number(inverse_root), number(root)
        self.curvature, self.inverse_curvature = number(curvature), number(torch.linalg.inv(curvature))
        # Directions are stored times sqrt(n_features), so that one step size suits every number of features.
        self.parameters = [
            number(1.5 * torch.randn(width, n_features, generator=generator)),
            number(torch.randn(width, generator=generator)),
            number(torch.full((width,), -5.0)),
            number(torch.linalg.cholesky((1 - self.min_curvature) * curvature)),
            number(torch.zeros(n_features)),
        ]
        self.rows = max(32, _CACHED_NUMBERS // width) if device.type == "cpu" else 65536

    def evaluator(self) -> _Evaluator:
        """The potential at its present parameters, with what every evaluation needs computed once."""
        return _Evaluator(self)

    def gradients(self, at: _Evaluator, z0, z1):
        """Gradients of mean phi(z0) - mean phi(z1) in the parameters."""
        directions, _, heights, factor, _ = self.parameters
        d_direction, offset, height, quadratic, constant = (
            a - b for a, b in zip(at.mean_features(z0), at.mean_features(z1))
        )
        h = at.heights
        scale = 1 / math.sqrt(directions.shape[1])
        return [
            h[:, None] * d_direction * scale,
            h * offset,
            torch.sigmoid(heights) * height,
            quadratic @ factor,
            constant,
        ]


class _Evaluator:
    def __init__(self, potential):
        directions, offsets, heights, factor, constant = potential.parameters
        self.potential = potential
        self.directions = (directions / math.sqrt(directions.shape[1])).T.contiguous()
        self.offsets, self.constant = offsets, constant
        self.heights = torch.nn.functional.softplus(heights)
        self.weighted = self.directions.T * self.heights[:, None]
        self.quadratic = factor @ factor.T + potential.min_curvature * potential.curvature

    def map(self, z):
        """Gradient of the potential, of shape (n, n_features)."""
        out = torch.addmm(self.constant, z, self.quadratic)
        for part, ridges in zip(out.split(self.potential.rows), self._ridges(z)):
            part.addmm_(ridges.mul_((ridges * ridges).add_(1).rsqrt_()), self.weighted)
        return out

    def value(self, z):
        """The potential, of shape (n,)."""
        ridges = [(ridges * ridges).add_(1).sqrt_() @ self.heights for ridges in self._ridges(z)]
        return torch.cat(ridges) + (z @ self.quadratic * z).sum(1) / 2 + z @ self.constant

    def mean_features(self, z):
        """Means over rows of the derivatives in directions (over heights), offsets, heights, quadratic and constant."""
        n, width = len(z), len(self.offsets)
        direction, offset, height = z.new_zeros(width, z.shape[1]), z.new_zeros(width), z.new_zeros(width)
        for rows, ridges in zip(z.split(self.potential.rows), self._ridges(z)):
            length = (ridges * ridges).add_(1).sqrt_()
            height += length.sum(0)
            ridges.div_(length)
            offset += ridges.sum(0)
            direction.addmm_(ridges.T, rows)
        return direction / n, offset / n, height / n, z.T @ z / n, z.mean(0)

    def _ridges(self, z):
        for rows in z.split(self.potential.rows):
            yield torch.addmm(self.offsets, rows, self.directions)

    def solve(self, q, z, step, n_iter):
        """Improve solutions z of map(z) = q, by gradient steps in the metric of the Gaussian map.

        The step lengths are Barzilai and Borwein's, one for each row.

        Parameters
        ----------
        q, z : Tensor of shape (n, n_features)
            Values wanted and where to start.
        step : Tensor of shape (n, 1)
            Step lengths to start with, for example from an earlier call.
        n_iter : int

        Returns
        -------
        z, step : Tensor
        residual : Tensor of shape (n,)
            |map(z) - q| one step before the last.
        """
        inverse = self.potential.inverse_curvature
        residual = q - self.map(z)
        direction = residual @ inverse
        for _ in range(n_iter - 1):
            move = step * direction
            z = z + move
            new_residual = q - self.map(z)
            new_direction = new_residual @ inverse
            change = residual - new_residual
            gain = (move * change).sum(1, keepdim=True)
            curvature = (change * (direction - new_direction)).sum(1, keepdim=True)
            usable = (gain > 0) & (curvature > 1e-12)
            step = torch.where(usable, gain / curvature.clamp_min(1e-12), step / 2).clamp(0.02, 8.0)
            residual, direction = new_residual, new_direction
        return z + step * direction, step, residual.norm(dim=1)


def _roots(matrix):
    """The symmetric square root of a positive definite matrix, and its inverse."""
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(values[-1] * 1e-12).sqrt()
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def _raised(covariance):
    """A covariance whose flat directions are raised: whitening them fully would only amplify their noise."""
    return covariance
