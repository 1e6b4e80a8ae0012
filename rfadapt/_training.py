"""The regression: one loop that fits a velocity field to the velocities of the pairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ._optimisation import Average, LearningRate

_CHECK_EVERY = 100


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast to train; see the parameters of RectifiedFlowTransport of the same names."""

    max_iter: int
    batch_size: int
    learning_rate: float
    n_iter_no_change: int
    tol: float
    early_stopping: bool
    bfloat16: bool


@dataclass(frozen=True)
class TrainingState:
    """What a callback is shown, at every check and at the end.

    Attributes
    ----------
    round : int
        0 for the first fit, k for the k-th reflow.
    iteration, max_iter : int
        Optimiser steps done and planned in this round.
    loss : float
        Mean training loss since the last check.
    validation_loss, energy_distance : float
        Loss on held-out pairs, and energy distance of the held-out source rows, moved, to the held-out target
        rows; NaN without a held-out split.
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


def train(velocity, base, pairs, path, plan, *, monitor, generator, device, on_check, progress):
    """Fit `velocity` so that base + velocity is the mean velocity of the pairs where they pass,

        min_v  E || dx_t - base(x_t, t) - v(x_t, t) ||^2,   t uniform on [0, 1].

    Parameters
    ----------
    velocity : nn.Module
        Trained in place; not what is returned.
    base : callable or None
        Fixed part of the field.
    pairs : object with `sample(n, generator) -> (x0, x1)`
    path : Path
    plan : TrainingPlan
    monitor : callable or None
        monitor(velocity) -> (validation loss, energy distance), lower is better for both.
    generator : torch.Generator
        Source of all draws, on the CPU.
    device : torch.device
    on_check : callable
        on_check(iteration, loss, validation_loss, energy_distance, averaged velocity) -> True to stop.
    progress : callable
        progress(n_steps, loss) is told of the steps done.

    Returns
    -------
    velocity : nn.Module
        The averaged weights at the check with the lowest validation loss (the last ones without a monitor).
    n_iter : int
        Optimiser steps taken.
    """
    optimizer = torch.optim.Adam(velocity.parameters(), lr=plan.learning_rate, betas=(0.9, 0.99))
    rate = LearningRate(plan.learning_rate, plan.max_iter)
    averaged = copy.deepcopy(velocity).requires_grad_(False)
    average = Average(velocity.parameters(), list(averaged.parameters()), plan.max_iter)
    best = _Best(averaged, monitor, plan)
    velocity.train()
    iteration, total, since = 0, torch.zeros((), device=device), 0
    while iteration < rate.last:
        for group in optimizer.param_groups:
            group["lr"] = rate(iteration)
        x0, x1 = pairs.sample(plan.batch_size, generator)
        t = _stratified_times(len(x0), generator).to(device, non_blocking=True)
        x_t, dx_t = path.sample(x0, x1, t)
        with torch.no_grad():
            target = dx_t if base is None else dx_t - base(x_t, t)
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.bfloat16):
            loss = (velocity(x_t, t).float() - target).square().sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(velocity.parameters(), 10.0 * math.sqrt(x0.shape[1]))
        optimizer.step()
        average.update(iteration)
        iteration, total, since = iteration + 1, total + loss.detach(), since + 1
        if iteration % _CHECK_EVERY == 0 or iteration == rate.last:
            mean_loss = (total / since).item()
            progress(since, mean_loss)
            _check_finite(mean_loss, iteration)
            for mine, theirs in zip(averaged.buffers(), velocity.buffers()):
                mine.copy_(theirs)
            validation_loss, energy = best.check(averaged)
            if on_check(iteration, mean_loss, validation_loss, energy, averaged):
                break
            if plan.early_stopping and best.stalled:
                rate.stop_soon(iteration)
            total, since = torch.zeros((), device=device), 0
    return best.velocity, iteration


def _stratified_times(n, generator):
    """Times that cover [0, 1] evenly in every batch: less noise than independent draws, the same mean."""
    return (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n


class _Best:
    """The best weights so far by held-out loss, and whether held-out quality still improves.

    It improves if the validation loss or the energy distance of the moved held-out rows falls. The loss alone
    is not watched: near the end it changes by less than its noise while the moved sample still improves.
    """

    def __init__(self, velocity, monitor, plan):
        self.monitor, self.plan = monitor, plan
        self.velocity = velocity
        self.lowest_loss = self.lowest_energy = math.inf
        self.checks_without_change = 0
        if monitor is not None:
            self.check(velocity)  # before any step the field is the base alone: training must beat it

    def check(self, velocity):
        if self.monitor is None:
            return math.nan, math.nan
        loss, energy = self.monitor(velocity)
        improved = loss < self.lowest_loss * (1 - self.plan.tol) or energy < self.lowest_energy - self.plan.tol
        self.checks_without_change = 0 if improved else self.checks_without_change + 1
        if loss <= self.lowest_loss:
            self.velocity, self.lowest_loss = copy.deepcopy(velocity), loss
        self.lowest_energy = min(self.lowest_energy, energy)
        return loss, energy

    @property
    def stalled(self):
        return self.checks_without_change >= self.plan.n_iter_no_change


def _check_finite(loss, iteration):
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"The training loss became {loss} within the first {iteration} steps. Lower learning_rate, or look at "
            "the scale of the data: with scaling=None values far from 1 do this."
        )

