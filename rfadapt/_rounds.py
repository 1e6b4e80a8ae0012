"""One fit of a flow, new or continued: hold out, centre and scale, pair, train; then again on own pairs (reflow)."""

from __future__ import annotations

import copy
import time
from functools import partial

import torch

from ._devices import resolve_device
from ._distillation import own_states, publish_students
from ._domains import Domains
from ._flow_map import chosen_solver
from ._flow_options import check_continued
from ._flow_record import cheapest_solver, energy_terms, measured, solve_finely, warn_if_cost_rose
from ._objectives import Regression
from ._potential_fit import fit_potentials, flow_along
from ._progress import progress_bar
from ._random import make_generator
from ._timed_pairs import AnyTime, MatchedPairs
from ._training import TrainingPlan, TrainingState, train
from .predictions import PREDICTIONS
from .schedules import step_costs, uniform_time_grid
from .velocity import AffineVelocity, FlowVelocity, PhasedVelocity, PotentialVelocity

# Rows on which a fit is measured, and (fewer, since it happens often) watched: enough for a percent.
_MEASURED_ROWS = 2048
_WATCHED_ROWS = 512
# Rows that the costs of steps are means over.
_COSTED_ROWS = 32
# Pairs from each end that a reflow round is trained on, at most.
_REFLOW_ROWS = 65536
# The same where the way back solves an equation for every row.
_INVERTED_ROWS = 16384


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
        self.path, self.prediction = transport._path(), PREDICTIONS[transport.prediction]()
        # A last fit that had too few rows to learn anything has nothing to continue.
        self.continues = continues and "velocity_" in vars(transport) and transport.velocity_.learned is not None
        if self.continues:
            check_continued(transport, X0.n_features)
        geometry = transport.geometry_ if self.continues else None
        self.domains = Domains(transport, X0, X1, labels, geometry, self.generator, self.device)
        self.velocity = copy.deepcopy(transport.velocity_).to(self.device) if self.continues else self._base_alone()
        self.history = []

    def _base_alone(self):
        """The velocity of a new fit, before anything is learned."""
        base = self.affine_velocity() if self.transport.base == "affine" else None
        return FlowVelocity(base, None, self.path, self.prediction)

    def affine_velocity(self):
        """The optimal velocity between Gaussians with the covariances of a new fit's domains."""
        return AffineVelocity(*self.domains.covariances, self.path).to(self.device)

    def _turn(self):
        """Turn domain 0, if that is asked for or shown by the rows, and begin anew; whether it was turned."""
        is_turned = self.domains.turn()
        if is_turned:
            self.velocity = self._base_alone()
        return is_turned

    def run(self):
        """Train every round and publish the result."""
        has_map = self.continues or self.velocity.base is not None
        if self.transport.rotation is True and not self.continues:
            self._turn()
        if self.domains.too_few and self.transport.early_stopping and has_map:
            self._record(0, n_iter=0, seconds=0.0)
        else:
            for reflow_round in range(1 + self.transport.n_reflow):
                start = time.perf_counter()
                n_iter = self._run_round(reflow_round)
                if self._may_be_turned() and self._turn():
                    n_iter += self._run_round(reflow_round)
                self._record(reflow_round, n_iter=n_iter, seconds=time.perf_counter() - start)
        self._publish(self.transport, self.velocity)
        if self.transport.distill or self.transport.straighten:
            publish_students(self)

    def _may_be_turned(self):
        """Whether the optimal flow has shown no more than the affine map, which a turn might better."""
        automatic = self.transport.rotation == "auto" and not self.continues
        return automatic and self.domains.can_watch and self.transport._is_potential() and self.is_start

    def _run_round(self, reflow_round):
        if self.transport._is_potential():
            return fit_potentials(self)
        learned, base = self.velocity.learned, self.velocity.base
        if learned is None:
            sizes = self.domains.n_features, self.domains.n_train
            learned = self.transport._make_velocity(*sizes, self.generator).to(self.device)
        if reflow_round == 0:
            pairs, held = self._coupled_pairs()
        else:
            pairs, held = self.matched_pairs(uniform_time_grid(self.transport.n_phases), at_starts=False)
            if self.transport.n_phases > 1 and not isinstance(learned, PhasedVelocity):
                learned = PhasedVelocity(learned, self.transport.n_phases)
        # Before any step the field is the base alone, or what an earlier round has learned: training must beat it.
        self.velocity, n_iter, self.is_start = self.regress(
            FlowVelocity(base, learned, self.path, self.prediction), pairs, held, reflow_round,
            # A reflow round fits the pairs of the round before, whose sample it can only lose a little of. Pairs that
            # leave rows out do not lead to the target as a whole.
            bound_energy=reflow_round == 0 and getattr(self.transport._coupling(), "is_balanced", True),
        )  # fmt: skip
        return n_iter

    def _coupled_pairs(self):
        """Pairs of the coupling from the training rows, and from the held-out rows where there are any."""
        coupling = self.transport._coupling()
        pairs = AnyTime(coupling.prepare(*self.domains.train, self.generator))
        if not self.domains.can_watch:
            return pairs, None
        return pairs, AnyTime(coupling.prepare(*self.domains.held, torch.Generator().manual_seed(0)))

    def matched_pairs(self, grid, *, at_starts, backwards=False):
        """Pairs that the flow makes of the training rows, and of the held-out rows where there are any."""
        parts = [self.domains.train] + [self.domains.held] * self.domains.can_watch
        most = _REFLOW_ROWS // (len(grid) - 1)
        if isinstance(self.velocity.learned, PotentialVelocity):
            most = _INVERTED_ROWS
        pairs = []
        for rows0, rows1 in parts:
            states = own_states(self.velocity, rows0.first(most), rows1.first(most), grid)
            states, times = (states.flip(0), grid.flip(0)) if backwards else (states, grid)
            pairs.append(MatchedPairs(states, times, self.path, at_starts=at_starts))
        return pairs if self.domains.can_watch else (*pairs, None)

    def regress(
        self, velocity, pairs, held, number,
        *, bound_energy, to_beat=None, weighted=True, move=solve_finely, backwards=False,
    ):  # fmt: skip
        """Train the learned part of `velocity`; `move` is how it moves the rows that it is watched on.

        Unless it betters `to_beat`, by default what it is before training, that is the result.
        """
        transport, base, learned = self.transport, velocity.base, velocity.learned
        half = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        objective = Regression(
            learned.requires_grad_(True),
            base,
            pairs,
            self.path,
            self.prediction,
            weighted=weighted,
            batch_size=transport._batch_size(),
            generator=self.generator,
            bfloat16=transport.precision == "bfloat16" or (transport.precision == "auto" and half),
        )
        loss = None
        if held is not None:
            n = min(4 * _MEASURED_ROWS, max(256, 4 * max(map(len, self.domains.held))))
            loss = objective.held_out(held, n)
        as_velocity = partial(FlowVelocity, base, path=self.path, prediction=self.prediction)
        learned, n_iter, is_start = self.train(
            objective,
            copy.deepcopy(learned) if to_beat is None else to_beat,
            loss,
            getattr(learned, "learning_rate", 1e-3),
            transport.max_time,
            as_velocity,
            number,
            bound_energy=bound_energy,
            move=move,
            backwards=backwards,
        )
        return as_velocity(learned).eval(), n_iter, is_start

    def train(
        self, objective, start, held_out_loss, learning_rate, max_time, as_velocity, number,
        *, shown=None, bound_energy=True, move=solve_finely, backwards=False,
    ):  # fmt: skip
        """Run the training loop; `as_velocity` makes a velocity of a model, and `shown` that of the snapshots.

        Returns the model, the steps taken, and whether it is still `start`.
        """
        transport = self.transport
        plan = TrainingPlan(
            max_iter=transport._planned_steps(self.domains.n_train),
            max_time=max_time,
            learning_rate=learning_rate if transport.learning_rate == "auto" else transport.learning_rate,
            n_iter_no_change=transport.n_iter_no_change,
            tol=transport.tol,
            early_stopping=transport.early_stopping and self.domains.can_watch,
        )
        monitor = None
        if held_out_loss is not None:
            monitor = self._make_monitor(held_out_loss, lambda model, x: move(as_velocity(model), x), backwards)
        on_check = partial(self._on_check, shown or as_velocity, number)
        with progress_bar(transport.verbose, plan.max_iter, self._title(number)) as progress:
            model, n_iter = train(
                objective,
                plan,
                start=start,
                monitor=monitor,
                bound_energy=bound_energy,
                on_check=on_check,
                progress=progress,
            )
        return model, n_iter, model is start

    def _title(self, number):
        """What the round is called on the progress bar."""
        last = self.transport.n_reflow
        students = {last + 1: "student", last + 2: "inverse student"}
        return students.get(number, f"reflow {number}" if number else "fit")

    def _make_monitor(self, held_out_loss, move, backwards):
        """A function from a model to the terms of its held-out loss, and of the energy distance of what it moves."""
        start, end = (rows.first(_WATCHED_ROWS) for rows in self.domains.held)
        start, end = (end, start) if backwards else (start, end)

        @torch.no_grad()
        def monitor(model):
            model.eval()  # the averaged weights, which are only looked at: without dropout
            return held_out_loss(model), energy_terms(move(model, start), end)

        return monitor

    def _on_check(self, as_velocity, number, iteration, last, loss, validation_loss, energy, model):
        def snapshot():
            transport = copy.copy(self.transport)
            # A student comes last, and alone it is no flow.
            velocity = self.velocity if number > self.transport.n_reflow else as_velocity(copy.deepcopy(model))
            self._publish(transport._without_students(), velocity)
            return transport

        state = TrainingState(number, iteration, last, loss, validation_loss, energy, snapshot)
        # Every callback is shown the state, also when an earlier one has asked to stop.
        self.was_stopped = any([callback(state) for callback in self.transport.callbacks or ()])
        return self.was_stopped

    def _record(self, reflow_round, *, n_iter, seconds):
        rows = self.domains.measured_rows(_MEASURED_ROWS)
        record = {"round": reflow_round, "n_iter": n_iter, "seconds": seconds}
        record |= measured(self._blind_velocity(), self.domains.geometry, *rows)
        if self.history:
            warn_if_cost_rose(self.history[-1], record)
        self.history.append(record)

    def _blind_velocity(self):
        """The velocity, or of several new potentials the first's: the others have seen the rows that it held out."""
        learned = self.velocity.learned
        if self.continues or not isinstance(learned, PotentialVelocity):
            return self.velocity
        return flow_along(self, learned.potentials[0])

    def _publish(self, transport, velocity):
        transport.geometry_ = self.domains.geometry
        transport.velocity_ = velocity.eval().requires_grad_(False)
        transport.history_ = [*self.earlier, *self.history]
        transport.n_iter_ = sum(record["n_iter"] for record in transport.history_)
        x, _ = self.domains.measured_rows(_WATCHED_ROWS)
        transport.solver_, transport.n_steps_ = cheapest_solver(transport.velocity_, x)
        transport.step_costs_ = None
        if transport.schedule == "bellman" and not isinstance(velocity.learned, PotentialVelocity):
            transport.step_costs_ = step_costs(velocity, x[:_COSTED_ROWS], chosen_solver(transport))
        transport.student_ = transport.inverse_student_ = transport.distillation_ = None
