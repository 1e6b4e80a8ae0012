"""Registration: images of one domain bent until their content lies where that of their partners does."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .._optimisation import Adam

# Contents are compared where their shorter side is at most so long: fine enough for strokes, and four times cheaper
# than at 32.
_MOST_SIDE = 16
# Points a side that are moved; what lies between them follows smoothly.
_POINTS = 5
_STEPS = 20
_RATE = 0.05
_ROUGHNESS = 0.2


def registered(x, content, wanted):
    """Images `x`, bent smoothly so that their content comes to lie where the wanted content is.

    Partners of a coupling are alike, but not in every detail: where the one has the bend of a stroke, the other has it
    a little further down. A field that is trained on them learns that the source does not tell where edges are. Of
    images that are translated, it does.

    Parameters
    ----------
    x : Tensor of shape (n, channels, height, width)
    content, wanted : Tensor of shape (n, any channels, height, width)
        Contents of `x` and of its partners.

    Returns
    -------
    bent : Tensor of shape (n, channels, height, width)

    References
    ----------
    Rueckert, Sonoda, Hayes, Hill, Leach, Hawkes, "Nonrigid registration using free-form deformations", IEEE TMI 1999.
    """
    here, there = (_coarse(values.mean(1, keepdim=True)) for values in (content, wanted))
    points = torch.zeros(len(x), 2, _POINTS, _POINTS, device=x.device, requires_grad=True)
    optimizer = Adam([{"params": [points], "relative_rate": 1.0}], betas=(0.9, 0.95))
    with torch.enable_grad():
        for step in range(_STEPS):
            rows, columns = points.diff(dim=2), points.diff(dim=3)
            roughness = rows.square().mean((1, 2, 3)) + columns.square().mean((1, 2, 3))
            left = (_bent(here, points) - there).square().mean((1, 2, 3)) + _ROUGHNESS * roughness
            (points.grad,) = torch.autograd.grad(left.sum(), points)
            optimizer.step(_RATE * (1 - step / _STEPS))
    return _bent(x, points.detach())


def _coarse(values):
    factor = -(-min(values.shape[2:]) // _MOST_SIDE)
    return F.avg_pool2d(values, factor) if factor > 1 else values


def _bent(x, points):
    """Images that show at every place what `x` shows as far from there as the points say (in halves of its sides)."""
    straight = torch.eye(2, 3, device=x.device).expand(len(x), 2, 3)
    moves = F.interpolate(points, size=x.shape[2:], mode="bicubic", align_corners=True).movedim(1, 3)
    places = F.affine_grid(straight, x.shape, align_corners=False) + moves
    return F.grid_sample(x, places, align_corners=False, padding_mode="border")
