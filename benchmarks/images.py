"""Translation of digits without pairs: content kept, distance to the target, one step, guidance, losses.

    python benchmarks/images.py mnist-m --options '{"n_reflow": 1, "distill": true}'

No label takes part in any fit. Labels train the judge on the target, and count what it reads.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rfadapt import ImageTranslator
from rfadapt.images.metrics import content_kept, cycle_error, features_of, frechet_distance, kernel_distance

HERE = Path(__file__).parent
DATA = Path(os.environ.get("RFADAPT_DATA", HERE.parent.parent / "shared" / "data"))
# Fewer images would leave their own sampling error in the distances: 0.45 with 1000.
N_TEST = 3000


class Judge(nn.Module):
    """A small convolutional classifier, trained with labels on the domain that it judges."""

    def __init__(self, channels):
        super().__init__()
        widths = [channels, 32, 64, 128]
        layers = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
                          nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in zip(widths[:-1], widths[1:])
        ]  # fmt: skip
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(64, 10))

    def features(self, x):
        return self.body(x)

    def forward(self, x):
        return self.head(self.body(x))

    def predict(self, images):
        return features_of(images, self).argmax(1)


def train_judge(images, labels, *, n_steps=600, seed=0):
    """The judge, trained on images moved by up to two pixels."""
    torch.manual_seed(seed)
    judge, n = Judge(images.shape[-1]), len(images)
    x = torch.from_numpy(images).movedim(-1, 1).float() / 127.5 - 1
    y = torch.as_tensor(labels).long()
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps)
    for _ in range(n_steps):
        index = torch.randint(n, (128,))
        dx, dy = torch.randint(-2, 3, (2,)).tolist()
        batch = F.pad(x[index], (2, 2, 2, 2), mode="replicate").roll((dy, dx), (2, 3))[..., 2:-2, 2:-2]
        loss = F.cross_entropy(judge(batch), y[index], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


def mnist(part, rows):
    file = np.load(DATA / "mnist.npz")
    images = np.pad(file[f"X_{part}"][rows], ((0, 0), (2, 2), (2, 2)))
    return np.repeat(images[..., None], 3, axis=-1), file[f"y_{part}"][rows].astype(int)


def mnist_m():
    """Source: images 6000 to 11999 of MNIST; target: MNIST-M, made of images 0 to 5999; test: MNIST's test set."""
    file = np.load(DATA / "mnist_m.npz")
    return mnist("train", slice(6000, 12000)), (file["X"], file["y"].astype(int)), mnist("test", slice(N_TEST))


def true_translation(images, target):
    """The hidden answer: MNIST-M inverts a photograph wherever a digit of MNIST is not black."""
    rows = slice(len(images))  # not the ones that distances are measured to
    backgrounds = np.where(mnist("train", rows)[0] > 0, 255 - target[rows], target[rows])
    return np.where(images > 0, 255 - backgrounds, backgrounds)


def usps():
    """Source: 6000 images of MNIST at 16 x 16; target: USPS's training set; test: MNIST's and USPS's test sets."""
    from torchvision.transforms.v2.functional import resize

    def small(rows, part):
        file = np.load(DATA / "mnist.npz")
        images = torch.from_numpy(file[f"X_{part}"][rows])[:, None]
        # USPS fills its frame: the 20 x 20 pixels that MNIST's digits were drawn in, and no border.
        images = resize(images[..., 4:24, 4:24], [16, 16], antialias=True)
        return images.movedim(1, -1).numpy(), file[f"y_{part}"][rows].astype(int)

    file = np.load(DATA / "usps.npz")
    target, test = (
        ((255 * file[f"X_{part}"][..., None]).round().astype(np.uint8), file[f"y_{part}"].astype(int))
        for part in ("train", "test")
    )
    return small(slice(6000, 12000), "train"), target, small(slice(N_TEST), "test"), test


class Report:
    """Content kept, as a judge of the target reads it, and distances to half of the target.

    These are in 64 features of another judge, which was trained on the other half: features of images that it was
    trained on are further apart than those of others. And they are in 8 x 8 pixels.
    """

    def __init__(self, target, labels):
        half = len(target) // 2
        self._judge, self._witness = train_judge(target, labels), train_judge(target[:half], labels[:half])
        self._target = target[half:]

    def __call__(self, translated, labels):
        pair = translated, self._target[: len(translated)]
        seen, wanted = (features_of(images, self._witness.features) for images in pair)
        small, small_wanted = (features_of(images, lambda x: F.adaptive_avg_pool2d(x, 8)) for images in pair)
        return {
            "content kept": round(100 * content_kept(translated, labels, self._judge.predict), 1),
            "frechet": round(frechet_distance(seen, wanted), 3),
            "kernel": round(kernel_distance(seen, wanted), 4),
            "frechet of pixels": round(frechet_distance(small, small_wanted), 2),
        }


def grid(rows, path):
    """Rows of images, one above the other, as one PNG."""
    from torchvision.transforms.v2.functional import to_pil_image
    from torchvision.utils import make_grid

    n = len(rows[0])
    tiles = torch.from_numpy(np.concatenate([np.broadcast_to(r, (*r.shape[:3], 3)) for r in rows])).movedim(-1, 1)
    to_pil_image(make_grid(tiles, nrow=n, padding=1)).save(path)


class Log:
    """Results, one JSON object a line, as they come."""

    def __init__(self, task):
        self.path, self.start = HERE / f"images_{task}.jsonl", (time.time(), time.process_time())
        self.path.write_text("")

    def __call__(self, name, **values):
        wall, cpu = time.time() - self.start[0], time.process_time() - self.start[1]
        line = {"what": name, **values, "wall_s": round(wall), "cpu_s": round(cpu)}
        print(json.dumps(line), flush=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def run_mnist_m(args):
    log = Log(args.task)
    (X0, _), (X1, y1), (test, labels) = mnist_m()
    report = Report(X1, y1)
    log("untranslated", **report(test, labels))
    log("true translation", **report(true_translation(test, X1), labels))
    translator = ImageTranslator(random_state=args.seed, **args.options).fit(X0, X1)
    log("fit", history=translator.history_)
    if args.save:
        translator.save(args.save)
    flow = translator.set_params(distill=False) if args.options.get("distill") else translator
    for scale in args.guidance:
        moved = flow.set_params(guidance_scale=scale).transform(test)
        log(f"flow, guidance {scale}", **report(moved, labels))
    flow.set_params(guidance_scale=args.options.get("guidance_scale", 1.0))
    moved = flow.transform(test)
    rows = [test[:12], moved[:12]]
    if args.options.get("distill"):
        once = flow.set_params(distill=True).transform(test)
        log("one step", **report(once, labels))
        rows.append(once[:12])
        flow.set_params(distill=False)
    log("there and back", cycle_error=round(cycle_error(flow, test[:300]), 4))
    rows += [X1[:12], flow.inverse_transform(X1[:12])]
    grid(rows, HERE / f"images_{args.task}.png")
    back = flow.inverse_transform(X1[:1000])
    source_judge = train_judge(X0, mnist("train", slice(6000, 12000))[1])
    log("target to source", content_kept=round(100 * content_kept(back, y1[:1000], source_judge.predict), 1),
        untranslated=round(100 * content_kept(X1[:1000], y1[:1000], source_judge.predict), 1))  # fmt: skip


def run_usps(args):
    from rfadapt import AdaptedClassifier, CoralTransport  # noqa: F401

    log = Log(args.task)
    (X0, y0), (X1, _), (test, labels), (test1, labels1) = usps()
    log("source only", accuracy=round(100 * content_kept(test1, labels1, train_judge(X0, y0).predict), 2))
    flat0, flat1 = (X.reshape(len(X), -1) / 255.0 for X in (X0, X1))
    coral = CoralTransport().fit(flat0, flat1).transform(flat0)
    coral = (255 * coral.clip(0, 1)).round().astype(np.uint8).reshape(X0.shape)
    log("CORAL", accuracy=round(100 * content_kept(test1, labels1, train_judge(coral, y0).predict), 2))
    translator = ImageTranslator(random_state=args.seed, **args.options).fit(X0, X1)
    log("fit", history=translator.history_)
    moved = translator.transform(X0)
    log("translated", accuracy=round(100 * content_kept(test1, labels1, train_judge(moved, y0).predict), 2))
    grid([X0[:12], moved[:12], X1[:12], translator.inverse_transform(X1[:12])], HERE / f"images_{args.task}.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["mnist-m", "usps"])
    parser.add_argument("--options", type=json.loads, default={}, help="parameters of ImageTranslator, as JSON")
    parser.add_argument("--guidance", type=float, nargs="*", default=[1.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", help="where to save the translator")
    args = parser.parse_args()
    {"mnist-m": run_mnist_m, "usps": run_usps}[args.task](args)


if __name__ == "__main__":
    main()
