"""How the time and the memory of a fit, and of moving 100 000 new rows, grow with the number of rows.

    python benchmarks/scaling.py [--sizes 1000 10000 100000 1000000] [--transports flow "flow, 1000 steps" pot-emd ...]

The flow, with its defaults and with the same number of steps at every size, against POT's transports. Two synthetic
samples in 50 dimensions: a mixture of ten Gaussians, and other rows of it moved by the gradient of a convex function.
They are float32 files that are mapped into memory from 100 000 rows on. Every fit runs in a process of its own,
which ends when it is done, out of time or out of memory; a transport that ended so is not tried with more rows. The
table and the slopes go to benchmarks/scaling_results.md, the picture to benchmarks/scaling.png.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import own_process
from mixtures import Mixture
from peers import PEERS

HERE = Path(__file__).resolve().parent
N_FEATURES, N_NEW = 50, 100_000
MAPPED_FROM = 100_000
CHUNK = 4096
FLOWS = {"flow": {}, "flow, 1000 steps": {"max_iter": 1000, "early_stopping": False}}
TRANSPORTS = (*FLOWS, "pot-linear", "pot-emd", "pot-sinkhorn")
MEASURED = {"fit s": "seconds of fit", f"transform {N_NEW} s": "seconds of transform", "peak MiB": "peak memory (MiB)"}
COLUMNS = (*MEASURED, "mapped MiB")
PACKAGES = ("rfadapt", "torch", "numpy", "POT")


def write_samples(folder, n):
    """X0.npy and X1.npy of n rows, and X.npy of new rows of domain 0, written a chunk at a time."""
    mixture = Mixture(N_FEATURES, np.random.default_rng(0))

    def moved(k):
        return mixture.optimal_map(mixture.draw(k))

    for name, length, draw in (("X0", n, mixture.draw), ("X1", n, moved), ("X", N_NEW, mixture.draw)):
        shape = (length, N_FEATURES)
        file = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, length, 65536):
            file[start : start + 65536] = draw(min(65536, length - start))


def measure(name, folder, device):
    """Fit and transform in this process, and report each when it is done."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    size = (folder / "X0.npy").stat().st_size
    mode = "r" if size >= 4 * N_FEATURES * MAPPED_FROM else None
    X0, X1, X = (np.load(folder / f"{part}.npy", mmap_mode=mode) for part in ("X0", "X1", "X"))
    fit = fitter(name, device)
    before, start = present_memory(), time.perf_counter()
    transform = fit(X0, X1)
    own_process.report({"fit s": time.perf_counter() - start, **memory(before)})
    out = np.lib.format.open_memmap(folder / "moved.npy", mode="w+", dtype=np.float32, shape=X.shape)
    start = time.perf_counter()
    for first in range(0, len(X), CHUNK):
        out[first : first + CHUNK] = transform(X[first : first + CHUNK])
    own_process.report({f"transform {N_NEW} s": time.perf_counter() - start, **memory(before)})


def fitter(name, device):
    """A function (X0, X1) -> transform; imports what it needs, so that a measurement does not."""
    if name in PEERS:
        peer = PEERS[name]
        fit, settings = peer.load(), peer.settings | {"max_rows": None}
        if name == "pot-linear":
            settings.pop("max_rows")
        return lambda X0, X1: fit(X0, X1, **settings).transform
    from rfadapt import RectifiedFlowTransport

    n_jobs = int(os.environ["OMP_NUM_THREADS"])
    flow = RectifiedFlowTransport(random_state=0, n_jobs=n_jobs, device=device, **FLOWS[name])
    return lambda X0, X1: flow.fit(X0, X1).transform


def present_memory():
    """Peak memory so far, and pages of mapped files in memory now."""
    return {
        "peak MiB": own_process.peak_memory(),
        "mapped MiB": own_process.memory_status().get("RssFile", float("nan")),
    }


def memory(before):
    """The same, above what was there `before`."""
    return {name: value - before[name] for name, value in present_memory().items()}


def slope(sizes, values):
    """Least-squares slope of log(value) against log(size)."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-3)), 1)[0])


def series(rows, name, column):
    """Sizes and values of what was measured."""
    pairs = [(size, row[column]) for (other, size), row in rows.items() if other == name and column in row]
    return [size for size, _ in pairs], [value for _, value in pairs]


def as_text(rows, arguments):
    machine = own_process.machine(arguments.threads, PACKAGES, arguments.device)
    text = f"# Growth with the number of rows\n\n{machine} Device of the flow: {arguments.device}.\n\n"
    text += f"{N_FEATURES} features; n rows in each domain; {N_NEW} new rows moved, {CHUNK} at a time. Rows are mapped "
    text += f"from files from n = {MAPPED_FROM} on. Limits: {arguments.seconds:g} s and {arguments.mebibytes:g} MiB a "
    text += "process. Peak memory is the process's, above that after its imports. It counts the pages of mapped files "
    text += "that the system keeps in memory and can take back any time; the last column says how many they are.\n\n"
    text += "| transport | n | " + " | ".join(COLUMNS) + " | note |\n" + "|" + "---|" * (len(COLUMNS) + 3) + "\n"
    for (name, size), row in rows.items():
        cells = (f"{row[column]:.3g}" if column in row else "" for column in COLUMNS)
        text += f"| {name} | {size} | " + " | ".join(cells) + f" | {row.get('note', '')} |\n"
    text += "\n## Slopes\n\nOf the logarithm of each quantity against that of n, over the sizes that were finished "
    text += "(1 is proportional growth).\n\n| transport | " + " | ".join(MEASURED) + " | over n |\n"
    text += "|" + "---|" * (len(MEASURED) + 2) + "\n"
    for name in dict.fromkeys(name for name, _ in rows):
        points = [series(rows, name, column) for column in MEASURED]
        cells = (f"{slope(*pair):.2f}" if len(pair[0]) > 1 else "" for pair in points)
        finished = points[0][0]
        span = f"{finished[0]} to {finished[-1]}" if finished else ""
        text += f"| {name} | " + " | ".join(cells) + f" | {span} |\n"
    return text


def draw(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(MEASURED), figsize=(4 * len(MEASURED), 3.5), layout="constrained")
    for axis, (column, label) in zip(axes, MEASURED.items()):
        for name in dict.fromkeys(name for name, _ in rows):
            axis.plot(*series(rows, name, column), marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel="rows in each domain", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes)
    parser.add_argument("--transports", nargs="+", default=TRANSPORTS, choices=TRANSPORTS, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=300.0, help="time limit of a process")
    parser.add_argument("--mebibytes", type=float, default=16_000.0, help="memory limit of a process")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of the flow")
    parser.add_argument("--results", type=Path, default=HERE / "scaling_results.md", help="the picture goes beside it")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one[0], Path(arguments.one[1]), arguments.device)
        return
    rows, stopped = {}, set()
    for size in sorted(arguments.sizes):
        with tempfile.TemporaryDirectory() as folder:
            write_samples(Path(folder), size)
            for name in arguments.transports:
                if name in stopped:
                    continue
                command = [__file__, "--one", json.dumps([name, folder]), "--device", arguments.device]
                row = own_process.run(
                    command, arguments.threads, seconds=arguments.seconds, mebibytes=arguments.mebibytes
                )
                rows[name, size] = row
                if "note" in row:
                    stopped.add(name)
                print(f"n={size} {name}: {row}", flush=True)
                arguments.results.write_text(as_text(rows, arguments))
    draw(rows, arguments.results.with_name(arguments.results.stem.removesuffix("_results") + ".png"))
    print(as_text(rows, arguments))


if __name__ == "__main__":
    main()
