"""A U-Net with time embedding, and with conditions that may be left out."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

# Images are halved until their shorter side is this long; attention is used up to there.
_LOWEST_SIDE = 8
_MOST_LEVELS = 5


class UNetVelocity(nn.Module):
    """A velocity field v(x, t | c) of images: residual blocks, halved resolutions, attention at the lowest one.

    Width doubles with every halving, up to four times the first. The field starts at zero.

    Parameters
    ----------
    image_shape : tuple (channels, height, width)
    width : int
        Channels at the highest resolution.
    patch : int, default=1
        Side of the squares of pixels that are one place of the highest resolution; 2 makes a field three times cheaper.
    n_blocks : int, default=1
        Residual blocks of each resolution, on the way down and on the way up.
    n_conditions : int, default=0
        Length of a condition vector; 0 for a field without conditions.
    map_channels : int, default=0
        So many channels of the height and width of the image come first in the condition vector. They are put beside
        the image, so that what they say of a place is known there.
    generator : torch.Generator, optional
        Source of the initial weights.

    References
    ----------
    Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015.

    Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020 (the time embedding and the attention).

    Examples
    --------
    >>> import torch
    >>> from rfadapt.velocity import UNetVelocity
    >>> UNetVelocity((3, 16, 16), width=8)(torch.randn(2, 3, 16, 16), torch.rand(2)).shape
    torch.Size([2, 3, 16, 16])
    """

    #: Adam step size that suits this parametrisation.
    learning_rate = 1e-3

    def __init__(self, image_shape, width, *, patch=1, n_blocks=1, n_conditions=0, map_channels=0, generator=None):
        super().__init__()
        channels, *sides = image_shape
        self.map_shape = (map_channels, *sides)
        if any(side % patch for side in sides):
            raise ValueError(f"The sides of images must be multiples of patch={patch}; got {tuple(sides)}.")
        if n_conditions < math.prod(self.map_shape):
            raise ValueError(
                f"n_conditions must be at least {math.prod(self.map_shape)}, the size of the map; got {n_conditions}."
            )
        n_inner, channels = (channels + map_channels) * patch**2, channels * patch**2
        sides, self.patch = [side // patch for side in sides], patch
        self.n_conditions = n_conditions
        widths = [width * min(2**level, 4) for level in range(_n_levels(sides))]
        n_embedded = 4 * width
        # Higher frequencies would let the velocity change between the few times that a solver stops at.
        self.register_buffer("frequencies", math.pi * torch.logspace(0, 1, 16))
        self.time = nn.Sequential(nn.Linear(32, n_embedded), nn.SiLU(), nn.Linear(n_embedded, n_embedded))
        n_vector = n_conditions - math.prod(self.map_shape)
        if n_vector:
            self.condition = nn.Sequential(
                nn.Linear(n_vector, n_embedded), nn.SiLU(), nn.Linear(n_embedded, n_embedded)
            )
            self.no_condition = nn.Parameter(torch.zeros(n_embedded))
        self.inner = nn.Conv2d(n_inner, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        previous, skipped = width, []
        for level, here in enumerate(widths):
            for block in range(n_blocks):
                self.down.append(_Block(previous, here, n_embedded, halve=level > 0 and block == 0))
                previous = here
                skipped.append(here)
        self.middle = nn.ModuleList([_Block(previous, previous, n_embedded), _Attention(previous)])
        self.last_middle = _Block(previous, previous, n_embedded)
        for level, here in reversed(list(enumerate(widths))):
            for block in range(n_blocks):
                double = level < len(widths) - 1 and block == 0
                self.up.append(_Block(previous, here, n_embedded, n_skipped=skipped.pop(), double=double))
                previous = here
        self.norm, self.outer = _norm(width), nn.Conv2d(width, channels, 3, padding=1)
        self._start(generator)

    def _start(self, generator):
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            # Every block begins as the identity (up to its shortcut), and the whole as zero.
            if isinstance(module, (_Block, _Attention)):
                nn.init.zeros_(module.last.weight)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x, t, condition=None, keep=None):
        """Velocity at images `x` of shape (n, channels, height, width) and times `t` of shape (n,).

        `condition`, of shape (n, n_conditions), is left out where the boolean `keep`, of shape (n,), is False.
        """
        angles = t[:, None] * self.frequencies
        embedded = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        n_map = math.prod(self.map_shape)
        if self.n_conditions > n_map:
            embedded = embedded + self._embed(None if condition is None else condition[:, n_map:], keep, len(x))
        embedded = F.silu(embedded)
        if n_map:
            x = torch.cat([x, self._map(condition, keep, x)], dim=1)
        h, skipped = self.inner(F.pixel_unshuffle(x, self.patch)), []
        for block in self.down:
            h = block(h, embedded)
            skipped.append(h)
        first, attention = self.middle
        h = self.last_middle(attention(first(h, embedded)), embedded)
        for block in self.up:
            h = block(h, embedded, skipped.pop())
        return F.pixel_shuffle(self.outer(F.silu(self.norm(h))), self.patch)

    def _map(self, condition, keep, x):
        if condition is None:
            return x.new_zeros(len(x), *self.map_shape)
        values = condition[:, : math.prod(self.map_shape)].reshape(-1, *self.map_shape)
        return values if keep is None else values * keep[:, None, None, None]

    def _embed(self, condition, keep, n):
        if condition is None:
            return self.no_condition.expand(n, -1)
        embedded = self.condition(condition)
        return embedded if keep is None else torch.where(keep[:, None], embedded, self.no_condition)


def _n_levels(sides):
    """Resolutions of images with these sides: halved while even, and while the shorter side is long enough."""
    levels = 1
    while levels < _MOST_LEVELS and min(sides) >= 2 * _LOWEST_SIDE and all(side % 2 == 0 for side in sides):
        levels, sides = levels + 1, [side // 2 for side in sides]
    return levels


def _norm(channels):
    return nn.GroupNorm(math.gcd(8, channels), channels)


class _Block(nn.Module):
    """Two convolutions around a scale and shift from the embedding, added to a shortcut."""

    def __init__(self, n_in, n_out, n_embedded, *, n_skipped=0, halve=False, double=False):
        super().__init__()
        self.halve, self.double = halve, double
        n_in += n_skipped
        self.first_norm, self.first = _norm(n_in), nn.Conv2d(n_in, n_out, 3, padding=1)
        self.embedding = nn.Linear(n_embedded, 2 * n_out)
        self.last_norm, self.last = _norm(n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x, embedded, skipped=None):
        if self.halve:
            x = F.avg_pool2d(x, 2)
        if self.double:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if skipped is not None:
            x = torch.cat([x, skipped], dim=1)
        h = self.first(F.silu(self.first_norm(x)))
        scale, shift = self.embedding(embedded)[:, :, None, None].chunk(2, dim=1)
        h = self.last(F.silu(torch.addcmul(shift, self.last_norm(h), 1 + scale)))
        return h + self.shortcut(x)


class _Attention(nn.Module):
    """Self-attention over the places of an image."""

    def __init__(self, channels):
        super().__init__()
        self.n_heads = max(1, channels // 64)
        self.norm = _norm(channels)
        self.all = nn.Conv2d(channels, 3 * channels, 1)
        self.last = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        n, channels, height, width = x.shape
        parts = self.all(self.norm(x)).reshape(n, 3, self.n_heads, -1, height * width).transpose(3, 4).unbind(1)
        out = F.scaled_dot_product_attention(*parts)
        return x + self.last(out.transpose(2, 3).reshape(n, channels, height, width))
