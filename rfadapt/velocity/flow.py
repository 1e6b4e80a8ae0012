"""The velocity of a flow: a fixed base and a learned rest."""

from __future__ import annotations

import torch
from torch import nn

from .phased import PhasedVelocity


class FlowVelocity(nn.Module):
    """The sum of a fixed base field and a learned one.

    Parameters
    ----------
    base : nn.Module or None
        Fixed field v(x, t).
    learned : nn.Module or None
        Trained field f(x, t).
    path : Path
        The path that the velocity belongs to.
    prediction : Prediction
        What the learned field's output means: it enters the velocity times `prediction.scale(t, path)`.
    """

    def __init__(self, base, learned, path, prediction):
        super().__init__()
        self.base, self.learned, self.path, self.prediction = base, learned, path, prediction

    @property
    def n_phases(self):
        """Number of intervals of time in which the learned field is one of its own."""
        return len(self.learned.fields) if isinstance(self.learned, PhasedVelocity) else 1

    def at_end(self, time):
        """The learned field at the end `time`, 0 or 1: that of the first phase, or of the last."""
        return self.learned.fields[-time] if isinstance(self.learned, PhasedVelocity) else self.learned

    def forward(self, x, t):
        if self.learned is None:
            return torch.zeros_like(x) if self.base is None else self.base(x, t)
        v = self.prediction.scale(t, self.path).unsqueeze(1) * self.learned(x, t)
        return v if self.base is None else self.base(x, t) + v
