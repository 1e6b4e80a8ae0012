"""One fit of a flow, new or continued: hold out, centre and scale, pair, train; then again on own pairs (reflow)."""

from __future__ import annotations

import copy
import math
import time
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from . import metrics, rotation
from ._devices import resolve_device
from ._objectives import Regression, SemiDual
from ._progress import progress_bar
from ._training import TrainingPlan, TrainingState, train
from ._validation import make_generator
from .couplings import ClassAwareCoupling, PairedCoupling
from .geometry import ScaledRows, TensorRows, fit_geometry
from .schedules import SCHEDULES
from .solvers import SOLVERS
from .velocity import AffineVelocity, FlowVelocity, PotentialVelocity, shrunk_covariances

# A sample smaller than this cannot spare rows, and without held-out rows nothing shows that learning helps.
_MIN_ROWS_TO_HOLD_OUT = 20
# Rows on which a fit is measured, and (fewer, since it happens often) watched: enough for a percent.
_MEASURED_ROWS = 2048
_WATCHED_ROWS = 512
# Rows of each domain that a turn is looked for in.
_PAIRED_ROWS = 2048
# Pairs from each end that a reflow round is trained on, at most.
_REFLOW_ROWS = 65536
# Held-out rows that the semi-dual is watched on, at most.
_MAX_HELD_OUT = 8192
# Ways to solve a flow, by the number of evaluations of the velocity, and the mean squared deviation (relative to
# the spread of the result) up to which one is good enough.
_CHEAPEST_FIRST = (
    [("euler", 1), ("midpoint", 1), ("midpoint", 2), ("rk4", 1), ("midpoint", 3)]
    + [("rk4", 2), ("rk4", 3), ("rk4", 4), ("rk4", 8), ("rk4", 16)]
)
_SOLVER_TOLERANCE = 2.5e-5


class FlowFit:
    """What one call of `fit` or `partial_fit` works on; `run` sets the transport's fitted attributes.

    Parameters
    ----------
    transport : RectifiedFlowTransport
    X0, X1 : Samples
    labels : tuple (y0, y1)
        Labels of all their rows, or None.
    continues : bool
        Whether to go on from what the transport has learned, in its geometry, where it has learned anything.
    earlier : list of dict
        The history that this fit's is appended to.
    """

    def __init__(self, transport, X0, X1, *, labels=(None, None), continues, earlier=()):
        self.transport = transport
        self.earlier = list(earlier)
        self.device = resolve_device(transport.device)
        self.generator = make_generator(transport.random_state)
        self.path = transport._path()
        self.samples, self.labels = (X0, X1), labels
        self._set_geometry(X0, X1, continues)
        self._split(X0, X1)
        self._read()
        self.history = []

    def _set_geometry(self, X0, X1, continues):
        transport = self.transport
        # A last fit that had too few rows to learn anything has nothing to continue.
        self.continues = continues and "velocity_" in vars(transport) and transport.velocity_.learned is not None
        if self.continues:
            _check_field(transport, X0.n_features)
            self.geometry, self.velocity = transport.geometry_, copy.deepcopy(transport.velocity_).to(self.device)
            self.covariances = None
            return
        self.geometry, *self.moments = fit_geometry(X0, X1, transport.scaling)
        self._set_base()

    def _set_base(self):
        self.covariances = shrunk_covariances(*self.moments)
        base = AffineVelocity(*self.covariances, self.path).to(self.device) if self.transport.base == "affine" else None
        self.velocity = FlowVelocity(base, None)

    def _split(self, X0, X1):
        n_held = [round(self.transport.validation_fraction * len(X)) for X in (X0, X1)]
        self.too_few = min(len(X0), len(X1)) < _MIN_ROWS_TO_HOLD_OUT
        if self.too_few or min(n_held) == 0:
            n_held = [0, 0]
        orders = [torch.randperm(len(X), generator=self.generator) for X in (X0, X1)]
        if len(X0) == len(X1):
            orders[1] = orders[0]  # so that rows which are pairs stay pairs
        self.parts = [(order[n:], order[:n]) for order, n in zip(orders, n_held)]

    def _read(self):
        frames = [self.geometry.frame(t, self.path) for t in (0.0, 1.0)]
        coupling = self.transport._coupling()
        if isinstance(coupling, ClassAwareCoupling):
            # Before rows are held out, as a few of them do not show their classes.
            every = (
                ScaledRows(X, frame, torch.arange(len(X)), self.device, y)
                for X, y, frame in zip(self.samples, self.labels, frames)
            )
            self.labels = coupling.complete_labels(*every, self.generator)
        (self.train0, self.held0), (self.train1, self.held1) = (
            [ScaledRows(X, frame, index, self.device, y) for index in part]
            for X, y, frame, part in zip(self.samples, self.labels, frames, self.parts)
        )

    def _turn(self):
        """Turn domain 0, if that is asked for or shown by the rows, and begin anew; whether it was turned."""
        x0, x1 = (_some(rows, _PAIRED_ROWS).double().cpu().numpy() for rows in (self.train0, self.train1))
        problem = rotation.LinearProblem(x0, x1, *(covariance.numpy() for covariance in self.covariances))
        random_state = np.random.RandomState(int(torch.randint(2**31, (), generator=self.generator)))
        if self.transport.rotation == "auto" and not rotation.is_turned(problem, random_state):
            return False
        turn = torch.from_numpy(rotation.fit_rotation(problem, random_state))
        self.geometry = self.geometry.turned(turn)
        self.moments[0] = replace(self.moments[0], covariance=turn @ self.moments[0].covariance @ turn.T)
        self._set_base()
        self._read()
        return True

    @property
    def can_watch(self):
        return len(self.held0) > 0

    def run(self):
        """Train every round and publish the result."""
        has_map = self.continues or self.velocity.base is not None
        if self.transport.rotation is True and not self.continues:
            self._turn()
        if self.too_few and self.transport.early_stopping and has_map:
            self._record(0, n_iter=0, seconds=0.0)
        else:
            for reflow_round in range(1 + self.transport.n_reflow):
                start = time.perf_counter()
                n_iter = self._run_round(reflow_round)
                if self._may_be_turned() and self._turn():
                    n_iter += self._run_round(reflow_round)
                self._record(reflow_round, n_iter=n_iter, seconds=time.perf_counter() - start)
        self._publish(self.transport, self.velocity)

    def _may_be_turned(self):
        """Whether the optimal flow has shown no more than the affine map, which a turn might better."""
        automatic = self.transport.rotation == "auto" and not self.continues
        return automatic and self.can_watch and self.transport._is_potential() and self.is_start

    def _run_round(self, reflow_round):
        if self.transport._is_potential():
            return self._fit_potential()
        coupling = self.transport._coupling() if reflow_round == 0 else PairedCoupling()
        train_rows, held_rows = (self.train0, self.train1), (self.held0, self.held1)
        if reflow_round > 0:
            train_rows = self._own_pairs(*train_rows)
            held_rows = self._own_pairs(*held_rows) if self.can_watch else held_rows
        learned = self.velocity.learned
        if learned is None:
            n_rows = min(len(self.train0), len(self.train1))
            learned = self.transport._make_velocity(len(self.geometry.scale), n_rows, self.generator).to(self.device)
        base, half = self.velocity.base, self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        objective = Regression(
            learned.requires_grad_(True),
            base,
            coupling.prepare(*train_rows, self.generator),
            self.path,
            batch_size=self.transport._batch_size(),
            generator=self.generator,
            bfloat16=self.transport.precision == "bfloat16" or (self.transport.precision == "auto" and half),
        )
        loss = None
        if self.can_watch:
            n = min(4 * _MEASURED_ROWS, max(256, 4 * max(len(self.held0), len(self.held1))))
            loss = objective.held_out(coupling.prepare(*held_rows, torch.Generator().manual_seed(0)), n)
        rate = getattr(learned, "learning_rate", 1e-3)
        # Before any step the field is the base alone, or what an earlier round has learned: training must beat it.
        return self._train(objective, copy.deepcopy(learned), loss, rate, partial(FlowVelocity, base), reflow_round)

    def _fit_potential(self):
        n_rows = min(len(self.train0), len(self.train1))
        if isinstance(self.velocity.learned, PotentialVelocity):
            potential = self.velocity.learned.potential.requires_grad_(True)
            start = copy.deepcopy(potential)
        else:
            potential = self.transport._make_potential(*self.covariances, n_rows, self.generator).to(self.device)
            start = copy.deepcopy(potential).make_affine()
        objective = SemiDual(
            potential, self.train0, self.train1, batch_size=self.transport._batch_size(), generator=self.generator
        )
        loss = None
        if self.can_watch:
            loss = objective.held_out(_some(self.held0, _MAX_HELD_OUT), _some(self.held1, _MAX_HELD_OUT))
        return self._train(objective, start, loss, potential.learning_rate, _potential_flow, 0)

    def _train(self, objective, start, held_out_loss, learning_rate, as_velocity, reflow_round):
        """Run the training loop; `as_velocity` makes the flow's velocity of a model."""
        transport = self.transport
        plan = TrainingPlan(
            max_iter=transport._planned_steps(min(len(self.train0), len(self.train1))),
            max_time=transport.max_time,
            learning_rate=learning_rate if transport.learning_rate == "auto" else transport.learning_rate,
            n_iter_no_change=transport.n_iter_no_change,
            tol=transport.tol,
            early_stopping=transport.early_stopping and self.can_watch,
        )
        on_check = partial(self._on_check, as_velocity, reflow_round)
        with progress_bar(transport.verbose, plan.max_iter, reflow_round) as progress:
            model, n_iter = train(
                objective,
                plan,
                start=start,
                monitor=None if held_out_loss is None else self._make_monitor(held_out_loss, as_velocity),
                # A reflow round fits the pairs of the round before, whose sample it can only lose a little of.
                # Pairs that leave rows out do not lead to the target as a whole.
                bound_energy=reflow_round == 0 and getattr(transport._coupling(), "is_balanced", True),
                on_check=on_check,
                progress=progress,
            )
        self.velocity, self.is_start = as_velocity(model).eval(), model is start
        return n_iter

    def _make_monitor(self, held_out_loss, as_velocity):
        """A function from a model to the terms of its held-out loss, and of the energy distance of what it moves."""
        start, end = _some(self.held0, _WATCHED_ROWS), _some(self.held1, _WATCHED_ROWS)

        @torch.no_grad()
        def monitor(model):
            model.eval()  # the averaged weights, which are only looked at: without dropout
            moved = self._solve(as_velocity(model), start)
            return held_out_loss(model), _energy_terms(moved, end)

        return monitor

    @torch.no_grad()
    def _own_pairs(self, rows0, rows1):
        """Pairs that the flow makes: forwards from domain 0 and backwards from domain 1, in equal parts."""
        velocity = self.velocity
        x0, x1 = _some(rows0, _REFLOW_ROWS), _some(rows1, _REFLOW_ROWS)
        image = torch.cat([self._solve(velocity, x) for x in x0.split(4096)])
        origin = torch.cat([self._solve(velocity, x, backwards=True) for x in x1.split(4096)])
        return TensorRows(torch.cat([x0, origin])), TensorRows(torch.cat([image, x1]))

    def _solve(self, velocity, x, backwards=False):
        solver, grid = _fine_solver(velocity)
        return solver.solve(velocity, x, grid.flip(0) if backwards else grid)

    def _on_check(self, as_velocity, reflow_round, iteration, last, loss, validation_loss, energy, model):
        def snapshot():
            transport = copy.copy(self.transport)
            self._publish(transport, as_velocity(copy.deepcopy(model)))
            return transport

        state = TrainingState(reflow_round, iteration, last, loss, validation_loss, energy, snapshot)
        # Every callback is shown the state, also when an earlier one has asked to stop.
        return any([callback(state) for callback in self.transport.callbacks or ()])

    @torch.no_grad()
    def _record(self, reflow_round, *, n_iter, seconds):
        """Measure the flow of this round; held-out rows where there are any."""
        rows0, rows1 = (self.held0, self.held1) if self.can_watch else (self.train0, self.train1)
        x, target = _some(rows0, _MEASURED_ROWS), _some(rows1, _MEASURED_ROWS)
        velocity = self.velocity
        solver, grid = _fine_solver(velocity)
        states = torch.stack(list(solver.states(velocity, x, grid)))
        moved, unit = states[-1], target.square().sum(1).mean().clamp_min(1e-30)
        one_step = x + velocity(x, torch.zeros(len(x), device=x.device))
        start, end = (self.geometry.frame(t, self.path).leave(z, z) for t, z in ((0.0, x), (1.0, moved)))
        cost = (end - start).square().sum(1).double()
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

    def _publish(self, transport, velocity):
        transport.geometry_ = self.geometry
        transport.velocity_ = velocity.eval().requires_grad_(False)
        transport.history_ = [*self.earlier, *self.history]
        transport.n_iter_ = sum(record["n_iter"] for record in transport.history_)
        transport.solver_, transport.n_steps_ = self._cheapest_solver(transport.velocity_)

    @torch.no_grad()
    def _cheapest_solver(self, velocity):
        """The solver and number of steps of the fewest evaluations that still end where many steps end."""
        if isinstance(velocity.learned, PotentialVelocity):
            return "euler", 1  # exact along straight lines
        x = _some(self.held0 if self.can_watch else self.train0, _WATCHED_ROWS)
        exact = SOLVERS["rk4"]().solve(velocity, x, SCHEDULES["uniform"](16))
        unit = exact.square().sum(1).mean().clamp_min(1e-30)
        for name, n_steps in _CHEAPEST_FIRST:
            end = SOLVERS[name]().solve(velocity, x, SCHEDULES["uniform"](n_steps))
            if (end - exact).square().sum(1).mean() <= _SOLVER_TOLERANCE * unit:
                break
        return name, n_steps


def _check_field(transport, n_features):
    """Refuse to continue what the data or the parameters do not go with."""
    anew = "Call fit with warm_start=False to start anew."
    known = len(transport.geometry_.scale)
    if known != n_features:
        raise ValueError(f"The last fit, which is to be continued, was on {known} features; got {n_features}. {anew}")
    kind = type(transport.velocity_.learned)
    if not transport._continues(kind):
        raise ValueError(
            f"The last fit, which is to be continued, has a field of the class {kind.__name__}; got "
            f"velocity={transport.velocity!r}. {anew}"
        )


def _potential_flow(potential):
    return FlowVelocity(None, PotentialVelocity(potential))


def _fine_solver(velocity):
    """A solver and a time grid that follow the field closely."""
    if isinstance(velocity.learned, PotentialVelocity):
        return SOLVERS["euler"](), SCHEDULES["uniform"](1)  # exact along straight lines
    return SOLVERS["rk4"](), SCHEDULES["uniform"](4)


def _some(rows, n):
    """Up to `n` rows; the order of a split is random, so that the first ones are a random part."""
    return rows.rows(torch.arange(min(n, len(rows))))


def _energy_terms(x, y):
    """Terms for every row of two samples, whose two means add to the energy distance and vary as it does.

    The row's share of the statistic to first order, as in the theory of U-statistics.
    """
    between, within_x, within_y = torch.cdist(x, y), torch.cdist(x, x).mean(1), torch.cdist(y, y).mean(1)
    influences = 2 * (between.mean(1) - within_x), 2 * (between.mean(0) - within_y)
    energy = (influences[0].mean() + influences[1].mean()) / 2
    return tuple(influence - energy / 2 for influence in influences)


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
