"""The velocity of a flow: a fixed base and a learned rest."""

from __future__ import annotations

import torch
from torch import nn


class FlowVelocity(nn.Module):
    """The sum of a fixed base field and a learned one.

    Parameters
    ----------
    base : nn.Module or None
        Fixed field v(x, t).
    learned : nn.Module or None
        Trained field v(x, t).
    """

    def __init__(self, base, learned):
        super().__init__()
        self.base, self.learned = base, learned

    def forward(self, x, t):
        parts = [field(x, t) for field in (self.base, self.learned) if field is not None]
        return sum(parts) if parts else torch.zeros_like(x)
