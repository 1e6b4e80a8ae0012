"""Content: what of a source image survives when its colours, contrast and background change; learned without labels."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from .._optimisation import LearningRate
from .reading import held_at_once

#: Steps of training, if the fit has as many.
N_STEPS = 1500
_BATCH = 128
_PEAK_RATE = 2e-3
# Images of each domain that the encoder learns from, at most: they are held in memory.
_MOST_IMAGES = 16384


class ContentEncoder(nn.Module):
    """The content of images, by an autoencoder that undoes random styles.

    A source image is given a random style (`random_style`): other colours, tones, contrast, background. The autoencoder
    must bring back the image as it was, through a narrow code. What it brings back is then what such changes leave
    alone, and it means the same in either domain, as far as the target differs from the source by such changes.

    The code of an image still tells which domain it is from, by the style that is left in it. The images are therefore
    restored first, in either domain: features are codes of restored images, and content is those, restored again.

    Parameters
    ----------
    image_shape : tuple (channels, height, width)
    width : int, default=32
        Channels at a quarter of the sides.
    n_code : int, default=16
        Channels of the code, which has about 4 x 4 places.
    """

    def __init__(self, image_shape, width=32, n_code=16):
        super().__init__()
        channels, *sides = image_shape
        n_halvings = max(2, round(math.log2(min(sides) / 4)))
        widths = [channels] + [width * min(2**level, 4) for level in range(n_halvings)]
        self.sides = sides
        down = [_convolution(a, b, 2) for a, b in zip(widths[:-1], widths[1:])]
        self.encoder = nn.Sequential(*down, _convolution(widths[-1], widths[-1], 1), nn.Conv2d(widths[-1], n_code, 1))
        up = [
            nn.Sequential(_convolution(a, b, 1), nn.Upsample(scale_factor=2))
            for a, b in zip(widths[:0:-1], [*widths[-2:0:-1], width])
        ]
        self.decoder = nn.Sequential(
            _convolution(n_code, widths[-1], 1), *up, nn.Conv2d(width, channels, 3, padding=1)
        )
        for _ in range(n_halvings):
            sides = [-(-side // 2) for side in sides]
        self.n_features = n_code * math.prod(sides)
        self.register_buffer("mean", torch.zeros(self.n_features))
        self.register_buffer("scale", torch.ones(()))

    def restored(self, x):
        """The images without their style, and as they would look in the source."""
        return F.interpolate(self.decoder(self.encoder(x)), size=tuple(self.sides), mode="bilinear")

    def content(self, x):
        """The restored images of restored images: less of the style is left than after once, in either domain."""
        return self.restored(self.restored(x).clamp(-1, 1)).float().clamp(-1, 1)

    def forward(self, x):
        """Codes of restored images, of shape (n, n_features), with unit mean square and, in the source, zero mean."""
        codes = self.encoder(self.restored(x).clamp(-1, 1))
        return (codes.flatten(1).float() - self.mean) / self.scale


def _convolution(n_in, n_out, stride):
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.SiLU(),
    )  # fmt: skip


def fit_content_encoder(images0, images1, read, *, autocast, device, generator, n_steps, max_time=None):
    """Train a `ContentEncoder` on images of the source, with pieces of either domain as backgrounds.

    Parameters
    ----------
    images0, images1 : Images
    read : callable
        read(images, index) -> Tensor on the device, between -1 and 1.
    autocast : callable
        autocast() is the context of the training steps.
    n_steps : int
    max_time : float, optional
        Seconds at most.
    """
    x0, x1 = (_some(images, read, generator) for images in (images0, images1))
    encoder = ContentEncoder(tuple(x0.shape[1:])).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=_PEAK_RATE, weight_decay=1e-2, betas=(0.9, 0.99))
    rate = LearningRate(_PEAK_RATE, n_steps, max_time)
    encoder.train()
    iteration = 0
    while iteration < rate.last:
        x = x0[_draw(len(x0), generator)]
        half = _BATCH // 2
        backgrounds = torch.cat([x0[_draw(len(x0), generator)[:half]], x1[_draw(len(x1), generator)[half:]]])
        x = random_shift(x, generator)
        styled = random_style(x, backgrounds, generator).contiguous(memory_format=torch.channels_last)
        with autocast():
            restored = encoder.restored(styled)
        loss = F.mse_loss(restored.float(), x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate(iteration)
        optimizer.step()
        iteration += 1
        rate.foresee(iteration)
    encoder.eval().requires_grad_(False)
    with torch.no_grad():
        features = torch.cat([encoder(part) for part in x0[:4096].split(512)])
        encoder.mean += features.mean(0)
        encoder.scale *= (features - encoder.mean).square().mean().sqrt()
    return encoder


def _some(images, read, generator):
    most = held_at_once((images.channels, *images.size), _MOST_IMAGES)
    index = torch.randperm(len(images), generator=generator)[:most]
    return torch.cat([read(images, part) for part in index.split(64)])


def _draw(n, generator):
    return torch.randint(n, (_BATCH,), generator=generator)


def random_shift(x, generator):
    """Images a little turned, stretched, slanted and moved."""
    n = len(x)
    u = (2 * torch.rand(n, 6, generator=generator) - 1).to(x)
    angle, slant, size = 0.2 * u[:, 0], 0.15 * u[:, 1], 1 + 0.12 * u[:, 2]
    matrix = torch.stack([angle.cos() * size, slant - angle.sin(), angle.sin(), angle.cos() * (1 + 0.12 * u[:, 3])], 1)
    matrix = torch.cat([matrix.view(n, 2, 2), 0.1 * u[:, 4:, None]], dim=2)
    grid = F.affine_grid(matrix, x.shape, align_corners=False)
    return F.grid_sample(x, grid, align_corners=False, padding_mode="border")


def random_tones(x, generator):
    """Half of the images with their darks lightened or their lights darkened, up to two tones: strokes get thicker."""
    lift, use, power = torch.rand(3, len(x), 1, 1, 1, generator=generator).to(x)
    u = torch.where(lift < 0.5, 1 + x, 1 - x).div(2).clamp(0, 1)
    u = torch.where(u > 0, u.clamp_min(1e-6) ** torch.exp(-2.5 * power), 0) * 2 - 1
    return torch.where(use < 0.5, torch.where(lift < 0.5, u, -u), x)


def random_style(x, backgrounds, generator):
    """Images x in other tones, blended with pieces o of others: a x + b o + c x o + d, of random sizes and signs.

    Whatever of the usual ways to blend two images (add, multiply, screen, difference) is bilinear is among them.
    """
    x = random_tones(x, generator)
    n, channels = x.shape[:2]

    def uniform(*shape):
        return torch.rand(n, *shape, generator=generator).to(x)

    zoom = 0.15 + 0.85 * uniform()
    piece = torch.zeros(n, 2, 3, device=x.device)
    piece[:, 0, 0], piece[:, 1, 1] = zoom * (2 * (uniform() < 0.5) - 1), zoom
    piece[:, :, 2] = (2 * uniform(2) - 1) * (1 - zoom)[:, None]
    o = F.grid_sample(backgrounds, F.affine_grid(piece, x.shape, align_corners=False), align_corners=False)

    def amount(share):
        """One sign for all channels, sizes of their own."""
        used, sign = uniform(1, 1, 1) < share, 2 * (uniform(1, 1, 1) < 0.5) - 1
        return used * sign * (0.3 + 0.7 * uniform(channels, 1, 1))

    a, b, c = amount(0.6), amount(0.8), amount(0.6)
    a = torch.where((a == 0).all(1, keepdim=True) & (c == 0).all(1, keepdim=True), torch.ones_like(a), a)
    shift = 0.4 * torch.randn(n, channels, 1, 1, generator=generator).to(x)
    noise = torch.randn(x.shape, generator=generator).to(x) * 0.1 * uniform(1, 1, 1)
    return (a * x + b * o + c * x * o + shift + noise).clamp(-1.5, 1.5)
