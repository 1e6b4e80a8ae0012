"""The exact velocity of the optimal map between two Gaussians: the base that the learned fields start from."""

from __future__ import annotations

import torch
from torch import nn

# Share of the largest variance below which a variance is rounding: rows do not vary in that direction.
_ROUNDING = 1e-10


class AffineVelocity(nn.Module):
    """Velocity along `path` of the linear optimal map x1 = A x0 between centred Gaussians.

    A = C0^(-1/2) (C0^(1/2) C1 C0^(1/2))^(1/2) C0^(-1/2) is symmetric and positive, and a pair that starts at
    x0 is at (a(t) A + b(t) I) x0 at time t, so that

        v(x, t) = (a'(t) A + b'(t) I) (a(t) A + b(t) I)^(-1) x,

    the gradient of a quadratic form, evaluated in the eigenbasis of A.

    Parameters
    ----------
    covariance0, covariance1 : Tensor of shape (n_features, n_features)
        Positive definite covariances of the two domains (float64 recommended).
    path : Path
        Interpolation path whose velocity is wanted.

    References
    ----------
    Gelbrich, "On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces",
    Mathematische Nachrichten 1990.

    Examples
    --------
    >>> import torch
    >>> from rfadapt.paths import LinearPath
    >>> from rfadapt.velocity import AffineVelocity
    >>> v = AffineVelocity(torch.eye(1), 9 * torch.eye(1), LinearPath())   # x1 = 3 x0
    >>> round(v(torch.ones(1, 1), torch.zeros(1)).item(), 4)
    2.0
    """

    def __init__(self, covariance0, covariance1, path):
        super().__init__()
        self.path = path
        eigenvalues, basis = torch.linalg.eigh(gaussian_map(covariance0, covariance1))
        self.register_buffer("eigenvalues", eigenvalues.to(torch.float32))
        self.register_buffer("basis", basis.to(torch.float32))

    def forward(self, x, t):
        a, b, da, db = (c.unsqueeze(1) for c in self.path.coefficients(t))
        rate = (da * self.eigenvalues + db) / (a * self.eigenvalues + b)
        return (rate * (x @ self.basis)) @ self.basis.T


def gaussian_map(covariance0: torch.Tensor, covariance1: torch.Tensor) -> torch.Tensor:
    """The symmetric matrix A of the optimal map between N(0, covariance0) and N(0, covariance1)."""
    root, inverse_root = _square_root(covariance0)
    middle, _ = _square_root(root @ covariance1 @ root)
    A = inverse_root @ middle @ inverse_root
    return (A + A.T) / 2


def _square_root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(values[-1] * torch.finfo(matrix.dtype).eps * len(values)).sqrt()
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def shrunk_covariances(moments0, moments1) -> tuple[torch.Tensor, torch.Tensor]:
    """Covariances of the two domains, each pulled towards their pool as far as its sample is small.

    Domain k with n_k rows, empirical covariance S_k and pool T gets (1 - r) S_k + r T with Ledoit and Wolf's

        r = mean_i ||(x_i - m)(x_i - m)' - S_k||^2 / n_k / ||S_k - T||^2,

    no less than 2 / n_k and no more than 1. Two samples of one distribution so get nearly the same covariance and
    the map between them stays near the identity, however few they are. The pool itself is pulled in the same way
    towards a multiple of the identity, so that directions in which few rows vary are left alone.

    Parameters
    ----------
    moments0, moments1 : object with attributes n, covariance, fourth
        Rows, empirical covariance of shape (n_features, n_features) and mean of ||x - mean||^4.

    Returns
    -------
    covariance0, covariance1 : Tensor of shape (n_features, n_features)

    References
    ----------
    Ledoit, Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
    Multivariate Analysis 2004.
    """
    n0, n1 = moments0.n, moments1.n
    n, pool, fourth = n0 + n1, *(
        (n0 * a + n1 * b) / (n0 + n1)
        for a, b in ((moments0.covariance, moments1.covariance), (moments0.fourth, moments1.fourth))
    )
    # Where nothing varies at all, both domains get the same covariance: the map is then the identity.
    unit = float(pool.diagonal().mean()) or 1.0
    pool = _shrunk(n, pool, fourth, unit * torch.eye(len(pool), dtype=pool.dtype, device=pool.device))
    return tuple(_shrunk(m.n, m.covariance, m.fourth, pool) for m in (moments0, moments1))


def varying_directions(moments0, moments1) -> torch.Tensor:
    """The projection onto the directions in which any row of either domain varies.

    Parameters
    ----------
    moments0, moments1 : object with attributes n, covariance
        Rows, and empirical covariance of shape (n_features, n_features).

    Returns
    -------
    projection : Tensor of shape (n_features, n_features)
        The identity itself where rows vary in all directions.
    """
    pool = (moments0.n * moments0.covariance + moments1.n * moments1.covariance) / (moments0.n + moments1.n)
    variances, directions = torch.linalg.eigh(pool)
    directions = directions[:, variances > _ROUNDING * variances[-1]]
    if directions.shape[1] == len(pool):
        return torch.eye(len(pool), dtype=pool.dtype)
    return directions @ directions.T


def _shrunk(n, covariance, fourth, target):
    noise = max(float(fourth - covariance.square().sum()), 0.0) / n
    distance = float((covariance - target).square().sum())
    least = min(1.0, 2 / n)
    shrinkage = 1.0 if distance <= noise else max(least, noise / distance)
    return (1 - shrinkage) * covariance + shrinkage * target
