"""How much memory does a translation between folders take, as the folders grow?

    python benchmarks/images_memory.py

For each n a process of its own fits two folders of n images of 32 x 32 pixels by a small field for a few steps, with
one reflow, and writes the translations of one of them to a third: its peak of resident memory, over what the imports
took, and the seconds. Up to 16384 images are held in part of the fit; beyond, only the names of files should count.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import own_process

HERE = Path(__file__).resolve().parent
PACKAGES = ("rfadapt", "torch", "torchvision", "pillow")


def write_images(folder, n, seed):
    """`n` colour gradients as PNG files."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    folder.mkdir()
    for i in range(n):
        corners = Image.fromarray(rng.integers(256, size=(2, 2, 3), dtype=np.uint8))
        corners.resize((32, 32), Image.Resampling.BILINEAR).save(folder / f"{i}.png", compress_level=1)


def measure(folder):
    import torchvision.transforms.v2.functional  # noqa: F401
    from PIL import Image  # noqa: F401

    from rfadapt import ImageTranslator

    imported = own_process.peak_memory()
    start = time.perf_counter()
    translator = ImageTranslator(width=16, max_iter=20, n_reflow=1, n_steps=1, random_state=0)
    translator.fit(folder / "source", folder / "target")
    own_process.report({"fit": own_process.peak_memory() - imported, "fit seconds": time.perf_counter() - start})
    start = time.perf_counter()
    written = translator.transform(folder / "source", out=folder / "out")
    seconds = time.perf_counter() - start
    whole = own_process.peak_memory() - imported
    own_process.report({"whole": whole, "transform seconds": seconds, "written": len(written)})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, nargs="+", default=[1_000, 16_000, 64_000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments.measure)
    print(own_process.machine(1, PACKAGES) + "\n")
    print("| images a folder | decoded, MiB | peak of the fit, MiB | with transform, MiB | fit, s | transform, s |")
    print("|---|---|---|---|---|---|")
    for n in arguments.numbers:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for seed, domain in enumerate(("source", "target")):
                write_images(folder / domain, n, seed)
            row = own_process.run([os.fspath(HERE / "images_memory.py"), "--measure", name], threads=1)
        if "note" in row:
            print(f"{n}: {row['note']}", flush=True)
            continue
        assert row["written"] == n
        decoded = 2 * n * 32 * 32 * 3 / 2**20
        print(f"| {n} | {decoded:.0f} | {row['fit']:.0f} | {row['whole']:.0f} | {row['fit seconds']:.0f} | "
              f"{row['transform seconds']:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
