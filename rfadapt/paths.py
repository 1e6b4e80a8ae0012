"""Interpolation paths between paired samples: where the pair is at time t, and how fast it moves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch


class Path(ABC):
    """A path x_t = a(t) x1 + b(t) x0 with a(0) = 0, b(0) = 1 and a(1) = 1, b(1) = 0."""

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


PATHS = {"linear": LinearPath}
