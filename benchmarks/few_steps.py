"""What few evaluations of the field cost: error and energy distance against the number of evaluations a row.

    python benchmarks/few_steps.py --data DIR [--dims 2 16 64] [--days 2 3] [--steps 600] [--seed 0] [--lines ...]
    python benchmarks/few_steps.py --data DIR --distillation [--steps 3000] [--width auto] [--seed 0]
    python benchmarks/few_steps.py --speed [--rows 1000000]

The first fits velocity fields on the Wasserstein-2 benchmark (files w2_mix3to10_{d}.npz, whose true map is known) and
from one day to the next of single-cell data (citeseq_pca50_day_{k}.npy), and moves the same test rows with 1, 2, 3, 4,
6, 8 and 16 evaluations a row:

    no reflow, 1 reflow, 2 reflows      on pairs drawn independently, Euler's method on the uniform grid
    bellman                             no reflow, on the Bellman-optimal grid
    straightened                        no reflow, students of the Bellman grid of 4 steps
    distilled                           students of a single step, after 1 reflow
    mlp, mlp bellman                    no reflow, a residual perceptron as the field
    vp, sub-vp, trigonometric           other paths, no reflow, the DDIM step
    rectified diffusion                 vp after 1 reflow
    phased                              the same in 4 phases, each first-order by itself

The second asks for the cost of a single step alone: optimal pairs (independent ones with --pairings 0), one reflow and
distillation, against many steps.
The third moves many rows with the distilled flow and with the default of the same flow, in turns.

"error" is 100 times the mean squared distance from where the same flow ends with many steps, "UVP" (L2-UVP) that from
the true map, both relative to the target's variance. The energy distance is that of the moved test rows to the target.
"""

import argparse
import copy
import os
import shlex
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import own_process

HERE = Path(__file__).resolve().parent
STEPS = (1, 2, 3, 4, 6, 8, 16)
PACKAGES = ("rfadapt", "torch", "numpy", "POT")
LINES = ("no reflow", "bellman", "straightened", "1 reflow", "2 reflows", "distilled", "mlp", "mlp bellman", "vp",
         "sub-vp", "trigonometric", "rectified diffusion", "phased")  # fmt: skip
PLAIN = {"distill": False, "straighten": False, "schedule": "uniform", "n_steps": None}
MANY = {**PLAIN, "solver": "rk4", "n_steps": 24}


class Task:
    """Two samples, test rows and, where it is known, where the true map takes them."""

    def __init__(self, name, X0, X1, X, target, truth=None, variance=None):
        self.name, self.X0, self.X1, self.X, self.target, self.truth = name, X0, X1, X, target, truth
        self.variance = float(target.var(0).sum()) if variance is None else variance


def w2_task(folder, dim):
    file = np.load(folder / f"w2_mix3to10_{dim}.npz")
    X0, X1, X, T = (file[key] for key in ("X0", "X1", "X_test", "T_test"))
    return Task(f"W2, d={dim}", X0, X1, X, X1[:4096], T, float(file["var1"]))


def cell_task(folder, day):
    X0, X1 = (np.load(folder / f"citeseq_pca50_day_{k}.npy") for k in (day, day + 1))
    rng = np.random.default_rng(0)
    X0, X1 = rng.permutation(X0), rng.permutation(X1)
    return Task(f"cells, day {day} to {day + 1}", X0[1000:], X1[1000:], X0[:1000], X1[:1000])


class Rounds:
    """A callback that keeps the flow as it is at the end of each round."""

    def __init__(self):
        self.flows = {}

    def __call__(self, state):
        if state.iteration >= state.max_iter:
            self.flows[state.round] = state.snapshot()


def fit(task, arguments, **params):
    """A fitted flow, the flows after its rounds, and the processor time it took."""
    from rfadapt import RectifiedFlowTransport

    rounds, settings = Rounds(), {"coupling": "independent", "scaling": "common", "velocity": "gradient", "n_jobs": 1}
    settings |= {"width": arguments.width, "max_iter": arguments.steps, "random_state": arguments.seed} | params
    start = time.process_time()
    flow = RectifiedFlowTransport(**settings, callbacks=[rounds]).fit(task.X0, task.X1)
    print(f"{task.name} {params}: {time.process_time() - start:.0f} s of CPU", flush=True)
    return flow, rounds.flows


def lines(task, arguments):
    """{name: (flow, parameters that depend on the number of steps)} and the histories of the fits."""
    wanted = arguments.lines
    if wanted & {"no reflow", "bellman", "straightened"}:
        plain, _ = fit(task, arguments, straighten=True, n_steps=4, schedule="bellman")
        yield "no reflow", plain, PLAIN
        yield "bellman", plain, {**PLAIN, "schedule": "bellman"}
        yield "straightened", plain, None
    if "2 reflows" in wanted:
        yield "2 reflows", fit(task, arguments, n_reflow=2)[0], PLAIN
    if wanted & {"1 reflow", "distilled"}:
        once, _ = fit(task, arguments, n_reflow=1, distill=True)
        yield "1 reflow", once, PLAIN
        yield "distilled", once, None
    if wanted & {"mlp", "mlp bellman"}:
        perceptron, _ = fit(task, arguments, velocity="mlp", width=min(256, arguments.width), schedule="bellman")
        yield "mlp", perceptron, PLAIN
        yield "mlp bellman", perceptron, {**PLAIN, "schedule": "bellman"}
    if wanted & {"vp", "rectified diffusion"}:
        diffusion, after = fit(task, arguments, path="vp", prediction="x1", n_reflow=1)
        yield "vp", after[0], PLAIN
        yield "rectified diffusion", diffusion, PLAIN
    if "phased" in wanted:
        yield "phased", fit(task, arguments, path="vp", prediction="x1", n_reflow=1, n_phases=4)[0], PLAIN
    for path, prediction in (("sub-vp", "x1"), ("trigonometric", "v")):
        if path in wanted:
            yield path, fit(task, arguments, path=path, prediction=prediction)[0], PLAIN


def measure(task, flow, moved, exact):
    from rfadapt.metrics import energy_distance, l2_uvp

    row = {"error": l2_uvp(moved, exact, task.variance)}
    row["energy"] = energy_distance(moved, task.target, max_samples=2000, random_state=0)
    if task.truth is not None:
        row["UVP"] = l2_uvp(moved, task.truth, task.variance)
    return row


def curve(task, flow, params):
    """{evaluations: measures} of one line; of students, their own number alone."""
    exact = copy.copy(flow).set_params(**MANY).transform(task.X)
    points = {"many": measure(task, flow, exact, exact)}
    if params is None:
        return {flow.n_evaluations_: measure(task, flow, flow.transform(task.X), exact)} | points
    for n_steps in STEPS:
        few = copy.copy(flow).set_params(**{**params, "solver": "ddim", "n_steps": n_steps})
        points[n_steps] = measure(task, flow, few.transform(task.X), exact)
    return points


def as_table(header, rows):
    def cell(value):
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    body = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *body])


def curves_text(task, arguments):
    curves, histories = {}, {}
    for name, flow, params in lines(task, arguments):
        curves[name] = curve(task, flow, params)
        if name in ("2 reflows", "rectified diffusion", "phased"):
            histories[name] = flow.history_
        print(f"{task.name} {name}: {curves[name]}", flush=True)
    text = f"\n## {task.name}\n"
    for measured in ("error", "UVP", "energy"):
        if measured == "UVP" and task.truth is None:
            continue
        rows = []
        for name, points in curves.items():
            rows.append([name, *(points.get(n, {}).get(measured, "") for n in (*STEPS, "many"))])
        title = {"error": "Error, % of variance", "UVP": "L2-UVP, %", "energy": "Energy distance"}[measured]
        text += f"\n{title}, by evaluations a row\n\n{as_table(['', *map(str, STEPS), 'many'], rows)}\n"
    rows = []
    for name, history in histories.items():
        for record in history:
            keys = ("round", "straightness", "first_orderness", "one_step_error", "transport_cost", "energy_distance")
            rows.append([name, *(record[key] for key in keys)])
    head = ["fit", "round", "straightness", "first-orderness", "one-step error", "transport cost", "energy distance"]
    return text + f"\nRound by round, on held-out rows\n\n{as_table(head, rows)}\n"


def distillation_row(task, arguments):
    """One reflow and distillation: a single step against many."""
    from rfadapt import OTCoupling

    start = time.process_time()
    coupling = "independent" if arguments.pairings == 0 else OTCoupling(n_pairings=arguments.pairings, n_jobs=1)
    flow, _ = fit(task, arguments, coupling=coupling, n_reflow=1, distill=True)
    seconds = time.process_time() - start
    exact = copy.copy(flow).set_params(**MANY).transform(task.X)
    euler = copy.copy(flow).set_params(**PLAIN).set_params(solver="euler", n_steps=1).transform(task.X)
    many, one, student = (measure(task, flow, moved, exact) for moved in (exact, euler, flow.transform(task.X)))
    return [task.name, arguments.steps, many["UVP"], one["UVP"], student["UVP"], student["UVP"] / many["UVP"] - 1,
            student["error"], many["energy"], student["energy"], seconds]  # fmt: skip


def speed_row(n_features, arguments):
    """Seconds of the default and of the distilled `transform`, in turns."""
    from rfadapt import RectifiedFlowTransport

    rng = np.random.default_rng(0)
    X0 = rng.normal(size=(4000, n_features)).astype(np.float32)
    X1 = (rng.normal(size=(4000, n_features)) + 3 * rng.integers(2, size=(4000, 1))).astype(np.float32)
    settings = {"coupling": "independent", "velocity": "gradient", "width": arguments.width, "max_iter": 100}
    flow = RectifiedFlowTransport(**settings, n_reflow=1, distill=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how good the student is does not matter here
        flow.fit(X0, X1)
    default = copy.copy(flow).set_params(**PLAIN)
    X, out = np.resize(X0, (arguments.rows, n_features)), np.empty((arguments.rows, n_features), np.float32)
    seconds = {"default": [], "distilled": []}
    for _ in range(arguments.repeats):
        for name, transport in (("default", default), ("distilled", flow)):
            start = time.process_time()
            transport.transform(X, out=out)
            seconds[name].append(time.process_time() - start)
    slow, quick = (float(np.median(values)) for values in seconds.values())
    n = default.n_evaluations_
    return [n_features, flow.velocity_.learned.width, n, slow, quick, slow / quick, slow / quick / n]


def main():
    default = os.environ.get("RFADAPT_DATA", HERE.parent.parent / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--dims", type=int, nargs="*", default=[2, 16, 64])
    parser.add_argument("--days", type=int, nargs="*", default=[2, 3], help="of the cells, each to the next")
    parser.add_argument("--seed", type=int, default=0, help="random_state of the fits")
    parser.add_argument("--steps", type=int, default=600, help="of training, a round")
    parser.add_argument("--width", default=512, type=lambda text: text if text == "auto" else int(text))
    parser.add_argument("--lines", nargs="+", choices=LINES, default=LINES, help="with those of the same fit")
    parser.add_argument("--pairings", type=int, default=4, help="of OTCoupling; 0 is independent pairs")
    parser.add_argument("--distillation", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3, help="turns of the default and the distilled flow in --speed")
    parser.add_argument("--results", type=Path, default=HERE / "few_steps_results.md")
    arguments = parser.parse_args()
    arguments.lines = set(arguments.lines)
    import torch

    torch.set_num_threads(1)
    command = "python benchmarks/few_steps.py " + shlex.join(sys.argv[1:])
    text = f"\n# `{command}`\n\n{own_process.machine(1, PACKAGES)}\n"
    if arguments.speed:
        head = ["d", "width", "evaluations of the default", "default s", "distilled s", "ratio", "ratio / evaluations"]
        text += f"\n{arguments.rows} rows, processor time, medians of {arguments.repeats} turns\n\n"
        text += as_table(head, [speed_row(d, arguments) for d in arguments.dims]) + "\n"
        write(arguments, text)
        return
    if not (arguments.data / f"w2_mix3to10_{arguments.dims[0] if arguments.dims else 2}.npz").is_file():
        sys.exit(f"No benchmark data in {arguments.data}; point --data or RFADAPT_DATA at the folder that has it.")
    tasks = [w2_task(arguments.data, dim) for dim in arguments.dims]
    if arguments.distillation:
        head = ["task", "steps a round", "UVP many", "UVP one Euler step", "UVP distilled", "distilled / many - 1",
                "error distilled", "energy many", "energy distilled", "CPU s"]  # fmt: skip
        text += "\n" + as_table(head, [distillation_row(task, arguments) for task in tasks]) + "\n"
        write(arguments, text)
        return
    start = time.process_time()
    write(arguments, text)
    for task in [*tasks, *(cell_task(arguments.data, day) for day in arguments.days)]:
        write(arguments, curves_text(task, arguments))
    write(arguments, f"\n{(time.process_time() - start) / 60:.1f} minutes of processor time.\n")


def write(arguments, text):
    with open(arguments.results, "a") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
