"""Digits into coloured digits and back: a whole translation, from data to pictures, in a few minutes on a laptop.

    python docs/gallery/translate_images.py                    # scikit-learn's digits; nothing to download
    python docs/gallery/translate_images.py cats-dogs          # these need the files of RFADAPT_DATA:
    python docs/gallery/translate_images.py mnist-m            # MNIST on photographs
    python docs/gallery/translate_images.py usps               # one post office's digits as another's
    python docs/gallery/translate_images.py colours            # dogs in the colours of cats: pixels paired, no content

Writes translate_TASK.png: some source images, translated, some target images, translated back.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from rfadapt import ImageTranslator


def resized(images, side):
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), Image.BILINEAR)) for image in images])


def digits(_):
    """Half of scikit-learn's digits as they are; the other half blended with pieces of two photographs."""
    rng = np.random.default_rng(0)
    images = resized((load_digits().images * 15.9).astype(np.uint8), 16)
    images = np.repeat(images[..., None], 3, axis=-1)[rng.permutation(len(images))]
    source, other = images[:900], images[900:].astype(int)
    photographs = [image[::8, ::8] for image in load_sample_images().images]
    pieces = []
    for _ in other:
        photograph = photographs[rng.integers(2)]
        y, x = (rng.integers(side - 16) for side in photograph.shape[:2])
        pieces.append(photograph[y : y + 16, x : x + 16])
    return source, np.abs(np.stack(pieces) - other).astype(np.uint8)


def mnist_m(data):
    source = np.load(data / "mnist.npz")["X_train"][6000:12000]
    return np.pad(source, ((0, 0), (2, 2), (2, 2))), np.load(data / "mnist_m.npz")["X"]


def usps(data):
    source = np.load(data / "mnist.npz")["X_train"][:6000, 4:24, 4:24]
    return resized(source, 16), (255 * np.load(data / "usps.npz")["X_train"]).round().astype(np.uint8)


def cats_dogs(data):
    file = np.load(data / "cats_dogs_64.npz")
    return resized(file["cats"], 32), resized(file["dogs"], 32)


def colours(data):
    source, target = cats_dogs(data)
    return target, source


TASKS = {"digits": digits, "mnist-m": mnist_m, "usps": usps, "cats-dogs": cats_dogs, "colours": colours}


def picture(rows, path):
    """Rows of images, one above the other."""
    colour = [np.broadcast_to(row.reshape(*row.shape[:3], -1), (*row.shape[:3], 3)) for row in rows]
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in colour])
    Image.fromarray(sheet).resize((2 * sheet.shape[1], 2 * sheet.shape[0]), Image.NEAREST).save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS, nargs="?", default="digits")
    parser.add_argument("--max-iter", type=int, help="optimiser steps; fewer are quicker and worse")
    args = parser.parse_args()
    data = Path(os.environ.get("RFADAPT_DATA", "../shared/data"))
    source, target = TASKS[args.task](data)
    options = {"features": "pixels", "conditions": None} if args.task == "colours" else {}
    translator = ImageTranslator(max_iter=args.max_iter or "auto", random_state=0, verbose=1, **options)
    translator.fit(source[12:], target[12:])
    rows = [source[:12], translator.transform(source[:12]), target[:12], translator.inverse_transform(target[:12])]
    rows[0] = rows[0] if rows[0].shape[1] == target.shape[1] else resized(rows[0], target.shape[1])
    picture(rows, f"translate_{args.task}.png")
    print(f"translate_{args.task}.png: source, translated, target, translated back")


if __name__ == "__main__":
    main()
