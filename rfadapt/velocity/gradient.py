"""A velocity field that is the gradient of a potential, as the optimal one is."""

from __future__ import annotations

import math

import torch
from torch import nn


class GradientVelocity(nn.Module):
    """The gradient in x of a sum of ridge functions whose heights and offsets move with time,

        v(x, t) = W' (h(t) * tanh(s * (W x + b(t)))) + S(t) x + c(t),        S(t) symmetric,

    with h, b, S and c polynomials in t. One matrix serves both ways and nothing is differentiated
    automatically, so that an evaluation costs two matrix products. The field starts at zero.

    The fixed sharpness s of a ridge function says over what distance it rises when training begins, which hardly
    changes it: each function keeps its scale.

    Parameters
    ----------
    n_features : int
        Width of x.
    width : int
        Number of ridge functions.
    degree : int, default=3
        Degree of the polynomials in time.
    sharpest : float, default=1.0
        How many times as sharply as the first ridge function the last one rises; the others lie between.
    generator : torch.Generator, optional
        Source of the initial weights.

    References
    ----------
    Liu, "Rectified Flow: A Marginal Preserving Approach to Optimal Transport", 2022: with gradient fields the
    iteration lowers the quadratic transport cost itself.

    Examples
    --------
    >>> import torch
    >>> from rfadapt.velocity import GradientVelocity
    >>> GradientVelocity(3, width=64)(torch.randn(5, 3), torch.rand(5)).shape
    torch.Size([5, 3])
    """

    def __init__(self, n_features, width, *, degree=3, sharpest=1.0, generator=None):
        super().__init__()
        self.width, self.degree, self.sharpest = width, degree, sharpest
        #: Adam step size that suits this parametrisation. At any one time all polynomials move together, so that a
        #: field without them needs longer steps.
        self.learning_rate = 5e-3 * (4 if degree == 0 else 1)

        def draw(*shape):
            return torch.randn(*shape, generator=generator)

        # Where there are sharp functions, shorter weights: a step turns those further, and moves the sharp field less.
        length = 1.0 if sharpest == 1 else 0.5
        self.register_buffer("sharpness", torch.logspace(0, math.log10(sharpest), width) / length, persistent=False)
        self.weight = nn.Parameter(draw(width, n_features) * (length / math.sqrt(n_features)))
        offsets = torch.zeros(degree + 1, width)
        offsets[0] = length * draw(width)
        self.offset = nn.Parameter(offsets)
        self.height = nn.Parameter(torch.zeros(degree + 1, width))
        self.linear = nn.Parameter(torch.zeros(degree + 1, n_features, n_features))
        self.constant = nn.Parameter(torch.zeros(degree + 1, n_features))

    @torch.no_grad()
    def at(self, time):
        """This field at one time, as a field of degree 0, which is cheaper.

        Parameters
        ----------
        time : float
        """
        generator = torch.Generator()  # of weights that are replaced
        still = GradientVelocity(
            self.weight.shape[1], self.width, degree=0, sharpest=self.sharpest, generator=generator
        ).to(self.weight.device)
        times = _legendre(self.weight.new_tensor([time]), self.degree)
        still.weight[:] = self.weight
        still.offset[:] = times @ self.offset
        still.height[:] = times @ self.height
        still.linear[0] = torch.einsum("k,kij->ij", times[0], self.linear)
        still.constant[:] = times @ self.constant
        return still

    def forward(self, x, t):
        if self.degree == 0 or t.stride() == (0,):
            return self._at_one_time(x, t[:1])
        times = _legendre(t, self.degree)
        ridges = torch.tanh((x @ self.weight.T + times @ self.offset) * self.sharpness)
        v = (times @ self.height * ridges) @ self.weight + times @ self.constant
        symmetric = self.linear + self.linear.transpose(1, 2)
        return v + torch.einsum("nk,nkd->nd", times, torch.einsum("ni,kid->nkd", x, symmetric))

    def _at_one_time(self, x, t):
        """The same where all rows have one time (a tensor that was expanded), in half the passes over the ridges."""
        times = _legendre(t, self.degree)[0]
        offset = self.sharpness * (times @ self.offset)
        ridges = torch.addmm(offset, x, (self.sharpness.unsqueeze(1) * self.weight).T).tanh_()
        v = torch.addmm(times @ self.constant, ridges, (times @ self.height).unsqueeze(1) * self.weight)
        linear = torch.einsum("k,kij->ij", times, self.linear)
        return torch.addmm(v, x, linear + linear.T)


def _legendre(t, degree):
    """Legendre polynomials on [0, 1] up to `degree`, of shape (n, degree + 1)."""
    s = 2 * t - 1
    values = [torch.ones_like(s), s]
    for k in range(1, degree):
        values.append(((2 * k + 1) * s * values[k] - k * values[k - 1]) / (k + 1))
    return torch.stack(values[: degree + 1], dim=1)
