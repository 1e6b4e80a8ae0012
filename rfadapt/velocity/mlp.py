"""A residual multilayer perceptron with a time embedding."""

from __future__ import annotations

import math

import torch
from torch import nn


class MLPVelocity(nn.Module):
    """A residual multilayer perceptron v(x, t); it can represent any field, gradient or not.

    Every block adds to the hidden state a two-layer perceptron of its normalised value, shifted by an
    embedding of the time (sines and cosines of geometrically spaced frequencies). The field starts at zero.

    Parameters
    ----------
    n_features : int
        Width of x.
    width : int
        Width of the hidden state.
    n_blocks : int, default=3
        Number of residual blocks.
    generator : torch.Generator, optional
        Source of the initial weights.

    References
    ----------
    Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", 2021 (the residual block).

    Examples
    --------
    >>> import torch
    >>> from rfadapt.velocity import MLPVelocity
    >>> MLPVelocity(3, width=64)(torch.randn(5, 3), torch.rand(5)).shape
    torch.Size([5, 3])
    """

    #: Adam step size that suits this parametrisation.
    learning_rate = 1e-3

    def __init__(self, n_features, width, *, n_blocks=3, generator=None):
        super().__init__()
        self.width = width
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(4))
        self.inner = nn.Linear(n_features, width)
        self.blocks = nn.ModuleList(_Block(width, 2 * len(self.frequencies) + 1) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)
        self.outer = nn.Linear(width, n_features)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.in_features)
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x, t):
        t = t.unsqueeze(1)
        angles = t * self.frequencies
        time = torch.cat([t, angles.sin(), angles.cos()], dim=1)
        h = self.inner(x)
        for block in self.blocks:
            h = h + block(h, time)
        return self.outer(self.norm(h))


class _Block(nn.Module):
    def __init__(self, width, n_times):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.time = nn.Linear(n_times, width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, h, time):
        return self.second(nn.functional.silu(self.first(self.norm(h)) + self.time(time)))
