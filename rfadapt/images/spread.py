"""What the source lacks: where its pixels vary less than the target's, noise stands for what must be invented."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

_MOST_IMAGES = 4096


@dataclass
class Spread:
    """Means and variances of the source, and the noise: its deviation at every pixel, its scales and its colours.

    A map can only move what is there: from digits on black it cannot make backgrounds of all colours. Noise gives it
    what to make them of. Its variance at a pixel is that of the target less that of the source, and nowhere else is
    there any. It has the scales that the source lacks, so that it looks like what must be invented (backgrounds mostly
    differ as a whole, not from pixel to pixel), and its channels are correlated as the target's are.

    Attributes
    ----------
    mean, variance, deviation : Tensor of shape (channels, height, width)
        Of the source, and of the noise.
    scales : Tensor of shape (n_scales,)
        Shares of the noise's variance in squares of 1, 2, 4, ... pixels.
    mix : Tensor of shape (channels, channels)
        Times independent channels, it gives those of the noise.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    deviation: torch.Tensor
    scales: torch.Tensor
    mix: torch.Tensor

    @classmethod
    def of(cls, x0, x1, *, noise):
        """From states of the two domains; `noise` False leaves the source as it is."""
        variance = x0.var(0, correction=0)
        lack = (x1.var(0, correction=0) - variance).clamp_min(0) if noise else torch.zeros_like(variance)
        found = variances_by_scale(x1)
        scales = (found - variances_by_scale(x0)).clamp_min(0)
        scales = scales if scales.sum() > 0 else found + 1e-12
        return cls(x0.mean(0), variance, lack.sqrt(), scales / scales.sum(), _channel_factor(x1))

    def add(self, x, generator, towards=None):
        """Source images with what they lack.

        With `towards`, the target images that they are paired with, the noise is paired as well: who gets which is the
        best assignment within the batch. A bright background is then made of bright noise, along straight paths.
        """
        noise = torch.einsum("dc,nchw->ndhw", self.mix, smooth_noise(x, self.scales, generator))
        noise = self.deviation * noise
        if towards is not None:
            gain = (towards - x).flatten(1) @ noise.flatten(1).T
            noise = noise[linear_sum_assignment(gain.cpu().numpy(), maximize=True)[1]]
        return x + noise

    def remove(self, y):
        """The linear estimate of source images from such with noise."""
        total = self.variance + self.deviation.square()
        share = torch.where(total > 0, self.variance / total.clamp_min(1e-12), torch.ones_like(total))
        return self.mean + share * (y - self.mean)


def variances_by_scale(x):
    """The variance of images by scales: what squares of 1, 2, 4, ... pixels add to those of twice the side.

    Returns
    -------
    variances : Tensor of shape (n_scales,)
        Means over pixels and channels; the last is that of whole images.
    """
    x, variances = x - x.mean(0), []
    while max(x.shape[2:]) > 1:
        coarse = F.avg_pool2d(x, 2, ceil_mode=True)
        variances.append((x - F.interpolate(coarse, size=x.shape[2:])).square().mean())
        x = coarse
    return torch.stack([*variances, x.square().mean()])


def _channel_factor(x):
    """The square root of the correlations of the channels of images."""
    values = (x - x.mean(0)).transpose(0, 1).flatten(1)
    values = values / values.norm(dim=1, keepdim=True).clamp_min(1e-12)
    shares, directions = torch.linalg.eigh(values @ values.T)  # gray images leave shares at zero, up to rounding
    return (directions * shares.clamp_min(0).sqrt()) @ directions.T


def smooth_noise(x, scales, generator):
    """Noise of unit variance, shaped like `x`, with these shares of its variance in squares of 1, 2, 4, ... pixels."""
    n, channels, *sides = x.shape
    noise = torch.zeros_like(x)
    for level, share in enumerate(scales):
        small = torch.randn(n, channels, *(-(-side // 2**level) for side in sides), generator=generator).to(x)
        rows, columns = (_between(k, side).to(x) for k, side in zip(small.shape[2:], sides))
        noise += share.sqrt() * (rows.T @ small @ columns)
    return noise


def _between(k, side):
    """Weights of shape (k, side) that put `side` values between k ones, evenly and with their variance."""
    weights = F.interpolate(torch.eye(k)[None], size=side, mode="linear")[0]
    return weights / weights.square().sum(0).sqrt()


def fit_spread(draw0, draw1, *, noise):
    """Statistics of at most 4096 images, drawn by draw0(n) and draw1(n)."""
    return Spread.of(draw0(_MOST_IMAGES), draw1(_MOST_IMAGES), noise=noise)
