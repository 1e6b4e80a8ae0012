"""What every stochastic optimisation here shares: the step size over time, and the average of the weights."""

from __future__ import annotations

import math

import torch

# Share of the iterations that the step size takes to fall to zero.
_FALL_SHARE = 0.7
_WARM_UP = 50


class LearningRate:
    """Warm-up, a plateau, and a linear fall to zero that begins when told to, or in time to end at `max_iter`.

    Parameters
    ----------
    peak : float
        Step size of the plateau.
    max_iter : int
        Iterations at most.
    """

    def __init__(self, peak: float, max_iter: int):
        self.peak, self.last = peak, max_iter
        self._fall_start = max(1, math.ceil(max_iter * (1 - _FALL_SHARE)))
        self.is_constant = True

    def fall_now(self, iteration: int, useful: int) -> None:
        """Begin the fall; it takes as long as in a fit whose plateau was the `useful` iterations."""
        length = math.ceil(useful * _FALL_SHARE / (1 - _FALL_SHARE))
        self._fall_start, self.last = iteration, min(self.last, iteration + length)
        self.is_constant = False

    def __call__(self, iteration: int) -> float:
        self.is_constant &= iteration < self._fall_start
        warm = min(1.0, (iteration + 1) / _WARM_UP)
        left = (self.last - iteration) / max(1, self.last - self._fall_start)
        return self.peak * warm * min(1.0, left)


class Average:
    """Exponential moving average of tensors, over the last two percent of `max_iter` updates or so.

    Parameters
    ----------
    values : list of Tensor
        The tensors to follow.
    averages : list of Tensor
        Where the averages are kept; they begin as they are.
    max_iter : int
        Updates planned.
    """

    def __init__(self, values, averages, max_iter: int):
        self.averages = averages
        self._values = [value.detach() for value in values]
        self._decay = 1 - 1 / max(10.0, 0.02 * max_iter)

    def update(self, iteration: int) -> None:
        decay = min(self._decay, (1 + iteration) / (10 + iteration))
        torch._foreach_lerp_(self.averages, self._values, 1 - decay)
