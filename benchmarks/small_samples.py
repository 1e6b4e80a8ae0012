"""Small samples: a flow's error, the energy distance of what it moves, and its time, beside POT's transports.

    python benchmarks/small_samples.py [--tasks mixture cubic affine ...] [--sizes 500x2 500x10 1000x20 ...] [--seeds 4]

Each task is a sample, and another one of the same distribution that the gradient of a convex function has moved, which
is the optimal map: a mixture of ten Gaussians and a map that bends ("mixture"), an affine one ("affine") or none
("same"); normal rows and a map that bends ("cubic"); rows with heavy tails and an affine map ("tails").

All figures are of 4000 rows that no fit has seen, as means over the seeds; seconds are those of the processor, for fit
and transform, on one thread. The flow has its defaults but `scaling="common"`, and once more with one potential.
Sinkhorn's regularisation is picked by the error itself, which favours it.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import ot
import own_process
import torch
from mixtures import Mixture

from rfadapt import RectifiedFlowTransport
from rfadapt.metrics import energy_distance, l2_uvp

HERE = Path(__file__).resolve().parent
PACKAGES = ("rfadapt", "torch", "numpy", "POT")
N_NEW = 4000
TASKS = ("mixture", "cubic", "affine", "same", "tails")
#: In units of the median cost.
REGULARISATIONS = (0.01, 0.05, 0.1, 1.0)


def task(name, n, n_features, seed):
    """Samples of both domains, new rows of the first, and where the optimal map takes these."""
    rng = np.random.default_rng(seed)
    mixture = Mixture(n_features, rng)
    draws = {
        "cubic": lambda n: rng.normal(size=(n, n_features)),
        "tails": lambda n: rng.standard_t(3, size=(n, n_features)),
    }
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(n_features, n_features)))[0]
    stretches = np.linspace(0.5, 2, n_features)
    maps = {
        "mixture": mixture.optimal_map,
        "same": lambda X: X,
        "cubic": lambda X: X + 0.3 * X**3,
        "affine": lambda X: X @ basis * stretches @ basis.T + 1,
        "tails": lambda X: 2 * X + 1,
    }
    draw, move = draws.get(name, mixture.draw), maps[name]
    X0, X1, X = draw(n), move(draw(n)), draw(N_NEW)
    return X0, X1, X, move(X)


def methods(seed):
    """Functions (X0, X1, X) -> X moved, by the name of the method and that of its setting."""

    def of_pot(transport):
        return lambda X0, X1, X: transport.fit(Xs=X0, Xt=X1).transform(X)

    def of_flow(**settings):
        flow = RectifiedFlowTransport(scaling="common", random_state=seed, n_jobs=1, **settings)
        return lambda X0, X1, X: flow.fit(X0, X1).transform(X)

    found = {("flow", ""): of_flow(), ("flow, one potential", ""): of_flow(n_estimators=1)}
    found["affine (POT)", ""] = of_pot(ot.da.LinearTransport())
    found["exact (POT)", ""] = of_pot(ot.da.EMDTransport())
    for share in REGULARISATIONS:
        found["entropic (POT)", f"{share:g}"] = of_pot(ot.da.SinkhornTransport(reg_e=share, norm="median"))
    return found


def measure(task_name, n, n_features, n_seeds):
    """Means over seeds of (UVP, energy distance, seconds), by the name of the method; of its best setting."""
    figures = {}
    for seed in range(n_seeds):
        X0, X1, X, T = task(task_name, n, n_features, seed)
        for key, move in methods(seed).items():
            start = time.process_time()
            moved = move(X0, X1, X)
            seconds = time.process_time() - start
            uvp = distance = np.inf  # Sinkhorn's plans with little regularisation may not be finite
            if np.isfinite(moved).all():
                uvp = l2_uvp(moved, T, T.var(0).sum())
                distance = energy_distance(moved, T, max_samples=N_NEW, random_state=0)
            figures.setdefault(key, []).append((uvp, distance, seconds))
    means = {key: np.mean(values, axis=0) for key, values in figures.items()}
    names = dict.fromkeys(name for name, _ in means)
    return {name: min((mean for key, mean in means.items() if key[0] == name), key=lambda m: m[0]) for name in names}


def as_table(rows):
    names = list(next(iter(rows.values())))
    lines = ["| task | rows | d | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 3)]
    for (task_name, n, n_features), figures in rows.items():
        cells = (f"{uvp:.2f}, {distance:.4f} ({seconds:.1f} s)" for uvp, distance, seconds in figures.values())
        lines.append(f"| {task_name} | {n} | {n_features} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS, metavar="NAME")
    parser.add_argument("--sizes", nargs="+", default=["500x2", "500x3", "500x10", "1000x20"], help="rows x features")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--results", type=Path, default=HERE / "small_samples_results.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for name, size in itertools.product(arguments.tasks, arguments.sizes):
        n, n_features = map(int, size.split("x"))
        rows[name, n, n_features] = measure(name, n, n_features, arguments.seeds)
        print(name, size, rows[name, n, n_features], flush=True)
    text = f"# Small samples\n\n{own_process.machine(1, PACKAGES)}\n\nL2-UVP in percent, energy distance, and CPU "
    text += f"seconds of fit and transform; means of {arguments.seeds} tasks. What they are is said in "
    text += f"small_samples.py.\n\n{as_table(rows)}\n"
    arguments.results.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
