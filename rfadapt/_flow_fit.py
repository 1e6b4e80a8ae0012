"""One fit of a flow, new or continued: what it works on, how any part of it is trained, and what is published of it."""

from __future__ import annotations

import copy
from functools import partial

import torch

from ._devices import resolve_device
from ._domains import Domains
from ._flow_map import chosen_solver
from ._flow_options import check_continued
from ._flow_record import cheapest_solver, energy_terms
from ._progress import progress_bar
from ._random import make_generator
from ._training import TrainingPlan, TrainingState, train
from .predictions import PREDICTIONS
from .schedules import step_costs
from .velocity import AffineVelocity, FlowVelocity, PotentialVelocity

# Rows on which a fit is watched: fewer than it is measured on, since it happens often.
_WATCHED_ROWS = 512
# Rows that the costs of steps are means over.
_COSTED_ROWS = 32


class FlowFit:
    """What one call of `fit` or `partial_fit` has come to; `run_rounds` takes it from the start to the end.

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

    Attributes
    ----------
    domains : Domains
    velocity : FlowVelocity
        As far as it is trained.
    history : list of dict
        One for each round that is done.
    was_stopped : bool
        Whether a callback has ended the last training.
    """

    def __init__(self, transport, X0, X1, *, labels=(None, None), continues, earlier=()):
        self.transport = transport
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
        self.earlier, self.history = list(earlier), []

    def _base_alone(self):
        """The velocity of a new fit, before anything is learned."""
        base = self.affine_velocity() if self.transport.base == "affine" else None
        return FlowVelocity(base, None, self.path, self.prediction)

    def affine_velocity(self):
        """The optimal velocity between Gaussians with the covariances of a new fit's domains."""
        return AffineVelocity(*self.domains.covariances, self.path).to(self.device)

    def turn(self):
        """Turn domain 0, if that is asked for or shown by the rows, and begin anew; whether it was turned."""
        is_turned = self.domains.turn()
        if is_turned:
            self.velocity = self._base_alone()
        return is_turned

    def train(
        self, objective, start, monitor,
        *, number, max_time, velocity_of, bound_energy=True, must_beat_start=True, checks_after=0
    ):  # fmt: skip
        """Minimise an objective, watched by `monitor` or by nothing (None).

        Unless it betters `start`, if it must, that is the result. `number` is that of the round, students counting as
        further ones, and `velocity_of(model)` what snapshots follow. Returns the model and the steps taken.
        """
        transport, rate = self.transport, self.transport.learning_rate
        plan = TrainingPlan(
            max_iter=transport._planned_steps(self.domains.n_train),
            max_time=max_time,
            learning_rate=getattr(objective.model, "learning_rate", 1e-3) if rate == "auto" else rate,
            n_iter_no_change=transport.n_iter_no_change,
            tol=transport.tol,
            early_stopping=transport.early_stopping and self.domains.can_watch,
            checks_after=checks_after,
        )
        with progress_bar(transport.verbose, plan.max_iter, self._title(number)) as progress:
            return train(
                objective,
                plan,
                start=start,
                monitor=monitor,
                bound_energy=bound_energy,
                must_beat_start=must_beat_start,
                on_check=partial(self._on_check, velocity_of, number),
                progress=progress,
            )

    def _title(self, number):
        """What the round is called on the progress bar."""
        last = self.transport.n_reflow
        students = {last + 1: "student", last + 2: "inverse student"}
        return students.get(number, f"reflow {number}" if number else "fit")

    def monitor(self, held_out_loss, move, backwards=False):
        """A function from a model to the terms of its held-out loss, and of the energy distance of what it moves.

        `move(model, x)` moves held-out rows of domain 0 to domain 1, or the other way if `backwards`.
        """
        start, end = (rows.first(_WATCHED_ROWS) for rows in self.domains.held)
        start, end = (end, start) if backwards else (start, end)

        @torch.no_grad()
        def monitor(model):
            model.eval()  # the averaged weights, which are only looked at: without dropout
            return held_out_loss(model), energy_terms(move(model, start), end)

        return monitor

    def _on_check(self, velocity_of, number, iteration, last, loss, validation_loss, energy, model):
        def snapshot():
            transport = copy.copy(self.transport)
            # A student comes last, and alone it is no flow.
            velocity = self.velocity if number > self.transport.n_reflow else velocity_of(copy.deepcopy(model))
            self.publish(transport._without_students(), velocity)
            return transport

        state = TrainingState(number, iteration, last, loss, validation_loss, energy, snapshot)
        # Every callback is shown the state, also when an earlier one has asked to stop.
        self.was_stopped = any([callback(state) for callback in self.transport.callbacks or ()])
        return self.was_stopped

    def publish(self, transport, velocity):
        """Set the fitted attributes of a transport that follows `velocity`."""
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
