"""A field for each of several intervals of time."""

from __future__ import annotations

import copy

import torch
from torch import nn


class PhasedVelocity(nn.Module):
    """A field of its own in each of `n_phases` equal intervals of time: the velocity may jump from one to the next.

    At the time between two intervals it is that of the later one. Solvers look at a step's ends from within the step.

    Parameters
    ----------
    field : nn.Module
        v(x, t), with which all of them begin.
    n_phases : int

    References
    ----------
    Wang et al., "Rectified Diffusion: Straightness Is Not Your Need in Rectified Flow", 2024.

    Examples
    --------
    >>> import torch
    >>> from rfadapt.velocity import GradientVelocity, PhasedVelocity
    >>> PhasedVelocity(GradientVelocity(3, width=64), 4)(torch.randn(5, 3), torch.rand(5)).shape
    torch.Size([5, 3])
    """

    def __init__(self, field, n_phases):
        super().__init__()
        self.fields = nn.ModuleList(copy.deepcopy(field) for _ in range(n_phases))
        starts = torch.linspace(0, 1, n_phases + 1, dtype=torch.float64)[1:-1]
        self.register_buffer("starts", starts.float(), persistent=False)

    @property
    def width(self):
        return self.fields[0].width

    @property
    def learning_rate(self):
        return self.fields[0].learning_rate

    def forward(self, x, t):
        if t.stride() == (0,):
            return self.fields[self._phase(t[:1]).item()](x, t)
        phase = self._phase(t)
        order = phase.argsort()
        counts = phase.bincount(minlength=len(self.fields)).tolist()
        parts = zip(self.fields, x[order].split(counts), t[order].split(counts))
        v = torch.cat([field(x, t) for field, x, t in parts if len(x)])
        return v[order.argsort()]

    def _phase(self, t):
        return torch.bucketize(t, self.starts, right=True)
