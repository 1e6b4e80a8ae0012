"""Digits into coloured digits in a latent space: an autoencoder is trained first, and the flow runs between its codes.

    python docs/gallery/translate_latent.py

For images that are too large to translate as pixels, put an autoencoder in place of this one that somebody has trained
already. Prints how well the autoencoder brings images back, which bounds what the translation can show, and writes
translate_latent.png: source images, translated, target images, translated back.
"""

import argparse

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from translate_images import digits, picture

from rfadapt import ImageTranslator


class Autoencoder(nn.Module):
    """Images of 16 x 16 pixels as 8 channels of 4 x 4: a sixth of the numbers."""

    def __init__(self, channels=3, width=48, n_code=8):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1), nn.SiLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.SiLU(),
            nn.Conv2d(2 * width, n_code, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(n_code, 2 * width, 3, 1, 1), nn.SiLU(), nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, width, 3, 1, 1), nn.SiLU(), nn.Upsample(scale_factor=2),
            nn.Conv2d(width, channels, 3, 1, 1),
        )  # fmt: skip

    # These two are all that `codec` asks for.

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)


def train(images, n_steps):
    """The autoencoder of images of both domains, and its error on them."""
    x = torch.from_numpy(images).movedim(-1, 1).float() / 127.5 - 1
    model = Autoencoder()
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps)
    for _ in range(n_steps):
        batch = x[torch.randint(len(x), (64,))]
        # Codes with some noise in them, so that images do not change at once where the flow misses a code by a little.
        codes = model.encode(batch)
        loss = F.mse_loss(model.decode(codes + 0.1 * torch.randn_like(codes)), batch) + 1e-3 * codes.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval().requires_grad_(False)
    return model, (model.decode(model.encode(x[:500])) - x[:500]).abs().mean().item() / 2


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-iter", type=int, default=1500, help="steps of the autoencoder, and of the flow")
    args = parser.parse_args()
    torch.manual_seed(0)
    source, target = digits(None)
    autoencoder, error = train(np.concatenate([source[12:], target[12:]]), args.max_iter)
    print(f"the autoencoder misses pixels by {100 * error:.1f} % of their range")
    translator = ImageTranslator(codec=autoencoder, max_iter=args.max_iter, random_state=0, verbose=1)
    translator.fit(source[12:], target[12:])
    rows = [source[:12], translator.transform(source[:12]), target[:12], translator.inverse_transform(target[:12])]
    picture(rows, "translate_latent.png")
    print("translate_latent.png: source, translated, target, translated back")


if __name__ == "__main__":
    main()
