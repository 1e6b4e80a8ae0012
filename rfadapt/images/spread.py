"""What the source lacks: where its pixels vary less than the target's, noise stands for what must be invented."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

_MOST_IMAGES = 4096


@dataclass
class Spread:
    """Means and variances of the source, and the standard deviation of the noise, for every pixel.

    A map can only move what is there: from digits on black it cannot make backgrounds of all colours. Noise whose
    variance at a pixel is that of the target less that of the source, and nowhere else, gives it what to make them of.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def of(cls, x0, x1, *, noise):
        """From states of the two domains; `noise` False leaves the source as it is."""
        variance = x0.var(0, correction=0)
        lack = (x1.var(0, correction=0) - variance).clamp_min(0) if noise else torch.zeros_like(variance)
        return cls(x0.mean(0), variance, lack.sqrt())

    def add(self, x, generator):
        """Source images with what they lack."""
        return x + self.deviation * smooth_noise(x, generator)

    def remove(self, y):
        """The linear estimate of source images from such with noise."""
        total = self.variance + self.deviation.square()
        share = torch.where(total > 0, self.variance / total.clamp_min(1e-12), torch.ones_like(total))
        return self.mean + share * (y - self.mean)


def smooth_noise(x, generator):
    """Noise of unit variance, shaped like `x`, with equal parts of all scales, as in natural images."""
    n, channels, height, width = x.shape
    noise, n_scales, scale = torch.zeros_like(x), 0, 1
    while scale <= max(height, width):
        small = torch.randn(n, channels, -(-height // scale), -(-width // scale), generator=generator).to(x)
        noise += F.interpolate(small, size=(height, width), mode="nearest")
        n_scales, scale = n_scales + 1, 2 * scale
    return noise / n_scales**0.5


def fit_spread(draw0, draw1, *, noise):
    """Statistics of at most 4096 images, drawn by draw0(n) and draw1(n)."""
    return Spread.of(draw0(_MOST_IMAGES), draw1(_MOST_IMAGES), noise=noise)
