"""The continuous Wasserstein-2 benchmark (Korotin et al. 2021): how far a fitted map is from the true optimal one.

    python benchmarks/w2.py --data DIR [--dims 2 4 16 64] [--budgets 30 120 300] [--transports flow emd ott-enot ...]

Every fit runs in a process of its own with the same number of threads, and no transport sees a test point. The
files w2_mix3to10_{d}.npz hold samples X0 and X1, test points X_test and where the true map takes them, T_test.
The table goes to the screen and, with the machine and the versions named, to benchmarks/w2_results.md.

With --budgets, the flow and the peers that train are fitted once for each number of seconds. The flow is then also
watched: at every check the test error of the map so far is noted, off the clock, which shows how long it takes to
reach the best peer. Other libraries come with `pip install -e '.[benchmarks]'`; those that are missing are left out.

L2-UVP is 100 mean ||T(x) - T*(x)||^2 / Var(X1), in percent; the sliced Wasserstein distance is that of the moved
test points to X1, beside that of the truly moved ones (the noise floor).
"""

import argparse
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import own_process
from peers import PEERS, Fitted

HERE = Path(__file__).resolve().parent
OURS = ("flow", "affine", "emd", "sinkhorn")
COLUMNS = ("uvp", "cosine", "cost ratio", "sliced W", "sliced W floor", "one-step uvp")
COLUMNS += ("fit s", "transform s", "peak MiB")
PACKAGES = ("rfadapt", "torch", "numpy", "POT", "torchcfm", "ott-jax", "jax")


class Watch:
    """A callback that notes the error of the map at every check, and how long training has taken without it."""

    def __init__(self, error):
        self.error, self.curve, self.seconds = error, [], 0.0
        self.start = time.perf_counter()

    def __call__(self, state):
        before = time.perf_counter()
        self.curve.append([before - self.start - self.seconds, self.error(state.snapshot().transform)])
        self.seconds += time.perf_counter() - before


def measure(name, dim, budget, data, settings):
    """One fit in this process; returns a dict of the columns."""
    import numpy as np
    import torch

    from rfadapt import metrics

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    file = np.load(Path(data) / f"w2_mix3to10_{dim}.npz")
    X0, X1, X, T = (file[key] for key in ("X0", "X1", "X_test", "T_test"))
    variance = float(file["var1"])

    def error(transform):
        return metrics.l2_uvp(transform(X), T, variance)

    watch = Watch(error)
    if name in PEERS:
        fit = partial(PEERS[name].load(), budget=budget, **PEERS[name].settings)
    else:
        in_time = {"max_time": budget, "callbacks": [watch]} if name == "flow" and budget is not None else {}
        fit = partial(own_fit, name, settings | in_time)
    before, watch.start = own_process.peak_memory(), time.perf_counter()
    fitted = fit(X0, X1)
    seconds = time.perf_counter() - watch.start - watch.seconds
    start = time.perf_counter()
    moved = fitted.transform(X)
    row = {"fit s": seconds, "transform s": time.perf_counter() - start}
    row["peak MiB"] = own_process.peak_memory() - before
    row["uvp"] = metrics.l2_uvp(moved, T, variance)
    step, true_step = moved - X, T - X
    row["cosine"] = float((step * true_step).sum() / np.linalg.norm(step) / np.linalg.norm(true_step))
    row["cost ratio"] = float((step**2).sum() / (true_step**2).sum())
    row["sliced W"] = metrics.sliced_wasserstein(moved, X1, random_state=0)
    row["sliced W floor"] = metrics.sliced_wasserstein(T, X1, random_state=0)
    if fitted.one_step is not None:
        row["one-step uvp"] = error(fitted.one_step)
    row["note"] = fitted.note
    if watch.curve:
        row["curve"] = [*watch.curve, [seconds, row["uvp"]]]
    return row


def own_fit(name, settings, X0, X1):
    """A transport of this library, fitted."""
    from rfadapt.compare import SHORT_NAMES

    transport = SHORT_NAMES[name](**settings).fit(X0, X1)
    if name != "flow":
        return Fitted(transport.transform)
    note = f"{transport.n_iter_} steps of training, solved by {transport.n_steps_} x {transport.solver_}"

    def one_step(X):
        return transport.set_params(solver="euler", n_steps=1).transform(X)

    return Fitted(transport.transform, one_step, note)


def run_alone(name, dim, budget, arguments):
    settings = {}
    if name == "flow":
        settings = {"scaling": "common", "random_state": 0, "n_jobs": arguments.threads, "device": arguments.device}
        settings |= json.loads(arguments.flow_settings)
    one = json.dumps([name, dim, budget, settings])
    return own_process.run([__file__, "--one", one, "--data", str(arguments.data)], arguments.threads)


def trains(name):
    return name == "flow" or (name in PEERS and PEERS[name].iterative)


def budgets_of(name, arguments):
    """The budgets to fit with; None for what takes the time that it takes."""
    if arguments.budgets is None:
        # Nothing says when training ends, but for the flow, which stops itself.
        return [] if name in PEERS and trains(name) else [None]
    return arguments.budgets if trains(name) else [None]


def as_table(rows):
    lines = ["| d | transport | budget s | " + " | ".join(COLUMNS) + " | note |", "|" + "---|" * (len(COLUMNS) + 4)]
    for (dim, name, budget), row in rows.items():
        cells = (f"{row[column]:.3g}" if column in row else "" for column in COLUMNS)
        head = f"| {dim} | {name} | {'' if budget is None else f'{budget:g}'} | "
        lines.append(head + " | ".join(cells) + f" | {row.get('note', '')} |")
    return "\n".join(lines)


def time_to_quality(rows, dim):
    """One line: the best peer at this dimension, with all the time it was given, and when the flow was as good."""
    finished = {key[1:]: row for key, row in rows.items() if key[0] == dim and "uvp" in row}
    largest = max((budget for name, budget in finished if budget is not None), default=None)
    peers = {key: row for key, row in finished.items() if key[0] in PEERS and key[1] in (None, largest)}
    curves = [row["curve"] for (name, _), row in finished.items() if name == "flow" and "curve" in row]
    if not peers or not curves:
        return None
    (name, _), best = min(peers.items(), key=lambda item: item[1]["uvp"])
    goal, peer_seconds = best["uvp"], best["fit s"]
    text = f"- d={dim}: the best peer is {name}, UVP {goal:.3g} after {peer_seconds:.3g} s;"
    points = [point for curve in curves for point in curve]
    seconds = min((seconds for seconds, error in points if error <= goal), default=None)
    if seconds is None:
        return f"{text} the flow does not reach it, its lowest is {min(error for _, error in points):.3g}."
    ratio = peer_seconds / seconds
    return f"{text} the flow is as good after {seconds:.3g} s. Peer's seconds over the flow's: {ratio:.3g}."


def as_text(rows, missing, arguments):
    machine = own_process.machine(arguments.threads, PACKAGES, arguments.device)
    text = f"# Wasserstein-2 benchmark\n\n{machine} Device of the flow: {arguments.device}.\n\nFlow settings beside "
    text += f'the defaults: scaling="common", {arguments.flow_settings}. Compilation and fitting count as fitting; the '
    text += "first transform is timed. Memory is the process's peak above that before fitting.\n\n"
    if missing:
        text += "Not installed, so not run: " + "; ".join(missing) + ".\n\n"
    text += as_table(rows) + "\n"
    lines = [line for dim in arguments.dims if (line := time_to_quality(rows, dim))]
    if lines:
        text += "\n## Time to the quality of the best peer\n\nOf the peer, the seconds of its fit with the largest "
        text += "budget (its own end, where it has one); of the flow, the first moment of any of its fits at which the "
        text += "map of that moment, or the one that the fit ended with, was as good.\n\n" + "\n".join(lines) + "\n"
    return text


def main():
    default = os.environ.get("RFADAPT_DATA", HERE.parent.parent / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 4, 16, 64])
    parser.add_argument("--budgets", type=float, nargs="+", help="seconds of fitting; peers that train need them")
    parser.add_argument("--transports", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS], metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--flow-settings", default="{}", help="JSON of constructor parameters beside the defaults")
    parser.add_argument("--results", type=Path, default=HERE / "w2_results.md")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        own_process.report(measure(*arguments.one[:3], arguments.data, arguments.one[3]))
        return
    if not (arguments.data / f"w2_mix3to10_{arguments.dims[0]}.npz").is_file():
        sys.exit(f"No benchmark data in {arguments.data}; point --data or RFADAPT_DATA at the folder that has it.")
    lacks = {name: PEERS[name].missing() for name in arguments.transports if name in PEERS}
    missing = [f"{name} (needs {', '.join(packages)})" for name, packages in lacks.items() if packages]
    rows = {}
    for dim in arguments.dims:
        for name in arguments.transports:
            for budget in [] if lacks.get(name) else budgets_of(name, arguments):
                row = rows[dim, name, budget] = run_alone(name, dim, budget, arguments)
                shown = {column: value for column, value in row.items() if column != "curve"}
                print(f"d={dim} {name} {budget}: {shown}", flush=True)
                # As it goes: the whole takes hours.
                arguments.results.write_text(as_text(rows, missing, arguments))
    print(as_text(rows, missing, arguments))


if __name__ == "__main__":
    main()
