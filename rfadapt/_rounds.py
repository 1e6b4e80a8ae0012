"""The rounds of a fit, in their order: train, and again on the flow's own pairs (reflow); then publish the result."""

from __future__ import annotations

import time

from ._distillation import publish_students
from ._flow_record import measured, warn_if_cost_rose
from ._potential_fit import fit_potentials, flow_along
from ._regression_fit import fit_field
from .velocity import PotentialVelocity

# Rows on which a fit is measured: enough for a percent.
_MEASURED_ROWS = 2048


def run_rounds(fit) -> None:
    """Train every round of a `FlowFit`, and set the fitted attributes of its transport."""
    transport = fit.transport
    if transport.rotation is True and not fit.continues:
        fit.turn()
    has_map = fit.continues or fit.velocity.base is not None
    if fit.domains.too_few and transport.early_stopping and has_map:
        _record(fit, 0, n_iter=0, seconds=0.0)
    else:
        for reflow_round in range(1 + transport.n_reflow):
            start = time.perf_counter()
            n_iter = _fit_optimal_flow(fit) if transport._is_potential() else fit_field(fit, reflow_round)
            _record(fit, reflow_round, n_iter=n_iter, seconds=time.perf_counter() - start)
    fit.publish(transport, fit.velocity)
    if transport.distill or transport.straighten:
        publish_students(fit)


def _fit_optimal_flow(fit):
    """Fit potentials, and anew with domain 0 turned where they show no more than the affine map and a turn does."""
    start, left = time.perf_counter(), fit.transport.max_time
    n_iter, learns_nothing = fit_potentials(fit, left)
    may_turn = fit.transport.rotation == "auto" and not fit.continues and fit.domains.can_watch
    if left is not None:
        # What has learned nothing when most of the time is over may have had too little of it.
        left -= time.perf_counter() - start
        may_turn &= left > fit.transport.max_time / 2
    if may_turn and learns_nothing and fit.turn():
        n_iter += fit_potentials(fit, left)[0]
    return n_iter


def _record(fit, reflow_round, *, n_iter, seconds):
    rows = fit.domains.measured_rows(_MEASURED_ROWS)
    record = {"round": reflow_round, "n_iter": n_iter, "seconds": seconds}
    record |= measured(_blind_velocity(fit), fit.domains.geometry, *rows)
    if fit.history:
        warn_if_cost_rose(fit.history[-1], record)
    fit.history.append(record)


def _blind_velocity(fit):
    """The velocity, or of several new potentials the first's: the others have seen the rows that it held out."""
    learned = fit.velocity.learned
    if fit.continues or not isinstance(learned, PotentialVelocity):
        return fit.velocity
    return flow_along(fit, learned.potentials[0])
