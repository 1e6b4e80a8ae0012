"""The one training loop: it takes an objective, of regression or of the semi-dual, and ends with the best weights."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from sklearn.exceptions import ConvergenceWarning

from ._improvement import has_learned, is_below, total
from ._optimisation import Adam, Average, LearningRate

_CHECK_EVERY = 100
# Share of the fall of the step size after which held-out rows show what is learned, and not the noise of the steps: on
# clumps in 256 features, at a third they did not.
_TELLING_FALL = 1 / 2


class Objective(Protocol):
    """What is minimised, and with respect to what."""

    #: The module that is trained, in place.
    model: torch.nn.Module
    #: How often training may go back to the best weights with half the step size after it has diverged.
    max_restarts: int

    def parameter_groups(self) -> list[dict]:
        """Groups for the optimiser; `relative_rate` multiplies the step size of a group."""

    def set_gradients(self, fallen: float) -> torch.Tensor:
        """Draw a batch, set every parameter's `grad`, and return the loss, on the device.

        `fallen`, from 0 to 1, is how far the step size has fallen: batches may grow with it.
        """

    def restart(self) -> None:
        """Forget whatever was remembered of the weights that training now leaves."""


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast to train; see the parameters of RectifiedFlowTransport of the same names.

    `max_time` is also for as many checks as `checks_after`, of what is trained, that follow the training.
    """

    max_iter: int
    max_time: float | None
    learning_rate: float
    n_iter_no_change: int
    tol: float
    early_stopping: bool
    checks_after: int


@dataclass(frozen=True)
class TrainingState:
    """What a callback is shown, at every check and at the end.

    Attributes
    ----------
    round : int
        0 for the first fit, k for the k-th reflow.
    iteration, max_iter : int
        Optimiser steps done and (with `max_time`, foreseen) planned in this round, or of the potential in training.
    loss : float
        Mean training loss since the last check.
    validation_loss, energy_distance : float
        The objective on held-out rows, and the energy distance of the held-out source rows, moved, to the
        held-out target rows; NaN without a held-out split.
    snapshot : callable
        snapshot() is a fitted transport with the weights of this moment, for example to save it.
    """

    round: int
    iteration: int
    max_iter: int
    loss: float
    validation_loss: float
    energy_distance: float
    snapshot: Callable


def train(
    objective: Objective, plan: TrainingPlan,
    *, start, monitor, bound_energy, on_check, progress, must_beat_start=True,
):  # fmt: skip
    """Minimise an objective by Adam, with averaged weights, held-out checks and early stopping.

    Parameters
    ----------
    objective : Objective
    plan : TrainingPlan
    start : nn.Module
        The model to beat: it is returned if no check finds a lower held-out loss.
    must_beat_start : bool
        Whether anything has to be better than `start`, by the rules below, else only than what other checks have found.
    monitor : callable or None
        monitor(model) -> (terms of the validation loss, terms of the energy distance), lower is better for both. Each
        is a sum of means, given as a tuple of Tensors with an entry for every held-out row or pair.
    bound_energy : bool
        Whether weights that bring the held-out rows further from their target than `start` does, by more than the
        sampling error, are refused.
    on_check : callable
        on_check(iteration, planned steps, loss, validation_loss, energy_distance, averaged model) -> True to stop.
    progress : callable
        progress(n_steps, loss) is told of the steps done.

    Returns
    -------
    model : nn.Module
        The averaged weights where the step size has fallen to zero, unless those at the check with the lowest
        validation loss are better by more than a standard error (the last ones without a monitor).
    n_iter : int
        Optimiser steps taken.

    Raises
    ------
    FloatingPointError
        If the loss is not finite and the objective allows no restart.
    """
    model, rate = objective.model, LearningRate(plan.learning_rate, plan.max_iter, plan.max_time)
    averaged = copy.deepcopy(model).requires_grad_(False)
    began = time.perf_counter()
    best = _Best(start, monitor, plan, bound_energy, must_beat_start)
    rate.kept_back = (1 + plan.checks_after) * (time.perf_counter() - began)
    optimizer = Adam(objective.parameter_groups())
    average = Average(model.parameters(), list(averaged.parameters()))
    model.train()
    iteration, restarts, losses = 0, 0, []
    while iteration < rate.last:
        losses.append(objective.set_gradients(rate.fallen(iteration)))
        optimizer.step(rate(iteration))
        average.update(iteration, rate.last)
        iteration += 1
        rate.foresee(iteration)
        if iteration % _CHECK_EVERY and iteration < rate.last:
            continue
        loss = torch.stack(losses).mean().item()
        progress(len(losses), loss)
        losses = []
        if not math.isfinite(loss):
            restarts += 1
            if objective.max_restarts == 0:
                raise FloatingPointError(_not_finite(loss, iteration))
            if restarts > objective.max_restarts:
                warnings.warn(_kept_diverging(restarts, plan.learning_rate), ConvergenceWarning, stacklevel=2)
                break
            _go_back(objective, averaged, best.model)
            optimizer, rate.peak = Adam(objective.parameter_groups()), rate.peak / 2
            continue
        for mine, theirs in zip(averaged.buffers(), model.buffers()):
            mine.copy_(theirs)
        began = time.perf_counter()
        validation_loss, energy = best.check(averaged, iteration, is_end=iteration >= rate.last)
        # As long as the last one: rows are harder to hold against a map the more it has learned.
        rate.kept_back = (1 + plan.checks_after) * (time.perf_counter() - began)
        if on_check(iteration, rate.last, loss, validation_loss, energy, averaged):
            break
        if plan.early_stopping and not rate.was_told and _learns_noise(best, rate, iteration):
            _go_back(objective, averaged, best.model)
            rate.fall_now(iteration, best.iteration)
    return best.model, iteration


def _learns_noise(best, rate, iteration):
    """Whether whatever was learned since the best weights was noise, so that the step size should fall from there.

    While the step size is constant, its own noise hides what is learned, and only many checks tell; as it falls, that
    goes, and weights that are then still worse than some before have learned too much.
    """
    if rate.is_constant:
        return best.stalled
    return 0 < best.iteration <= rate.fall_start and rate.fallen(iteration) >= _TELLING_FALL and best.is_worse


def _go_back(objective, averaged, best):
    """Let training and its average go on from the best weights."""
    for module in (objective.model, averaged):
        module.load_state_dict(best.state_dict())
    objective.restart()


class _Best:
    """The best weights so far, whether held-out quality still improves, and whether the last weights are worse.

    The best are those with the lowest held-out loss among those that better the start, in the loss or in energy
    distance, by more than the sampling error of the difference and that, where energy is bounded, bring the held-out
    source rows no further from the held-out target rows (in energy distance) than the start does, up to the sampling
    error, which for a few dozen rows is larger than most maps' differences. The loss alone would be blind to a map that
    overfits where few rows look, the energy distance alone to where each row goes. The weights at the end have the
    least noise of training: they need not have the lowest loss, as long as no other weights' is lower by more than its
    sampling error.
    """

    def __init__(self, start, monitor, plan, bound_energy, must_beat_start):
        self.monitor, self.plan, self.model = monitor, plan, start
        self.iteration = self.checks_without_change = 0
        self.is_worse = False
        if monitor is not None:
            self.at_start = self.at_best = monitor(start)
            self.to_beat = total(self.at_start[0]) if must_beat_start else math.inf
            self.lowest_loss = self.to_beat
            self.bound_energy, self.must_beat_start = bound_energy, must_beat_start

    def check(self, model, iteration, *, is_end):
        if self.monitor is None:
            self.model = model
            return math.nan, math.nan
        now = self.monitor(model)
        loss, energy = map(total, now)
        margin = self.plan.tol * abs(total(self.at_best[0]))
        self.is_worse = is_below(self.at_best[0], now[0])
        ends_as_low = is_end and loss < self.to_beat and not self.is_worse
        counts = not self.must_beat_start or has_learned(self.at_start, now, bound_energy=self.bound_energy)
        better = (loss < self.lowest_loss or ends_as_low) and counts
        clearly = better and loss < self.lowest_loss - margin
        self.checks_without_change = 0 if clearly else self.checks_without_change + 1
        if better:
            self.model, self.lowest_loss, self.iteration = copy.deepcopy(model), loss, iteration
            self.at_best = now
        return loss, energy

    @property
    def stalled(self):
        return self.checks_without_change >= self.plan.n_iter_no_change


def _kept_diverging(restarts, learning_rate):
    return (
        f"Training diverged {restarts} times, at step sizes from learning_rate={learning_rate} down, and ended at the "
        "best map found. Lower learning_rate, or look for outliers in the data."
    )


def _not_finite(loss, iteration):
    return (
        f"The training loss became {loss} within the first {iteration} steps. Lower learning_rate, or look at the "
        "scale of the data: with scaling=None values far from 1 do this."
    )
