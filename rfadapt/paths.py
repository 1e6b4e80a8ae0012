"""Interpolation paths between paired samples: where the pair is at time t, and how fast it moves."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch


class Path(ABC):
    """A path x_t = a(t) x1 + b(t) x0 with a(0) = 0, b(0) = 1 and a(1) = 1, b(1) = 0.

    Where a pair is and how fast it moves tell where it began and ends, as long as a'(t) b(t) - a(t) b'(t), here the
    *determinant*, is positive.
    """

    @abstractmethod
    def coefficients(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """a(t), b(t) and their exact derivatives a'(t), b'(t), each of the shape of `t`."""

    def sample(self, x0: torch.Tensor, x1: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Position and velocity of the pairs at their times.

        Parameters
        ----------
        x0, x1 : Tensor of shape (n, n_features)
            Paired samples of the two domains.
        t : Tensor of shape (n,)
            Times in [0, 1].

        Returns
        -------
        x_t, dx_t : Tensor of shape (n, n_features)
        """
        a, b, da, db = (c.unsqueeze(1) for c in self.coefficients(t))
        return a * x1 + b * x0, da * x1 + db * x0

    def determinant(self, t: torch.Tensor) -> torch.Tensor:
        """a'(t) b(t) - a(t) b'(t), of the shape of `t`; 1 for the straight line."""
        a, b, da, db = self.coefficients(t)
        return da * b - a * db

    def endpoints(self, x_t: torch.Tensor, dx_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The pair that is at `x_t` and moves with `dx_t` at time `t`: the inverse of `sample`.

        Parameters
        ----------
        x_t, dx_t : Tensor of shape (n, n_features)
        t : Tensor of shape (n,)

        Returns
        -------
        x0, x1 : Tensor of shape (n, n_features)
        """
        a, b, da, db = (c.unsqueeze(1) for c in self.coefficients(t))
        determinant = da * b - a * db
        return (da * x_t - a * dx_t) / determinant, (b * dx_t - db * x_t) / determinant

    def endpoints_between(
        self, x_s: torch.Tensor, x_t: torch.Tensor, s: torch.Tensor, t: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The pair whose path is at `x_s` at time `s` and at `x_t` at time `t`.

        Parameters
        ----------
        x_s, x_t : Tensor of shape (n, n_features)
        s, t : Tensor of shape (n,)
            Different times, in any order.

        Returns
        -------
        x0, x1 : Tensor of shape (n, n_features)
        """
        a_s, b_s, _, _ = (c.unsqueeze(1) for c in self.coefficients(s))
        a_t, b_t, _, _ = (c.unsqueeze(1) for c in self.coefficients(t))
        determinant = a_t * b_s - a_s * b_t
        return (a_t * x_s - a_s * x_t) / determinant, (b_s * x_t - b_t * x_s) / determinant


@dataclass(frozen=True)
class LinearPath(Path):
    """The straight line x_t = t x1 + (1 - t) x0 of rectified flow (Liu, Gong, Liu 2022).

    Examples
    --------
    >>> import torch
    >>> from rfadapt.paths import LinearPath
    >>> x_t, dx_t = LinearPath().sample(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.25]))
    >>> x_t.tolist(), dx_t.tolist()
    ([[0.25, 0.25]], [[1.0, 1.0]])
    """

    def coefficients(self, t):
        one = torch.ones_like(t)
        return t, 1 - t, one, -one


@dataclass(frozen=True)
class TrigonometricPath(Path):
    r"""A quarter of a circle at constant speed,

    .. math:: x_t = \sin(\tfrac{\pi}{2} t)\, x_1 + \cos(\tfrac{\pi}{2} t)\, x_0,

    which keeps the variance of uncorrelated pairs of equal variance.

    References
    ----------
    Albergo, Vanden-Eijnden, "Building Normalizing Flows with Stochastic Interpolants", ICLR 2023.

    Examples
    --------
    >>> import torch
    >>> from rfadapt.paths import TrigonometricPath
    >>> a, b, _, _ = TrigonometricPath().coefficients(torch.tensor([0.0, 0.5, 1.0]))
    >>> [round(x, 4) for x in a.tolist()], [round(x, 4) for x in b.tolist()]
    ([0.0, 0.7071, 1.0], [1.0, 0.7071, 0.0])
    """

    def coefficients(self, t):
        quarter = math.pi / 2
        # The sine of the rest and not the cosine, which is not 0 at the end in floating point.
        a, b = torch.sin(quarter * t), torch.sin(quarter * (1 - t))
        return a, b, quarter * b, -quarter * a


@dataclass(frozen=True)
class VariancePreservingPath(Path):
    r"""The variance preserving path of diffusion models,

    .. math:: a(t) = \frac{\alpha(t) - \alpha(0)}{1 - \alpha(0)}, \quad b(t) = \sqrt{1 - a(t)^2}, \quad
              \alpha(t) = \exp(-\tfrac14 \beta_{\max} (1 - t)^2).

    The published path has :math:`a = \alpha`, whose start is :math:`\alpha(0) = 0.007` for the usual
    :math:`\beta_{\max}`; this one is shifted and stretched by that much, so that it begins at x0 exactly. The rate
    :math:`\beta` falls to 0 at t = 1: with a positive rest b would end as a square root, at an infinite speed.

    Parameters
    ----------
    beta_max : float, default=20.0
        Rate at t = 0.

    References
    ----------
    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021.

    Examples
    --------
    >>> import torch
    >>> from rfadapt.paths import VariancePreservingPath
    >>> a, b, _, _ = VariancePreservingPath().coefficients(torch.linspace(0, 1, 5))
    >>> bool(torch.allclose(a**2 + b**2, torch.ones(5)))
    True
    """

    beta_max: float = 20.0

    def __post_init__(self):
        _check_rates(self, 0.0)

    def coefficients(self, t):
        s, rest, slope = _decay(t, 0.0, self.beta_max)
        a = 1 - rest
        b = torch.sqrt(rest * (1 + a))
        # a' / b, whose numerator and denominator both vanish at t = 1.
        limit = math.sqrt(self.beta_max / -math.expm1(-self.beta_max / 4) / 2)
        ratio = torch.where(s > 0, slope / torch.where(s > 0, b, 1.0), limit)
        return a, b, slope, -a * ratio


@dataclass(frozen=True)
class SubVariancePreservingPath(Path):
    r"""The sub-VP path of diffusion models, whose variance stays below that of the ends,

    .. math:: a(t) = \frac{\alpha(t) - \alpha(0)}{1 - \alpha(0)}, \quad b(t) = 1 - a(t)^2, \quad
              \alpha(t) = \exp(-\tfrac14 (\beta_{\max} - \beta_{\min}) (1 - t)^2 - \tfrac12 \beta_{\min} (1 - t)),

    shifted to begin at x0 exactly, as `VariancePreservingPath`.

    Parameters
    ----------
    beta_min : float, default=0.1
        Rate at t = 1; positive, since no pair would move there else.
    beta_max : float, default=20.0
        Rate at t = 0.

    References
    ----------
    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021.

    Examples
    --------
    >>> import torch
    >>> from rfadapt.paths import SubVariancePreservingPath
    >>> a, b, _, _ = SubVariancePreservingPath().coefficients(torch.tensor([0.0, 1.0]))
    >>> a.tolist(), b.tolist()
    ([0.0, 1.0], [1.0, 0.0])
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        if not self.beta_min > 0:
            raise ValueError(f"SubVariancePreservingPath: beta_min must be positive; got {self.beta_min}.")
        _check_rates(self, self.beta_min)

    def coefficients(self, t):
        _, rest, slope = _decay(t, self.beta_min, self.beta_max)
        a = 1 - rest
        return a, rest * (1 + a), slope, -2 * a * slope


def _check_rates(path, beta_min):
    # An upper bound keeps the shift by alpha(0) from being lost in float32, and a' from vanishing at t = 0.
    if not max(beta_min, 0.1) <= path.beta_max <= 40.0:
        raise ValueError(
            f"{type(path).__name__}: beta_max must lie between {max(beta_min, 0.1):g} and 40; got {path.beta_max}."
        )


def _decay(t, beta_min, beta_max):
    """1 - t, and for a(t) made of alpha(t): 1 - a(t) without cancellation, and a'(t)."""
    s = 1 - t
    curvature, slope = (beta_max - beta_min) / 4, beta_min / 2

    def lost(s):
        return -torch.expm1(-s * (curvature * s + slope))

    # The same function at s = 1, so that the path begins at x0 to the last digit.
    whole = lost(torch.ones_like(s))
    rest = lost(s) / whole
    rate = (2 * curvature * s + slope) * torch.exp(-s * (curvature * s + slope)) / whole
    return s, rest, rate


PATHS = {
    "linear": LinearPath,
    "vp": VariancePreservingPath,
    "sub-vp": SubVariancePreservingPath,
    "trigonometric": TrigonometricPath,
}
