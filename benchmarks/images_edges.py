"""Why strokes of translated digits have soft edges: is it what the flow is told, or what it makes of it?

    python benchmarks/images.py mnist-m --options '{"max_iter": 800}' --save mnist-m.safetensors
    python benchmarks/images_edges.py mnist-m.safetensors

MNIST-M's image i is made of MNIST's image i. That is used here, to look, and in no fit.
"""

import argparse

import numpy as np
import torch
from images import Report, mnist, mnist_m, true_translation
from torch.nn import functional as F

from rfadapt import ImageTranslator
from rfadapt.images.reading import as_bytes, as_floats

N = 500


def channels_first(images):
    """Images (n, height, width, channels) as floats between -1 and 1."""
    return as_floats(torch.from_numpy(images).movedim(-1, 1))


def contrast(images, digits):
    """Mean contrast of strokes of `digits` against what is around them: of their middle, and of their soft edges."""
    x, gray = channels_first(images).mean(1), torch.from_numpy(digits[..., 0])
    around = (F.max_pool2d((gray > 0).float()[:, None], 5, 1, 2)[:, 0] > 0) & (gray == 0)
    core, ring, around = (
        (x * part).sum((1, 2)) / part.sum((1, 2)).clamp_min(1)
        for part in (gray > 200, (gray > 0) & (gray < 128), around)
    )
    sign = (core - around).sign()
    return round((sign * (core - around)).mean().item(), 2), round((sign * (ring - around)).mean().item(), 2)


def ink(contents):
    """Of contents, a row each: mean ink, and how many pixels are more than half inked."""
    gray = contents.view(len(contents), 3, -1).mean(1)
    return round(((gray + 1) / 2).sum(1).mean().item(), 1), round((gray > 0).sum(1).float().mean().item(), 1)


class Flow:
    """The fitted flow, told the contents that it is given."""

    def __init__(self, path):
        self.translator = ImageTranslator.load(path)
        self.flow = self.translator.flow_

    def contents(self, images):
        return torch.cat([self.flow.condition(channels_first(part), None) for part in np.array_split(images, 10)])

    def __call__(self, images, contents):
        generator, moved = torch.Generator().manual_seed(0), []
        for x, c in zip(channels_first(images).split(50), contents.split(50)):
            end = self.flow.solve(self.flow.start(x, generator), c, self.translator.grid())
            moved.append(as_bytes(end))
        return torch.cat(moved).movedim(1, -1).numpy()


def with_values_of(contents, wanted):
    """A map of contents: each pixel value becomes the one of its rank in `wanted`."""
    shares = np.linspace(0, 1, 257)
    known, wanted = (np.quantile(values.numpy(), shares) for values in (contents, wanted))
    return lambda c: torch.from_numpy(np.interp(c.numpy(), known + 1e-6 * np.arange(257), wanted)).float()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("translator", help="a file that `images.py mnist-m --save` wrote")
    flow = Flow(parser.parse_args().translator)
    _, (target, labels), _ = mnist_m()
    report = Report(target, labels)
    hidden, _ = mnist("train", slice(N))
    digits, digit_labels = mnist("train", slice(12000, 12000 + N))  # neither in the fit nor in the test set
    told = {"source": digits, "hidden source of the target": hidden, "target": target[:N]}
    told = {name: flow.contents(images) for name, images in told.items()}
    for name, contents in told.items():
        print("contents of the", name, "ink, pixels inked:", *ink(contents))
    alike = with_values_of(told["source"], told["target"])
    rows = {
        "true translation": (true_translation(digits, target), digits, digit_labels),
        "flow": (flow(digits, told["source"]), digits, digit_labels),
        "flow, contents given the target's values": (flow(digits, alike(told["source"])), digits, digit_labels),
        "flow, told the target's own contents": (flow(hidden, told["target"]), hidden, labels[:N]),
    }
    for name, (images, of, y) in rows.items():
        print(name, "core, ring:", *contrast(images, of), report(images, y))


if __name__ == "__main__":
    main()
