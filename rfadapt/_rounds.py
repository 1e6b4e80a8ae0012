"""One fit of a flow: hold out, centre and scale, pair, train; then again on the flow's own pairs (reflow)."""

from __future__ import annotations

import copy
import math
import time
import warnings
from functools import partial

import torch

from . import metrics
from ._training import TrainingPlan, TrainingState, train
from ._validation import make_generator
from .couplings import PairedCoupling
from .geometry import ScaledRows, TensorRows, fit_geometry
from .velocity import AffineVelocity, FlowVelocity, shrunk_covariances

# A sample smaller than this cannot spare rows, and without held-out rows nothing shows that learning helps.
_MIN_ROWS_TO_HOLD_OUT = 20
# Rows on which a fit is measured, and (fewer, since it happens often) watched: enough for a percent.
_MEASURED_ROWS = 2048
_WATCHED_ROWS = 512
# Pairs from each end that a reflow round is trained on, at most.
_REFLOW_ROWS = 65536


class FlowFit:
    """What one call of `RectifiedFlowTransport.fit` works on; `run` sets the transport's fitted attributes.

    Parameters
    ----------
    transport : RectifiedFlowTransport
    X0, X1 : Samples
    """

    def __init__(self, transport, X0, X1):
        self.transport = transport
        self.device = resolve_device(transport.device)
        self.generator = make_generator(transport.random_state)
        self.path = transport._path()
        self._set_geometry(X0, X1)
        self._split(X0, X1)
        self.history = []
        self.costs = None

    def _set_geometry(self, X0, X1):
        transport = self.transport
        if transport.warm_start and "velocity_" in vars(transport):
            if len(transport.geometry_.scale) != X0.n_features:
                raise ValueError(
                    f"warm_start=True continues a fit on {len(transport.geometry_.scale)} features; got "
                    f"{X0.n_features}. Call set_params(warm_start=False) to start anew."
                )
            self.geometry = transport.geometry_
            self.base, self.learned = transport.velocity_.base, copy.deepcopy(transport.velocity_.learned)
            return
        self.geometry, moments0, moments1 = fit_geometry(X0, X1, transport.scaling)
        self.base = None
        if transport.base == "affine":
            self.base = AffineVelocity(*shrunk_covariances(moments0, moments1), self.path).to(self.device)
        n_rows = min(len(X0), len(X1))
        self.learned = transport._make_velocity(X0.n_features, n_rows, self.generator).to(self.device)

    def _split(self, X0, X1):
        n_held = [round(self.transport.validation_fraction * len(X)) for X in (X0, X1)]
        if min(len(X0), len(X1)) < _MIN_ROWS_TO_HOLD_OUT or min(n_held) == 0:
            n_held = [0, 0]
        orders = [torch.randperm(len(X), generator=self.generator) for X in (X0, X1)]
        if len(X0) == len(X1):
            orders[1] = orders[0]  # so that rows which are pairs stay pairs
        means = self.geometry.mean0, self.geometry.mean1
        halves = zip((X0, X1), means, orders, n_held)
        (self.train0, self.held0), (self.train1, self.held1) = (
            (
                ScaledRows(X, self.geometry, mean, order[n:], self.device),
                ScaledRows(X, self.geometry, mean, order[:n], self.device),
            )
            for X, mean, order, n in halves
        )

    @property
    def can_watch(self):
        return len(self.held0) > 0

    def run(self):
        """Train every round and publish the result."""
        if not self.can_watch and self.transport.early_stopping and self.base is not None:
            self._record(0, n_iter=0, seconds=0.0)
        else:
            for reflow_round in range(1 + self.transport.n_reflow):
                self._run_round(reflow_round)
        self._publish(self.transport, self.learned)

    def _run_round(self, reflow_round):
        start = time.perf_counter()
        coupling = self.transport._coupling() if reflow_round == 0 else PairedCoupling()
        train_rows, held_rows = (self.train0, self.train1), (self.held0, self.held1)
        if reflow_round > 0:
            train_rows = self._own_pairs(*train_rows)
            held_rows = self._own_pairs(*held_rows) if self.can_watch else held_rows
        pairs = coupling.prepare(*train_rows, self.generator)
        monitor = self._make_monitor(coupling, *held_rows) if self.can_watch else None
        plan = self._plan()
        # A field that comes from an earlier round or fit was frozen at its end.
        self.learned.requires_grad_(True)
        with _progress_bar(self.transport.verbose, plan.max_iter, reflow_round) as progress:
            self.learned, n_iter = train(
                self.learned,
                self.base,
                pairs,
                self.path,
                plan,
                monitor=monitor,
                generator=self.generator,
                device=self.device,
                on_check=partial(self._on_check, reflow_round, plan.max_iter),
                progress=progress,
            )
        self._record(reflow_round, n_iter=n_iter, seconds=time.perf_counter() - start)

    def _plan(self):
        transport = self.transport
        rate = transport.learning_rate
        if rate == "auto":
            rate = getattr(self.learned, "learning_rate", 1e-3)
        half = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return TrainingPlan(
            max_iter=transport.max_iter,
            batch_size=transport.batch_size,
            learning_rate=rate,
            n_iter_no_change=transport.n_iter_no_change,
            tol=transport.tol,
            early_stopping=transport.early_stopping and self.can_watch,
            bfloat16=transport.precision == "bfloat16" or (transport.precision == "auto" and half),
        )

    def _make_monitor(self, coupling, held0, held1):
        """A function from a learned field to (loss on fixed held-out pairs, energy distance when moved)."""
        generator = torch.Generator().manual_seed(0)
        pairs = coupling.prepare(held0, held1, generator)
        n = min(4 * _MEASURED_ROWS, max(256, 4 * max(len(held0), len(held1))))
        x0, x1 = pairs.sample(n, generator)
        t = ((torch.arange(n) + 0.5) / n).to(self.device)
        x_t, dx_t = self.path.sample(x0, x1, t)
        target = dx_t if self.base is None else dx_t - self.base(x_t, t)
        start, end = _some(self.held0, _WATCHED_ROWS), _some(self.held1, _WATCHED_ROWS)

        @torch.no_grad()
        def monitor(learned):
            loss = (learned(x_t, t) - target).square().sum(1).mean().item()
            moved = self._solve(FlowVelocity(self.base, learned), start)
            return loss, metrics.energy_distance(moved, end)

        return monitor

    @torch.no_grad()
    def _own_pairs(self, rows0, rows1):
        """Pairs that the flow makes: forwards from domain 0 and backwards from domain 1, in equal parts."""
        velocity = FlowVelocity(self.base, self.learned)
        x0, x1 = _some(rows0, _REFLOW_ROWS), _some(rows1, _REFLOW_ROWS)
        image = torch.cat([self._solve(velocity, x) for x in x0.split(4096)])
        origin = torch.cat([self._solve(velocity, x, backwards=True) for x in x1.split(4096)])
        return TensorRows(torch.cat([x0, origin])), TensorRows(torch.cat([image, x1]))

    def _solve(self, velocity, x, backwards=False):
        grid = self.transport._grid()
        return self.transport._solver().solve(velocity, x, grid.flip(0) if backwards else grid)

    def _on_check(self, reflow_round, max_iter, iteration, loss, validation_loss, energy, learned):
        def snapshot():
            transport = copy.copy(self.transport)
            self._publish(transport, copy.deepcopy(learned))
            return transport

        state = TrainingState(reflow_round, iteration, max_iter, loss, validation_loss, energy, snapshot)
        # Every callback is shown the state, also when an earlier one has asked to stop.
        return any([callback(state) for callback in self.transport.callbacks or ()])

    @torch.no_grad()
    def _record(self, reflow_round, *, n_iter, seconds):
        """Measure the flow of this round; held-out rows where there are any."""
        rows0, rows1 = (self.held0, self.held1) if self.can_watch else (self.train0, self.train1)
        x, target = _some(rows0, _MEASURED_ROWS), _some(rows1, _MEASURED_ROWS)
        velocity = FlowVelocity(self.base, self.learned)
        grid = self.transport._grid()
        states = torch.stack(list(self.transport._solver().states(velocity, x, grid)))
        moved, unit = states[-1], target.square().sum(1).mean().clamp_min(1e-30)
        one_step = x + velocity(x, torch.zeros(len(x), device=x.device))
        scale = self.geometry.scale.to(x)
        shift = (self.geometry.mean1 - self.geometry.mean0).to(x)
        cost = ((moved - x) * scale + shift).square().sum(1).double()
        record = {
            "round": reflow_round,
            "n_iter": n_iter,
            "seconds": seconds,
            "transport_cost": cost.mean().item(),
            "transport_cost_standard_error": cost.std(unbiased=False).item() / math.sqrt(len(cost)),
            "straightness": float(metrics.straightness(states, grid) / unit.item()),
            "one_step_error": ((one_step - moved).square().sum(1).mean() / unit).item(),
            "energy_distance": metrics.energy_distance(moved, target),
        }
        if self.history:
            _warn_if_cost_rose(self.history[-1], record)
        self.history.append(record)

    def _publish(self, transport, learned):
        transport.geometry_ = self.geometry
        transport.velocity_ = FlowVelocity(self.base, learned).eval().requires_grad_(False)
        transport.history_ = list(self.history)
        transport.n_iter_ = sum(record["n_iter"] for record in self.history)


def resolve_device(device):
    """The torch device that `device` names; "auto" is CUDA where there is one."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _some(rows, n):
    """Up to `n` rows; the order of a split is random, so that the first ones are a random part."""
    return rows.rows(torch.arange(min(n, len(rows))))


def _warn_if_cost_rose(before, after):
    rise = after["transport_cost"] - before["transport_cost"]
    if rise > 2 * before["transport_cost_standard_error"]:
        warnings.warn(
            f"Reflow round {after['round']} raised the transport cost by {rise:.3g} to {after['transport_cost']:.3g}, "
            "more than its sampling error: the field does not fit its own pairs. Raise max_iter or width, or use "
            "fewer rounds.",
            RuntimeWarning,
            stacklevel=2,
        )


class _progress_bar:
    """Context manager: a function (steps, loss) that moves a tqdm bar, or does nothing."""

    def __init__(self, verbose, total, reflow_round):
        self.verbose, self.total = verbose, total
        self.title = "fit" if reflow_round == 0 else f"reflow {reflow_round}"
        self.bar = None

    def __enter__(self):
        if self.verbose:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=self.total, desc=self.title, unit="step")
        return self._advance

    def _advance(self, steps, loss):
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            self.bar.update(steps)

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()
