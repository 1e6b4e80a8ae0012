"""The fitted flow of images: what their content is, what noise they get, and where they go."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import nn

from .content import ContentEncoder
from .spread import Spread


class ImageFlow:
    """A conditional, guided flow of images, or of their codes.

    Attributes
    ----------
    encoder : ContentEncoder or None
    codec : object or None
        encode(x), decode(z) of a latent space.
    codec_scale : Tensor
        By which codes are divided.
    velocity, student : nn.Module
        The field, and the one-step map's (None without distillation).
    spread : Spread
    """

    def __init__(self, translator, encoder, device, shape):
        self.translator, self.encoder, self.device = translator, encoder, device
        self.codec, self.codec_scale = translator.codec, torch.ones((), device=device)
        for given in (translator.codec, translator.features, translator.distill_features):
            if isinstance(given, nn.Module):
                given.to(device)
        self.velocity = self.student = self.spread = None
        self.n_content = math.prod(self.state_shape(shape)) if translator.conditions == "content" else 0
        self.n_conditions = 0

    @torch.no_grad()
    def fit_codec_scale(self, x):
        if self.codec is not None:
            self.codec_scale = self.codec.encode(x).std().clamp_min(1e-8)

    def state_shape(self, shape):
        """Shape of what flows, for images of this shape."""
        if self.codec is None:
            return shape
        with torch.no_grad():
            return tuple(self.codec.encode(torch.zeros(1, *shape, device=self.device)).shape[1:])

    @torch.no_grad()
    def encode(self, x):
        return x if self.codec is None else self.codec.encode(x) / self.codec_scale

    def start(self, x, generator, towards=None):
        """Where the flow of source images begins: their states, with the noise of what they lack (see `Spread.add`)."""
        return self.spread.add(self.encode(x), generator, towards)

    def decode(self, z):
        return z if self.codec is None else self.codec.decode(z * self.codec_scale)

    def features(self, x):
        """The space in which transport pairs images."""
        if self.translator.features == "content":
            return self.encoder(x)
        return x.flatten(1) if self.translator.features == "pixels" else self.translator.features(x).flatten(1)

    @property
    def distill_features(self):
        """What the student is compared with its teacher by, besides pixels."""
        if self.translator.distill_features is not None:
            return lambda x: self.translator.distill_features(x).flatten(1)
        return self.encoder

    @torch.no_grad()
    def condition(self, x, given, content=None):
        """Content of the images (unless it is known already) and conditions given with them, side by side."""
        if self.n_content:
            content = self.encode(self.encoder.content(x) if content is None else content).flatten(1)
        parts = [part for part in (content, given) if part is not None]
        return torch.cat(parts, dim=1) if parts else None

    @torch.no_grad()
    def solve(self, x, c, grid, *, autocast=contextlib.nullcontext):
        """The state at the end of the grid, guided."""
        return self.translator.named_solver().solve(self._guided(c, autocast), x, grid)

    @torch.no_grad()
    def states(self, x, c, grid, *, autocast=contextlib.nullcontext):
        """The states at all times of the grid."""
        return list(self.translator.named_solver().states(self._guided(c, autocast), x, grid))

    @torch.no_grad()
    def one_step(self, x, c, *, autocast=contextlib.nullcontext):
        """The student's map."""
        return x + self.evaluate(self.student, x, torch.zeros(len(x), device=x.device), c, autocast)

    def _guided(self, c, autocast):
        scale = self.translator.guidance_scale

        def velocity(x, t):
            v = self.evaluate(self.velocity, x, t, c, autocast)
            if c is None or scale == 1:
                return v
            keep = torch.zeros(len(x), dtype=torch.bool, device=x.device)
            return scale * v + (1 - scale) * self.evaluate(self.velocity, x, t, c, autocast, keep)

        return velocity

    def evaluate(self, model, x, t, c, autocast, keep=None):
        """A field at x and t, told the conditions c where `keep` is not False, in the memory format and precision."""
        x = x.contiguous(memory_format=torch.channels_last) if self.translator.channels_last else x
        with autocast():
            return model(*((x, t) if c is None else (x, t, c, keep))).float()

    def state(self):
        """All fitted tensors by name."""
        tensors = {"codec_scale": self.codec_scale}
        tensors |= {f"spread.{name}": value for name, value in vars(self.spread).items()}
        for name in ("encoder", "velocity", "student"):
            module = getattr(self, name)
            if isinstance(module, nn.Module):
                tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        return tensors

    @classmethod
    def restored(cls, translator, shape, tensors, n_conditions, device):
        """The flow that `state` described."""
        parts = {}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value.to(device)
        encoder = None
        if "encoder" in parts:
            encoder = ContentEncoder(shape).to(device, memory_format=torch.channels_last)  # as it was trained
            encoder.load_state_dict(parts["encoder"])
            encoder.eval().requires_grad_(False)
        flow = cls(translator, encoder, device, shape)
        flow.codec_scale, flow.spread = parts["codec_scale"][""], Spread(**parts["spread"])
        flow.n_conditions = n_conditions
        for name in ("velocity", "student"):
            if name in parts:
                module = translator.make_velocity(flow.state_shape(shape), n_conditions, None).to(device)
                if translator.channels_last:
                    module.to(memory_format=torch.channels_last)
                module.load_state_dict(parts[name])
                setattr(flow, name, module.eval().requires_grad_(False))
        return flow
