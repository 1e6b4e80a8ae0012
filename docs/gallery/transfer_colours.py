"""The colours of one picture in another: every pixel is a row of three numbers, and the flow moves rows.

    python docs/gallery/transfer_colours.py                    # scikit-learn's photographs; nothing to download
    python docs/gallery/transfer_colours.py cats-dogs          # a sheet of cats in the colours of dogs (RFADAPT_DATA)

Writes colours_TASK.jpg: each of the two pictures, and the same in the colours of the other.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from PIL import Image

from rfadapt import RectifiedFlowTransport
from rfadapt.datasets import load_photograph_colours
from rfadapt.metrics import energy_distance

N_ROWS = 20000


def photographs(_):
    data = load_photograph_colours()
    return data.image0[::2, ::2], data.image1[::2, ::2]


def cats_dogs(data):
    """Four rows of six cats, and as many dogs, each as one picture."""
    file = np.load(data / "cats_dogs_64.npz")
    return tuple(
        np.concatenate([np.concatenate(list(row), axis=1) for row in file[name][:24].reshape(4, 6, 64, 64, 3)]) / 255.0
        for name in ("cats", "dogs")
    )


TASKS = {"photographs": photographs, "cats-dogs": cats_dogs}


def moved(move, picture):
    """The picture with its pixels moved; those that end outside of what a screen shows are brought to its edge."""
    return move(picture.reshape(-1, 3)).reshape(picture.shape).clip(0, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS, nargs="?", default="photographs")
    parser.add_argument("--max-iter", type=int, default=2000, help="optimiser steps; fewer are quicker and worse")
    args = parser.parse_args()
    first, second = TASKS[args.task](Path(os.environ.get("RFADAPT_DATA", "../shared/data")))
    rng = np.random.default_rng(0)
    X0, X1 = (rng.permutation(picture.reshape(-1, 3))[:N_ROWS] for picture in (first, second))
    # "common": red, green and blue are in one unit already.
    transport = RectifiedFlowTransport(scaling="common", max_iter=args.max_iter, random_state=0).fit(X0, X1)
    there, back = moved(transport.transform, first), moved(transport.inverse_transform, second)
    before, after = (
        energy_distance(picture.reshape(-1, 3), second.reshape(-1, 3), max_samples=5000, random_state=0)
        for picture in (first, there)
    )
    print(f"energy distance of colours: {before:.4f} before, {after:.4f} after")
    sheet = np.concatenate([np.concatenate([first, there], axis=1), np.concatenate([second, back], axis=1)])
    name = f"colours_{args.task}.jpg"
    Image.fromarray((255 * sheet).round().astype(np.uint8)).save(name, quality=80)
    print(f"{name}: each picture, and the same in the colours of the other")


if __name__ == "__main__":
    main()
