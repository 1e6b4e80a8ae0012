"""The continuous Wasserstein-2 benchmark (Korotin et al. 2021): how far a fitted map is from the true optimal one.

    python benchmarks/w2.py --data DIR [--dims 2 4 16 64] [--transports flow affine emd sinkhorn] [--threads 1]

Every fit runs in a process of its own with the same number of threads, and no transport sees a test point. The
files w2_mix3to10_{d}.npz hold samples X0 and X1, test points X_test and where the true map takes them, T_test.
The table goes to the screen and, with the machine named, to benchmarks/w2_results.md.

L2-UVP is 100 mean ||T(x) - T*(x)||^2 / Var(X1), in percent; the sliced Wasserstein distance is that of the moved
test points to X1, beside that of the truly moved ones (the noise floor).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
COLUMNS = ("uvp", "cosine", "cost ratio", "sliced W", "sliced W floor", "one-step uvp")
COLUMNS += ("fit s", "transform s", "peak MiB")


def measure(name, dim, data, settings):
    """One fit in this process; returns a dict of the columns."""
    import numpy as np
    import torch

    from rfadapt import metrics
    from rfadapt.compare import SHORT_NAMES

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    file = np.load(Path(data) / f"w2_mix3to10_{dim}.npz")
    X0, X1, X, T = (file[key] for key in ("X0", "X1", "X_test", "T_test"))
    variance = float(file["var1"])
    transport = SHORT_NAMES[name](**settings)
    before, start = peak_memory(), time.perf_counter()
    transport.fit(X0, X1)
    fitted = time.perf_counter()
    moved = transport.transform(X)
    ended = time.perf_counter()
    row = {"fit s": fitted - start, "transform s": ended - fitted, "peak MiB": peak_memory() - before}
    row["uvp"] = metrics.l2_uvp(moved, T, variance)
    step, true_step = moved - X, T - X
    row["cosine"] = float((step * true_step).sum() / np.linalg.norm(step) / np.linalg.norm(true_step))
    row["cost ratio"] = float((step**2).sum() / (true_step**2).sum())
    row["sliced W"] = metrics.sliced_wasserstein(moved, X1, random_state=0)
    row["sliced W floor"] = metrics.sliced_wasserstein(T, X1, random_state=0)
    if name == "flow":
        row["one-step uvp"] = metrics.l2_uvp(transport.set_params(solver="euler", n_steps=1).transform(X), T, variance)
        row["note"] = f"{transport.n_iter_} steps of training, solved by {transport.n_steps_} x {transport.solver_}"
    return row


def peak_memory():
    """Largest resident memory of this process so far, in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_alone(name, dim, arguments):
    settings = {}
    if name == "flow":
        settings = {"scaling": "common", "random_state": 0, "n_jobs": arguments.threads, "device": arguments.device}
        settings |= json.loads(arguments.flow_settings)
    command = [sys.executable, __file__, "--one", name, str(dim), json.dumps(settings), "--data", str(arguments.data)]
    threads = str(arguments.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"note": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def as_table(rows):
    lines = ["| d | transport | " + " | ".join(COLUMNS) + " | note |", "|" + "---|" * (len(COLUMNS) + 3)]
    for (dim, name), row in rows.items():
        cells = (f"{row[column]:.3g}" if column in row else "" for column in COLUMNS)
        lines.append(f"| {dim} | {name} | " + " | ".join(cells) + f" | {row.get('note', '')} |")
    return "\n".join(lines)


def machine(arguments):
    cores = os.cpu_count()
    return f"{platform.machine()}, {cores} cores, {arguments.threads} thread a fit, device {arguments.device}"


def main():
    default = os.environ.get("RFADAPT_DATA", HERE.parent.parent / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 4, 16, 64])
    parser.add_argument("--transports", nargs="+", default=["flow", "affine", "emd", "sinkhorn"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--flow-settings", default="{}", help="JSON of constructor parameters beside the defaults")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, dim, settings = arguments.one
        print(json.dumps(measure(name, int(dim), arguments.data, json.loads(settings))))
        return
    if not (arguments.data / f"w2_mix3to10_{arguments.dims[0]}.npz").is_file():
        sys.exit(f"No benchmark data in {arguments.data}; point --data or RFADAPT_DATA at the folder that has it.")
    rows = {}
    for dim in arguments.dims:
        for name in arguments.transports:
            rows[dim, name] = run_alone(name, dim, arguments)
            print(f"d={dim} {name}: {rows[dim, name]}", flush=True)
    text = f"# Wasserstein-2 benchmark\n\n{machine(arguments)}. Flow settings beside the defaults: scaling=\"common\""
    text += f", {arguments.flow_settings}.\n\n{as_table(rows)}\n"
    (HERE / "w2_results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
