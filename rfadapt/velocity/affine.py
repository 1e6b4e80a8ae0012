"""The exact velocity of the optimal map between two Gaussians: the base that the learned fields start from."""

from __future__ import annotations

import torch
from torch import nn


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

        r = min(1, mean_i ||(x_i - m)(x_i - m)' - S_k||^2 / n_k / ||S_k - T||^2).

    Two samples of one distribution so get nearly the same covariance and the map between them stays near the
    identity, however few they are. The pool itself is pulled towards its diagonal by a ridge that keeps it
    invertible.

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
    pool = (n0 * moments0.covariance + n1 * moments1.covariance) / (n0 + n1)
    return _shrunk(moments0, pool), _shrunk(moments1, pool)


def _shrunk(moments, pool):
    S = moments.covariance
    noise = max(float(moments.fourth - S.square().sum()), 0.0) / moments.n
    distance = float((S - pool).square().sum())
    shrinkage = 1.0 if distance <= noise else noise / distance
    covariance = (1 - shrinkage) * S + shrinkage * pool
    # A direction that neither domain varies in is left alone: the same ridge on both sides maps it by 1.
    ridge = 1e-6 * pool.diagonal().mean() + torch.finfo(S.dtype).tiny
    return covariance + ridge * torch.eye(len(S), dtype=S.dtype, device=S.device)
