"""The velocity of a flow: a fixed base and a learned rest."""

from __future__ import annotations

from torch import nn


class FlowVelocity(nn.Module):
    """The sum of a fixed base field and a learned one.

    Parameters
    ----------
    base : nn.Module or None
        Fixed field v(x, t).
    learned : nn.Module
        Trained field v(x, t).
    """

    def __init__(self, base, learned):
        super().__init__()
        self.base, self.learned = base, learned

    def forward(self, x, t):
        v = self.learned(x, t)
        return v if self.base is None else v + self.base(x, t)
