"""Which share of the machine's peak training and transforming reach, and how much of the pairing training hides.

    python benchmarks/roofline.py [--dims 16 50 64] [--velocities potential gradient mlp] [--rows 20000] [--threads 1]

The peak is the rate of float32 matrix products (sgemm) that this same process and as many threads reach, of the size
that is quickest. It is measured in turn with what is compared with it, as heat and other work on the machine change it,
and as that is: by medians over seconds. Shares of the fastest product of all those seconds are given beside it: no work
of that length reaches it where the rate of a core changes from moment to moment. The floating-point
operations are those of the matrix products that really ran, counted by torch; exponentials, sums and whatever else the
processor did meanwhile count nothing. Steps are timed between the checks of a fit without held-out rows, so that
nothing else is in between; "gradient" and "mlp" are fitted to independent pairs, which cost nothing. Of several
stretches of 100 steps, and of several calls of `transform`, the median share counts.

The time line is of `coupling=OTCoupling()`: a fit whose blocks are solved by workers, against the same fit with all
blocks solved before, and against the solving alone. Workers need a second core.
"""

import argparse
import statistics
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import own_process
import torch
from mixtures import Mixture
from torch.utils.flop_counter import FlopCounterMode

from rfadapt import OTCoupling, RectifiedFlowTransport
from rfadapt.couplings import blocks

HERE = Path(__file__).resolve().parent
PACKAGES = ("rfadapt", "torch", "numpy", "POT")
N_NEW = 100_000
#: Steps between two checks of a fit.
CHECK = 100
#: Calls of `transform` that are timed.
CALLS = 7
#: Seconds of matrix products of one size, for the peak.
PEAK_SECONDS = 0.5


def seconds_of(function, *arguments):
    """Seconds of one call, to the end of what it has begun on a GPU."""
    start = time.perf_counter()
    function(*arguments)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Peak(NamedTuple):
    """Gflop/s of square matrix products: the median of the quickest size, and the fastest product."""

    usual: float
    fastest: float


def sgemm_peak(device):
    """The peak at this moment."""
    medians, fastest = [], 0.0
    for size in (512, 1024, 2048, 3072) if device == "cpu" else (4096, 8192):
        a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
        rates, start = [], time.perf_counter()
        while len(rates) < 3 or time.perf_counter() - start < PEAK_SECONDS:
            rates.append(2 * size**3 / seconds_of(torch.mm, a, b) / 1e9)
        medians.append(statistics.median(rates))
        fastest = max(fastest, *rates)
    return Peak(max(medians), fastest)


def counter():
    """Counts the operations of matrix products; torch's own leaves those in place out."""

    def addmm(self_shape, a_shape, b_shape, **_):
        return 2 * a_shape[0] * a_shape[1] * b_shape[1]

    def mv(a_shape, x_shape, **_):
        return 2 * a_shape[0] * a_shape[1]

    mapping = {torch.ops.aten.addmm_: addmm, torch.ops.aten.mv: mv}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def samples(n, n_features):
    """Rows of a mixture, and other rows of it moved."""
    mixture = Mixture(n_features, np.random.default_rng(0))
    X0, X1 = mixture.draw(n), mixture.optimal_map(mixture.draw(n))
    return X0.astype(np.float32), X1.astype(np.float32)


def of_steps(velocity, X0, X1, n_checks, read, device, between=lambda: None):
    """How much `read()` grew a step, for each stretch between two checks of a fit; what `between()` returned at the
    checks, which is not in the stretches; and the fitted flow."""
    starts, ends, found = [], [], []

    def at_check(state):
        ends.append(read())
        found.append(between())
        starts.append(read())

    coupling = "ot" if velocity == "potential" else "independent"
    flow = RectifiedFlowTransport(
        coupling,
        velocity=velocity,
        max_iter=CHECK * (n_checks + 1),
        validation_fraction=0.0,
        random_state=0,
        device=device,
        callbacks=[at_check],
    ).fit(X0, X1)
    return [(end - start) / CHECK for start, end in zip(starts, ends[1:])], found, flow


def shares(name, rates, peaks):
    """Median shares of both kinds of peak: of each rate, the higher one of those right before and right after it."""
    return {
        f"{name} / {label}": statistics.median(
            rate / max(getattr(peak, kind) for peak in pair) for rate, pair in zip(rates, pairwise(peaks), strict=True)
        )
        for label, kind in (("peak", "usual"), ("fastest", "fastest"))
    }


def roofline(velocity, n_features, arguments):
    """One row of the table."""
    X0, X1 = samples(arguments.rows, n_features)
    fitted, peak = (velocity, X0, X1, arguments.checks), partial(sgemm_peak, arguments.device)
    seconds, step_peaks, flow = of_steps(*fitted, time.perf_counter, arguments.device, peak)
    # On the CPU in any case: what a GPU is given as a whole is not seen one by one.
    with counter() as count:
        operations = statistics.median(of_steps(*fitted, count.get_total_flops, "cpu")[0])
    X = np.resize(X0, (N_NEW, n_features))
    flow.transform(X[:5000])
    transform_seconds, peaks = [], [peak()]
    for _ in range(CALLS):
        transform_seconds.append(seconds_of(flow.transform, X))
        peaks.append(peak())
    with counter() as count:
        flow.transform(X[: N_NEW // 10])
    transform_operations = 10 * count.get_total_flops()
    rates = [operations / each / 1e9 for each in seconds]
    transform_rates = [transform_operations / each / 1e9 for each in transform_seconds]
    return {
        "velocity": velocity,
        "d": n_features,
        "width": flow.velocity_.learned.width,
        "ms a step": 1e3 * statistics.median(seconds),
        "Mflop a step": operations / 1e6,
        "step Gflop/s": statistics.median(rates),
        "solver": f"{flow.n_steps_} x {flow.solver_}",
        f"transform s ({N_NEW} rows)": statistics.median(transform_seconds),
        "transform Gflop/s": statistics.median(transform_rates),
        "peak Gflop/s": statistics.median(peak.usual for peak in step_peaks + peaks),
        **shares("step", rates, step_peaks),
        **shares("transform", transform_rates, peaks),
    }


class Solves:
    """Stands in for `solve_block`: times the solves of one fit, then gives the same answers to the next at once."""

    def __init__(self):
        self.seconds, self.answers, self.replayed = 0.0, [], None
        self._solve = blocks.solve_block

    def __call__(self, x0, x1):
        if self.replayed is not None:
            return next(self.replayed)
        start = time.perf_counter()
        self.answers.append(self._solve(x0, x1))
        self.seconds += time.perf_counter() - start
        return self.answers[-1]

    def __enter__(self):
        blocks.solve_block = self
        return self

    def __exit__(self, *_):
        blocks.solve_block = self._solve


def time_line(n_features, arguments):
    """Seconds of pairing alone, of training alone and of both at once, over the same blocks and steps."""
    X0, X1 = samples(arguments.rows, n_features)

    def fit(n_jobs):
        start = time.perf_counter()
        flow = RectifiedFlowTransport(
            OTCoupling(n_jobs=n_jobs),
            max_iter=arguments.steps,
            early_stopping=False,
            random_state=0,
            device=arguments.device,
        )
        flow.fit(X0, X1)
        return time.perf_counter() - start

    with Solves() as solves:
        in_turn = fit(1)
        solves.replayed = iter(solves.answers)
        training = fit(1)
    together = fit(1 + arguments.workers)
    return {
        "d": n_features,
        "blocks": len(solves.answers),
        "pairing alone s": solves.seconds,
        "training alone s": training,
        "one after the other s": in_turn,
        "with workers s": together,
        "hidden share of pairing": 1 - (together - training) / solves.seconds,
    }


def as_table(rows):
    def cell(value):
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row.values())) + " |" for row in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 50, 64])
    parser.add_argument("--velocities", nargs="+", default=["potential", "gradient", "mlp"])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--checks", type=int, default=9, help=f"steps that are timed, in units of {CHECK}")
    parser.add_argument("--pairing-dims", type=int, nargs="*", default=[50], help="of the time line; none skips it")
    parser.add_argument("--steps", type=int, default=3000, help="steps of the fits of the time line")
    parser.add_argument("--workers", type=int, default=1, help="workers that solve blocks in the time line")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=HERE / "roofline_results.md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for n_features in arguments.dims:
        for velocity in arguments.velocities:
            rows.append(roofline(velocity, n_features, arguments))
            print(rows[-1], flush=True)
    text = f"# Share of the peak\n\n{own_process.machine(arguments.threads, PACKAGES, arguments.device)}\n\n"
    text += "Shares are of the peak right before or right after, the higher one; all columns are medians. Operations "
    text += f"are counted on the CPU. {arguments.rows} rows in each domain, "
    text += "batches of the default size (2048 for potentials, on the CPU from 512 on, and 1024 for regressed fields)."
    text += f"\n\n{as_table(rows)}\n"
    if arguments.pairing_dims:
        text += "\n## Pairing behind training\n\n`coupling=OTCoupling()` with "
        text += f"{arguments.workers} worker(s), {arguments.steps} steps of training, validation included. The hidden "
        text += "share is 1 - (with workers - training alone) / pairing alone.\n\n"
        text += as_table([time_line(n_features, arguments) for n_features in arguments.pairing_dims]) + "\n"
    arguments.results.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
