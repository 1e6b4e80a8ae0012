"""The content-keeping loss: errors count only where a domain classifier's features would notice them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_N_STEPS = 300
_BATCH = 64
_RATE = 1e-3


class DomainFeatures(nn.Module):
    """Features of a small classifier of source against target."""

    def __init__(self, n_channels, width=32):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(n_channels, width, 3, 2, 1), nn.SiLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        )  # fmt: skip
        self.outer = nn.Sequential(nn.SiLU(), nn.Linear(32 * width, 1))

    def forward(self, x):
        return self.features(x)


def fit_domain_features(draw0, draw1, *, device, n_channels, n_steps):
    """Train the classifier on images of the two domains, drawn by draw0(n) and draw1(n)."""
    model = DomainFeatures(n_channels).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    for _ in range(min(n_steps, _N_STEPS)):
        x = torch.cat([draw0(_BATCH), draw1(_BATCH)])
        is_target = torch.arange(len(x), device=device) >= _BATCH
        loss = F.binary_cross_entropy_with_logits(model.outer(model(x))[:, 0], is_target.float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def domain_loss(features, x_t, residual):
    r"""The squared change of the features, :math:`\|\nabla h(x_t)^\top r\|^2`, for an error r of the velocity.

    References
    ----------
    Liu, Gong, Liu, "Flow Straight and Fast", 2022 (image-to-image translation).
    """
    _, change = torch.func.jvp(features, (x_t,), (residual,))
    return change.square().mean()
