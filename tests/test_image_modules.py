"""Modules that were written for other libraries, wrapped as the documentation says: field, features and codec."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from test_image_translator import SOURCE, TARGET, quick
from torch import nn
from torch.nn import functional as F
from torchvision.models import squeezenet1_1


@dataclass
class Output:
    sample: torch.Tensor


class ForeignUNet(nn.Module):
    """Called as a denoising U-Net of `diffusers` is: steps from 0 to 999, tokens to attend to, an object as result."""

    def __init__(self, sample_size, in_channels, cross_attention_dim=None):
        super().__init__()
        self.config = {"sample_size": sample_size, "in_channels": in_channels}
        self.inner = nn.Conv2d(in_channels + 1, in_channels, 3, padding=1)
        self.tokens = nn.Linear(cross_attention_dim, in_channels) if cross_attention_dim else None
        self.calls = []

    def forward(self, sample, timestep, encoder_hidden_states=None, return_dict=True):
        assert timestep.shape == sample.shape[:1] and timestep.max() <= 999
        self.calls.append(encoder_hidden_states)
        steps = (timestep / 999)[:, None, None, None].expand(-1, 1, *sample.shape[2:])
        out = self.inner(torch.cat([sample, steps], dim=1))
        if encoder_hidden_states is not None:
            out = out + self.tokens(encoder_hidden_states).mean(1)[:, :, None, None]
        return Output(out) if return_dict else (out,)


class Field(nn.Module):
    """The wrapper that docs/images.md shows."""

    def __init__(self, shape, n_conditions=0):
        super().__init__()
        self.unet = ForeignUNet(shape[-1], shape[0], n_conditions or None)

    def forward(self, x, t, condition=None, keep=None):
        if condition is not None and keep is not None:
            condition = condition * keep[:, None]
        tokens = None if condition is None else condition[:, None]
        return self.unet(x, 999 * t, encoder_hidden_states=tokens).sample


def test_a_field_with_another_signature(tmp_path):
    translator = quick(velocity=Field, features="pixels", conditions=None, max_iter=150).fit(SOURCE, TARGET)
    moved = translator.transform(SOURCE)
    assert isinstance(translator.flow_.velocity.unet, ForeignUNet)
    assert np.abs(moved.mean((0, 1, 2)) - TARGET.mean((0, 1, 2))).max() < 40
    translator.save(tmp_path / "model")
    loaded = type(translator).load(tmp_path / "model", velocity=Field)
    np.testing.assert_array_equal(loaded.transform(SOURCE), moved)


def test_a_field_with_another_signature_is_told_conditions_and_guided():
    embeddings = np.random.default_rng(0).normal(size=(len(TARGET), 5)).astype(np.float32)
    translator = quick(velocity=Field, features="pixels", conditions=None, distill=True)
    translator.fit(SOURCE, TARGET, conditions0=embeddings[np.arange(96) % 80], conditions1=embeddings)
    field = translator.set_params(distill=False, guidance_scale=2.0).flow_.velocity
    field.unet.calls.clear()
    translator.transform(SOURCE[:4], conditions=embeddings[:4])
    told, untold = field.unet.calls[:2]
    torch.testing.assert_close(told[:, 0], torch.from_numpy(embeddings[:4]))
    assert (untold == 0).all()


@pytest.fixture(scope="module")
def network():
    """An untrained network of torchvision, cut to its features."""
    torch.manual_seed(0)
    return squeezenet1_1(weights=None).features[:4].eval()


def test_features_of_a_network_of_torchvision(network):
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    shapes = []

    def features(x):
        shapes.append(tuple(x.shape[1:]))
        return network(F.interpolate(((x + 1) / 2 - mean) / deviation, size=(32, 32)))  # (n, 128, ., .): flattened here

    translator = quick(features=features, conditions=None, distill=True, distill_features=features)
    before = [p.clone() for p in network.parameters()]
    moved = translator.fit(SOURCE, TARGET).transform(SOURCE[:5])
    assert set(shapes) == {(3, 8, 8)} and moved.shape == (5, 8, 8, 3)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters()))  # others' weights are left alone


class ForeignAutoencoder(nn.Module):
    """Called as an autoencoder of `diffusers` is: a distribution of codes, an object with the images."""

    @dataclass
    class Encoded:
        latent_dist: torch.distributions.Normal

    def encode(self, x, return_dict=True):
        return self.Encoded(torch.distributions.Normal(4 * F.avg_pool2d(x, 2), 1.0))

    def decode(self, z, return_dict=True):
        return Output(F.interpolate(z / 4, scale_factor=2.0))


class Codec:
    """The wrapper that docs/images.md shows."""

    def __init__(self, autoencoder):
        self.autoencoder = autoencoder

    def encode(self, x):
        return self.autoencoder.encode(x).latent_dist.mean

    def decode(self, z):
        return self.autoencoder.decode(z).sample


def test_a_codec_with_another_signature():
    translator = quick(codec=Codec(ForeignAutoencoder()), max_iter=150, features="pixels", conditions=None)
    moved = translator.fit(SOURCE, TARGET).transform(SOURCE)
    np.testing.assert_array_equal(moved[:, ::2, ::2], moved[:, 1::2, 1::2])
    assert np.abs(moved.mean((0, 1, 2)) - TARGET.mean((0, 1, 2))).max() < 40
    # The scale is taken away in the flow and given back: codes of unit spread, images of the range that they had.
    codes = translator.flow_.encode(torch.from_numpy(TARGET).movedim(-1, 1).float() / 127.5 - 1)
    assert codes.std().item() == pytest.approx(1, abs=0.1)
