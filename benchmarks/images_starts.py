"""Is a digit translated as well from where it lies as from where the field was trained to start?

    python benchmarks/images.py mnist-m --options '{"max_iter": 800}' --save mnist-m.safetensors
    python benchmarks/images_starts.py mnist-m.safetensors

A pair is of two images that are alike, so that the field knows contents beside starts that differ from them a little.
What that costs shows when digits start as another one of the fit does, the nearest in content, with their own content.
"""

import argparse

import torch
from images import Report, mnist, mnist_m, true_translation
from sklearn.metrics import pairwise_distances_argmin
from torch.nn import functional as F

from rfadapt import ImageTranslator
from rfadapt.images.metrics import features_of
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


class Flow:
    """The fitted flow, from the starts that it is given, with the contents of other images."""

    def __init__(self, path):
        self.translator = ImageTranslator.load(path)
        self.flow = self.translator.flow_

    def codes(self, images):
        return features_of(images, self.flow.encoder)

    def __call__(self, starts, images):
        generator, moved = torch.Generator().manual_seed(0), []
        for x0, x in zip(channels_first(starts).split(50), channels_first(images).split(50)):
            end = self.flow.solve(
                self.flow.start(x0, generator), self.flow.condition(x, None), self.translator.grid()
            )
            moved.append(as_bytes(end))
        return torch.cat(moved).movedim(1, -1).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("translator", help="a file that `images.py mnist-m --save` wrote")
    flow = Flow(parser.parse_args().translator)
    (source, _), (target, labels), _ = mnist_m()
    report = Report(target, labels)
    digits, digit_labels = mnist("train", slice(12000, 12000 + N))  # neither in the fit nor in the test set
    nearest = source[pairwise_distances_argmin(flow.codes(digits), flow.codes(source))]
    rows = {
        "untranslated": digits,
        "true translation": true_translation(digits, target),
        "from the digit itself": flow(digits, digits),
        "from the nearest digit of the fit": flow(nearest, digits),
    }
    for name, images in rows.items():
        print(name, "core, ring:", *contrast(images, digits), report(images, digit_labels), flush=True)


if __name__ == "__main__":
    main()
